"""Many inputs: what is found, that each comes out as alone, and that a batch can be stopped."""

from __future__ import annotations

import csv
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib.batch import TABLE, Row, run_batch
from DistillSegLib.errors import Cancelled, ImageError
from DistillSegLib.inference import Segmenter
from DistillSegLib.inputs import Input, find_inputs
from DistillSegLib.regions import Region
from DistillSegLib.segmentations import read_segmentation
from Testing.models import expected_labels, phantom, write_tiny_package


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory) -> Segmenter:
    package = write_tiny_package(tmp_path_factory.mktemp("package") / "threshold.distillseg")
    return Segmenter(package, threads=1, engine="onnxruntime")


@pytest.fixture
def cases(tmp_path) -> Path:
    """Three images of different sizes, one of them further down, one empty, and a text."""
    folder = tmp_path / "症例 @ [cases]"
    for size, name in (
        ((20, 18, 16), "b.nii.gz"),
        ((21, 18, 16), "a.nrrd"),
        ((20, 17, 16), "s/c.mha"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(phantom(size), str(folder / name))
    (folder / "broken.nii.gz").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    return folder


def read_rows(out: Path) -> list[dict[str, str]]:
    with open(out / TABLE, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def write_slice(path: Path, position: float) -> None:
    """One DICOM file of a series of 4 x 5 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.full((1, 4, 5), position, np.int16))
    for key, value in {
        "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
        "0008|0018": f"1.2.3.{position:.0f}",
        "0008|0060": "MR",
        "0020|000d": "1.2.3",
        "0020|000e": "1.2.3.4",
        "0020|0032": f"0\\0\\{position}",
        "0020|0037": "1\\0\\0\\0\\1\\0",
    }.items():
        image.SetMetaData(key, value)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(path))
    writer.Execute(image)


def test_a_folder_is_searched_to_its_bottom_and_what_is_no_image_has_a_reason(cases):
    inputs, skipped = find_inputs([cases])
    assert [one.id for one in inputs] == ["a", "b", "broken", "s/c"]
    assert [one.id for one in skipped] == ["notes.txt"]
    assert "neither DICOM nor" in skipped[0].reason


def test_a_folder_of_slices_is_one_series(tmp_path):
    for position in (0, 2, 4):
        write_slice(tmp_path / "study" / "patient" / f"IM{position}.dcm", position)
    inputs, skipped = find_inputs([tmp_path / "study"], series="1.2.3.4")
    assert inputs == [Input("patient", (tmp_path / "study" / "patient",), "1.2.3.4")]
    assert skipped == []


def test_results_and_segmentations_are_not_taken_for_inputs(cases):
    (cases / "out").mkdir()
    shutil.copy(cases / "b.nii.gz", cases / "out" / "b.nii.gz")
    shutil.copy(cases / "a.nrrd", cases / "a.seg.nrrd")
    inputs, skipped = find_inputs([cases], ignored=cases / "out")
    assert [one.id for one in inputs] == ["a", "b", "broken", "s/c"]
    assert ("a.seg.nrrd", "It is a segmentation, not an image.") in [
        (one.id, one.reason) for one in skipped
    ]


def test_channels_are_gathered_by_their_numbers(tmp_path):
    for name in ("p1_0000", "p1_0001", "p2_0000", "p3"):
        sitk.WriteImage(phantom(), str(tmp_path / f"{name}.nii.gz"))
    inputs, skipped = find_inputs([tmp_path], channels=2)
    assert [one.id for one in inputs] == ["p1"]
    assert [file.name for file in inputs[0].images] == ["p1_0000.nii.gz", "p1_0001.nii.gz"]
    assert {one.id for one in skipped} == {"p2", "p3"}


def test_inputs_of_one_name_are_told_apart_or_refused(cases):
    shutil.copy(cases / "b.nii.gz", cases / "a.nii.gz")
    assert {one.id for one in find_inputs([cases])[0]} >= {"a.nii.gz", "a.nrrd", "b"}
    with pytest.raises(ImageError, match="overwrite each other"):
        find_inputs([cases / "b.nii.gz", cases / "b.nii.gz"])
    with pytest.raises(ImageError, match="no file or folder"):
        find_inputs([cases / "absent"])


def test_every_case_comes_out_as_alone_and_a_broken_one_stops_nothing(segmenter, cases, tmp_path):
    inputs, skipped = find_inputs([cases])
    shares = []
    result = run_batch(
        segmenter, inputs, tmp_path / "out", skipped=skipped, on_progress=shares.append
    )
    status = {row.case: row.status for row in result.rows}
    assert status == {
        "a": "done",
        "b": "done",
        "broken": "failed",
        "s/c": "done",
        "notes.txt": "skipped",
    }
    assert shares == sorted(shares) and shares[-1] == 1
    assert result.busy == result.cpu_seconds / (result.seconds * result.cores) > 0
    for name, file in (("a", "a.nrrd"), ("b", "b.nii.gz"), ("s/c", "s/c.mha")):
        image = sitk.ReadImage(str(cases / file))
        found = read_segmentation(tmp_path / "out" / f"{name}.seg.nrrd").image
        np.testing.assert_array_equal(sitk.GetArrayFromImage(found), expected_labels(image))
        alone = segmenter.segment(cases / file).image
        np.testing.assert_array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(alone))
    rows = read_rows(tmp_path / "out")
    assert [row["case"] for row in rows] == list(status)
    bright = np.count_nonzero(expected_labels(phantom()) == 7) / 1000
    assert float(rows[1]["Bright (ml)"]) == pytest.approx(bright)
    assert "empty" in rows[2]["reason"] and not rows[2]["output"]


def test_a_second_run_repeats_only_what_is_not_done(segmenter, cases, tmp_path):
    inputs, _ = find_inputs([cases])
    out = tmp_path / "out"
    run_batch(segmenter, inputs, out)
    (out / "b.seg.nrrd").unlink()  # lost
    sitk.WriteImage(phantom((20, 18, 15)), str(cases / "s" / "c.mha"))  # changed
    untouched = (out / "a.seg.nrrd").stat().st_mtime_ns
    told: list[Row] = []
    result = run_batch(segmenter, inputs, out, on_row=told.append)
    assert result.resumed == {"a"}
    assert sorted(row.case for row in told) == ["b", "broken", "s/c"]
    assert (out / "a.seg.nrrd").stat().st_mtime_ns == untouched
    assert read_segmentation(out / "s" / "c.seg.nrrd").image.GetSize() == (20, 18, 15)
    assert len(read_rows(out)) == 4


@pytest.mark.parametrize(
    "settings",
    [
        {"ending": ".nii.gz"},
        {"region": Region.from_numbers(-1, -20, 38, 8, 8, 8)},
        {"resume": False},
    ],
    ids=["another format", "another region", "not asked for"],
)
def test_nothing_is_taken_over_from_a_run_with_other_settings(segmenter, cases, tmp_path, settings):
    inputs, _ = find_inputs([cases / "b.nii.gz"])
    run_batch(segmenter, inputs, tmp_path / "out")
    assert run_batch(segmenter, inputs, tmp_path / "out").resumed == {"b"}
    assert run_batch(segmenter, inputs, tmp_path / "out", **settings).resumed == set()


def test_another_package_repeats_everything(segmenter, cases, tmp_path):
    inputs, _ = find_inputs([cases / "b.nii.gz"])
    run_batch(segmenter, inputs, tmp_path / "out")
    other = write_tiny_package(tmp_path / "other.distillseg", description="Another.")
    result = run_batch(Segmenter(other, threads=1), inputs, tmp_path / "out")
    assert result.resumed == set() and result.rows[0].status == "done"


def test_a_batch_that_is_stopped_keeps_what_is_done_and_goes_on(segmenter, cases, tmp_path):
    inputs, _ = find_inputs([cases])
    out, done = tmp_path / "out", threading.Event()
    with pytest.raises(Cancelled):
        run_batch(segmenter, inputs, out, on_row=lambda row: done.set(), cancelled=done.is_set)
    before = {row["case"] for row in read_rows(out) if row["status"] == "done"}
    assert "a" in before and len(before) < 3
    assert not [name for name in os.listdir(out) if name.startswith(".partial")]
    result = run_batch(segmenter, inputs, out)
    assert result.resumed == before
    assert {row.case for row in result.rows if row.status == "done"} == {"a", "b", "s/c"}


def test_inputs_and_foreign_tables_are_never_overwritten(segmenter, cases, tmp_path):
    inputs, _ = find_inputs([cases / "b.nii.gz"])
    with pytest.raises(ImageError, match="would overwrite an input"):
        run_batch(segmenter, inputs, cases, ending=".nii.gz")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / TABLE).write_text("patient,age\nx,70\n")
    with pytest.raises(ImageError, match="not a table of an earlier run"):
        run_batch(segmenter, inputs, tmp_path / "out")
    assert (tmp_path / "out" / TABLE).read_text() == "patient,age\nx,70\n"


def test_a_label_map_among_the_images_fails_by_name(segmenter, tmp_path):
    label = sitk.GetImageFromArray(expected_labels(phantom()))
    sitk.WriteImage(label, str(tmp_path / "label.nii.gz"))
    inputs, _ = find_inputs([tmp_path / "label.nii.gz"])
    row = run_batch(segmenter, inputs, tmp_path / "out").rows[0]
    assert row.status == "failed"
    assert "label.nii.gz' looks like a label map" in row.reason


def test_enough_ends_after_the_present_case_and_a_later_run_goes_on(segmenter, cases, tmp_path):
    inputs, _ = find_inputs([cases])
    out, told = tmp_path / "out", []
    begun = []

    def follow(case: str, status: str) -> None:
        begun.append((case, status))

    result = run_batch(
        segmenter, inputs, out, on_status=follow, on_row=told.append, enough=lambda: len(begun) > 1
    )
    assert begun == [("a", "running"), ("b", "running")]
    assert [row.case for row in told] == [row.case for row in result.rows] == ["a", "b"]
    assert result.left == ("broken", "s/c")
    begun.clear()
    result = run_batch(segmenter, inputs, out, on_status=follow)
    assert begun == [
        ("a", "resumed"),
        ("b", "resumed"),
        ("broken", "running"),
        ("s/c", "running"),
    ]
    assert result.left == () and len(result.rows) == 4
