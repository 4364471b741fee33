"""Make the bundled samples for the sarcoma models: a thigh with a tumour, computed, of no patient.

    python Testing/studies/make_sarcoma_samples.py

One body of shapes (skin, fat, muscles with fat between them, femur, an uneven tumour) is drawn as
CT in Hounsfield units and as T1 MR in arbitrary ones, and cut out as the training images were: a
box that ends 5 cm from the tumour, with the tumour in its middle. A mean of patients, as for the
other organs, would show nothing, since no two sarcomas lie alike. Only the texture is random, with
a seed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from DistillSegLib.files import replacing, write_text

SAMPLES = Path(__file__).resolve().parents[2] / "Resources" / "Samples"
SPACING_MM = (3.27, 1.953125, 1.953125)  # z, y, x
MARGIN_MM = 50.0
RADII_MM = (62.0, 38.0, 44.0)  # of the tumour, z, y, x
TUMOUR_MM = (-18.0, -26.0)  # its centre y, x from the thigh's
FEMUR_MM = (22.0, 20.0)
MUSCLES_MM = ((-50, 20), (-18, 58), (22, 52), (55, 14), (48, -32), (10, -58), (-40, -50), (-8, 8))
TISSUES = ("air", "fat", "muscle", "septum", "cortex", "marrow", "tumour", "core")
VALUES = {
    "ct": (-1000, -100, 55, -30, 1100, -40, 32, 18),
    "mr": (4, 900, 300, 560, 40, 850, 290, 390),
}
TEXTURE = {"ct": (9.0, 4.0), "mr": (12.0, 14.0)}  # sd of noise; of slow variation


def edge(distance_mm: NDArray) -> NDArray:
    """Share of a voxel that lies inside, for a signed distance that is positive inside."""
    return np.clip(distance_mm / SPACING_MM[1] + 0.5, 0, 1)


def body(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """(tissues, D, H, W): the share of each tissue in each voxel; the tumour is in the middle."""
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, SPACING_MM, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    y, x = y + TUMOUR_MM[0], x + TUMOUR_MM[1]
    skin = 96 + 0.10 * z - np.hypot(1.06 * y, x)
    layers = {"fat": edge(skin), "muscle": edge(skin - 13 - 0.05 * z)}
    near = np.sort([np.hypot(y - a - 0.05 * z, x - b) for a, b in MUSCLES_MM], axis=0)
    layers["septum"] = layers["muscle"] * edge(1.6 - (near[1] - near[0]) / 2) * 0.8
    bone = np.hypot(y - FEMUR_MM[0], x - FEMUR_MM[1])
    layers["cortex"], layers["marrow"] = edge(14 - bone), edge(7.5 - bone)
    at = (z, y - TUMOUR_MM[0], x - TUMOUR_MM[1])
    reach = np.sqrt(sum((c / r) ** 2 for c, r in zip(at, RADII_MM, strict=True)))
    lobes = 0.07 * np.sin(x / 9 + z / 17) * np.cos(y / 11 - z / 23)
    layers["tumour"] = edge((1 + lobes - reach) * RADII_MM[1]) * (1 - layers["cortex"])
    layers["core"] = np.clip(0.75 - 2 * reach + 4 * lobes, 0, 0.9)
    shares = np.zeros((len(TISSUES), *shape), np.float32)
    shares[0] = 1
    for number, name in enumerate(TISSUES[1:], start=1):
        shares *= 1 - layers[name]
        shares[number] += layers[name]
    return shares


def drawn(shares: NDArray[np.float32], modality: str) -> sitk.Image:
    """The body in a modality's units, with its texture."""
    rng = np.random.default_rng(0)
    noise, slow = TEXTURE[modality]
    voxels = np.tensordot(np.array(VALUES[modality], np.float32), shares, axes=1)
    wide = gaussian_filter(rng.standard_normal(voxels.shape), (2, 4, 4))
    fine = gaussian_filter(rng.standard_normal(voxels.shape), (0, 0.6, 0.6))
    voxels += (1 - shares[0]) * slow * wide / wide.std()
    voxels += noise * fine / fine.std()
    if modality == "mr":
        voxels = np.abs(voxels)  # a magnitude
    image = sitk.GetImageFromArray(voxels.round().astype(np.int16))
    image.SetSpacing(SPACING_MM[::-1])
    image.SetOrigin([-(n - 1) / 2 * s for n, s in zip(image.GetSize(), image.GetSpacing())])
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=SAMPLES, help="folder (default: %(default)s)")
    options = parser.parse_args()
    box_mm = [2 * (radius + MARGIN_MM) for radius in RADII_MM]
    shares = body(tuple(int(b // s) for b, s in zip(box_mm, SPACING_MM, strict=True)))
    tumour = shares[TISSUES.index("tumour") :].sum(0) > 0.5
    for modality in VALUES:
        name = f"soft-tissue-sarcoma-{modality}-phantom"
        with replacing(options.out / f"{name}.nii.gz") as path:
            sitk.WriteImage(drawn(shares, modality), str(path), useCompression=True)
        facts = {
            "name": f"Sarcoma phantom, {modality.upper()}",
            "title": f"Phantom of a thigh with a soft-tissue sarcoma, as {modality.upper()}",
            "licence": "Apache-2.0",
            "attribution": "Computed from shapes; shows no patient.",
            "volume_ml": {"1": round(float(tumour.sum() * np.prod(SPACING_MM)) / 1000, 1)},
            "command": "python Testing/studies/make_sarcoma_samples.py",
        }
        write_text(options.out / f"{name}.json", json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
