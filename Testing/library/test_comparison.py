from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib.comparison import COLUMNS, FRAME_OF_REFERENCE, compare, match
from DistillSegLib.disagreement import PLANES, anatomical_axes
from DistillSegLib.errors import Cancelled, GeometryError
from DistillSegLib.labels import Label, LabelTable, label_table, terminology_entry
from DistillSegLib.metrics import score
from DistillSegLib.segmentations import Segmentation, write_segmentation

LIVER = terminology_entry(("SCT", "10200004", "Liver"))
SPLEEN = terminology_entry(("SCT", "78961009", "Spleen"))
GREY = (128, 128, 128)


def segmentation(voxels, names, *, spacing=(1.0, 2.0, 3.0), origin=(5.0, 6.0, 7.0)) -> Segmentation:
    """Label values (D, H, W) with names by value; `spacing` and `origin` are (x, y, z)."""
    image = sitk.GetImageFromArray(np.asarray(voxels, np.uint8))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    table = names if isinstance(names, LabelTable) else label_table(names)
    return Segmentation(image, table, source="made by the test")


def two_blocks() -> np.ndarray:
    voxels = np.zeros((6, 7, 8), np.uint8)
    voxels[1:4, 2:5, 1:4] = 1
    voxels[2:5, 3:6, 5:7] = 2
    return voxels


NAMES = {1: "liver", 2: "spleen"}


def test_a_segmentation_against_itself_agrees_in_everything():
    a = segmentation(two_blocks(), NAMES)
    comparison = compare(a, a)
    assert comparison.notes == ()
    for row, voxels in zip(comparison.rows, (27, 18), strict=True):
        assert (row.dice, row.hd95_mm, row.nsd, row.difference_percent) == (1, 0, 1, 0)
        assert row.volume_a_ml == row.volume_b_ml == pytest.approx(voxels * 6 / 1000)
        assert (row.worst_slice, row.worst_slice_mm2, row.remark) == (None, 0, "")


def test_the_worst_slice_is_the_one_with_the_largest_area_of_difference():
    b = two_blocks()
    b[3, 2:5, 1:3] = 0  # six of nine voxels of slice 3
    b[1, 2, 1:4] = 0  # three of slice 1
    liver, _ = compare(segmentation(two_blocks(), NAMES), segmentation(b, NAMES)).rows
    assert (liver.worst_slice, liver.worst_slice_mm2) == (3, 6 * 1.0 * 2.0)
    assert liver.dice == pytest.approx(2 * 18 / (27 + 18))
    assert liver.difference_percent == pytest.approx(50)


def test_the_worst_slice_is_axial_also_when_the_file_is_stored_sagittally():
    # x leads superior, y to the left, z to posterior: slices of x are axial.
    direction = (0, 1, 0, 0, 0, 1, 1, 0, 0)
    voxels = two_blocks()
    voxels[1:4, 2:5, 3] = 0
    a, b = segmentation(two_blocks(), NAMES), segmentation(voxels, NAMES)
    for image in (a.image, b.image):
        image.SetDirection(direction)
    assert anatomical_axes(a.image) == (2, 0, 1)
    liver = compare(a, b).rows[0]
    assert (liver.worst_slice, liver.worst_slice_mm2) == (3, 9 * 2.0 * 3.0)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        # The same structure under other names and values.
        (
            [Label(1, "Liver", GREY, LIVER), Label(2, "Spleen", GREY, SPLEEN)],
            [Label(1, "Milz", GREY, SPLEEN), Label(5, "Leber", GREY, LIVER)],
            [(1, 5, "terminology"), (2, 1, "terminology")],
        ),
        # Names count, whatever their case and underscores, before values.
        (
            [Label(1, "left kidney", GREY), Label(2, "Right_Kidney", GREY)],
            [Label(1, "right kidney", GREY), Label(2, "Left  Kidney", GREY)],
            [(1, 2, "name"), (2, 1, "name")],
        ),
        # A bare label map has values only.
        (
            [Label(1, "Liver", GREY, LIVER), Label(3, "Spleen", GREY, SPLEEN)],
            [Label(1, "Label 1", GREY), Label(2, "Label 2", GREY)],
            [(1, 1, "value"), (3, None, "only in A"), (None, 2, "only in B")],
        ),
        # Equal values do not make a liver a spleen.
        (
            [Label(1, "Liver", GREY, LIVER)],
            [Label(1, "Spleen", GREY, SPLEEN)],
            [(1, None, "only in A"), (None, 1, "only in B")],
        ),
        # A code or a name that two segments share tells nothing.
        (
            [Label(1, "lesion", GREY, LIVER), Label(2, "lesion", GREY, LIVER)],
            [Label(1, "lesion", GREY), Label(2, "lesion", GREY)],
            [(1, 1, "value"), (2, 2, "value")],
        ),
    ],
)
def test_structures_match_by_terminology_then_name_then_value(a, b, expected):
    pairs = match(LabelTable(tuple(a)), LabelTable(tuple(b)))
    assert [(x and x.value, y and y.value, way) for x, y, way in pairs] == expected


