"""The command line: results, JSON for machines, and one sentence for every error."""

from __future__ import annotations

import _thread
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib import inference
from DistillSegLib.cli import main
from DistillSegLib.commands import demo
from DistillSegLib.commands.train import read_domains, without_folders
from DistillSegLib.errors import Cancelled, DatasetError
from DistillSegLib.inference import Segmenter
from DistillSegLib.scope import measure, scope_of
from DistillSegLib.segmentations import read_segmentation
from Testing.models import LABELS, expected_labels, phantom, write_tiny_package

COMMANDS = ("demo", "segment", "compare", "packages", "train", "evaluate", "export", "benchmark")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Where the user is: a package and an image, under a name that markup dislikes."""
    folder = tmp_path / "患者 @ [red]x"
    folder.mkdir()
    write_tiny_package(folder / "threshold.distillseg")
    sitk.WriteImage(phantom(), str(folder / "scan.nii.gz"))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DISTILLSEG_HOME", str(tmp_path / "home"))
    return folder


@pytest.fixture
def labelled(folder) -> Path:
    """A data set of two phantoms with the model's own labels, the second one lacking a voxel."""
    data = folder / "data"
    for name in ("imagesTr", "labelsTr"):
        (data / name).mkdir(parents=True)
    for name, size in (("one", (20, 18, 16)), ("two", (20, 18, 15))):
        image = phantom(size)
        label = sitk.GetImageFromArray(expected_labels(image))
        label.CopyInformation(image)
        if name == "two":
            label[6, 9, 6] = 0
        sitk.WriteImage(image, str(data / "imagesTr" / f"{name}.nii.gz"))
        sitk.WriteImage(label, str(data / "labelsTr" / f"{name}.nii.gz"))
    described = {
        "name": "Phantoms",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", **{str(label.value): label.name for label in LABELS}},
        "training": [
            {"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz"}
            for name in ("one", "two")
        ],
    }
    (data / "dataset.json").write_text(json.dumps(described))
    return data


def refused(capsys, *arguments: str, code: int = 1) -> str:
    """The one sentence with which a command ends; nothing else was printed."""
    assert run(*arguments) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.endswith("\n") and printed.err.count("\n") == 1
    return printed.err


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


def run(*arguments: str) -> int:
    try:
        return main(arguments)
    except SystemExit as ended:  # argparse ends by itself
        return ended.code


def values(path: str) -> np.ndarray:
    return sitk.GetArrayFromImage(read_segmentation(path).image)


SEGMENT = ("segment", "scan.nii.gz", "--package", "threshold.distillseg")


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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["segment", "no.nii", *SEGMENT[2:], "--out", "a.nii.gz"], "no file or folder 'no.nii'"),
        ([*SEGMENT[:3], "nobody", "--out", "a.nii.gz"], "nobody"),
        ([*SEGMENT, "--out", "scan.nii.gz"], "would overwrite the input"),
        ([*SEGMENT, "--out", "a.nii.gz", "--roi", "1", "2"], "--roi takes six numbers"),
        ([*SEGMENT, "--out", "a.nii.gz", "--roi", "no.mrk.json"], "no.mrk.json"),
        ([*SEGMENT, "--out", "a.nii.gz", "--roi", *"999999"], "outside the image"),
        ([*SEGMENT, "--out", "a.nii.gz", "--variant", "int8"], "no variant 'int8'"),
        (["segment", "scan.nii.gz", *SEGMENT[1:], "--out", "a.nii.gz"], "give a folder"),
        ([*SEGMENT[:1], *SEGMENT[2:], "--out", "a.nii.gz"], "There is no INPUT"),
        (["compare", "scan.nii.gz", "no.nii.gz"], "'"),
        ([*SEGMENT, "--out", ""], "arguments is empty"),
        (["packages", "show", "nobody"], "'nobody'; none is installed."),
        (["packages", "install", "scan.nii.gz"], "scan.nii.gz"),
        (["packages", "install", "https://example.org/a.distillseg"], "download the file first"),
        (["packages", "show"], "needs a package"),
        (["evaluate", "threshold.distillseg", "--data", "."], "holds no dataset.json"),
        (["train", "x", "--data", "a", "b", "--out", "run"], "need a domain each"),
    ],
)
def test_every_error_is_one_sentence_and_leaves_nothing(
    folder, capsys, monkeypatch, arguments, sentence
):
    monkeypatch.setattr("DistillSegLib.package.resources", lambda: folder)  # nothing is bundled
    before = sorted(os.listdir("."))
    assert sentence in refused(capsys, *arguments)
    assert sorted(os.listdir(".")) == before


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="there names are always text")
def test_names_that_are_no_text_and_links_in_a_circle_are_one_sentence(folder, capsys):
    strange = Path("cases/M\udcfcller.nii")  # written by a Latin-1 system
    strange.parent.mkdir()
    strange.write_bytes(Path("scan.nii.gz").read_bytes())
    Path("loop").symlink_to("loop")
    assert "rename it" in refused(capsys, "segment", str(strange), *SEGMENT[2:], "--out", "a.nii")
    assert "rename it" in refused(capsys, *SEGMENT, "--out", str(strange))
    assert "no folder" in refused(capsys, *SEGMENT, "--out", "loop/a.nii")
    sitk.WriteImage(phantom(), "cases/b.nii.gz")
    assert run("segment", "cases", *SEGMENT[2:], "--out", "results", "--json", "r.json") == 0
    rows = {row["status"]: row for row in json.loads(Path("r.json").read_text())["cases"]}
    assert rows["done"]["case"] == "b" and "rename it" in rows["skipped"]["reason"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["segmnet"], "invalid choice: 'segmnet'"),
        (["segment", "scan.nii.gz", "--out", "a"], "required: --package"),
        ([*SEGMENT, "--out", "a", "--threads", "many"], "invalid int value"),
        ([*SEGMENT, "--out", "a", "--memory", "0"], "not a number of gigabytes"),
        ([*SEGMENT, "--out", "a", "--memory", "lots"], "not a number of gigabytes"),
    ],
)
def test_a_command_written_wrongly_is_one_sentence_too(capsys, arguments, sentence):
    assert sentence in refused(capsys, *arguments, code=2)


