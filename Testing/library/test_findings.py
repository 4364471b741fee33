"""What a result says about itself, and the small picture of it."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib import Segmenter, load_package
from DistillSegLib.catalogue import sample_of
from DistillSegLib.errors import Cancelled
from DistillSegLib.findings import findings
from DistillSegLib.images import read_image
from DistillSegLib.labels import label_table
from DistillSegLib.places import resources
from DistillSegLib.segmentations import Segmentation
from DistillSegLib.thumbnails import thumbnail

BUNDLED = sorted((resources() / "Models").glob("*.distillseg"))
LABELS = label_table({1: "liver", 2: "spleen", 5: "kidney"})


def segmentation(voxels, spacing=(1.0, 1.0, 2.0)):
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(spacing)
    return Segmentation(image, LABELS)


def test_volume_parts_and_border_of_each_structure():
    voxels = np.zeros((10, 12, 14), np.uint8)
    voxels[2:5, 2:5, 2:5] = 1
    voxels[5, 5, 5] = 1  # touches the corner of the block: the same part
    voxels[8, 8, 8] = 1  # a part of its own
    voxels[3:6, 8:12, 9:11] = 2  # reaches the last row
    liver, spleen, kidney = findings(segmentation(voxels))
    assert (liver.name, liver.parts, liver.touches_border) == ("liver", 2, False)
    assert liver.volume_ml == pytest.approx(29 * 2 / 1000)
    assert (spleen.parts, spleen.touches_border) == (1, True)
    assert (kidney.value, kidney.parts, kidney.volume_ml, kidney.touches_border) == (5, 0, 0, False)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("index", [0, -1])
def test_each_face_of_the_image_is_a_border(axis, index):
    voxels = np.zeros((6, 7, 8), np.uint8)
    place = [3, 3, 3]
    place[axis] = index
    voxels[tuple(place)] = 1
    assert findings(segmentation(voxels))[0].touches_border


def test_a_single_slice_is_not_all_border():
    voxels = np.zeros((1, 7, 8), np.uint8)
    voxels[0, 2:4, 2:4] = 1
    assert not findings(segmentation(voxels))[0].touches_border


def test_the_ends_of_a_stack_are_no_border():
    voxels = np.zeros((6, 7, 8), np.uint8)
    voxels[:, 3, 3] = 1
    through = segmentation(voxels)
    through.image.SetSpacing((1.4, 1.4, 8.0))
    assert findings(through)[0].touches_border
    assert not findings(through, stack=True)[0].touches_border
    voxels[2, :, 3] = 1
    within = segmentation(voxels)
    within.image.SetSpacing((1.4, 1.4, 8.0))
    assert findings(within, stack=True)[0].touches_border


@pytest.mark.parametrize("name", [path.stem for path in BUNDLED])
def test_the_bundled_pictures_are_what_the_models_make_of_their_sample(name):
    package = load_package(name)
    image = read_image(sample_of(package))
    intensity = package.manifest.preprocessing.intensity[0]
    drawn = thumbnail(image, Segmenter(package).segment(image), intensity=intensity)
    path = resources() / "Thumbnails" / f"{name}.png"
    kept = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    assert kept.shape == drawn.shape == (144, 144, 3)
    assert np.mean(np.abs(kept.astype(int) - drawn) > 8) < 0.02  # other computers round otherwise
    tinted = np.abs(drawn.astype(int)[..., 0] - drawn[..., 2]) > 40  # grey has equal channels
    assert 0.1 < tinted.mean() < 0.6


def test_an_empty_result_has_a_picture_of_the_image():
    grey = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(9, 10, 11)))
    labels = sitk.Image(grey.GetSize(), sitk.sitkUInt8)
    drawn = thumbnail(grey, Segmentation(labels, LABELS), edge=32)
    assert drawn.shape == (32, 32, 3)
    assert drawn.std() > 10


def test_cancel_is_asked_before_each_structure():
    asked = []
    with pytest.raises(Cancelled):
        findings(
            segmentation(np.ones((4, 4, 4), np.uint8)),
            cancelled=lambda: asked.append(1) or len(asked) > 1,
        )
    assert len(asked) == 2
