"""Space: nothing moves, nothing changes sides, whatever the scanner wrote into the header."""

from __future__ import annotations

import tracemalloc
from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from DistillSegLib.errors import DistillSegError, GeometryError, ImageError
from DistillSegLib.geometry import (
    as_volume,
    check_image,
    crop,
    describe_grid,
    labels_on,
    on_grid_of,
    paste,
    reorient,
    resample,
    same_grid,
    spacing_of,
)
from DistillSegLib.preprocessing import Intensity, Preprocessing
from DistillSegLib.regions import Region

CODES = [
    "".join(letters) for axes in permutations(["LR", "PA", "SI"]) for letters in product(*axes)
]
# Where each letter leads, in LPS millimetres.
WAY = {
    "L": (1, 0, 0), "P": (0, 1, 0), "S": (0, 0, 1),
    "R": (-1, 0, 0), "A": (0, -1, 0), "I": (0, 0, -1),
}  # fmt: skip

seeds = st.integers(0, 2**32 - 1)
codes = st.sampled_from(CODES)


def volume(array, *, spacing_xyz=(1.0, 1.0, 1.0), direction=None, origin=(0.0, 0.0, 0.0)):
    image = sitk.GetImageFromArray(np.asarray(array))
    image.SetSpacing([float(s) for s in spacing_xyz])
    image.SetOrigin([float(o) for o in origin])
    if direction is not None:
        image.SetDirection(np.asarray(direction, float).ravel().tolist())
    return image


def any_direction(rng):
    """Right- and left-handed, oblique to any degree, axes in any order."""
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return turn


def any_grid(rng, *, low=2, high=11):
    shape = rng.integers(low, high, 3)
    return volume(
        np.zeros(shape, np.uint8),
        spacing_xyz=rng.uniform(0.4, 5, 3),
        direction=any_direction(rng),
        origin=rng.uniform(-200, 200, 3),
    )


def positions(image):
    """(D, H, W, 3) the patient's coordinates of every voxel, as SimpleITK itself says."""
    places = [
        image.TransformIndexToPhysicalPoint((x, y, z))
        for z, y, x in np.ndindex(*image.GetSize()[::-1])
    ]
    return np.array(places).reshape(*image.GetSize()[::-1], 3)


def lattice_on(grid, stride):
    """Where a network of that output stride puts its logits: amid the voxels that each is for."""
    lattice = sitk.Image([-(-n // stride) for n in grid.GetSize()], sitk.sitkUInt8)
    lattice.SetSpacing([s * stride for s in grid.GetSpacing()])
    lattice.SetDirection(grid.GetDirection())
    lattice.SetOrigin(grid.TransformContinuousIndexToPhysicalPoint([(stride - 1) / 2] * 3))
    return lattice


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


# Logits to labels ---------------------------------------------------------------------------------


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
    for classes, pixel in [(254, sitk.sitkUInt8), (255, sitk.sitkUInt16), (300, sitk.sitkUInt16)]:
        logits = np.zeros((classes, 1, 1, 3), np.float32)
        logits[classes - 1, ..., :2] = 1
        result = labels_on(reference, logits, grid)
        assert result.GetPixelID() == pixel
        assert sitk.GetArrayFromImage(result).ravel().tolist() == [classes - 1] * 4 + [0]


def test_classes_by_native_voxels_never_exist_in_memory():
    rng = np.random.default_rng(0)
    reference = sitk.Image(96, 96, 96, sitk.sitkUInt8)
    grid, logits = random_logits(reference, "LPS", (4, 4, 4), 1, classes=40, rng=rng)
    tracemalloc.start()
    try:
        labels_on(reference, logits, grid)  # noise: every voxel is mixed, the worst case
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 96**3  # bytes; all logits on the native grid would be 160 * 96**3


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


# Crops --------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_a_crop_put_back_lies_where_it_was(seed):
    rng = np.random.default_rng(seed)
    grid = any_grid(rng)
    image = volume(rng.integers(1, 200, grid.GetSize()[::-1]).astype(np.uint8))
    image.CopyInformation(grid)
    inside = grid.TransformIndexToPhysicalPoint([int(rng.integers(n)) for n in grid.GetSize()])
    region = Region.from_numbers(-inside[0], -inside[1], inside[2], *rng.uniform(0.5, 9, 3))
    box = region.index_box(image)
    back = paste(crop(image, region), image)
    expected = np.zeros(grid.GetSize()[::-1], np.uint8)
    expected[box] = sitk.GetArrayFromImage(image)[box]
    assert same_grid(back, image, tolerance_mm=0)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back), expected)


@pytest.mark.parametrize("origin", [(0.4, 0, 0), (7, 0, 0), (-1, 0, 0)])
def test_a_label_map_between_or_outside_the_voxels_is_not_put_back(origin):
    image = sitk.Image(8, 8, 8, sitk.sitkUInt8)
    part = sitk.Image(3, 3, 3, sitk.sitkUInt8)
    part.SetOrigin(origin)
    with pytest.raises(GeometryError, match="no part of the image"):
        paste(part, image)


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
