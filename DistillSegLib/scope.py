"""What a model was trained on, and whether an image is like it.

A network answers any image with confident labels, also where it has never seen the like. A package
therefore states the field of view, the spacing and the intensities of its training images, measured
by `measure`, and inference measures the image at hand by the same function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from DistillSegLib.errors import ScopeError

# SimpleITK, and geometry.py which rests on it, are imported where images are handled: training from
# a cache reads a scope on machines that have none.
if TYPE_CHECKING:
    import SimpleITK as sitk

    from DistillSegLib.geometry import Part

Range = tuple[float, float]  # smallest and largest over the training images

MUCH_LARGER = 1.5  # times the largest training image, along any axis: refused
MARGIN = 0.2  # of a size beyond the training range: warned about
BALANCE_MARGIN = 0.1  # of the balance beyond the training range: warned about
COARSER = 1.5  # times the largest training spacing: warned about
SAMPLE = 1 << 20  # voxels that percentiles are taken from, at most
MODALITY = "0008|0060"  # the DICOM tag
HOUNSFIELD_BELOW = -150.0  # MR images hold no such values, CT of more than a few cm always does


@dataclass(frozen=True)
class IntensityRange:
    """Values of one channel, over the training images.

    Attributes:
        low, median, high: 0.5th, 50th and 99.5th percentile.
        contrast: high - low.
        balance: (median - low) / contrast, 0 to 1: does not depend on the image's scale.
    """

    low: Range
    median: Range
    high: Range
    contrast: Range
    balance: Range


@dataclass(frozen=True)
class Scope:
    """What the training images were.

    Attributes:
        description: for people, such as "crops around one hippocampus".
        body_part: such as "hippocampus".
        size_mm: field of view along z, y, x after orientation.
        spacing_mm: voxel spacing along z, y, x after orientation.
        intensity: one for each channel.
    """

    description: str
    body_part: str
    size_mm: tuple[Range, Range, Range]
    spacing_mm: tuple[Range, Range, Range]
    intensity: tuple[IntensityRange, ...]

    @property
    def noun(self) -> str:
        """The description where no clause follows: without the comma that it may end with."""
        return self.description.rstrip(", ")

    @property
    def anisotropy(self) -> float:
        """The longest edge of any voxel over the shortest."""
        return max(high for _, high in self.spacing_mm) / min(low for low, _ in self.spacing_mm)


@dataclass(frozen=True)
class Measured:
    """One patient's image, measured as `Scope` states it.

    Attributes:
        size_mm, spacing_mm: (z, y, x) after orientation.
        intensity: (low, median, high) percentiles of each channel.
        modality: as DICOM states it, such as "CT"; empty where nothing does.
    """

    size_mm: tuple[float, float, float]
    spacing_mm: tuple[float, float, float]
    intensity: tuple[tuple[float, float, float], ...]
    modality: str = ""


def measure(
    images: Sequence[sitk.Image], *, orientation: str, part: Part | None = None
) -> Measured:
    """Field of view, spacing and percentiles of one patient's channels.

    Args:
        part: (z, y, x) voxels of the first image to look at.
    """
    import SimpleITK as sitk

    from DistillSegLib.geometry import Grid

    grid = Grid.of(images[0])
    grid = (grid.cut(part) if part else grid).turned(orientation)
    spacing = grid.spacing[::-1]
    size = tuple(n * s for n, s in zip(grid.size[::-1], spacing, strict=True))
    intensity = []
    for image in images:
        intensity.append(percentiles(sitk.GetArrayViewFromImage(image)))
    modality = images[0].GetMetaData(MODALITY) if images[0].HasMetaDataKey(MODALITY) else ""
    return Measured(size, spacing, tuple(intensity), modality)


def percentiles(voxels: NDArray, *, sample: int = SAMPLE) -> tuple[float, float, float]:
    """The 0.5th, 50th and 99.5th percentile of (D, H, W) values.

    Args:
        sample: how many voxels, spread evenly, they are taken from at most.
    """
    step = int(np.ceil((voxels.size / sample) ** (1 / 3)))  # along every axis
    found = np.percentile(voxels[::step, ::step, ::step], (0.5, 50, 99.5))
    return tuple(float(value) for value in found)


def scope_of(measured: Sequence[Measured], *, description: str, body_part: str) -> Scope:
    """The scope that covers all of some training images."""
    channels = range(len(measured[0].intensity))
    return Scope(
        description,
        body_part,
        _ranges([one.size_mm for one in measured]),
        _ranges([one.spacing_mm for one in measured]),
        tuple(
            IntensityRange(*_ranges([_with_shape(one.intensity[i]) for one in measured]))
            for i in channels
        ),
    )


@dataclass(frozen=True)
class Wider:
    """What a model is meant for beyond its training images, which were varied to stand for it.

    Each range joins that of the training images; left out, that stays.

    Attributes:
        size_mm, spacing_mm: along z, y, x after orientation.
        contrast: 0.5th to 99.5th percentile, of every channel whose values mean nothing.
    """

    size_mm: tuple[Range, Range, Range] | None = None
    spacing_mm: tuple[Range, Range, Range] | None = None
    contrast: Range | None = None

    def __post_init__(self) -> None:
        ranges = [*(self.size_mm or ()), *(self.spacing_mm or ())]
        ranges += [self.contrast] if self.contrast else []
        for low, high in ranges:
            if not 0 < low <= high < np.inf:
                raise ValueError(f"[{low:g}, {high:g}] is no range; use two numbers above 0.")


def widened(scope: Scope, wider: Wider) -> Scope:
    """The scope with all that is meant to be in it."""

    def joined(known: Sequence[Range], more: Sequence[Range] | None) -> tuple[Range, ...]:
        pairs = zip(known, more or known, strict=True)
        return tuple((min(a[0], b[0]), max(a[1], b[1])) for a, b in pairs)

    more = [wider.contrast] if wider.contrast else None
    return replace(
        scope,
        size_mm=joined(scope.size_mm, wider.size_mm),
        spacing_mm=joined(scope.spacing_mm, wider.spacing_mm),
        intensity=tuple(
            replace(known, contrast=joined([known.contrast], more)[0]) for known in scope.intensity
        ),
    )


def check_scope(scope: Scope, measured: Measured, *, title: str) -> None:
    """Raise ScopeError for an image much larger than any that the model was trained on."""
    factors = [size / high for size, (_, high) in zip(measured.size_mm, scope.size_mm)]
    if max(factors) > MUCH_LARGER:
        raise ScopeError(
            f"The image spans {_by(measured.size_mm)} mm (x, y, z), but '{title}' was trained on "
            f"{scope.description} of {_span(scope.size_mm)} mm; give the region that holds the "
            f"{scope.body_part}: --roi X Y Z SX SY SZ (centre and size in mm, RAS) or a Slicer ROI "
            "file (.mrk.json)."
        )


def scope_warnings(
    scope: Scope, measured: Measured, *, whole: Measured, modality: str, own_units: bool
) -> list[str]:
    """One sentence for each way in which an image differs from all training images.

    Args:
        measured: what the network sees.
        whole: the image of which that is a region, or the same. A region of soft tissue does not
            tell a CT from an MR image, the air around the patient does.
        modality: "MR", "CT", …
        own_units: whether values mean something by themselves (CT, in Hounsfield units). Otherwise
            every image is normalised by itself, and only its values' distribution matters.
    """
    warnings = []
    sizes = zip(measured.size_mm, scope.size_mm)
    if any(not low * (1 - MARGIN) <= size <= high * (1 + MARGIN) for size, (low, high) in sizes):
        warnings.append(
            f"The image or region spans {_by(measured.size_mm)} mm (x, y, z), the training images "
            f"{_span(scope.size_mm)} mm; check the result or choose another region."
        )
    spacings = zip(measured.spacing_mm, scope.spacing_mm)
    if any(spacing > high * COARSER for spacing, (_, high) in spacings):
        warnings.append(
            f"The voxels measure {_by(measured.spacing_mm)} mm (x, y, z), coarser than the "
            f"{_span(scope.spacing_mm)} mm of training; expect rough outlines."
        )
    if other := other_modality(scope, whole, modality):
        return [*warnings, other]
    for values, known in zip(measured.intensity, scope.intensity):
        warnings += _intensity_warning(values, known, modality=modality, own_units=own_units)
    return warnings


def other_modality(scope: Scope, whole: Measured, modality: str) -> str:
    """How one sees that an image is not of the model's modality; empty if one does not."""
    model = modality.upper()[:2]  # "MR" of "MRI"
    advice = f"; the model was trained on {modality}, do not rely on it here."
    if model in ("CT", "MR") and whole.modality not in ("", model):
        return f"The image is of modality {whole.modality}{advice}"
    for (low, _, high), known in zip(whole.intensity, scope.intensity):
        if model == "MR" and low <= HOUNSFIELD_BELOW < known.low[0]:
            values = f"The image's values run from {low:.4g} to {high:.4g}"
            return f"{values}, as a CT's in Hounsfield units do{advice}"
    return ""


