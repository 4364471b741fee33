"""Space: nothing moves, nothing changes sides, whatever the scanner wrote into the header."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings

from DistillSegLib.errors import GeometryError, ImageError
from DistillSegLib.geometry import (
    as_volume,
    check_image,
    describe_grid,
    on_grid_of,
    reorient,
    resample,
    same_grid,
    spacing_of,
)
from Testing.grids import CODES, WAY, any_grid, codes, positions, seeds, volume

# Orientation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CODES)
def test_axes_lead_where_the_code_says(code):
    image = sitk.Image(3, 4, 5, sitk.sitkUInt8)
    direction = np.array(reorient(image, code).GetDirection()).reshape(3, 3)
    assert [tuple(direction[:, axis]) for axis in range(3)] == [WAY[letter] for letter in code]


@settings(max_examples=60, deadline=None)
@given(seed=seeds, code=codes)
def test_reorienting_moves_no_voxel_in_the_patient(seed, code):
    rng = np.random.default_rng(seed)
    grid = any_grid(rng, high=5)
    values = rng.permutation(grid.GetNumberOfPixels()).astype(np.int32)
    image = volume(values.reshape(grid.GetSize()[::-1]))
    image.CopyInformation(grid)
    turned = reorient(image, code)

    def by_value(image):
        order = np.argsort(sitk.GetArrayFromImage(image).ravel())
        return positions(image).reshape(-1, 3)[order]

    np.testing.assert_allclose(by_value(turned), by_value(image), atol=1e-9)
    assert same_grid(reorient(turned, "LPS"), reorient(image, "LPS"))


# Resampling ---------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_resampling_keeps_the_outer_edges_and_the_directions(seed):
    rng = np.random.default_rng(seed)
    image = any_grid(rng, low=1)
    spacing = tuple(rng.uniform(0.3, 8, 3).tolist())
    result = resample(image, spacing, linear=False)
    for end in product((0, 1), repeat=3):
        before, after = (
            grid.TransformContinuousIndexToPhysicalPoint(
                [e * n - 0.5 for e, n in zip(end, grid.GetSize(), strict=True)]
            )
            for grid in (image, result)
        )
        np.testing.assert_allclose(after, before, atol=1e-6)
    assert result.GetDirection() == image.GetDirection()
    extent = np.array(image.GetSize()) * image.GetSpacing()
    expected = np.maximum(np.rint(extent / spacing[::-1]), 1)
    assert list(result.GetSize()) == expected.tolist()


def test_a_thick_slice_becomes_thin_ones_around_its_middle():
    image = volume(np.arange(2, dtype=np.int16).reshape(2, 1, 1), spacing_xyz=(1, 1, 5))
    result = resample(image, (1, 1, 1), linear=True)
    # Slice centres at 0 and 5 mm; new ones at -2, -1, … 7 mm. The edges repeat the outer slices.
    assert result.GetOrigin() == pytest.approx((0, 0, -2))
    values = sitk.GetArrayFromImage(result).ravel()
    np.testing.assert_allclose(values, [0, 0, 0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1], atol=1e-6)


def test_a_single_slice_can_be_resampled():
    image = volume(np.full((1, 4, 4), 7, np.int16), spacing_xyz=(1, 1, 3))
    result = sitk.GetArrayFromImage(resample(image, (1, 2, 2), linear=True))
    assert result.shape == (3, 2, 2) and np.all(result == 7)


def test_an_absurd_spacing_is_named_before_the_memory_is_gone():
    image = volume(np.zeros((30, 30, 30), np.uint8), spacing_xyz=(1000, 1000, 1000))
    with pytest.raises(GeometryError, match="check its spacing"):
        resample(image, (1, 1, 1), linear=True)


def test_labels_keep_their_type_and_invent_no_value():
    label = volume(np.array([[[0, 9, 9, 0, 300, 300]]], np.uint16))
    result = resample(label, (1, 1, 0.4), linear=False)
    assert result.GetPixelID() == sitk.sitkUInt16
    assert set(np.unique(sitk.GetArrayFromImage(result))) == {0, 9, 300}


def test_outside_an_image_its_smallest_value_and_outside_a_label_background():
    wide = sitk.Image(3, 1, 1, sitk.sitkUInt8)
    wide.SetOrigin((-1, 0, 0))
    air = volume(np.full((1, 1, 1), -1000, np.int16))
    assert sitk.GetArrayFromImage(on_grid_of(air, wide, linear=True)).tolist() == [[[-1000] * 3]]
    label = volume(np.full((1, 1, 1), 4, np.uint8))
    assert sitk.GetArrayFromImage(on_grid_of(label, wide, linear=False)).tolist() == [[[0, 4, 0]]]


# Grids --------------------------------------------------------------------------------------------


def test_grids_differ_by_size_place_spacing_or_direction():
    def grid(size=(4, 5, 1), **place):
        return volume(np.zeros(size[::-1], np.uint8), **place)

    assert same_grid(grid(), grid())
    assert same_grid(grid(), grid(origin=(0.0005, 0, 0)))
    assert not same_grid(grid(), grid(size=(4, 5, 2)))
    assert not same_grid(grid(), grid(origin=(0.01, 0, 0)))
    assert not same_grid(grid(), grid(spacing_xyz=(1, 1, 2)))  # though it has one slice only
    assert not same_grid(grid(), grid(direction=np.diag([1, 1, -1])))
    assert same_grid(grid(), grid(origin=(0.5, 0, 0)), tolerance_mm=0.6)


def test_a_grid_is_described_as_people_write_it():
    image = volume(np.zeros((36, 50, 35), np.uint8), spacing_xyz=(0.9765625, 1, 2.5))
    assert describe_grid(image) == "35x50x36 voxels of 0.9766x1x2.5 mm, LPS"
    image.SetDirection((0, 0.6, -0.8, 0, -0.8, -0.6, -1, 0, 0))
    assert describe_grid(image).endswith("mm, oblique IAR")
    assert spacing_of(image) == (2.5, 1, 0.9765625)


def test_a_picture_becomes_a_volume_of_one_slice():
    picture = sitk.Image(4, 3, sitk.sitkUInt8)
    picture.SetSpacing((0.5, 0.25))
    picture.SetOrigin((7, 8))
    slice_ = as_volume(picture)
    assert slice_.GetSize() == (4, 3, 1) and slice_.GetSpacing() == (0.5, 0.25, 1)
    assert slice_.GetOrigin() == (7, 8, 0) and slice_.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    check_image(slice_)
    assert as_volume(slice_) is slice_


def test_left_handed_and_sheared_images_are_accepted():
    check_image(volume(np.zeros((2, 2, 2)), direction=np.diag([1, 1, -1])))
    check_image(volume(np.zeros((2, 2, 2)), direction=[[1, 0, 0], [0, 1, 0.3], [0, 0, 0.95]]))


@pytest.mark.parametrize(
    ("image", "error", "match"),
    [
        (sitk.Image([2, 2, 2, 5], sitk.sitkUInt8), ImageError, r"4 dimensions \(2x2x2x5\)"),
        (sitk.Image([2, 2], sitk.sitkUInt8), ImageError, "2 dimensions"),
        (sitk.Image([2, 2, 2], sitk.sitkVectorUInt8, 3), ImageError, "3 per voxel"),
        (sitk.Image([2, 2, 2], sitk.sitkComplexFloat32), ImageError, "complex"),
        (sitk.Image([2, 0, 2], sitk.sitkUInt8), ImageError, "empty"),
        (volume(np.zeros((2, 2, 2)), spacing_xyz=(1, np.nan, 1)), GeometryError, "1xnanx1 mm"),
        (volume(np.zeros((2, 2, 2)), origin=(0, np.inf, 0)), GeometryError, "not a number"),
        (volume(np.zeros((2, 2, 2)), direction=[[1, 1, 0], [0, 1e-6, 0], [0, 0, 1]]),
         GeometryError, "do not span"),
    ],
)  # fmt: skip
def test_what_has_no_place_in_the_patient_is_refused(image, error, match):
    with pytest.raises(error, match=match):
        check_image(image)
