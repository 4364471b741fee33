"""What is counted by runs is what is counted voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from DistillSegLib.boxes import bounding_box
from DistillSegLib.runs import boxes_by_value, counts_by_value


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    most=st.sampled_from([0, 1, 3, 300]),
    pixel=st.sampled_from([np.uint8, np.uint16, np.int32]),
)
def test_counts_and_boxes(seed, shape, most, pixel):
    rng = np.random.default_rng(seed)
    voxels = rng.integers(0, min(most, 255 if pixel is np.uint8 else most) + 1, shape).astype(pixel)
    voxels = np.repeat(voxels, 2, axis=2)
    counts, boxes = counts_by_value(voxels), boxes_by_value(voxels)
    values = np.unique(voxels)
    assert {v: counts[v] for v in values} == {v: (voxels == v).sum() for v in values}
    assert counts.sum() == voxels.size
    assert boxes == {int(v): bounding_box(voxels == v) for v in values if v}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_views_in_any_order_of_memory(order):
    voxels = np.zeros((4, 5, 6), np.uint8)
    voxels[1:3, 2:5, 5:] = 7
    turned = voxels.transpose(order)[::-1]
    assert boxes_by_value(turned) == {7: bounding_box(turned == 7)}
    assert counts_by_value(turned)[7] == 6
