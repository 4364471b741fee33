"""Draws the icon of the module: a distilled drop, segmented in two structures.

python Testing/studies/make_icon.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

PATH = Path(__file__).resolve().parents[2] / "DistillSeg" / "Resources" / "Icons" / "DistillSeg.png"
EDGE = 128
FINER = 6  # sub-pixels along each axis, averaged
TOP, BOTTOM = np.array([58, 75, 104.0]), np.array([27, 36, 54.0])
BLUE, ORANGE, WHITE = np.array([86, 180, 233.0]), np.array([230, 159, 0.0]), np.full(3, 250.0)


def main() -> None:
    n = EDGE * FINER
    y, x = (np.mgrid[:n, :n] + 0.5) / n * 2 - 1  # -1 to 1
    tile = rounded(x, y, half=0.97, radius=0.40)
    picture = TOP + (BOTTOM - TOP) * ((y + 1) / 2)[..., None]
    drop = drop_distance(x, y)
    border = x - 0.20 * np.sin(2.6 * (y - 0.18)) - 0.02  # an S through the drop
    light = 0.16 * np.clip(0.6 - np.hypot(x + 0.22, y - 0.10) / 0.8, 0, 1)[..., None]
    inside = np.where((border < 0)[..., None], BLUE, ORANGE)
    inside = inside + (255 - inside) * light
    picture = np.where((drop < 0)[..., None], inside, picture)
    picture[(np.abs(border) < 0.030) & (drop < 0)] = WHITE
    picture[np.abs(drop) < 0.034] = WHITE
    alpha = tile < 0
    color = (picture * alpha[..., None]).reshape(EDGE, FINER, EDGE, FINER, 3).sum((1, 3))
    weight = alpha.reshape(EDGE, FINER, EDGE, FINER).sum((1, 3))
    color = color / np.maximum(weight, 1)[..., None]
    rgba = np.dstack([color, 255 * weight / FINER**2]).round().astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(rgba, isVector=True), str(PATH))


def rounded(x, y, *, half: float, radius: float):
    """Signed distance to a square with round corners."""
    dx, dy = (np.abs(each) - half + radius for each in (x, y))
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return outside + np.minimum(np.maximum(dx, dy), 0) - radius


def drop_distance(x, y):
    """Signed distance, nearly, to a drop: a circle below, drawn out to a tip above."""
    centre, radius, tip = 0.20, 0.50, -0.76
    t = np.clip((y - tip) / (centre - tip), 0, 1)
    width = radius * np.sin(t * np.pi / 2) ** 1.5  # of the upper half
    above = (np.abs(x) - width) * 0.80
    below = np.hypot(x, y - centre) - radius
    distance = np.where(y < centre, above, below)
    return np.where(y < tip, np.hypot(x, y - tip), distance)


if __name__ == "__main__":
    main()
