"""Small data sets made by code, in the layout of the Medical Segmentation Decathlon."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

LABELS = {0: "background", 3: "Ball", 7: "Tail"}  # values with gaps: class indices are 0, 1, 2


def write_decathlon(
    folder: Path,
    *,
    cases: int = 8,
    size: tuple[int, int, int] = (18, 20, 16),
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    channels: Sequence[str] = ("MRI",),
    labels: dict[int, str] = LABELS,
) -> Path:
    """A data set of phantoms; `size` and `spacing_mm` are (z, y, x) as everywhere."""
    entries = []
    for number in range(cases):
        images, label = phantom(number, size, len(channels))
        names = [
            f"imagesTr/case_{number:02d}_{channel:04d}.nii.gz" for channel in range(len(images))
        ]
        for name, array in zip(names, images):
            write_image(folder / name, array, spacing_mm)
        write_image(folder / f"labelsTr/case_{number:02d}.nii.gz", label, spacing_mm)
        entries.append(
            {
                "id": f"case_{number:02d}",
                "image": names,
                "label": f"labelsTr/case_{number:02d}.nii.gz",
            }
        )
    described = {
        "name": "Phantoms",
        "licence": "CC0-1.0",
        "modality": {str(index): channel for index, channel in enumerate(channels)},
        "labels": {str(value): name for value, name in labels.items()},
        "training": entries,
    }
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


def phantom(
    number: int, size: tuple[int, int, int], channels: int = 1
) -> tuple[list[NDArray[np.int16]], NDArray[np.uint8]]:
    """A bright ball with a brighter tail along x, a little elsewhere in each case."""
    random = np.random.default_rng(number)
    centre = np.array(size) / 2 + random.uniform(-1.5, 1.5, 3)
    place = np.indices(size) - centre.reshape(3, 1, 1, 1)
    label = np.zeros(size, np.uint8)
    label[(place**2).sum(axis=0) < (min(size) / 4) ** 2] = 3
    label[(abs(place[0]) < 2) & (abs(place[1] - 2) < 2) & (place[2] > 1)] = 7
    value = np.select([label == 3, label == 7], [400, 800], 100)
    images = [
        (value * (1 - 0.3 * channel) + random.normal(0, 30, size)).astype(np.int16)
        for channel in range(channels)
    ]
    return images, label


def write_image(path: Path, array: NDArray, spacing_mm: tuple[float, float, float]) -> None:
    """(D, H, W) to a file."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
