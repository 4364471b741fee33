"""The benchmark without torch: its volume, its processes, its numbers, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import hardware_table
import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib.benchmark import peers, study
from DistillSegLib.benchmark.hardware import hardware, hardware_line
from DistillSegLib.benchmark.measure import JobFailed, Stopwatch, run_job
from DistillSegLib.benchmark.report import markdown, tables
from DistillSegLib.benchmark.scaling import SIZES, _too_large, expected_bytes
from DistillSegLib.benchmark.subject import CLASSES, FULL, PARTS, phantom
from DistillSegLib.benchmark.summary import growth, medians, ratios, slope
from DistillSegLib.cli import main
from DistillSegLib.package import load_package
from Testing import models


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    models.write_tiny_package(tmp_path / "threshold.distillseg")
    sitk.WriteImage(models.phantom(), str(tmp_path / "scan.nii.gz"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILLSEG_HOME", str(tmp_path / "home"))
    return tmp_path


def lean_job(folder: Path) -> dict:
    return {
        "package": str(folder / "threshold.distillseg"),
        "engine": "onnxruntime",
        "image": str(folder / "scan.nii.gz"),
        "out": str(folder / "out.nii.gz"),
    }


def run(wall: float, cpu: float, mb: float, **stages: float) -> dict:
    return {"wall_s": wall, "cpu_s": cpu, "peak_mb": mb, "stages": stages}


def row(work: str, model: str, runs: list[dict], *, teacher: bool = False) -> dict:
    return {
        "pipeline": work,
        "work": work,
        "model": model,
        "engine": "onnxruntime" if work == "lean" else "torch",
        "teacher": teacher,
        "failed": "",
        "agreement": None,
        "runs": runs,
        "median": medians(runs),
    }


def test_the_phantom_is_the_same_every_time_and_holds_every_class():
    image, classes = phantom((40, 96, 112))
    again, _ = phantom((40, 96, 112))
    assert image.dtype == np.int16 and np.array_equal(image, again)
    assert set(np.unique(classes)) == set(range(len(CLASSES)))
    assert len(CLASSES) == 14


def test_the_phantom_s_values_are_those_of_its_parts_and_noise():
    image, classes = phantom((40, 96, 112))
    for part in PARTS:
        values = image[classes == CLASSES.index(part.name)]
        assert abs(values.mean() - part.hounsfield) < 5
        assert 8 < values.std() < 12


def test_a_flip_of_the_phantom_is_seen():
    _, classes = phantom((40, 96, 112))
    assert all((np.flip(classes, axis) != classes).mean() > 0.01 for axis in range(3))


def test_the_whole_volume_is_shown_on_the_grid_that_others_measured():
    extent = np.multiply(FULL.shape, FULL.spacing_mm)
    assert np.allclose(np.multiply(FULL.grid, FULL.network_spacing_mm), extent)
    assert FULL.grid == (128, 168, 208)


def test_a_stopwatch_adds_a_stage_that_comes_twice():
    stopwatch = Stopwatch()
    for _ in range(2):
        with stopwatch("work"):
            sum(range(100_000))
    assert list(stopwatch.wall) == ["work"]
    assert 0 < stopwatch.cpu["work"] <= stopwatch.wall["work"] * 1.5


def test_a_child_measures_each_stage_and_writes_the_labels(folder):
    found = run_job("lean", lean_job(folder), threads=1)
    assert {"import", "load", "read", "preprocess", "network", "labels", "write"} <= set(
        found["stages"]
    )
    assert sum(found["stages"].values()) < found["wall_s"]
    assert found["cpu_s"] > 0
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "out.nii.gz")))
    assert np.array_equal(labels, models.expected_labels(models.phantom()))


def test_the_peak_of_a_child_is_not_that_of_its_parent(folder):
    ballast = np.ones(80_000_000)  # 640 MB
    assert 20 < run_job("lean", lean_job(folder), threads=1)["peak_mb"] < 500
    assert ballast[-1] == 1


def test_a_warm_child_tells_every_run(folder):
    job = lean_job(folder) | {"repeats": 2}
    del job["out"]
    runs = run_job("warm", job, threads=1)["found"]["runs"]
    assert len(runs) == 2 and all(each["wall_s"] > 0 for each in runs)


def test_agreement_is_the_share_of_equal_voxels(folder):
    first, second = np.zeros((2, 3, 4), np.uint8), np.zeros((2, 3, 4), np.uint8)
    second[0, 0, :3] = 1
    for name, array in (("a.nii", first), ("b.nii", second)):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / name))
    both = {"first": str(folder / "a.nii"), "second": str(folder / "b.nii")}
    assert run_job("agreement", both, threads=1)["found"]["share"] == pytest.approx(21 / 24)


def test_what_goes_wrong_in_a_child_is_one_sentence(folder):
    with pytest.raises(JobFailed, match=r"missing\.nii\.gz"):
        run_job("lean", lean_job(folder) | {"image": "missing.nii.gz"}, threads=1)
    with pytest.raises(JobFailed, match="'lean' failed"):
        run_job("lean", {}, threads=1)


def test_labels_of_a_peer_that_cannot_be_compared_end_no_study(folder, monkeypatch):
    def measured(work, settings, *, threads):
        if work == "agreement":
            return run_job(work, settings, threads=threads)
        if work != "warm":
            Path(settings["out"]).write_text("no image")
        return run(1, 1, 1) | {"found": {"runs": []}}

    monkeypatch.setattr(study, "run_job", measured)
    rows = [study.Row("ours", "net", "lean", {}), study.Row("theirs", "net", "torch", {})]
    study._take_turns(rows, study.Request(repeats=1), study._Counter(3, lambda _: None), folder)
    assert not rows[0].failed and "'agreement' failed" in rows[1].failed


def test_a_peer_that_is_not_installed_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setitem(peers.NEEDS, "monai", ("numpy", "no_such_package"))
    assert peers.absent("monai") == (
        "'monai' is left out, for no_such_package is not installed; run: "
        "pip install no_such_package"
    )


def test_medians_are_of_each_number_by_itself():
    found = medians(
        [
            run(3, 2, 100, read=1.0, network=0.5),
            run(1, 4, 300, read=3.0, network=0.1),
            run(2, 9, 200, read=2.0, network=0.3),
        ]
    )
    assert (found["wall_s"], found["cpu_s"], found["peak_mb"]) == (2, 4, 200)
    assert found["stages"] == {"read": 2.0, "network": 0.3}
    assert found["computing_s"] == 0.3  # without reading


def test_ratios_divide_the_others_by_ours():
    rows = [
        row("lean", "student", [run(1, 2, 100)]),
        row("nnunet", "student", [run(10, 50, 400)]),
        row("nnunet", "default", [run(30, 100, 500)], teacher=True),
        row("monai", "student", []),  # it failed
    ]
    same, teacher = ratios(rows)
    assert (same["wall"], same["cpu"], same["memory"]) == (10, 25, 4)
    assert same["same_weights"] and not teacher["same_weights"] and teacher["teacher"]
    assert teacher["cpu"] == 50


def test_the_slope_is_that_of_a_line():
    assert slope([1, 2, 4], [5, 7, 11]) == pytest.approx(2)


def steps(*measured: tuple[int, float, float]) -> list[dict]:
    return [
        {
            "engine": "onnxruntime",
            "shape": (1, 1, voxels),
            "voxels": voxels,
            "runs": [],
            "median": medians([run(1, 1, mb, network=seconds)]),
        }
        for voxels, seconds, mb in measured
    ]


def test_growth_tells_exponents_and_bytes_per_voxel():
    found = growth(steps((10**6, 0.1, 108), (4 * 10**6, 0.2, 132)), "onnxruntime")
    assert found["time_exponent"] == pytest.approx(0.5)
    assert found["bytes_per_voxel"] == pytest.approx(8)
    assert growth(steps((10, 1, 1)), "onnxruntime") == {}


def test_sizes_grow_until_memory_ends_and_the_reason_is_told(tmp_path):
    known = steps((10**6, 1, 1000), (2 * 10**6, 1, 3000))
    assert expected_bytes(3 * 10**6, known) == pytest.approx(5e9)
    assert "of memory are needed" in _too_large((10**4, 10**3, 10**3), known, tmp_path)
    assert not _too_large((128, 8, 8), [], tmp_path)
    assert SIZES[0] == (128, 128, 128) and SIZES[-1] == (800, 512, 512)


def test_the_hardware_is_named_without_names_of_machines(monkeypatch):
    import platform

    found = hardware()
    line = hardware_line(found, 2)
    assert found["versions"]["numpy"] == np.__version__
    assert found["cores"] >= 1 and found["memory_gb"] > 0.5
    assert "2 threads for every pipeline" in line
    assert platform.node() not in line.split()


def test_the_command_measures_a_package_on_an_image(folder, capsys):
    words = "benchmark scan.nii.gz --package threshold.distillseg --engine onnxruntime --threads 1"
    assert main([*words.split(), "--repeats", "2", "--json", "a.json", "--markdown", "a.md"]) == 0
    said = capsys.readouterr().out
    assert "scan.nii.gz" in said and "peak MB" in said and "1 thread for every pipeline" in said
    result = json.loads((folder / "a.json").read_text(encoding="utf-8"))
    ((found,),) = [subject["rows"] for subject in result["subjects"]]
    assert found["model"] == "threshold" and len(found["runs"]) == 2
    assert found["median"]["wall_s"] == pytest.approx(np.mean([r["wall_s"] for r in found["runs"]]))
    assert len(found["in_memory_runs"]) == 2 * 3
    text = (folder / "a.md").read_text(encoding="utf-8")
    assert text == markdown(result)
    assert "| DistillSeg | threshold | ONNX Runtime |" in text


def test_the_readme_s_table_is_made_of_the_saved_result():
    rows = [
        row("lean", "student", [run(1, 2, 100)]) | {"in_memory_median": {"wall_s": 0.25}},
        row("nnunet", "student", [run(10, 50, 400)]),
    ]
    subject = {"name": "Phantom", "kind": "phantom", "rows": rows}
    result = {"hardware": hardware(), "threads": 2, "repeats": 5, "subjects": [subject]}
    before = f"# Title\n{hardware_table.BEGIN}\nold\n{hardware_table.END}\nafter\n"
    text = hardware_table.filled(before, [result])
    assert "old" not in text and text.startswith("# Title") and text.endswith("after\n")
    assert "| nnunet | student | PyTorch | 10 | 50 | 400 |  | 25.0× |" in text
    assert "| lean | student | ONNX Runtime | 1 | 2 | 100 | 0.25 | 1.0× |" in text
    with pytest.raises(SystemExit, match="lacks the marks"):
        hardware_table.filled("nothing", [result])


def test_the_command_shows_growth(folder, capsys):
    words = "benchmark scan.nii.gz --package threshold.distillseg --engine onnxruntime --threads 1"
    assert main([*words.split(), "--repeats", "1", "--quick", "--scale", "--json", "a.json"]) == 0
    assert "Growth with the volume" in capsys.readouterr().out
    result = json.loads((folder / "a.json").read_text(encoding="utf-8"))
    assert [step["shape"] for step in result["scale"]] == [[24, 48, 48], [32, 64, 64], [48, 96, 96]]
    assert "power" in tables(result)[-1].notes[1]


def test_each_model_runs_on_the_sample_of_its_organ(folder):
    scope = replace(load_package("threshold.distillseg").manifest.scope, body_part="left ventricle")
    models.write_tiny_package(folder / "heart.distillseg", scope=scope)
    packages = ("heart.distillseg", "hippocampus-fast", "threshold.distillseg")
    run_on = {
        subject["name"]: [row.model for row in rows]
        for subject, rows in study._files(study.Request(packages=packages), folder)
    }
    assert run_on == {
        "left-ventricle-mean.nii.gz": ["heart"],
        "hippocampus-mean.nii.gz": ["hippocampus-fast", "threshold"],  # one of no known organ
    }


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        ("--repeats 0", 1, "--repeats is 0; use 1 or more."),
        ("--threads -2", 1, "--threads is -2; use 0 or more."),
        ("absent.nii.gz", 1, "There is no file or folder 'absent.nii.gz'; check the path."),
        ("--package absent", 1, "There is no package 'absent'"),
        ("--against tensorflow", 2, "'tensorflow' is none of nnunet, monai, torch"),
        ("--engine ,", 2, "give some of onnxruntime, openvino"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_the_door(folder, capsys, words, code, expected):
    try:
        ended = main(["benchmark", *words.split()])
    except SystemExit as problem:
        ended = problem.code
    said = capsys.readouterr()
    assert ended == code and expected in said.err and said.err.count("\n") == 1
    assert not said.out


def test_an_image_that_cannot_be_read_fails_with_its_sentence(folder, capsys):
    (folder / "text.nii.gz").write_text("no image")
    words = "benchmark text.nii.gz --package threshold.distillseg --engine onnxruntime --repeats 2"
    assert main(words.split()) == 1
    assert "text.nii.gz" in capsys.readouterr().err
