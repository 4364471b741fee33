"""Boxes in the patient find the right voxels, on the right side."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from DistillSegLib.errors import GeometryError
from DistillSegLib.regions import Region, read_region

# As Slicer 5 saves a box of 10 x 20 x 30 mm at R 50, A 40, S -30; its rows are turned to LPS too.
SAVED_BY_SLICER = {
    "@schema": "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/"
    "Resources/Schema/markups-schema-v1.0.3.json#",
    "markups": [
        {
            "type": "ROI",
            "coordinateSystem": "LPS",
            "coordinateUnits": "mm",
            "roiType": "Box",
            "center": [-50.0, -40.0, -30.0],
            "orientation": [-1.0, -0.0, -0.0, -0.0, -1.0, -0.0, 0.0, 0.0, 1.0],
            "size": [10.0, 20.0, 30.0],
            "insideOut": False,
            "controlPoints": [],
        }
    ],
}


def saved(folder, **changes):
    content = json.loads(json.dumps(SAVED_BY_SLICER))
    content["markups"][0].update(changes)
    path = folder / "R.mrk.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def image_of(size_xyz, *, spacing_xyz=(1, 1, 1), origin=(0, 0, 0), direction=None):
    image = sitk.Image(list(size_xyz), sitk.sitkUInt8)
    image.SetSpacing([float(s) for s in spacing_xyz])
    image.SetOrigin([float(o) for o in origin])
    if direction is not None:
        image.SetDirection(np.asarray(direction, float).ravel().tolist())
    return image


def test_right_in_ras_is_low_x_in_an_lps_image():
    image = image_of((100, 80, 60), origin=(-50, -40, -30))  # x from R 50 to L 49
    box = Region.from_numbers(40, 30, -20, 5, 7, 9).index_box(image)
    # R 37.5 to 42.5 is x = -42.5 to -37.5 in LPS: voxels 8 to 12. A 26.5 to 33.5: voxels 7 to 13.
    assert box == (slice(6, 15), slice(7, 14), slice(8, 13))


def test_a_box_takes_in_every_voxel_that_it_touches_and_no_more():
    image = image_of((10, 10, 10))
    assert Region.from_numbers(-4, -4, 4, 1, 1, 1).index_box(image) == (slice(4, 5),) * 3
    assert Region.from_numbers(-4, -4, 4, 1.1, 1, 0.2).index_box(image) == (
        slice(4, 5), slice(4, 5), slice(3, 6),
    )  # fmt: skip


def test_a_box_that_sticks_out_is_cut_at_the_image():
    image = image_of((10, 12, 14))
    box = Region.from_numbers(0, -6, 13, 8, 400, 4).index_box(image)
    assert box == (slice(11, 14), slice(0, 12), slice(0, 5))


def test_a_box_beside_the_image_is_refused_with_both_places():
    with pytest.raises(GeometryError, match=r"x 45 to 55.*outside.*x -10 to 0.*RAS"):
        Region.from_numbers(50, -5, 5, 10, 4, 4).index_box(image_of((10, 10, 10)))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_box_in_any_image_holds_its_voxels_and_no_thinner_box_does(seed):
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    image = image_of(
        rng.integers(4, 12, 3).tolist(),
        spacing_xyz=rng.uniform(0.5, 3, 3), origin=rng.normal(0, 50, 3), direction=turn,
    )  # fmt: skip
    middle = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    center = np.array(middle) * (-1, -1, 1)
    region = Region(
        tuple(center.tolist()), tuple(rng.uniform(0.5, 6, 3).tolist()),
        tuple(map(tuple, axes.tolist())),
    )  # fmt: skip
    box = region.index_box(image)

    # Points spread through the box, judged by SimpleITK: which voxels do they fall into?
    steps = np.array(list(product(np.linspace(-0.5, 0.5, 9), repeat=3))) * region.size_mm
    points = (center + steps @ axes) * (-1, -1, 1)
    indices = np.array([image.TransformPhysicalPointToContinuousIndex(p) for p in points.tolist()])
    touched = np.floor(indices + 0.5).clip(0, np.array(image.GetSize()) - 1)
    assert [part.start for part in box[::-1]] == touched.min(axis=0).tolist()
    assert [part.stop - 1 for part in box[::-1]] == touched.max(axis=0).tolist()


def test_slicers_box_is_read_in_either_coordinate_system(tmp_path):
    expected = Region((50, 40, -30), (10, 20, 30))
    assert read_region(saved(tmp_path)) == expected
    ras = dict(coordinateSystem="RAS", center=[50, 40, -30], orientation=np.eye(3).ravel().tolist())
    assert read_region(saved(tmp_path, **ras)) == expected


@pytest.mark.parametrize("system", ["RAS", "LPS"])
def test_a_turned_box_keeps_its_turn(tmp_path, system):
    # Turned by 30 degrees about S: the long axis points from R towards A.
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    columns = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    flip = np.diag([-1, -1, 1]) if system == "LPS" else np.eye(3)
    region = read_region(
        saved(
            tmp_path,
            coordinateSystem=system,
            center=(flip @ (50, 40, -30)).tolist(),
            orientation=(flip @ columns).ravel().tolist(),
            size=[100, 2, 4],
        )
    )
    assert region.center_mm == (50, 40, -30)
    tip = np.array([50, 40, -30]) + 50 * np.array([c, s, 0])
    assert np.linalg.norm(region.corners_mm() - tip, axis=1).min() == pytest.approx(np.hypot(1, 2))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"type": "Fiducial"}, "Fiducial.*exactly one"),
        ({"coordinateSystem": None}, "opposite sides"),
        ({"coordinateSystem": "IJK"}, "'IJK'"),
        ({"insideOut": True}, "inside out"),
        ({"center": [1, 2]}, "'center'.*3 numbers"),
        ({"center": None}, "'center'"),
        ({"center": [1, 2, float("nan")]}, "finite"),
        ({"size": "large"}, "'size'"),
        ({"size": [1, 0, 1]}, "1x0x1 mm"),
        ({"orientation": [1, 0, 0, 0, 1, 0, 0, 0, 0]}, "right angles"),
        ({"orientation": [1, 0, 0]}, "9 numbers"),
    ],
)
def test_an_unusable_region_is_named_with_its_file(tmp_path, changes, match):
    with pytest.raises(GeometryError, match=match) as caught:
        read_region(saved(tmp_path, **changes))
    assert "R.mrk.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"markups": 3}', '{"markups": [{}]}'])
def test_another_kind_of_file_is_refused(tmp_path, text):
    path = tmp_path / "other.mrk.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(GeometryError, match="no Slicer markups file"):
        read_region(path)


def test_a_missing_or_binary_file_is_refused(tmp_path):
    with pytest.raises(GeometryError, match="could not be read"):
        read_region(tmp_path / "absent.mrk.json")
    (tmp_path / "x.mrk.json").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(GeometryError, match="no Slicer markups file"):
        read_region(tmp_path / "x.mrk.json")


@pytest.mark.parametrize(
    "numbers", [(0, 0, 0, 0, 1, 1), (0, 0, 0, -1, 1, 1), (np.nan, 0, 0, 1, 1, 1)]
)
def test_numbers_that_make_no_box_are_refused(numbers):
    with pytest.raises(GeometryError, match="region"):
        Region.from_numbers(*numbers)


@pytest.mark.parametrize("turn", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("angle", [0.0, 0.3, -0.5])
def test_a_box_along_an_oblique_image_holds_just_the_voxels_asked_for(turn, angle):
    image = sitk.Image((40, 50, 60), sitk.sitkUInt8)
    spacing = np.array([0.5, 1.0, 2.0])
    size_mm = np.array([8.0, 12.0, 20.0])  # right, anterior, superior
    turned = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]])
    axes = np.vstack([turned, [0, 0, 1]])[:, list(turn)] * [1, -1, 1]  # also left-handed
    image.SetSpacing(spacing.tolist())
    image.SetDirection(axes.ravel().tolist())
    image.SetOrigin((11.0, -7.0, 3.0))
    # Half a voxel off the middle one, where a box of an even number of voxels ends on borders.
    corner = np.array(image.TransformContinuousIndexToPhysicalPoint((19.5, 24.5, 29.5)))
    region = Region.along(image, tuple((corner * [-1, -1, 1]).tolist()), tuple(size_mm.tolist()))
    box = region.index_box(image)[::-1]
    found = [part.stop - part.start for part in box]
    assert found == [round(size_mm[turn[i]] / spacing[i]) for i in range(3)]
    assert [part.start + part.stop for part in box] == [40, 50, 60]  # around the same middle
