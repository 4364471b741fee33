"""What settings of terms must be, said in one sentence."""

from __future__ import annotations

import math


def check_positive(**settings: float) -> None:
    """ValueError unless each is a finite number above 0."""
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise ValueError(f"the {name} is {value}; use a positive number.")


def check_not_negative(**settings: float) -> None:
    """ValueError unless each is a finite number of 0 or more."""
    for name, value in settings.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} is {value}; use 0 or more.")


def check_shares(**settings: float) -> None:
    """The same, and one at least is more than 0."""
    check_not_negative(**settings)
    if not any(settings.values()):
        raise ValueError(f"{' and '.join(settings)} are 0; give one of them more.")
