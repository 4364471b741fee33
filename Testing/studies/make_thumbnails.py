"""Draws the pictures of the bundled models: what each makes of the bundled sample of its organ.

PYTHONPATH=. python Testing/studies/make_thumbnails.py
"""

from __future__ import annotations

import SimpleITK as sitk

from DistillSegLib import Segmenter, list_packages
from DistillSegLib.catalogue import sample_of
from DistillSegLib.images import read_image
from DistillSegLib.manifest import Manifest
from DistillSegLib.places import resources
from DistillSegLib.thumbnails import thumbnail

FOLDER = resources() / "Thumbnails"


def windowed(image: sitk.Image, manifest: Manifest) -> sitk.Image:
    """Of fixed units, such as Hounsfield's, twice the range that the network looks at."""
    intensity = manifest.preprocessing.intensity[0]
    if intensity.scheme != "fixed":
        return image
    low, high = intensity.clip
    margin = (high - low) / 2
    return sitk.Clamp(image, image.GetPixelID(), low - margin, high + margin)


def main() -> None:
    for listed in list_packages():
        if listed.bundled:
            segmenter = Segmenter(listed.path)
            image = read_image(sample_of(segmenter.package))
            made = segmenter.segment(image)
            picture = thumbnail(windowed(image, segmenter.package.manifest), made)
            path = FOLDER / f"{listed.name}.png"
            sitk.WriteImage(sitk.GetImageFromArray(picture, isVector=True), str(path))


if __name__ == "__main__":
    main()