def _intensity_warning(
    values: tuple[float, float, float], known: IntensityRange, *, modality: str, own_units: bool
) -> list[str]:
    low, _, high = values
    *_, contrast, balance = _with_shape(values)
    found = f"The image's values run from {low:.4g} to {high:.4g}"
    if contrast == 0:  # `images.image_warnings` says so
        return []
    trained = f"from {_between(known.low)} to {_between(known.high)} in training"
    if own_units:
        slack = known.contrast[1] / 4
        inside = all(
            lowest - slack <= value <= highest + slack
            for value, (lowest, highest) in zip(values, (known.low, known.median, known.high))
        )
        reason = f"is the image {modality} in its original units?"
    else:
        inside = known.contrast[0] / 10 <= contrast <= known.contrast[1] * 10
        inside &= abs(balance - np.clip(balance, *known.balance)) <= BALANCE_MARGIN
        trained += f", with the median at {_between(known.balance)} of the way, here {balance:.2g}"
        reason = f"is it {modality} of the same kind, without a mask or rescaling?"
    return [] if inside else [f"{found} ({trained}); check the result: {reason}"]


def _with_shape(values: tuple[float, float, float]) -> tuple[float, ...]:
    """low, median, high and then contrast and balance."""
    low, median, high = values
    contrast = high - low
    return low, median, high, contrast, (median - low) / contrast if contrast else 0.0


def _ranges(rows: Sequence[Sequence[float]]) -> tuple[Range, ...]:
    return tuple((float(min(column)), float(max(column))) for column in zip(*rows, strict=True))


def _by(zyx: Sequence[float]) -> str:
    return " x ".join(f"{value:.3g}" for value in zyx[::-1])


def _span(zyx: Sequence[Range]) -> str:
    return " x ".join(_between(each) for each in zyx[::-1])


def _between(each: Range) -> str:
    low, high = (f"{value:.3g}" for value in each)
    return low if low == high else f"{low}–{high}"
