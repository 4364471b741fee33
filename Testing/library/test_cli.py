"""The command line: results, and JSON for machines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib import inference
from DistillSegLib.commands import demo
from DistillSegLib.commands.train import read_domains, without_folders
from DistillSegLib.errors import DatasetError
from DistillSegLib.scope import measure, scope_of
from Testing.commands import SEGMENT, refused, run, values
from Testing.models import expected_labels, phantom, write_tiny_package

COMMANDS = ("demo", "segment", "compare", "packages", "train", "evaluate", "export", "benchmark")


def write_slice(path: Path, image: sitk.Image, number: int) -> None:
    """One slice of an image as a DICOM file of series 1.2.3.4."""
    path.parent.mkdir(exist_ok=True)
    picture = image[:, :, number : number + 1]
    tags = {
        "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
        "0008|0018": f"1.2.3.{number + 1}",
        "0008|0060": "MR",
        "0020|000d": "1.2.3",
        "0020|000e": "1.2.3.4",
        "0020|0032": "\\".join(f"{value:g}" for value in picture.GetOrigin()),
        "0020|0037": "1\\0\\0\\0\\1\\0",
    }
    for key, value in tags.items():
        picture.SetMetaData(key, value)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(path))
    writer.Execute(picture)


@pytest.mark.parametrize("arguments", [[], ["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_is_quick_and_has_examples(capsys, arguments):
    assert run(*arguments) == 0
    text = capsys.readouterr().out
    if len(arguments) > 1:
        assert f"examples:\n  distillseg {arguments[0]}" in text and "--json" in text
    else:
        assert all(name in text for name in COMMANDS)


def test_help_imports_no_heavy_library():
    code = (
        "import sys\n"
        "from DistillSegLib.cli import main\n"
        "try: main(['segment', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'SimpleITK', 'onnxruntime', 'openvino', 'numpy', 'rich'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("out", ["scan.seg.nrrd", "labels.nii.gz", "folder/"])
def test_a_file_is_segmented_where_out_says(folder, capsys, out):
    assert run(*SEGMENT, "--out", out) == 0
    file = "folder/scan.seg.nrrd" if out == "folder/" else out
    np.testing.assert_array_equal(values(file), expected_labels(phantom()))
    printed = capsys.readouterr()
    assert "Middle" in printed.out and file in printed.out.replace("\n", "")
    assert printed.err.count("\n") == 1  # in place of a bar: no terminal is there


def test_little_memory_changes_the_way_and_not_the_result(folder, capsys, monkeypatch):
    ways = []
    decide = inference.plan_passes
    monkeypatch.setattr(
        inference, "plan_passes", lambda *given: ways.append(decide(*given)) or ways[-1]
    )
    assert run(*SEGMENT, "--out", "a.nii.gz", "--memory", "0.0001") == 0
    assert [way.kind for way in ways] == ["windows"]
    np.testing.assert_array_equal(values("a.nii.gz"), expected_labels(phantom()))


def test_json_on_standard_output_stands_alone(folder, capsys):
    assert run(*SEGMENT, "--out", "a.nii.gz", "--json", "-") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["package"] == "threshold" and result["peak_memory_mb"] > 1
    case = result["cases"][0]
    assert case["volumes_ml"].keys() == {"Middle", "Bright"}
    assert case["volumes_ml"]["Bright"] == pytest.approx(
        np.count_nonzero(expected_labels(phantom()) == 7) / 1000
    )
    assert run(*SEGMENT, "--out", "a.nii.gz", "--json", "result.json") == 0
    assert json.loads(Path("result.json").read_text())["cases"][0]["status"] == "done"


def test_a_region_in_numbers_or_a_file_limits_the_result(folder, capsys):
    # Origin (-7, 11, 30) LPS, so voxel (x, y, z) lies at RAS (7 - x, -11 - y, 30 + z).
    numbers = ("-1.5", "-2e1", "36", "4", "3.", "3")
    assert run(*SEGMENT[:1], "--roi", *numbers, *SEGMENT[1:], "--out", "a.nii.gz") == 0
    inside = np.zeros((16, 18, 20), bool)
    inside[5:8, 8:11, 7:11] = True
    expected = np.where(inside, expected_labels(phantom()), 0)
    np.testing.assert_array_equal(values("a.nii.gz"), expected)
    assert expected.any() and (expected != expected_labels(phantom())).any()
    markup = {
        "markups": [
            {
                "type": "ROI",
                "coordinateSystem": "RAS",
                "roiType": "Box",
                "center": [float(n) for n in numbers[:3]],
                "size": [float(n) for n in numbers[3:]],
                "orientation": [1, 0, 0, 0, 1, 0, 0, 0, 1],
            }
        ]
    }
    Path("R.mrk.json").write_text(json.dumps(markup))
    assert run("segment", "--roi", "R.mrk.json", *SEGMENT[1:], "--out", "b.nii.gz") == 0
    np.testing.assert_array_equal(values("b.nii.gz"), expected)


def test_a_folder_is_a_batch_that_goes_on(folder, capsys):
    cases = folder / "cases"
    cases.mkdir()
    for name in ("p1", "p2"):
        sitk.WriteImage(phantom(), str(cases / f"{name}.nii.gz"))
    (cases / "readme.txt").write_text("x")
    batch = ("segment", "cases", "--package", "threshold.distillseg", "--out", "results")
    assert "holds the inputs" in refused(capsys, *batch[:-1], "cases")
    assert run(*batch, "--json", "-") == 0
    rows = json.loads(capsys.readouterr().out)["cases"]
    assert [(row["case"], row["status"]) for row in rows] == [
        ("p1", "done"),
        ("p2", "done"),
        ("readme.txt", "skipped"),
    ]
    (cases / "p3.nii.gz").write_bytes(b"not an image")
    assert run(*batch) == 1
    printed = capsys.readouterr()
    assert printed.out.count("done before") == 3  # two rows and the sum
    assert printed.err.count("\n") == 1 and "1 of 3 cases failed" in printed.err
    assert sorted(os.listdir("results")) == ["p1.seg.nrrd", "p2.seg.nrrd", "results.csv"]


def test_a_dicom_folder_is_one_image_and_its_series_can_be_named(folder, capsys):
    image = sitk.Cast(phantom(), sitk.sitkInt16)
    for number in range(image.GetDepth()):
        write_slice(folder / "study" / f"{number:02}.dcm", image, number)
    dicom = ("segment", "study", "--package", "threshold.distillseg", "--out", "a.seg.nrrd")
    for series in ([], ["--series", "1.2.3.4"]):
        assert run(*dicom, *series) == 0
        np.testing.assert_array_equal(values("a.seg.nrrd"), expected_labels(image))
        Path("a.seg.nrrd").unlink()
    capsys.readouterr()
    assert "1.2.3.4" in refused(capsys, *dicom, "--series", "9.9")
    (folder / "study" / "05.dcm").unlink()
    assert "missing" in refused(capsys, *dicom)
    assert not Path("a.seg.nrrd").exists()


def test_compare_prints_and_writes_the_table(folder, capsys):
    for name in ("a.seg.nrrd", "b.nii.gz"):
        assert run(*SEGMENT, "--out", name) == 0
    capsys.readouterr()
    compare = ("compare", "a.seg.nrrd", "b.nii.gz", "--tolerance-mm", "2")
    assert run(*compare, "--csv", "t.csv", "--json", "-") == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["dice"] for row in result["rows"]] == [1, 1] and result["tolerance_mm"] == 2
    assert Path("t.csv").read_text().count("\n") == 3
    for word in ("-1", "nan", "wide"):
        wrong = ("--tolerance-mm", word)
        assert "0 or more" in refused(capsys, *compare[:3], *wrong, code=2)
    sitk.WriteImage(sitk.Cast(phantom(), sitk.sitkUInt16), "mr.nii.gz")
    assert "looks like an image" in refused(capsys, *compare[:2], "mr.nii.gz")
    html = ("--html", "r.html", "--image", "no.nii")
    assert "no.nii" in refused(capsys, *compare[:3], *html)  # before the work


def test_packages_are_installed_listed_shown_and_removed(folder, capsys):
    assert run("packages", "install", "threshold.distillseg") == 0
    capsys.readouterr()
    assert run("packages", "--json", "-") == 0
    listed = json.loads(capsys.readouterr().out)
    assert ("threshold", "1.0.0") in [(each["id"], each["version"]) for each in listed]
    assert run("packages", "show", "threshold") == 0
    assert "# Thresholds" in capsys.readouterr().out
    assert run("segment", "scan.nii.gz", "--package", "threshold", "--out", "a.nii.gz") == 0
    assert run("packages", "remove", "threshold") == 0
    capsys.readouterr()
    assert "threshold" in refused(capsys, "packages", "show", "threshold")


def test_words_of_a_package_cannot_command_the_terminal(folder, capsys):
    write_tiny_package(Path("evil.distillseg"), title="red \x1b[31m\x07\x9b2J")
    assert run("packages", "install", "evil.distillseg") == 0
    assert run("packages") == 0
    printed = capsys.readouterr().out
    assert "red" in printed and "\x1b[31m" not in printed
    assert "\x07" not in printed and "\x9b" not in printed
    assert "\x1b" not in refused(capsys, "packages", "show", "nobody\x1b[31m.distillseg")


def test_demo_segments_the_sample_with_both_models(folder, capsys, monkeypatch):
    pytest.importorskip("DistillSegLib.report")
    resources = folder / "Resources"
    (resources / "Samples").mkdir(parents=True)
    sitk.WriteImage(phantom(), str(resources / demo.SAMPLE))
    models = folder.parent / "home" / "Models"
    models.mkdir(parents=True)
    trained = measure([phantom((40, 36, 32))], orientation="LPS")
    larger = scope_of([trained], description="large phantoms", body_part="phantom")
    for name in (demo.FAST, demo.REFERENCE):
        file = models / f"{name}-9.0.0.distillseg"
        write_tiny_package(file, id=name, version="9.0.0", scope=larger)
    monkeypatch.setattr("DistillSegLib.places.resources", lambda: resources)
    assert run("demo", "--out", "demo", "--json", "-") == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["dice"] for row in result["rows"]] == [1, 1]
    assert all(m["peak_memory_mb"] > 1 and m["seconds"] > 0 for m in result["models"])
    assert sorted(os.listdir("demo")) == [
        f"{demo.FAST}.nii.gz",
        f"{demo.FAST}.seg.nrrd",
        f"{demo.REFERENCE}.nii.gz",
        f"{demo.REFERENCE}.seg.nrrd",
        "report.html",
        "table.csv",
        "table.json",
    ]
    assert "spans 20 x 18 x 16 mm" in Path("demo/report.html").read_text(encoding="utf-8")
    for name in os.listdir("demo"):
        if name.endswith((".nii.gz", ".seg.nrrd")):
            np.testing.assert_array_equal(values(f"demo/{name}"), expected_labels(phantom()))


def test_the_command_is_published_without_the_users_folders():
    for word, told in (
        ("/home/jane/Task04_Hippocampus", "Task04_Hippocampus"),
        ("ct=/data/CT/dataset.json", "ct=dataset.json"),
        ("--out=../runs/one", "--out=one"),
        ("stages.student.epochs=3", "stages.student.epochs=3"),
        ("stages.s.frozen.teacher=a/b", "stages.s.frozen.teacher=a/b"),
        ("stages.s.frozen.teacher=/home/jane/t.pt", "stages.s.frozen.teacher=t.pt"),
        ("stages.s.frozen.teacher.stored=/home/jane/maps", "stages.s.frozen.teacher.stored=maps"),
        (
            'stages.s.frozen.teacher={ bundle = "/home/jane/b", taps = { "encoder/1" = "x" } }',
            'stages.s.frozen.teacher={ bundle = "b", taps = { "encoder/1" = "x" } }',
        ),
        ("--set", "--set"),
        ("/", "/"),
    ):
        assert without_folders(word) == told


def test_data_sets_are_given_by_domain(tmp_path):
    assert read_domains(["data/x.json"]) == {"": Path("data/x.json")}
    assert read_domains(["ct=a", "mr=b=c"]) == {"ct": Path("a"), "mr": Path("b=c")}
    for words in (["a", "b"], ["ct=a", "ct=b"], ["ct=a", "b"]):
        with pytest.raises(DatasetError, match="domain"):
            read_domains(words)
