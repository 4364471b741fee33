"""Draws the pictures of the bundled models: what each makes of the bundled sample.

PYTHONPATH=. python Testing/studies/make_thumbnails.py
"""

from __future__ import annotations

import SimpleITK as sitk

from DistillSegLib import Segmenter, list_packages
from DistillSegLib.images import read_image
from DistillSegLib.places import resources
from DistillSegLib.thumbnails import thumbnail

FOLDER = resources() / "Thumbnails"


def main() -> None:
    image = read_image(resources() / "Samples" / "hippocampus-mean.nii.gz")
    for listed in list_packages():
        if listed.bundled:
            picture = thumbnail(image, Segmenter(listed.path).segment(image))
            path = FOLDER / f"{listed.name}.png"
            sitk.WriteImage(sitk.GetImageFromArray(picture, isVector=True), str(path))


if __name__ == "__main__":
    main()
