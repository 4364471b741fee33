"""Logits to labels: exact, on the right side, and without arrays of classes by native voxels."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from DistillSegLib.errors import DistillSegError, GeometryError
from DistillSegLib.geometry import crop, reorient, resample, same_grid
from DistillSegLib.preprocessing import Intensity, Preprocessing
from DistillSegLib.regions import Region
from DistillSegLib.upsampling import labels_on
from Testing.grids import (
    CODES,
    WAY,
    any_direction,
    any_grid,
    codes,
    lattice_on,
    positions,
    seeds,
    volume,
)


@pytest.mark.parametrize("code", CODES)
@settings(max_examples=4, deadline=None)
@given(seed=seeds)
def test_law_5_label_in_label_out_keeps_side_and_place(code, seed):
    """Classes are given in the patient, so every voxel of the result can be judged there.

    Each class's logit rises along its own direction of the patient. Such logits are interpolated
    without error, so the class of every native voxel is known, whatever lies in between.
    """
    rng = np.random.default_rng(seed)
    reference = any_grid(rng)
    stride = int(rng.integers(1, 3))
    slopes, middle = rng.normal(size=(4, 3)), positions(reference).mean(axis=(0, 1, 2))

    def logits_at(places):
        return np.moveaxis((places - middle) @ slopes.T, -1, 0)

    spacing = tuple(rng.uniform(0.5, 4, 3).tolist())
    grid = resample(reorient(reference, code), spacing, linear=True)
    lattice = lattice_on(grid, stride)
    logits = logits_at(positions(lattice)).astype(np.float32)
    result = labels_on(reference, logits, grid, stride=stride)
    assert same_grid(result, reference, tolerance_mm=0)

    # Beyond the outermost logits the edge is repeated: no linear field there.
    inside = np.array(
        [
            np.clip(index, 0, np.array(lattice.GetSize()) - 1) == pytest.approx(index, abs=1e-6)
            for index in map(
                lattice.TransformPhysicalPointToContinuousIndex,
                positions(reference).reshape(-1, 3),
            )
        ]
    )
    expected = logits_at(positions(reference))
    first, second = np.sort(expected, axis=0)[:-3:-1]
    sure = inside.reshape(first.shape) & (first - second > 1e-3)
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(result)[sure], expected.argmax(axis=0)[sure]
    )


@settings(max_examples=20, deadline=None)
@given(seed=seeds, code=codes)
def test_a_label_map_through_the_preprocessing_and_back_is_the_same(seed, code):
    """The same law with what a user has, on a grid so fine that nothing is lost."""
    rng = np.random.default_rng(seed)
    image = volume(
        np.zeros(rng.integers(12, 20, 3), np.uint8),
        spacing_xyz=rng.uniform(0.8, 2, 3),
        direction=any_direction(rng),
        origin=rng.uniform(-200, 200, 3),
    )
    places = positions(image)
    label = np.zeros(places.shape[:3], np.uint8)
    for value, letter in enumerate("LPS", start=1):
        centre = places.mean(axis=(0, 1, 2)) + 5 * np.array(WAY[letter])
        label[np.linalg.norm(places - centre, axis=-1) < 2.5 + 0.5 * value] = value
    drawn = volume(label)
    drawn.CopyInformation(image)

    # Below half a voxel, the samples around a voxel's centre all lie within that voxel.
    preprocessing = Preprocessing((0.38, 0.36, 0.34), (Intensity("fixed", (0, 3)),), code)
    grid = preprocessing.apply([drawn]).grid
    logits = np.equal.outer(np.arange(4), preprocessing.apply_label(drawn)).astype(np.float32)
    back = labels_on(image, logits, grid)
    assert same_grid(back, drawn, tolerance_mm=0)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back), label)


def interpolate_everything(reference, logits, grid, stride):
    """The definition, by SimpleITK: each class resampled whole in double precision, then argmax."""
    lattice = lattice_on(grid, stride)
    scores = []
    for row in logits:
        channel = sitk.GetImageFromArray(row.astype(np.float64))
        channel.CopyInformation(lattice)
        scores.append(
            sitk.GetArrayFromImage(
                sitk.Resample(
                    channel, reference, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkLinear,
                    0.0, sitk.sitkFloat64, True,
                )
            )
        )  # fmt: skip
    return np.argmax(scores, axis=0)


def random_logits(reference, code, spacing_mm, stride, *, classes, rng, smooth=False):
    grid = resample(reorient(reference, code), spacing_mm, linear=False)
    shape = lattice_on(grid, stride).GetSize()[::-1]
    logits = rng.normal(size=(classes, *shape)).astype(np.float32)
    if smooth:  # large areas of one class, as a network makes
        for axis in (1, 2, 3):
            logits = logits.cumsum(axis=axis, dtype=np.float32)
    return grid, logits


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("code", "spacing_mm"),
    [
        ("LPS", (2.1, 1.7, 1.9)),  # native grid finer
        ("LPS", (0.41, 0.52, 0.63)),  # native grid coarser
        ("RAI", (1.3, 0.8, 2.0)),  # flipped
        ("SLA", (2.5, 1.2, 0.7)),  # axes in another order
    ],
)
def test_copying_agreed_cells_equals_interpolating_everything(code, spacing_mm, stride):
    rng = np.random.default_rng(5)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    reference = volume(
        np.zeros((90, 100, 112), np.uint8), spacing_xyz=(0.9, 1.1, 1.0),
        direction=turn, origin=(30, -40, 50),
    )  # fmt: skip
    grid, logits = random_logits(
        reference, code, spacing_mm, stride, classes=3, rng=rng, smooth=True
    )
    result = sitk.GetArrayFromImage(labels_on(reference, logits, grid, stride=stride))
    expected = interpolate_everything(reference, logits, grid, stride)
    assert len(np.unique(expected)) == 3
    assert (result != expected).sum() <= 1  # of a million; in float32 a tie may fall either way


@settings(max_examples=60, deadline=None)
@given(seed=seeds, code=codes, stride=st.sampled_from([1, 2, 4]), classes=st.integers(1, 5))
def test_any_grid_and_pure_noise_equal_interpolating_everything(seed, code, stride, classes):
    rng = np.random.default_rng(seed)
    reference = any_grid(rng, low=1)
    spacing = tuple(rng.uniform(0.5, 6, 3).tolist())
    grid, logits = random_logits(reference, code, spacing, stride, classes=classes, rng=rng)
    result = labels_on(reference, logits, grid, stride=stride)
    assert same_grid(result, reference, tolerance_mm=0)
    expected = interpolate_everything(reference, logits, grid, stride)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(result), expected)


@pytest.mark.parametrize("code", ["LPS", "RAS", "IPL"])
def test_on_the_very_grid_it_is_a_plain_argmax(code):
    rng = np.random.default_rng(1)
    reference = any_grid(rng)
    logits = rng.normal(size=(4, *reference.GetSize()[::-1])).astype(np.float32)
    direct = labels_on(reference, logits, reference)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(direct), logits.argmax(axis=0))
    turned = labels_on(reorient(reference, code), logits, reference)
    assert same_grid(turned, reorient(reference, code), tolerance_mm=0)
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(turned), sitk.GetArrayFromImage(reorient(direct, code))
    )


def test_a_class_that_leads_at_no_logit_may_lead_between_them():
    reference = volume(np.zeros((1, 1, 3), np.uint8))
    grid = volume(np.zeros((1, 1, 2), np.uint8), spacing_xyz=(2, 1, 1))
    logits = np.array([[3.0, 0.0], [0.0, 3.0], [2.0, 2.0]], np.float32).reshape(3, 1, 1, 2)
    assert sitk.GetArrayFromImage(labels_on(reference, logits, grid)).ravel().tolist() == [0, 2, 1]


def test_the_first_of_equals_wins():
    reference = volume(np.zeros((1, 1, 3), np.uint8))
    grid = volume(np.zeros((1, 1, 2), np.uint8), spacing_xyz=(2, 1, 1))
    logits = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]], np.float32).reshape(3, 1, 1, 2)
    assert sitk.GetArrayFromImage(labels_on(reference, logits, grid)).ravel().tolist() == [1, 1, 2]


def test_many_classes_need_and_get_a_wider_type():
    reference = volume(np.zeros((1, 1, 5), np.uint8))
    grid = volume(np.zeros((1, 1, 3), np.uint8), spacing_xyz=(2, 1, 1))
    for classes, pixel in [(256, sitk.sitkUInt8), (257, sitk.sitkUInt16), (300, sitk.sitkUInt16)]:
        logits = np.zeros((classes, 1, 1, 3), np.float32)
        logits[classes - 1, ..., :2] = 1
        result = labels_on(reference, logits, grid)
        assert result.GetPixelID() == pixel
        assert sitk.GetArrayFromImage(result).ravel().tolist() == [classes - 1] * 4 + [0]


def test_classes_by_native_voxels_never_exist_in_memory():
    rng = np.random.default_rng(0)
    reference = sitk.Image(160, 160, 160, sitk.sitkUInt8)
    grid, logits = random_logits(reference, "LPS", (4, 4, 4), 1, classes=40, rng=rng)
    tracemalloc.start()
    try:
        labels_on(reference, logits, grid)  # noise: every voxel is mixed, the worst case
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * 160**3  # bytes; all logits on the native grid would be 160 * 160**3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_do_not_pass_for_background(bad):
    grid = sitk.Image(4, 3, 2, sitk.sitkUInt8)
    logits = np.ones((2, 2, 3, 4), np.float32)
    logits[1, 1, 2, 3] = bad
    with pytest.raises(DistillSegError, match="1 of 48 numbers that are not finite"):
        labels_on(grid, logits, grid)


def test_logits_of_another_shape_are_refused():
    grid = sitk.Image(8, 8, 8, sitk.sitkUInt8)
    with pytest.raises(GeometryError, match="stride"):
        labels_on(grid, np.zeros((2, 4, 4, 4), np.float32), grid)


def test_a_grid_turned_against_the_reference_is_refused():
    grid = sitk.Image(8, 8, 8, sitk.sitkUInt8)
    turned = sitk.Image(8, 8, 8, sitk.sitkUInt8)
    turned.SetDirection((0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1))
    with pytest.raises(GeometryError, match="turned against"):
        labels_on(turned, np.zeros((2, 8, 8, 8), np.float32), grid)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, code=codes)
def test_the_labels_of_a_part_lie_where_it_was_cut_out(seed, code):
    rng = np.random.default_rng(seed)
    image = any_grid(rng)
    inside = image.TransformIndexToPhysicalPoint([int(rng.integers(n)) for n in image.GetSize()])
    region = Region.from_numbers(-inside[0], -inside[1], inside[2], *rng.uniform(0.5, 9, 3))
    box = region.index_box(image)
    seen = crop(image, box)
    spacing = tuple(rng.uniform(0.5, 6, 3).tolist())
    grid, logits = random_logits(seen, code, spacing, 1, classes=3, rng=rng)
    alone = sitk.GetArrayFromImage(labels_on(seen, logits, grid))
    expected = np.zeros(image.GetSize()[::-1], np.uint8)
    expected[box] = alone
    result = labels_on(image, logits, grid, part=box)
    assert same_grid(result, image, tolerance_mm=0)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(result), expected)


def test_each_class_becomes_its_label_value():
    reference = volume(np.zeros((1, 1, 5), np.uint8))
    grid = volume(np.zeros((1, 1, 3), np.uint8), spacing_xyz=(2, 1, 1))
    logits = np.eye(3, dtype=np.float32).reshape(3, 1, 1, 3)
    values = np.array([0, 7, 500], np.uint16)
    result = labels_on(reference, logits, grid, values=values)
    assert result.GetPixelID() == sitk.sitkUInt16
    assert sitk.GetArrayFromImage(result).ravel().tolist() == [0, 0, 7, 7, 500]


def test_very_few_logits_for_very_many_voxels():
    rng = np.random.default_rng(3)
    reference = volume(np.zeros((150, 140, 130), np.uint8))
    grid, logits = random_logits(reference, "LPS", (75, 70, 65), 1, classes=3, rng=rng)
    result = sitk.GetArrayFromImage(labels_on(reference, logits, grid))
    expected = interpolate_everything(reference, logits, grid, 1)
    assert (result != expected).sum() <= 3  # of 2.7 million
