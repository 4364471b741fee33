"""Fixtures that every ring of tests shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.register_assert_rewrite("Testing.commands")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real CT and MR data sets; tests that need it skip where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DISTILLSEG_SHARED", default))
    if not folder.is_dir():
        pytest.skip(f"needs the real data sets; none in '{folder}' (set DISTILLSEG_SHARED)")
    return folder
