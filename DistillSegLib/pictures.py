"""Slices as pictures without a drawing library: outlines as SVG paths, grey values as PNG."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

# Marching squares. A cell's corners are four voxel centres (upper left 8, upper right 4, lower
# right 2, lower left 1); the middles of its sides are (x, y) in halves of a voxel from its middle.
# Segments run with the inside on their right, so they join to closed loops; two corners that only
# touch diagonally stay apart, as the metrics see them.
_TOP, _RIGHT, _BOTTOM, _LEFT = (0, -1), (1, 0), (0, 1), (-1, 0)
_SEGMENTS = {
    1: [(_LEFT, _BOTTOM)],
    2: [(_BOTTOM, _RIGHT)],
    3: [(_LEFT, _RIGHT)],
    4: [(_RIGHT, _TOP)],
    5: [(_RIGHT, _TOP), (_LEFT, _BOTTOM)],
    6: [(_BOTTOM, _TOP)],
    7: [(_LEFT, _TOP)],
    8: [(_TOP, _LEFT)],
    9: [(_TOP, _BOTTOM)],
    10: [(_TOP, _LEFT), (_BOTTOM, _RIGHT)],
    11: [(_TOP, _RIGHT)],
    12: [(_RIGHT, _LEFT)],
    13: [(_RIGHT, _BOTTOM)],
    14: [(_BOTTOM, _LEFT)],
}


def outline(mask: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> str:
    """The outline of a (H, W) mask as SVG path data, to be filled with the rule `evenodd`.

    Coordinates are mm from the outer corner of the first voxel. An empty mask has an empty path.

    Args:
        spacing_mm: of rows and of columns (y, x).
    """
    padded = np.pad(np.asarray(mask, np.uint8), 1)
    upper, lower = padded[:-1], padded[1:]
    codes = 8 * upper[:, :-1] + 4 * upper[:, 1:] + 2 * lower[:, 1:] + lower[:, :-1]
    following = {}  # halves of a voxel: the middle of row r, column c is (2c + 1, 2r + 1)
    for code, segments in _SEGMENTS.items():
        for row, column in np.argwhere(codes == code).tolist():
            x, y = 2 * column, 2 * row
            for (x0, y0), (x1, y1) in segments:
                following[x + x0, y + y0] = (x + x1, y + y1)
    half_y, half_x = (step / 2 for step in spacing_mm)
    path = []
    while following:
        points = [f"{x * half_x:.5g} {y * half_y:.5g}" for x, y in _take_loop(following)]
        path.append(f"M{'L'.join(points)}z")
    return "".join(path)


def _take_loop(following: dict) -> list[tuple[int, int]]:
    """Take one loop out of {point: next point}; its corners, without points on straight lines."""
    points = [next(iter(following))]
    while (point := following.pop(points[-1])) != points[0]:
        points.append(point)
    around = zip(points[-1:] + points[:-1], points, points[1:] + points[:1])
    return [here for before, here, after in around if _step(before, here) != _step(here, after)]


def _step(here: tuple[int, int], there: tuple[int, int]) -> tuple[int, int]:
    return there[0] - here[0], there[1] - here[1]


def shaded(
    values: NDArray, spacing_mm: tuple[float, float], window: tuple[float, float], *, longest: int
) -> NDArray[np.uint8]:
    """A (H, W) slice as grey values on square pixels, enlarged smoothly or reduced.

    Args:
        spacing_mm: of rows and of columns (y, x).
        window: the values shown as black and as white.
        longest: pixels along the longer side of the result.
    """
    low, high = window
    scaled = np.clip((values.astype(np.float32) - low) / max(high - low, 1e-12), 0, 1)
    source = sitk.GetImageFromArray(scaled * np.float32(255))
    source.SetSpacing([float(step) for step in reversed(spacing_mm)])
    extent = np.array(source.GetSize()) * source.GetSpacing()
    size = np.maximum(np.rint(extent * longest / extent.max()), 1).astype(int)
    pixel = extent / size
    if (pixel > 1.5 * np.array(source.GetSpacing())).any():
        # Several voxels become one pixel: blur, or fine structures would flicker in and out.
        source = sitk.DiscreteGaussian(source, (np.square(pixel / 2)).tolist())
    smooth = min(source.GetSize()) >= 4  # what a cubic spline needs
    target = sitk.Resample(
        source,
        size.tolist(),
        sitk.Transform(2, sitk.sitkIdentity),
        sitk.sitkBSpline3 if smooth else sitk.sitkLinear,
        ((pixel - source.GetSpacing()) / 2).tolist(),  # edges, not centres, stay where they are
        pixel.tolist(),
        source.GetDirection(),
        0.0,
        sitk.sitkFloat32,
        True,
    )
    return np.clip(np.rint(sitk.GetArrayFromImage(target)), 0, 255).astype(np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A (H, W) grey picture as a PNG file."""
    height, width = pixels.shape
    # Each row as its difference from the one above (filter 2), which packs smooth pictures well.
    rows = np.diff(pixels, axis=0, prepend=np.zeros((1, width), np.uint8))
    lines = np.hstack([np.full((height, 1), 2, np.uint8), rows])

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines.tobytes()))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")
