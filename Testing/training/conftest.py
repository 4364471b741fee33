"""What tests with torch share."""

from __future__ import annotations

import importlib.util
import sys

import torch

_DECLARED = []  # a library of operators lives as long as this refers to it


def _make_torchvision_importable() -> None:
    """Where torchvision is of another build than torch, declare what its import asks for.

    PyPI's torchvision is for CUDA. Beside a torch for the CPU its compiled operators do not load,
    and for want of two of them, which no network here calls, it refuses to be imported.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        operators = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DECLARED.append(operators)
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]


def pytest_runtest_setup() -> None:
    """The same numbers for a test and its fixtures, whatever ran before in its process."""
    torch.manual_seed(0)


_make_torchvision_importable()

from Testing.training.paired_run import (  # noqa: E402, F401 - fixtures, as below
    caches,
    joint,
    modalities,
    pair,
)
from Testing.training.small_study import (  # noqa: E402, F401
    in_this_process,
    small,
)
from Testing.training.tiny_run import (  # noqa: E402, F401 - fixtures, once torchvision is mended
    cache,
    data,
    finished,
    one_thread,
    recipe_file,
    tiny,
)
