"""DistillSeg's headless library: distilled segmentation networks, trained, packaged and run.

The names below are the public API. They are loaded when first used, so that importing the library
costs nothing and needs neither torch nor an inference engine.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "Segmenter": "DistillSegLib.inference",
    "load_package": "DistillSegLib.catalogue",
    "install_package": "DistillSegLib.catalogue",
    "list_packages": "DistillSegLib.catalogue",
    "compare": "DistillSegLib.comparison",
}
__all__ = [*_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'DistillSegLib' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
