"""How a volume goes through a network: at once, in slabs, or in windows; decided by memory.

At once is fastest and exact. Slabs are as exact where the network sees only so far (`halo`): each
is shown with that much of its neighbours, which is cut off again. Windows overlap and are blended;
they fit anywhere, but cost several times the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

from DistillSegLib.manifest import Manifest, Variant
from DistillSegLib.windows import per_axis, plan_windows

SHARE_OF_MEMORY = 0.5  # of what is free, that the network may take unless told otherwise


@dataclass(frozen=True)
class Passes:
    """What was decided.

    Attributes:
        kind: "whole", "slabs" or "windows".
        voxels: that pass through the network, padding and overlap included.
        memory_bytes: of the network at its peak, and of the logits that are kept meanwhile.
        axis, thickness, halo: of slabs (voxels).
    """

    kind: Literal["whole", "slabs", "windows"]
    voxels: int
    memory_bytes: int
    axis: int = 0
    thickness: int = 0
    halo: int = 0


def plan_passes(
    manifest: Manifest, variant: Variant, shape: Sequence[int], memory_bytes: float
) -> Passes:
    """The fastest way that keeps within the memory; windows, the last resort, may exceed it.

    Args:
        shape: (D, H, W) of the network's input.
        memory_bytes: what the network may take.
    """
    padded = rounded_up(shape, per_axis(manifest.multiple))
    if manifest.single_pass and _large_enough(padded, manifest):
        needed = variant.bytes_per_voxel * prod(padded)
        if needed <= memory_bytes:
            return Passes("whole", prod(padded), int(needed))
        if manifest.halo is not None:
            slabs = _slabs(manifest, variant, padded, memory_bytes)
            if slabs:
                return slabs
    return _windows(manifest, variant, shape)


def rounded_up(shape: Sequence[int], multiple: Sequence[int]) -> tuple[int, ...]:
    """Each size, up to the next that its multiple divides."""
    return tuple(-(-size // each) * each for size, each in zip(shape, multiple, strict=True))


def _large_enough(padded: Sequence[int], manifest: Manifest) -> bool:
    """Windows are padded to their full size, a whole volume is not."""
    return all(n >= least for n, least in zip(padded, per_axis(manifest.minimum), strict=True))


def _slabs(
    manifest: Manifest, variant: Variant, padded: Sequence[int], memory_bytes: float
) -> Passes | None:
    """Across the longest axis, as thick as the memory allows; None where not even thin ones fit."""
    axis = max(range(3), key=lambda each: padded[each])
    multiple = per_axis(manifest.multiple)[axis]
    (halo,) = rounded_up([per_axis(manifest.halo)[axis]], [multiple])
    plane = prod(padded) // padded[axis]
    kept = _logits_bytes(manifest, variant, padded)
    most = int((memory_bytes - kept) / (variant.bytes_per_voxel * plane)) - 2 * halo
    thickness = most // multiple * multiple
    if thickness < max(multiple, per_axis(manifest.minimum)[axis] - 2 * halo):
        return None
    edges = range(0, padded[axis], thickness)
    spans = [min(start + thickness + halo, padded[axis]) - max(start - halo, 0) for start in edges]
    needed = variant.bytes_per_voxel * plane * max(spans) + kept
    return Passes("slabs", plane * sum(spans), int(needed), axis, thickness, halo)


def _windows(manifest: Manifest, variant: Variant, shape: Sequence[int]) -> Passes:
    whole = rounded_up(shape, [variant.stride] * 3)
    count = len(plan_windows(whole, manifest.window, manifest.overlap, multiple=variant.stride))
    window = prod(manifest.window)
    kept = _logits_bytes(manifest, variant, whole, blended=True)
    return Passes("windows", count * window, int(variant.bytes_per_voxel * window + kept))


def _logits_bytes(
    manifest: Manifest, variant: Variant, shape: Sequence[int], *, blended: bool = False
) -> float:
    """Of the whole volume, float32; and their weights, where windows are blended."""
    return 4 * (manifest.labels.classes + blended) * prod(shape) / variant.stride**3
