"""Boxes around what is there, with a rim as far as the image goes."""

from __future__ import annotations

import numpy as np

from DistillSegLib.boxes import bounding_box, box_around, grown, voxels_within

BOX = (slice(1, 2), slice(1, 3), slice(2, 4))


def test_the_box_of_a_mask_is_the_smallest():
    mask = np.zeros((3, 4, 5), bool)
    assert bounding_box(mask) is None
    mask[1, 1, 3] = mask[1, 2, 2] = True
    assert bounding_box(mask) == BOX


def test_the_box_of_boxes_holds_them_all():
    assert box_around([]) is None
    other = (slice(0, 1), slice(2, 4), slice(3, 4))
    assert box_around([BOX, other]) == (slice(0, 2), slice(1, 4), slice(2, 4))


def test_a_rim_ends_where_the_image_does():
    assert voxels_within(3.0, (3.0, 2.0, 0.7)) == [1, 2, 5]
    assert grown(BOX, (1, 2, 0), (9, 4, 5)) == (slice(0, 3), slice(0, 4), slice(2, 4))
