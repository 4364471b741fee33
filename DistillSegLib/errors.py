"""Errors a caller may want to catch.

Each carries one sentence for people: what is wrong, what was found, what to do. The panel and the
command line show it unchanged.
"""

from __future__ import annotations


class DistillSegError(Exception):
    """Anything DistillSeg refuses to do, said in one sentence."""


class ImageError(DistillSegError):
    """A file or folder that cannot be read as an image or a segmentation, or cannot be written."""


class GeometryError(DistillSegError):
    """Grids, orientations or regions that do not fit together."""


class ScopeError(DistillSegError):
    """An image outside what a model was trained on, where running it would mislead."""


class PackageError(DistillSegError):
    """A model package that is damaged or unknown, or gives other numbers here than where made."""


class DatasetError(DistillSegError):
    """A data set that cannot be read as it is."""


class RecipeError(DistillSegError):
    """A recipe, or a value in it, that cannot be trained."""


class Cancelled(DistillSegError):
    """The caller asked to stop; nothing was written."""