def test_a_match_by_value_is_told():
    comparison = compare(
        segmentation(two_blocks(), NAMES), segmentation(two_blocks(), {1: "Leber", 2: "spleen"})
    )
    assert [row.structure for row in comparison.rows] == ["liver / Leber", "spleen"]
    assert "matched by their value" in comparison.notes[0]


def test_another_grid_is_brought_onto_the_first_and_told():
    fine = np.repeat(two_blocks(), 3, axis=0)  # three slices of 1 mm for each of 3 mm
    b = segmentation(fine, NAMES, spacing=(1.0, 2.0, 1.0), origin=(5.0, 6.0, 6.0))
    comparison = compare(segmentation(two_blocks(), NAMES), b)
    assert [row.dice for row in comparison.rows] == [1, 1]
    assert comparison.notes == (
        "The grids differ: B (8x7x18 voxels of 1x2x1 mm, LPS) was brought onto A's "
        "(8x7x6 voxels of 1x2x3 mm, LPS) by nearest neighbour.",
    )
    assert comparison.b.image.GetSize() == (8, 7, 6)
    assert comparison.rows[0].volume_b_ml == pytest.approx(0.162)


def test_structures_outside_the_first_image_are_told():
    a = segmentation(two_blocks()[:, :, :5], NAMES)
    comparison = compare(a, segmentation(two_blocks(), NAMES))
    assert "40.0% of B's structures lie outside A's image" in comparison.notes[1]
    spleen = comparison.rows[1]
    assert spleen.volume_b_ml == pytest.approx(18 * 6 / 1000)


def test_another_place_in_the_patient_is_refused():
    with pytest.raises(GeometryError, match="lie in different places and share no voxel"):
        compare(
            segmentation(two_blocks(), NAMES),
            segmentation(two_blocks(), NAMES, origin=(5.0, 6.0, 27.0)),
        )


def test_empty_and_unknown_structures_have_defined_rows_that_json_can_hold(tmp_path):
    names = {1: "liver", 2: "spleen", 3: "cyst"}
    b = two_blocks()
    b[b == 2] = 0
    comparison = compare(
        segmentation(two_blocks(), {**names, 4: "only here"}), segmentation(b, names)
    )
    _, spleen, cyst, alone = comparison.rows
    assert (spleen.dice, spleen.hd95_mm, spleen.nsd) == (0, math.inf, 0)
    assert spleen.remark == "not found by B"
    assert math.isnan(cyst.dice) and cyst.remark == "not found by A nor by B"
    assert math.isnan(alone.volume_b_ml) and alone.remark.startswith("only in A")

    data = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert data["rows"][1]["hd95_mm"] is None and data["rows"][1]["dice"] == 0
    assert data["rows"][2]["dice"] is None

    text = comparison.to_csv(tmp_path / "table.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert (rows[1]["hd95_mm"], rows[2]["dice"], rows[2]["volume_a_ml"]) == ("inf", "", "0.0")


def test_files_are_compared_like_what_they_hold(tmp_path):
    table = LabelTable((Label(1, "liver", GREY, LIVER), Label(2, "spleen", GREY, SPLEEN)))
    a = segmentation(two_blocks(), table)
    named = write_segmentation(a, tmp_path / "a.seg.nrrd")
    bare = write_segmentation(a, tmp_path / "b.nii.gz")
    comparison = compare(named, str(bare))
    assert [(row.dice, row.matched_by) for row in comparison.rows] == [(1, "value"), (1, "value")]
    assert comparison.to_dict()["b"] == str(bare)


def test_a_single_slice_is_compared_as_a_picture():
    a, b = two_blocks()[2:3], two_blocks()[2:3]
    b[:, 4, 1:4] = 0
    liver, _ = compare(segmentation(a, NAMES), segmentation(b, NAMES)).rows
    assert liver.worst_slice == 0
    assert liver.hd95_mm == pytest.approx(2.0)  # one row of 2 mm


def test_a_shared_table_pairs_every_structure():
    table = label_table({value: f"rib {value}" for value in range(1, 25)})
    assert all(a is b for a, b, _ in match(table, table))


def tilted(voxels) -> Segmentation:
    """Stored from inferior to superior, anterior first, turned a little around x."""
    made = segmentation(voxels, NAMES, spacing=(1.0, 2.0, 3.0), origin=(-20.0, 30.0, 40.0))
    turn = sitk.Euler3DTransform((0, 0, 0), 0.2, 0.0, 0.0)
    made.image.SetDirection(turn.GetMatrix())
    return made


def test_the_areas_of_all_planes_are_counted_in_the_whole_image():
    b = two_blocks()
    b[3, 2:5, 1:3] = 0
    b[1, 2, 1:4] = 0
    a = segmentation(two_blocks(), NAMES)
    liver = compare(a, segmentation(b, NAMES)).rows[0]
    only_a = (two_blocks() == 1) & (b != 1)
    for plane, axis, pixel_mm2 in zip(PLANES, (0, 1, 2), (2.0, 3.0, 6.0), strict=True):
        others = tuple(other for other in range(3) if other != axis)
        expected = only_a.sum(axis=others) * pixel_mm2
        np.testing.assert_allclose(liver.disagreement.areas_mm2[plane], expected)


def test_worst_slices_are_ten_at_least_5_mm_apart_and_worst_first():
    voxels = np.zeros((40, 12, 12), np.uint8)
    voxels[1:39, 1:11, 1:11] = 1
    b = voxels.copy()
    for index in range(1, 39):
        b[index, 1:11, 1 : 1 + (index * 7) % 10] = 0
    spacing = (1.0, 1.0, 2.0)
    row = compare(
        segmentation(voxels, {1: "x"}, spacing=spacing), segmentation(b, {1: "x"}, spacing=spacing)
    ).rows[0]
    worst, areas = row.disagreement.worst("axial"), row.disagreement.areas_mm2["axial"]
    assert worst[0] == row.worst_slice == 7  # 9 columns of 10 mm²; 17, 27, 37 have as many
    assert list(worst[:4]) == [7, 17, 27, 37]
    assert len(worst) == 10
    assert min(abs(i - j) * 2.0 for i in worst for j in worst if i != j) >= 5
    assert [areas[i] for i in worst] == sorted((areas[i] for i in worst), reverse=True)
    assert row.disagreement.worst("axial", count=3, apart_mm=40) == (7, 27)
    agreed = compare(segmentation(voxels, {1: "x"}), segmentation(voxels, {1: "x"})).rows[0]
    assert agreed.disagreement.worst("sagittal") == ()


def test_a_worst_slice_s_place_lies_in_what_differs_also_in_a_tilted_image():
    b = two_blocks()
    b[3, 2, 1:4] = 0
    a = tilted(two_blocks())
    comparison = compare(a, tilted(b))
    liver = comparison.rows[0]
    place = comparison.place_of(liver, "axial", 3)
    lps = place * [-1, -1, 1]
    assert a.image.TransformPhysicalPointToIndex(lps.tolist()) == (2, 2, 3)
    # The slider of a slice view turned into the image's planes: along the normal, to superior.
    normal = np.array([0, math.sin(0.2), math.cos(0.2)])
    assert comparison.positions_mm("axial")[3] == pytest.approx(place @ normal)
    assert np.all(np.diff(comparison.positions_mm("axial")) == pytest.approx(3.0))
    # x runs to the left in LPS, so the slices' positions, to the right, fall.
    assert comparison.positions_mm("sagittal") == pytest.approx(20.0 - np.arange(8))


def test_a_structure_s_extent_has_a_rim_and_is_named_after_the_planes_normals():
    a = segmentation(two_blocks(), NAMES)
    center, size_mm = compare(a, a).extent_of(compare(a, a).rows[0])  # z 1-3, y 2-4, x 1-3
    np.testing.assert_allclose(center, (-5 - 2.0, -6 - 3 * 2.0, 7 + 2 * 3.0))
    assert size_mm == {"axial": 5 * 3.0, "coronal": 5 * 2.0, "sagittal": 5 * 1.0}


def test_the_map_tells_who_has_a_voxel_on_the_grid_of_a():
    b = two_blocks()
    b[3, 2, 1:4] = 0
    b[4, 2, 1] = 1
    a = segmentation(two_blocks(), NAMES)
    comparison = compare(a, segmentation(b, NAMES))
    liver = comparison.rows[0]
    found = comparison.difference([liver])
    whole = sitk.GetArrayFromImage(sitk.Resample(found, a.image, sitk.Transform()))
    expected = np.where((two_blocks() == 1) & (b == 1), 1, 0)
    expected[3, 2, 1:4] = 2
    expected[4, 2, 1] = 3
    np.testing.assert_array_equal(whole, expected)
    everything = sitk.GetArrayFromImage(comparison.difference())
    assert {int(v): int(n) for v, n in zip(*np.unique(everything, return_counts=True)) if v} == {
        1: 24 + 18,
        2: 3,
        3: 1,
    }
    assert not sitk.GetArrayFromImage(comparison.difference([])).any()


def test_what_shares_no_name_is_matched_by_overlap_where_values_mean_nothing():
    b = np.where(two_blocks() == 1, 2, np.where(two_blocks() == 2, 1, 0))
    comparison = compare(
        segmentation(two_blocks(), {1: "liver", 2: "spleen", 3: "cyst"}),
        segmentation(b, {1: "Segment_1", 2: "Segment_2"}),
        rest="overlap",
    )
    assert [(r.structure, r.matched_by) for r in comparison.rows] == [
        ("liver / Segment_2", "overlap"),
        ("spleen / Segment_1", "overlap"),
        ("cyst", "only in A"),
    ]
    assert [row.dice for row in comparison.rows[:2]] == [1, 1]
    assert "matched by how far they overlap" in comparison.notes[0]


def test_structures_can_be_paired_by_hand():
    a = segmentation(two_blocks(), NAMES)
    comparison = compare(a, a, pairs=[(1, 2), (2, None)])
    assert [(r.structure, r.matched_by) for r in comparison.rows] == [
        ("liver / spleen", "hand"),
        ("spleen", "only in A"),
    ]
    assert comparison.rows[0].dice == 0


def test_different_frames_of_reference_are_refused_even_on_one_grid():
    a, b = segmentation(two_blocks(), NAMES), segmentation(two_blocks(), NAMES)
    a.image.SetMetaData(FRAME_OF_REFERENCE, "1.2.3")
    compare(a, b)  # one that says nothing is taken on trust
    b.image.SetMetaData(FRAME_OF_REFERENCE, "1.2.4")
    with pytest.raises(GeometryError, match=r"frames of reference \(1\.2\.3 and 1\.2\.4\)"):
        compare(a, b)


def test_progress_is_told_by_structure_and_cancel_is_asked_between_them():
    a, told = segmentation(two_blocks(), NAMES), []
    compare(a, a, on_progress=told.append)
    assert told == [0.5, 1]
    with pytest.raises(Cancelled):
        compare(a, a, cancelled=lambda: len(told) > 1)


def test_numbers_measured_on_boxes_are_those_of_the_whole_image():
    flat = np.zeros((9, 10, 11), np.uint8)
    flat[4, 3:8, 2:9] = 1  # one slice of a volume has a surface above and below
    b = flat.copy()
    b[4, 3, 2:9] = 0
    flat[0:2, 0:3, 0:2] = 2  # at the border
    b[0:3, 0:3, 0:2] = 2
    rows = compare(segmentation(flat, NAMES), segmentation(b, NAMES)).rows
    whole = score(flat, b, label_table(NAMES), spacing_mm=(3.0, 2.0, 1.0))
    for row, expected in zip(rows, whole, strict=True):
        assert (row.dice, row.hd95_mm) == (expected.dice, expected.hd95_mm)
        assert row.nsd == pytest.approx(expected.nsd)


def test_distances_to_a_are_in_mm_negative_inside_and_in_their_place():
    a, b = np.zeros((9, 20, 30), np.uint8), np.zeros((9, 20, 30), np.uint8)
    a[3:6, 8:13, 10:19] = 1
    b[3:6, 8:13, 10:21] = 1  # two voxels of 1 mm more along x
    found = compare(segmentation(a, {1: "liver"}), segmentation(b, {1: "liver"}))
    image = found.distance_to_a(found.rows[0], rim_mm=6.0)
    spacing, origin = np.array((1.0, 2.0, 3.0)), np.array((5.0, 6.0, 7.0))
    # Both with a rim of a voxel begin at x 9, y 7, z 2; and 6 mm are 6, 3, 2 voxels.
    np.testing.assert_allclose(image.GetOrigin(), origin + spacing * (3, 4, 0))
    assert image.GetSize() == (25, 13, 9)

    def at(x, y, z):
        return image.GetPixel(image.TransformPhysicalPointToIndex(origin + spacing * (x, y, z)))

    assert at(18, 10, 4) == 0  # A's outermost voxel
    assert at(20, 10, 4) == pytest.approx(2.0)  # where B reaches farther
    assert at(14, 14, 4) == pytest.approx(4.0)  # two voxels of 2 mm along y
    assert at(14, 10, 4) == pytest.approx(-3.0)  # the middle, one voxel of 3 mm below the surface


def test_without_a_voxel_in_a_there_is_no_distance():
    empty = segmentation(np.zeros((6, 7, 8)), NAMES)
    found = compare(empty, segmentation(two_blocks(), NAMES))
    with pytest.raises(GeometryError, match="A has no voxel of 'liver'"):
        found.distance_to_a(found.rows[0])
