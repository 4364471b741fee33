"""Orienting and interpolating in one step gives what orienting and then interpolating gives."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from DistillSegLib.geometry import SLICES, Grid, crop, reorient, resample, same_grid, turning
from DistillSegLib.sampling import sample
from Testing.grids import CODES, any_grid, seeds, volume

orientations = st.sampled_from([*CODES, SLICES])


@settings(max_examples=150, deadline=None)
@given(seed=seeds, code=orientations, pixel=st.sampled_from([np.int16, np.uint8, np.float64]))
def test_it_equals_orienting_and_then_resampling(seed, code, pixel):
    rng = np.random.default_rng(seed)
    grid = any_grid(rng, low=1)
    image = volume(rng.integers(0, 200, grid.GetSize()[::-1]).astype(pixel))
    image.CopyInformation(grid)
    spacing = tuple(rng.uniform(0.3, 6, 3).tolist())
    expected = resample(reorient(image, code), spacing, linear=True)
    array, found = sample(image, code, spacing)
    assert same_grid(found, expected, tolerance_mm=1e-6)
    assert array.dtype == np.float32 and array.flags.c_contiguous
    np.testing.assert_allclose(array, sitk.GetArrayFromImage(expected), atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, code=orientations)
def test_without_a_spacing_the_voxels_are_the_images_own(seed, code):
    rng = np.random.default_rng(seed)
    grid = any_grid(rng, low=1)
    image = volume(rng.integers(-99, 99, grid.GetSize()[::-1]).astype(np.int16))
    image.CopyInformation(grid)
    array, found = sample(image, code, None)
    expected = reorient(image, code)
    assert same_grid(found, expected, tolerance_mm=1e-6)
    np.testing.assert_array_equal(array, sitk.GetArrayFromImage(expected))
    assert Grid.of(image).turned(code).size == expected.GetSize()


@settings(max_examples=60, deadline=None)
@given(seed=seeds, code=orientations)
def test_a_part_is_as_if_the_rest_were_cut_off(seed, code):
    rng = np.random.default_rng(seed)
    grid = any_grid(rng, low=2)
    image = volume(rng.integers(0, 200, grid.GetSize()[::-1]).astype(np.int16))
    image.CopyInformation(grid)
    ends = [sorted(rng.choice(n + 1, 2, replace=False).tolist()) for n in grid.GetSize()[::-1]]
    part = tuple(slice(*pair) for pair in ends)
    spacing = tuple(rng.uniform(0.3, 6, 3).tolist())
    expected, there = sample(crop(image, part), code, spacing)
    array, found = sample(image, code, spacing, part=part)
    assert same_grid(found, there, tolerance_mm=1e-6)
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("code", CODES)
def test_an_axis_that_lies_otherwise_is_named(code):
    axes, flipped = turning(Grid.of(volume(np.zeros((2, 2, 2)))), code)
    letters = [("LR", "PA", "SI")[axis][int(turn)] for axis, turn in zip(axes, flipped)]
    assert "".join(letters) == code
