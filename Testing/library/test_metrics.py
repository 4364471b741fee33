"""Masks as drawings, with the expected values derived by hand beside them; then MONAI and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from DistillSegLib.errors import GeometryError
from DistillSegLib.labels import label_table
from DistillSegLib.metrics import (
    dice,
    hd95_mm,
    nsd,
    score,
    surface_distances,
    volume_ml,
)

UNIT = (1.0, 1.0, 1.0)


def grid(*rows: str) -> np.ndarray:
    """A single-slice mask (1, H, W) from drawn rows."""
    return np.array([[[cell != "." for cell in row.split()] for row in rows]])


def box(shape, corner, size) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(first, first + length) for first, length in zip(corner, size))] = True
    return mask


NOTHING = np.zeros((3, 4, 5), bool)
SOMETHING = box((3, 4, 5), (1, 1, 2), (1, 2, 2))


def test_dice_of_one_row_too_many():
    reference = grid(". . . .", ". 1 1 .", ". 1 1 .", ". . . .")
    prediction = grid(". . . .", ". 1 1 .", ". 1 1 .", ". 1 1 .")
    assert dice(prediction, reference) == pytest.approx(2 * 4 / (4 + 6))


def test_distances_of_a_picture_are_those_of_its_contours():
    reference = grid(
        ". . . . . .",
        ". 1 1 1 1 .",
        ". 1 1 1 1 .",
        ". 1 1 1 1 .",
        ". . . . . .",
        ". . . . . .",
    )
    prediction = grid(
        ". . . . . .",
        ". 1 1 1 1 .",
        ". 1 1 1 1 .",
        ". 1 1 1 1 .",
        ". 1 1 1 1 .",
        ". . . . . .",
    )
    # One row of 2 mm too many. Of the prediction's 12 contour voxels the four of its last row are
    # 2 mm from the reference's contour; the 95th percentile of eight times 0 and four times 2 is 2.
    assert hd95_mm(prediction, reference, spacing_mm=(9.0, 2.0, 3.0)) == pytest.approx(2)


def test_surface_dice_weighs_by_area_not_by_voxels():
    reference = grid(". . . . .", ". 1 1 . .", ". 1 1 . .", ". . . . .", ". . . . .")
    prediction = grid(". . . . .", ". 1 1 . .", ". 1 1 . .", ". 1 1 . .", ". . . . .")
    # Contours run between voxel centres: sides of 1, and corners cut to √½.
    #
    #    /-\           /-\
    #   |   |         |   |      reference:  4 sides, 4 corners
    #    \-/          |   |      prediction: 6 sides, 4 corners
    #                  \-/
    #
    # Within 0: of the reference all but the lower side (its lower corners lie where the prediction
    # has sides); of the prediction all but its lower side and lower corners.
    corner = math.sqrt(0.5)
    within, whole = (3 + 4 * corner) + (5 + 2 * corner), (4 + 4 * corner) + (6 + 4 * corner)
    found = nsd(prediction, reference, spacing_mm=UNIT, tolerance_mm=0.0)
    assert found == pytest.approx(within / whole)
    assert nsd(prediction, reference, spacing_mm=UNIT, tolerance_mm=1.0) == pytest.approx(1)


def test_surface_area_of_a_box_is_its_faces_with_cut_edges_and_corners():
    z, y, x = 2.0, 3.0, 5.0
    mask = box((6, 7, 8), (1, 1, 1), (4, 3, 5))
    surface = surface_distances(mask, np.zeros_like(mask), spacing_mm=(z, y, x))
    # Faces between the centres (3, 2 and 4 steps), edges cut to half a step on both sides, and
    # eight corner triangles.
    faces = 2 * (3 * z * 2 * y + 3 * z * 4 * x + 2 * y * 4 * x)
    edges = 4 * (
        3 * z * math.hypot(y, x) / 2 + 2 * y * math.hypot(z, x) / 2 + 4 * x * math.hypot(z, y) / 2
    )
    corners = 8 * math.hypot(y * x, z * x, z * y) / 8
    assert surface.area_a.sum() == pytest.approx(faces + edges + corners)


def test_hd95_is_the_larger_direction_whichever_mask_comes_first():
    small, large = box((9, 9, 20), (2, 3, 2), (4, 3, 4)), box((9, 9, 20), (2, 3, 2), (4, 3, 15))
    there = hd95_mm(small, large, spacing_mm=(1.0, 2.0, 0.5))
    assert there == hd95_mm(large, small, spacing_mm=(1.0, 2.0, 0.5))
    assert there > 4.0  # most of the 11 added steps of 0.5 mm


def test_spacing_is_read_as_z_y_x():
    a, b = box((8, 9, 10), (1, 2, 3), (2, 2, 2)), box((8, 9, 10), (4, 2, 3), (2, 2, 2))
    assert hd95_mm(a, b, spacing_mm=(7.0, 0.1, 0.1)) == pytest.approx(21)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (NOTHING, NOTHING, (math.nan, math.nan, math.nan)),
        (SOMETHING, NOTHING, (0, math.inf, 0)),
        (NOTHING, SOMETHING, (0, math.inf, 0)),
        (SOMETHING, SOMETHING, (1, 0, 1)),
    ],
)
def test_empty_masks_have_defined_scores(a, b, expected):
    found = (
        dice(a, b),
        hd95_mm(a, b, spacing_mm=UNIT),
        nsd(a, b, spacing_mm=UNIT, tolerance_mm=1.0),
    )
    assert found == pytest.approx(expected, nan_ok=True)


def test_a_shift_of_exactly_the_tolerance_is_within_it_far_from_the_origin():
    a, b = box((4, 4, 300), (1, 1, 1), (2, 2, 297)), box((4, 4, 300), (1, 1, 2), (2, 2, 297))
    assert nsd(a, b, spacing_mm=(1.1, 1.1, 0.7), tolerance_mm=0.7) == 1


def test_a_mask_that_fills_the_image_has_its_surface_at_the_border():
    full, core = np.ones((5, 6, 7), bool), box((5, 6, 7), (1, 1, 1), (3, 4, 5))
    # Of the 150 voxels around the core the last 8 by distance are the corners (√3), before them
    # come the edges (√2); the 95th percentile has rank 0.95 x 149 = 141.55.
    expected = 0.45 * math.sqrt(2) + 0.55 * math.sqrt(3)
    assert hd95_mm(full, core, spacing_mm=UNIT) == pytest.approx(expected)
    assert nsd(full, full, spacing_mm=UNIT, tolerance_mm=0) == 1
    assert nsd(full, core, spacing_mm=UNIT, tolerance_mm=0.9) == 0


def test_volume_counts_voxels_in_millilitres():
    assert volume_ml(SOMETHING, (5.0, 2.0, 1.5)) == pytest.approx(4 * 15 / 1000)


def test_scores_follow_the_label_table_and_its_values():
    reference = np.zeros((4, 5, 6), np.uint8)
    reference[1, 1:3, 1:4], reference[2, 3, 4] = 7, 9
    prediction = np.where(reference == 7, 7, 0).astype(np.int32)
    seven, nine, absent = score(
        prediction, reference, label_table({7: "a", 9: "b", 12: "c"}), spacing_mm=(2.0, 1.0, 1.0)
    )
    assert (seven.label.name, seven.dice, seven.hd95_mm, seven.nsd) == ("a", 1, 0, 1)
    assert seven.volume_a_ml == seven.volume_b_ml == pytest.approx(0.012)
    assert (nine.dice, nine.hd95_mm, nine.nsd, nine.volume_a_ml) == (0, math.inf, 0, 0)
    assert nine.volume_b_ml == pytest.approx(0.002)
    assert math.isnan(absent.dice) and math.isnan(absent.hd95_mm) and math.isnan(absent.nsd)


def test_masks_of_different_shape_are_refused_with_both_shapes():
    with pytest.raises(GeometryError, match=r"\(3, 4, 5\) and \(5, 4, 3\)"):
        dice(NOTHING, NOTHING.T)


@pytest.mark.parametrize("tolerance_mm", [-1.0, math.nan, math.inf])
def test_a_tolerance_that_is_no_distance_is_refused(tolerance_mm):
    with pytest.raises(ValueError, match="tolerance must be 0 mm or more"):
        nsd(SOMETHING, SOMETHING, spacing_mm=UNIT, tolerance_mm=tolerance_mm)


def random_masks(seed: int, dimensions: int = 3):
    """Two random masks, dense or sparse, shape and spacing of their own along each axis."""
    random = np.random.default_rng(seed)
    shape = random.integers(2, 12, dimensions)
    a, b = (random.random(shape) < random.choice([0.02, 0.2, 0.6, 0.95]) for _ in "ab")
    a.flat[0] = b.flat[-1] = True
    return a, b, tuple(random.uniform(0.3, 6.0, dimensions).tolist())


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("dimensions", [3, 2])
def test_random_masks_score_as_in_monai(seed, dimensions):
    torch, monai = pytest.importorskip("torch"), pytest.importorskip("monai.metrics")
    a, b, spacing = random_masks(seed, dimensions)
    ours_a, ours_b, ours_spacing = a, b, spacing
    if dimensions == 2:
        ours_a, ours_b, ours_spacing = a[None], b[None], (4.2, *spacing)
    one_hot = [torch.from_numpy(mask)[None, None].float() for mask in (a, b)]
    settings = {"include_background": True, "spacing": list(spacing)}

    expected = float(monai.compute_dice(*one_hot, include_background=True))
    assert dice(a, b) == pytest.approx(expected, abs=1e-6)
    expected = float(monai.compute_hausdorff_distance(*one_hot, percentile=95, **settings))
    found = hd95_mm(ours_a, ours_b, spacing_mm=ours_spacing)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
    for tolerance in (0.0, spacing[0], 2.5):
        expected = float(
            monai.compute_surface_dice(*one_hot, [tolerance], use_subvoxels=True, **settings)
        )
        found = nsd(ours_a, ours_b, spacing_mm=ours_spacing, tolerance_mm=tolerance)
        assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_distances_are_exact_for_anisotropic_voxels(seed):
    ndimage = pytest.importorskip("scipy.ndimage")
    a, b, spacing = random_masks(seed)
    a, b = np.pad(a, ((0, 3), (20, 0), (0, 60))), np.pad(b, ((3, 0), (0, 20), (60, 0)))

    def surface(mask):
        return mask & ~ndimage.binary_erosion(mask)

    def directed(from_, to):
        distances = ndimage.distance_transform_edt(~surface(to), sampling=spacing)
        return np.percentile(distances[surface(from_)], 95)

    expected = max(directed(a, b), directed(b, a))
    assert hd95_mm(a, b, spacing_mm=spacing) == pytest.approx(expected, rel=1e-6)
