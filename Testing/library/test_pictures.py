from __future__ import annotations

import re

import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib.pictures import outline, png, shaded


def drawn(*rows: str) -> np.ndarray:
    return np.array([[cell != "." for cell in row.split()] for row in rows])


def loops(path: str) -> list[np.ndarray]:
    """The (x, y) corners of each closed loop of SVG path data."""
    return [
        np.array([[float(n) for n in point.split()] for point in loop.split("L")])
        for loop in re.findall(r"M([^z]*)z", path)
    ]


def signed_area(corners: np.ndarray) -> float:
    x, y = corners.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def test_the_outline_of_a_voxel_is_a_diamond_about_its_centre():
    (corners,) = loops(outline(drawn(". . .", ". . 1"), (2.0, 4.0)))  # centre at x 10, y 3 mm
    assert {tuple(corner) for corner in corners} == {(10, 2), (12, 3), (10, 4), (8, 3)}


def test_outlines_run_through_the_middle_between_voxel_centres():
    mask = drawn(
        "1 1 1 . .",
        "1 . 1 . .",
        "1 1 1 . .",
        ". . . 1 .",
    )
    around = sorted(signed_area(corners) for corners in loops(outline(mask, (1.0, 1.0))))
    # A square of 3 x 3 without its four corners (1/8 each), its hole, a diamond of 1/2, with the
    # other sense round the hole. The diagonal neighbour stays apart.
    assert sorted(map(abs, around)) == pytest.approx([0.5, 0.5, 8.5])
    assert len({area > 0 for area in around}) == 2


def test_straight_lines_have_no_points_between():
    (corners,) = loops(outline(np.ones((20, 30), bool), (1.0, 1.0)))
    assert len(corners) == 8  # an octagon: four sides and four cut corners
    assert signed_area(corners) == pytest.approx(20 * 30 - 4 / 8, abs=1e-9) or signed_area(
        corners
    ) == pytest.approx(-(20 * 30 - 4 / 8))


def test_an_empty_mask_has_no_outline():
    assert outline(np.zeros((3, 4), bool), (1.0, 1.0)) == ""


def test_png_is_read_back_as_written(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 12), np.uint8)
    (tmp_path / "a.png").write_bytes(png(pixels))
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "a.png")), pixels)


def test_shading_makes_pixels_square_and_keeps_the_edges():
    values = np.repeat([[0.0, 0.0, 10.0, 10.0]], 5, axis=0)  # 5 x 2 mm by 4 x 5 mm
    pixels = shaded(values, (2.0, 5.0), (0.0, 10.0), longest=40)
    assert pixels.shape == (20, 40)
    assert pixels[:, :8].max() <= 20 and pixels[:, -8:].min() >= 235
    assert abs(int(pixels[10, 19]) + int(pixels[10, 20]) - 255) <= 2  # the edge is in the middle


def test_values_beyond_the_window_are_black_and_white():
    pixels = shaded(np.array([[-1e9, 5.0, 1e9]] * 3), (1.0, 1.0), (0.0, 10.0), longest=3)
    assert pixels[1].tolist() == [0, 128, 255]


def test_a_constant_slice_and_one_of_a_single_voxel_are_shaded():
    assert shaded(np.full((6, 6), 3.0), (1.0, 1.0), (3.0, 3.0), longest=12).shape == (12, 12)
    assert shaded(np.zeros((1, 1)), (1.0, 1.0), (0.0, 1.0), longest=8).shape == (8, 8)
