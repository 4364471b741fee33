"""Draws the pictures of the bundled models: what each makes of the bundled sample of its organ.

PYTHONPATH=. python Testing/studies/make_thumbnails.py
"""

from __future__ import annotations

import SimpleITK as sitk

from DistillSegLib import Segmenter, list_packages
from DistillSegLib.catalogue import sample_of
from DistillSegLib.images import read_image
from DistillSegLib.places import resources
from DistillSegLib.thumbnails import thumbnail

FOLDER = resources() / "Thumbnails"


def main() -> None:
    for listed in list_packages():
        if listed.bundled:
            segmenter = Segmenter(listed.path)
            image = read_image(sample_of(segmenter.package))
            intensity = segmenter.package.manifest.preprocessing.intensity[0]
            picture = thumbnail(image, segmenter.segment(image), intensity=intensity)
            path = FOLDER / f"{listed.name}.png"
            sitk.WriteImage(sitk.GetImageFromArray(picture, isVector=True), str(path))


if __name__ == "__main__":
    main()
