"""Seeds from seeds: what is drawn for one purpose has nothing in common with what another draws."""

from __future__ import annotations

import numpy as np


def mixed(*numbers: int) -> int:
    """One seed from several, so that neighbours have nothing in common; below 2^32."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
