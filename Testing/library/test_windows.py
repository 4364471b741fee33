"""Windows blend to what the network said, wherever they are cut."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from DistillSegLib.errors import Cancelled, GeometryError
from DistillSegLib.windows import plan_windows, sliding_window, whole_volume


def identity(windows):
    return windows


def half(windows):
    """A network of output stride 2: each output voxel is the mean of 2x2x2 input voxels."""
    n, c, d, h, w = windows.shape
    return windows.reshape(n, c, d // 2, 2, h // 2, 2, w // 2, 2).mean(axis=(3, 5, 7))


def volume(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


sizes = st.integers(1, 15)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(sizes, sizes, sizes),
    window=st.tuples(sizes, sizes, sizes),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.75]),
    batch_size=st.integers(1, 4),
)
def test_an_identity_network_gives_the_volume_back(shape, window, overlap, batch_size):
    array = volume(2, *shape)
    blended = sliding_window(array, identity, window, overlap=overlap, batch_size=batch_size)
    assert blended.dtype == np.float32
    np.testing.assert_allclose(blended, array, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(sizes, sizes, sizes),
    window=st.tuples(*[st.sampled_from([2, 4, 6, 10])] * 3),
    overlap=st.sampled_from([0.0, 0.3, 0.5]),
)
def test_a_coarse_output_is_blended_on_its_own_grid(shape, window, overlap):
    array = volume(1, *shape)
    padded = np.pad(array, [(0, 0), *((0, n % 2) for n in shape)])
    blended = sliding_window(array, half, window, overlap=overlap, stride=2)
    np.testing.assert_allclose(blended, half(padded[None])[0], atol=1e-5)


def test_every_window_reaches_the_network_whole_and_in_batches():
    seen = []

    def watch(windows):
        seen.append(windows.shape)
        return windows

    sliding_window(volume(3, 5, 12, 12), watch, (8, 8, 8), overlap=0.5, batch_size=3)
    assert seen == [(3, 3, 8, 8, 8), (1, 3, 8, 8, 8)]  # one along z (padded), two along y and x


def test_a_voxel_is_taken_mostly_from_the_window_whose_centre_is_nearest():
    numbers = iter([0.0, 1.0])

    def constant(windows):
        return np.full_like(windows, next(numbers))

    blended = sliding_window(volume(1, 8, 8, 12), constant, (8, 8, 8), overlap=0.5)
    line = blended[0, 4, 4]
    assert np.all(np.diff(line) >= 0)
    assert line[4] < 0.5 < line[7]
    assert line[0] == 0 and line[-1] == 1


def test_windows_cover_the_volume_and_keep_the_overlap():
    boxes = plan_windows((10, 20, 7), (10, 8, 8), 0.5)
    assert [box[0] for box in boxes] == [slice(0, 10)] * len(boxes)
    assert [box[1].start for box in boxes] == [0, 4, 8, 12]
    assert all(box[2] == slice(0, 8) for box in boxes)  # beyond the volume: the caller pads


def test_windows_begin_at_multiples_of_the_stride():
    starts = [box[0].start for box in plan_windows((26, 8, 8), (8, 8, 8), 0.5, multiple=2)]
    assert starts[0] == 0 and starts[-1] == 18
    assert all(start % 2 == 0 for start in starts)
    assert all(0 < b - a <= 4 for a, b in pairwise(starts))


@pytest.mark.parametrize("overlap", [-0.1, 1.0])
def test_an_impossible_overlap_is_refused(overlap):
    with pytest.raises(ValueError, match="overlap"):
        plan_windows((8, 8, 8), (4, 4, 4), overlap)


def test_a_window_that_the_stride_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="divisible by 2"):
        sliding_window(volume(1, 8, 8, 8), half, (5, 4, 4), stride=2)


def test_a_wrongly_declared_stride_is_named():
    with pytest.raises(GeometryError, match="output stride"):
        sliding_window(volume(1, 8, 8, 8), half, (4, 4, 4), stride=1)
    with pytest.raises(GeometryError, match="output stride"):
        whole_volume(volume(1, 8, 8, 8), identity, multiple=4, stride=2)


def test_progress_ends_at_one_and_cancel_stops_before_the_next_batch():
    shares, calls = [], []
    array = volume(1, 4, 4, 12)
    sliding_window(array, identity, (4, 4, 4), overlap=0, on_progress=shares.append)
    assert shares == pytest.approx([1 / 3, 2 / 3, 1])

    def count(windows):
        calls.append(1)
        return windows

    with pytest.raises(Cancelled):
        sliding_window(array, count, (4, 4, 4), overlap=0, cancelled=lambda: len(calls) == 2)
    assert len(calls) == 2


def test_one_pass_is_padded_along_each_axis_by_its_own_multiple():
    seen = []

    def watched(windows):
        seen.append(windows.shape[2:])
        return windows

    array = volume(1, 5, 17, 30)
    np.testing.assert_array_equal(whole_volume(array, watched, multiple=(1, 16, 4)), array)
    assert seen == [(5, 32, 32)]
    with pytest.raises(ValueError, match="multiple"):
        whole_volume(array, watched, multiple=(1, 16, 4), stride=2)


@settings(max_examples=30, deadline=None)
@given(shape=st.tuples(sizes, sizes, sizes), multiple=st.sampled_from([2, 4, 16]))
def test_one_pass_is_padded_to_what_divides_and_cropped_back(shape, multiple):
    array = volume(2, *shape)

    def divisible(windows):
        assert all(n % multiple == 0 for n in windows.shape[2:])
        return windows

    np.testing.assert_array_equal(whole_volume(array, divisible, multiple=multiple), array)
    padded = np.pad(array, [(0, 0), *((0, n % 2) for n in shape)])
    coarse = whole_volume(array, half, multiple=multiple, stride=2)
    np.testing.assert_allclose(coarse, half(padded[None])[0], atol=1e-6)


def test_blending_agrees_with_monai():
    torch = pytest.importorskip("torch")
    inferers = pytest.importorskip("monai.inferers")
    array = volume(1, 12, 12, 12)
    # What a voxel gets depends on where it lies in its window, so the weights show.
    place = volume(1, 1, 8, 8, 8)
    ours = sliding_window(array, lambda windows: windows * place, (8, 8, 8), overlap=0.5)
    theirs = inferers.sliding_window_inference(
        torch.from_numpy(array[None]),
        (8, 8, 8),
        1,
        lambda windows: windows * torch.from_numpy(place),
        overlap=0.5,
        mode="gaussian",
        sigma_scale=0.125,
    )
    np.testing.assert_allclose(ours, theirs[0].numpy(), atol=1e-5)
