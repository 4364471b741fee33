"""The tests with a real nnU-Net, in a process of their own.

`nnunetv2` brings a dozen libraries of compiled code into a process. Beside all that the other tests
had loaded, such a process was seen to end in a segmentation fault, later and in torch.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_a_real_nnunet_is_read_distilled_and_left_behind():
    """All of `nnunet_cases.py`; what it says is shown where one of them fails."""
    if importlib.util.find_spec("nnunetv2") is None:
        pytest.skip("needs nnunetv2: pip install 'distillseg[nnunet]'")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "Testing/training/nnunet_cases.py"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout
