"""Networks over whole volumes: overlapping windows blended into one map, or a single pass.

Any backend fits behind `Predict`, so validation during training and inference in the clinic run
the same windows with the same weights. No SimpleITK here: training from a cache needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from DistillSegLib.boxes import Box
from DistillSegLib.errors import Cancelled, GeometryError

Predict = Callable[[NDArray], NDArray]  # (N, C, d, h, w) -> (N, K, d/s, h/s, w/s), float32
Shape = tuple[int, int, int]
Size = int | Shape  # one number for all axes, or (z, y, x)

SIGMA = 1 / 8  # of the window, as nnU-Net and MONAI weigh theirs
FLOOR = 1e-3  # of the weight, as MONAI: far corners stay well above rounding


def ignore(share: float) -> None:
    """The progress listener of those who do not listen."""


def never() -> bool:
    """The cancel question of those who do not cancel."""
    return False


def per_axis(size: Size) -> Shape:
    """(z, y, x) of what may be one number for all axes."""
    return (size,) * 3 if isinstance(size, int) else tuple(size)


def plan_windows(shape: Shape, window: Shape, overlap: float, *, multiple: int = 1) -> list[Box]:
    """Windows that cover a volume, evenly spread, in z, y, x order.

    Args:
        shape: (D, H, W) of the volume. Along an axis shorter than the window there is one window,
            which begins at 0 and ends beyond the volume: the caller pads.
        window: (d, h, w).
        overlap: the least share of a window that it has in common with the next, in [0, 1).
        multiple: all windows begin at multiples of this (a network's output stride). The window,
            and each axis of `shape` that is longer than it, must be multiples too.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap is {overlap}; use 0 or more and less than 1.")
    starts = []
    for size, width in zip(shape, window, strict=True):
        rest = max(size - width, 0)
        if width < 1 or width % multiple or rest % multiple:
            raise ValueError(
                f"windows of {width} in {size} voxels cannot begin at multiples of {multiple}; "
                f"use sizes divisible by {multiple}."
            )
        step = max(int(width * (1 - overlap)) // multiple, 1)
        count = -(-rest // multiple // step) + 1
        starts.append(
            [round(i * rest / multiple / max(count - 1, 1)) * multiple for i in range(count)]
        )
    return [
        tuple(slice(start, start + width) for start, width in zip(corner, window))
        for corner in product(*starts)
    ]


def sliding_window(
    array: NDArray[np.float32],
    predict: Predict,
    window: Shape,
    *,
    overlap: float = 0.5,
    batch_size: int = 1,
    stride: int = 1,
    on_progress: Callable[[float], None] = ignore,
    cancelled: Callable[[], bool] = never,
) -> NDArray[np.float32]:
    """Logits of a whole volume, from overlapping windows weighed by a Gaussian about their centres.

    An identity network gives the volume back. A volume smaller than the window is padded with
    zeros (the mean, after normalisation) at the high end, and the result is cropped.

    Args:
        array: (C, D, H, W) float32.
        predict: (N, C, d, h, w) -> (N, K, d/s, h/s, w/s).
        window: (d, h, w), multiples of `stride`.
        overlap: share of a window in common with the next, in [0, 1).
        batch_size: N; the last batch may be smaller.
        stride: s, input voxels per output voxel along each axis.
        on_progress: told the share done, 0 to 1, after each batch.
        cancelled: asked before each batch; if true, Cancelled is raised.

    Returns:
        (K, ceil(D/s), ceil(H/s), ceil(W/s)) float32.
    """
    shape = array.shape[1:]
    array = _pad(array, [max(_round_up(n, stride), w) for n, w in zip(shape, window, strict=True)])
    boxes = plan_windows(array.shape[1:], window, overlap, multiple=stride)
    weight = _gaussian([n // stride for n in window])
    total = np.zeros([n // stride for n in array.shape[1:]], np.float32)
    blended = None
    for first in range(0, len(boxes), batch_size):
        if cancelled():
            raise Cancelled("The segmentation was cancelled; nothing was written.")
        batch = boxes[first : first + batch_size]
        logits = predict(np.stack([array[(slice(None), *box)] for box in batch]))
        _check_output(logits, len(batch), weight.shape)
        if blended is None:
            blended = np.zeros((logits.shape[1], *total.shape), np.float32)
        for box, scores in zip(batch, logits, strict=True):
            place = tuple(slice(part.start // stride, part.stop // stride) for part in box)
            blended[(slice(None), *place)] += scores * weight
            total[place] += weight
        on_progress((first + len(batch)) / len(boxes))
    blended /= total
    return _crop(blended, shape, stride)


def whole_volume(
    array: NDArray[np.float32], predict: Predict, *, multiple: Size, stride: int = 1
) -> NDArray[np.float32]:
    """Logits of a whole volume in one pass, padded with zeros at the high end to what divides.

    Args:
        array: (C, D, H, W) float32.
        multiple: each axis is padded to a multiple of this; itself a multiple of `stride`.

    Returns:
        (K, ceil(D/s), ceil(H/s), ceil(W/s)) float32.
    """
    multiples = per_axis(multiple)
    if any(each % stride for each in multiples):
        raise ValueError(f"multiple is {multiple}; use a multiple of the stride {stride}.")
    shape = array.shape[1:]
    array = _pad(array, [_round_up(*pair) for pair in zip(shape, multiples, strict=True)])
    logits = predict(np.ascontiguousarray(array[None], dtype=np.float32))
    _check_output(logits, 1, tuple(n // stride for n in array.shape[1:]))
    return _crop(logits[0], shape, stride)


def slabs(
    array: NDArray[np.float32],
    predict: Predict,
    *,
    axis: int,
    thickness: int,
    halo: int,
    multiple: Size,
    stride: int = 1,
    on_progress: Callable[[float], None] = ignore,
    cancelled: Callable[[], bool] = never,
) -> NDArray[np.float32]:
    """`whole_volume` in slabs: the same logits, of a network that sees no farther than `halo`.

    Args:
        array: (C, D, H, W) float32.
        axis: across which it is cut, 0 to 2 for z to x.
        thickness: of a slab in voxels, a multiple of `multiple` along that axis, as is `halo`.
        on_progress, cancelled: as for `sliding_window`, around each slab.

    Returns:
        (K, ceil(D/s), ceil(H/s), ceil(W/s)) float32.
    """
    multiples = per_axis(multiple)
    if thickness < 1 or thickness % multiples[axis] or halo % multiples[axis]:
        raise ValueError(
            f"slabs of {thickness} voxels with {halo} around are no multiples of {multiple}."
        )
    shape = array.shape[1:]
    array = _pad(array, [_round_up(*pair) for pair in zip(shape, multiples, strict=True)])
    size, result = array.shape[1 + axis], None
    for start in range(0, size, thickness):
        if cancelled():
            raise Cancelled("The segmentation was cancelled; nothing was written.")
        stop = min(start + thickness, size)
        first, last = max(start - halo, 0), min(stop + halo, size)
        seen = array[_along(axis, first, last)]
        logits = predict(np.ascontiguousarray(seen[None], dtype=np.float32))
        _check_output(logits, 1, tuple(n // stride for n in seen.shape[1:]))
        if result is None:
            places = [n // stride for n in array.shape[1:]]
            result = np.empty((logits.shape[1], *places), np.float32)
        own = _along(axis, (start - first) // stride, (stop - first) // stride)
        result[_along(axis, start // stride, stop // stride)] = logits[0][own]
        on_progress(stop / size)
    return _crop(result, shape, stride)


def _along(axis: int, start: int, stop: int) -> tuple[slice, ...]:
    """Indices of (channels, z, y, x): a part of one axis, all of the others."""
    return (slice(None), *(slice(start, stop) if i == axis else slice(None) for i in range(3)))


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _pad(array: NDArray, shape: Sequence[int]) -> NDArray:
    missing = [(0, new - old) for old, new in zip(array.shape[1:], shape, strict=True)]
    return np.pad(array, [(0, 0), *missing]) if any(high for _, high in missing) else array


def _crop(logits: NDArray, shape: Sequence[int], stride: int) -> NDArray[np.float32]:
    depth, height, width = (-(-n // stride) for n in shape)
    return np.ascontiguousarray(logits[:, :depth, :height, :width], dtype=np.float32)


def _gaussian(shape: Sequence[int]) -> NDArray[np.float32]:
    weight = np.ones((), np.float64)
    for size in shape:
        distance = (np.arange(size) - (size - 1) / 2) / (size * SIGMA)
        weight = np.multiply.outer(weight, np.exp(-0.5 * distance**2))
    return np.maximum(weight, FLOOR).astype(np.float32)


def _check_output(logits: NDArray, count: int, shape: tuple[int, ...]) -> None:
    if logits.ndim != 5 or len(logits) != count or logits.shape[2:] != shape:
        raise GeometryError(
            f"The network returned an array of {logits.shape} where ({count}, classes, "
            f"{', '.join(map(str, shape))}) was expected; check the output stride declared for it."
        )
