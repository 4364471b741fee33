"""Images become what a network sees: the same numbers in the same place, always."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib.errors import GeometryError, ImageError, RecipeError
from DistillSegLib.preprocessing import Intensity, Preprocessing
from DistillSegLib.records import from_dict, to_dict

CT = Intensity("fixed", (-100.0, 200.0), mean=50.0, std=25.0)
MR = Intensity("image", (0.5, 99.5))


def volume(array, spacing_xyz=(1.0, 1.0, 1.0), direction=None, origin=(0.0, 0.0, 0.0)):
    image = sitk.GetImageFromArray(np.asarray(array))
    image.SetSpacing(spacing_xyz)
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(np.asarray(direction, float).ravel().tolist())
    return image


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(100, 40, size=shape).astype(np.float32)


def test_ct_is_clipped_in_its_own_units_and_scaled_by_the_data_set():
    image = volume(np.array([[[-1000, -100, 50, 75, 200, 3000]]], np.int16))
    array = Preprocessing((1, 1, 1), (CT,)).apply([image]).array
    assert array.dtype == np.float32 and array.flags.c_contiguous
    np.testing.assert_allclose(array, [[[[-6, -6, 0, 1, 6, 6]]]])


def test_mr_is_clipped_at_its_percentiles_and_scaled_by_itself():
    values = np.arange(1000, dtype=np.float32).reshape(10, 10, 10)
    clipped = np.clip(values, 0.1 * 999, 0.9 * 999)
    array = Preprocessing((1, 1, 1), (Intensity("image", (10, 90)),)).apply([volume(values)]).array
    np.testing.assert_allclose(array[0], (clipped - clipped.mean()) / clipped.std(), atol=1e-5)


@pytest.mark.parametrize("scale", [0.001, 1.0, 5000.0])
def test_mr_of_any_scale_looks_the_same_to_the_network(scale):
    plain = Preprocessing((1, 1, 1), (MR,)).apply([volume(noise(6, 7, 8))]).array
    scaled = Preprocessing((1, 1, 1), (MR,)).apply([volume(noise(6, 7, 8) * scale)]).array
    np.testing.assert_allclose(scaled, plain, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567, 3e6])
def test_a_constant_image_becomes_zeros_not_nan(value):
    image = volume(np.full((4, 5, 6), value, np.float32))
    assert np.array_equal(
        Preprocessing((1, 1, 1), (MR,)).apply([image]).array, np.zeros((1, 4, 5, 6))
    )


def test_the_input_image_is_left_as_it_was():
    image = volume(noise(4, 5, 6))
    Preprocessing((1, 1, 1), (CT,)).apply([image])
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), noise(4, 5, 6))


def test_a_spacing_that_is_nearly_right_is_not_interpolated():
    values = noise(4, 5, 1200)
    array = Preprocessing((1, 1, 1), (CT,)).apply([volume(values, (1.0009, 1, 1))]).array
    np.testing.assert_allclose(array[0], (np.clip(values, -100, 200) - 50) / 25, atol=1e-5)


def test_label_and_image_land_on_the_same_grid():
    values = np.zeros((6, 8, 10), np.uint8)
    values[1:3, 2:7, 1:4] = 2
    turn = [[0, 0.6, -0.8], [0, -0.8, -0.6], [1, 0, 0]]
    place = dict(spacing_xyz=(1.0, 2.0, 3.0), direction=turn, origin=(7.0, -3.0, 11.0))
    preprocessing = Preprocessing((1.5, 1, 1), (Intensity("fixed", (0, 2), 0, 1),))
    image = preprocessing.apply([volume(values.astype(np.float32), **place)]).array[0]
    label = preprocessing.apply_label(volume(values, **place))
    assert label.shape == image.shape and label.dtype == np.uint8
    assert set(np.unique(label)) == {0, 2}
    sure = np.abs(image - 1) > 0.5  # inside a voxel's own half, where nearest and linear must agree
    np.testing.assert_array_equal(label[sure], np.rint(image[sure]))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (0, 2, 1), (2, 0, 1)])
def test_slices_stay_slices_however_a_stack_lies_and_is_stored(order):
    """The short axis of a heart runs obliquely; to "LPS" alone, slices would become columns."""
    turn = sitk.Euler3DTransform((0, 0, 0), 0.3, 1.2, -0.4).GetMatrix()
    stack = volume(noise(5, 12, 10), (1.4, 1.4, 8.0), np.reshape(turn, (3, 3)), (4.0, -9.0, 30.0))
    preprocessing = Preprocessing((8.0, 1.4, 1.4), (MR,), "slices")
    expected = preprocessing.apply([stack])
    assert expected.array.shape == (1, 5, 12, 10)
    assert Preprocessing((8.0, 1.4, 1.4), (MR,), "LPS").apply([stack]).array.shape[1] != 5
    stored = preprocessing.apply([sitk.PermuteAxes(stack, order)])
    rows_first = order.index(0) > order.index(1)
    array = expected.array.swapaxes(2, 3) if rows_first else expected.array
    np.testing.assert_allclose(stored.array, array, atol=1e-5)


def test_without_an_axis_that_stands_out_the_last_one_crosses_the_slices():
    box = volume(noise(3, 4, 5), (1.2, 1.0, 1.0))
    array = Preprocessing((1, 1, 1.2), (MR,), "slices").apply([box]).array
    assert array.shape == (1, 3, 4, 5)


def test_a_label_map_saved_as_floats_is_read_but_probabilities_are_not():
    preprocessing = Preprocessing((1, 1, 1), (MR,))
    label = preprocessing.apply_label(volume(np.array([[[0.0, 2.0, 1.0]]])))
    assert np.issubdtype(label.dtype, np.integer) and label.tolist() == [[[0, 2, 1]]]
    with pytest.raises(ImageError, match=r"holds 0\.25"):
        preprocessing.apply_label(volume(np.array([[[0.0, 0.25, 1.0]]])))


def test_channels_with_other_grids_are_brought_together_in_the_patient():
    # The second channel shows the same field sampled elsewhere, coarser, and stored backwards.
    z, y, x = np.mgrid[:8, :9, :10].astype(np.float32)
    first = volume(3 * x + 2 * y - z)
    z, y, x = np.mgrid[:10, :10, :10].astype(np.float32)
    second = volume(
        3 * (10 - 1.2 * x) + 2 * (1.2 * y - 1) - (1.2 * z - 1),
        (1.2, 1.2, 1.2), np.diag([-1, 1, 1]), (10, -1, -1),
    )  # fmt: skip
    plain = Intensity("fixed", (-1000, 1000))
    prepared = Preprocessing((1, 1, 1), (plain, plain)).apply([first, second])
    assert prepared.array.shape == (2, 8, 9, 10)
    np.testing.assert_allclose(prepared.array[1], prepared.array[0], atol=1e-3)


def test_the_grid_says_where_the_array_lies():
    image = volume(noise(4, 6, 8), (2, 2, 2), np.diag([-1, 1, -1]), (5, 6, 7))
    prepared = Preprocessing((2, 1, 1), (MR,)).apply([image])
    assert prepared.grid.GetSize() == prepared.array.shape[:0:-1] == (16, 12, 4)
    assert prepared.grid.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    # Edges of the box: x from 5 - 15 to 5 + 1; its first voxel centre half a voxel inside.
    assert prepared.grid.GetOrigin() == pytest.approx((-9.5, 5.5, 1.0))


def test_too_few_channels_are_refused_with_the_number_needed():
    with pytest.raises(ImageError, match=r"takes 2 .* found 1"):
        Preprocessing((1, 1, 1), (MR, MR)).apply([volume(noise(3, 3, 3))])


def test_hopeless_images_are_refused_at_the_door():
    preprocessing = Preprocessing((1, 1, 1), (MR,))
    with pytest.raises(ImageError, match="4 dimensions"):
        preprocessing.apply([sitk.Image([3, 3, 3, 3], sitk.sitkFloat32)])
    broken = volume(noise(3, 3, 3))
    broken.SetSpacing((1, float("nan"), 1))
    with pytest.raises(GeometryError, match="spacing"):
        preprocessing.apply([broken])


def test_a_preprocessing_survives_its_way_through_a_manifest():
    preprocessing = Preprocessing((3.0, 1.5, 1.5), (CT, MR), "RAS")
    assert from_dict(Preprocessing, to_dict(preprocessing)) == preprocessing


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"orientation": "LPP"}, "orientation"),
        ({"orientation": "XLPS"}, "orientation"),
        ({"spacing_mm": [0, 1, 1]}, "spacing_mm"),
        ({"intensity": []}, "intensity"),
        ({"intensity": [{"scheme": "image", "clip": [-5, 50]}]}, "percentiles"),
        ({"intensity": [{"scheme": "fixed", "clip": [5, 5]}]}, "clip"),
        ({"intensity": [{"scheme": "fixed", "clip": [0, 5], "std": 0}]}, "std"),
        ({"intensity": [{"scheme": "fixd", "clip": [0, 5]}]}, "fixed"),
    ],
)
def test_settings_that_make_no_sense_are_named(change, match):
    with pytest.raises(RecipeError, match=match):
        from_dict(Preprocessing, to_dict(Preprocessing((1, 1, 1), (MR,))) | change)


def test_the_settings_can_be_used_where_simpleitk_is_absent():
    code = (
        "import sys; sys.modules['SimpleITK'] = None\n"
        "from DistillSegLib.preprocessing import Intensity, Preprocessing\n"
        "import numpy\n"
        "Preprocessing((1, 1, 1), (Intensity('image', (0, 100)),))\n"
        "Intensity('image', (0, 100)).apply(numpy.ones((1, 2, 3), 'float32'))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