def test_an_unforeseen_error_shows_its_place_only_when_asked(folder, capsys, monkeypatch):
    def fail(*arguments, **settings):
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr(Segmenter, "segment", fail)
    sentence = refused(capsys, *SEGMENT, "--out", "a.nii.gz")
    assert "unforeseen" in sentence and "by zero" in sentence
    assert run(*SEGMENT, "--out", "a.nii.gz", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err
    assert not Path("a.nii.gz").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="uses a Unix shell")
@pytest.mark.parametrize("end", ["| true", ">&-", ">&- 2>&-", "<&- 2>&-"])
def test_a_reader_that_leaves_or_never_was_is_no_error(folder, end):
    command = f"{sys.executable} -m DistillSegLib.cli packages show ./threshold.distillseg {end}"
    command = f"set -o pipefail; {command}"
    root = Path(demo.__file__).parents[2]
    ended = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_full_disk_is_one_sentence_and_leaves_nothing(folder, capsys, monkeypatch):
    def full(*arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    assert "No space left" in refused(capsys, *SEGMENT, "--out", "a.nii.gz")
    assert sorted(os.listdir(".")) == ["scan.nii.gz", "threshold.distillseg"]


@pytest.fixture
def hearing_ctrl_c():
    """A shell that runs the tests in the background has them ignore it, and would wait for ever."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_stops_the_network_and_leaves_nothing(folder, capsys, monkeypatch, hearing_ctrl_c):
    def segment_for_ever(self, images, *, cancelled, **settings):
        _thread.interrupt_main()  # what Ctrl-C does
        while not cancelled():
            time.sleep(0.01)
        raise Cancelled("Stopped.")

    monkeypatch.setattr(Segmenter, "segment", segment_for_ever)
    assert "Stopped" in refused(capsys, *SEGMENT, "--out", "a.nii.gz", code=130)
    assert not Path("a.nii.gz").exists()


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


def test_evaluate_scores_a_package_on_all_cases_or_those_held_out(labelled, capsys):
    evaluate = ("evaluate", "threshold.distillseg", "--data", "data", "--json", "-")
    assert run(*evaluate, "--csv", "scores.csv") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["cases_chosen"] == "all cases" and len(result["cases"]) == 4
    dice = {(row["case"], row["structure"]): row["dice"] for row in result["cases"]}
    bright = np.count_nonzero(expected_labels(phantom()) == 7)
    assert dice["one", "Bright"] == 1
    assert dice["two", "Bright"] == pytest.approx(2 * (bright - 1) / (2 * bright - 1))
    assert Path("scores.csv").read_text().count("\n") == 5
    provenance = {"dataset": "Phantoms", "held_out_cases": ["two"]}
    write_tiny_package(Path("threshold.distillseg"), provenance=provenance)
    assert run(*evaluate) == 0
    result = json.loads(capsys.readouterr().out)
    assert {row["case"] for row in result["cases"]} == {"two"}
    assert result["cases_chosen"] == "held out from training"
    Path("list.txt").write_text("one\n")
    assert run(*evaluate, "--cases", "list.txt") == 0
    assert {row["case"] for row in json.loads(capsys.readouterr().out)["cases"]} == {"one"}
    assert run(*evaluate, "--split", "2", "0", "0") == 0
    assert len(json.loads(capsys.readouterr().out)["cases"]) == 2
    Path("list.txt").write_text("three\n")
    assert "'three'" in refused(capsys, *evaluate, "--cases", "list.txt")


def test_evaluate_lists_a_case_that_fails_and_scores_the_others(labelled, capsys):
    (labelled / "imagesTr" / "two.nii.gz").write_bytes(b"")
    assert run("evaluate", "threshold.distillseg", "--data", "data") == 1
    printed = capsys.readouterr()
    assert "Failed: two:" in printed.out and "Bright" in printed.out
    assert "1 of 2 cases could not be scored" in printed.err and printed.err.count("\n") == 1


def test_evaluate_refuses_other_values_and_warns_of_other_names(labelled, capsys):
    described = json.loads((labelled / "dataset.json").read_text())
    evaluate = ("evaluate", "threshold.distillseg", "--data", "data")
    described["labels"] = {"1": "Liver"}
    (labelled / "dataset.json").write_text(json.dumps(described))
    sentence = refused(capsys, *evaluate)
    assert "1 (Liver)" in sentence and "same label values" in sentence
    described["labels"] = {"3": "the middle", "7": "Liver"}  # the same values by chance
    (labelled / "dataset.json").write_text(json.dumps(described))
    assert run(*evaluate) == 0
    warnings = capsys.readouterr().err
    assert "'Bright' in the model and 'Liver'" in warnings and "the middle" not in warnings


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
