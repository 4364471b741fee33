"""Fixtures that every ring of tests shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.register_assert_rewrite("Testing.commands")

# With `-n`, torch has an equal share of the cores in each of pytest's processes and those that they
# start; it reads this when it is imported.
PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if PROCESSES > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // PROCESSES)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real CT and MR data sets; tests that need it skip where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DISTILLSEG_SHARED", default))
    if not folder.is_dir():
        pytest.skip(f"needs the real data sets; none in '{folder}' (set DISTILLSEG_SHARED)")
    return folder
