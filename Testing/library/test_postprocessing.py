from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib.postprocessing import KeepLargest, RemoveSmall, Step, apply
from DistillSegLib.records import from_dict, to_dict

BEFORE = (
    "1 1 . . . 2 .",
    "1 1 . 3 . 2 .",
    ". . 1 3 . . .",
    ". . . . 1 . 2",
    "3 . . . . 1 .",
)


def drawn(*rows: str, spacing=(2.0, 3.0, 5.0), pixel=np.uint8) -> sitk.Image:
    """A label map of one slice from drawn rows; `spacing` is (x, y, z)."""
    cells = [[0 if cell == "." else int(cell) for cell in row.split()] for row in rows]
    image = sitk.GetImageFromArray(np.array([cells], pixel))
    image.SetSpacing(spacing)
    image.SetOrigin((-7.0, 11.0, 13.0))
    image.SetDirection((0, -1, 0, 1, 0, 0, 0, 0, 1))
    return image


def rows_of(image: sitk.Image) -> tuple[str, ...]:
    rows = sitk.GetArrayFromImage(image)[0]
    return tuple(" ".join("." if cell == 0 else str(cell) for cell in row) for row in rows)


def test_keep_largest_keeps_one_part_of_its_own_labels_only():
    # The five voxels of 1 at the upper left touch at a corner; the two at the lower right do not
    # touch them. Label 3 is not named by the step.
    assert rows_of(apply([KeepLargest((1, 2))], drawn(*BEFORE))) == (
        "1 1 . . . 2 .",
        "1 1 . 3 . 2 .",
        ". . 1 3 . . .",
        ". . . . . . .",
        "3 . . . . . .",
    )


def test_remove_small_goes_by_volume_and_keeps_a_part_of_exactly_it():
    # A voxel has 2 x 3 x 5 mm = 0.03 ml, so 0.06 ml are two voxels.
    assert rows_of(apply([RemoveSmall((2, 3), 0.06)], drawn(*BEFORE))) == (
        "1 1 . . . 2 .",
        "1 1 . 3 . 2 .",
        ". . 1 3 . . .",
        ". . . . 1 . .",
        ". . . . . 1 .",
    )


def test_a_voxel_of_sheared_axes_is_smaller_than_its_sides_say():
    """A gantry tilted by 30 degrees: 0.03 ml shrink by its cosine, and two voxels with them."""
    image = drawn("1 1 .")
    image.SetDirection((1, 0, 0, 0, 1, -0.5, 0, 0, math.sqrt(0.75)))
    assert rows_of(apply([RemoveSmall((1,), 0.05)], image)) == ("1 1 .",)
    assert rows_of(apply([RemoveSmall((1,), 0.055)], image)) == (". . .",)


def test_a_step_after_one_that_took_everything():
    result = apply([RemoveSmall((3,), 1.0), KeepLargest((3, 2))], drawn(*BEFORE))
    assert "3" not in "".join(rows_of(result))


def test_remove_small_removes_all_parts_if_all_are_small():
    assert "2" not in " ".join(rows_of(apply([RemoveSmall((2,), 1.0)], drawn(*BEFORE))))


def test_steps_run_in_their_order():
    first_large = apply([KeepLargest((1,)), RemoveSmall((1,), 0.2)], drawn(*BEFORE))
    assert "1" not in " ".join(rows_of(first_large))


def test_the_grid_and_the_pixel_type_stay():
    before = drawn(*BEFORE, pixel=np.uint16)
    after = apply([KeepLargest((1,))], before)
    assert after.GetPixelID() == sitk.sitkUInt16
    assert after.GetSpacing() == before.GetSpacing()
    assert after.GetOrigin() == before.GetOrigin()
    assert after.GetDirection() == before.GetDirection()


def test_the_input_is_not_changed():
    before = drawn(*BEFORE)
    apply([KeepLargest((1, 2, 3))], before)
    assert rows_of(before) == BEFORE


def test_no_steps_and_absent_labels_change_nothing():
    assert rows_of(apply([], drawn(*BEFORE))) == BEFORE
    assert rows_of(apply([KeepLargest((9,)), RemoveSmall((9,), 1.0)], drawn(*BEFORE))) == BEFORE


def test_parts_that_touch_only_across_slices_belong_together():
    voxels = np.zeros((3, 4, 5), np.uint8)
    voxels[0, 0, 0] = voxels[1, 1, 1] = voxels[2, 3, 4] = 1
    left = sitk.GetArrayFromImage(apply([KeepLargest((1,))], sitk.GetImageFromArray(voxels)))
    assert np.argwhere(left).tolist() == [[0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("volume_ml", [-0.1, float("nan"), float("inf")])
def test_a_volume_that_is_none_is_refused(volume_ml):
    with pytest.raises(ValueError, match="volume_ml must be 0 or more"):
        RemoveSmall((1,), volume_ml)


@dataclass(frozen=True)
class Manifest:
    steps: tuple[Step, ...]


def test_steps_survive_a_manifest():
    manifest = Manifest((KeepLargest((1, 2)), RemoveSmall((3,), 0.5)))
    assert from_dict(Manifest, json.loads(json.dumps(to_dict(manifest)))) == manifest
