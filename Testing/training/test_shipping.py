"""From a run to the package that is bundled, by the commands that the studies give."""

from __future__ import annotations

import json
from pathlib import Path

import examine
import measure_cost
import pytest
import ship

from DistillSegLib.cli import main
from DistillSegLib.package import read_package
from Testing.datasets import write_decathlon
from Testing.training.phantom_run import CARD

RECIPE = """
name = "small"
precision = "32-true"
accelerator = "cpu"
workers = 0
plan.window = [16, 16, 16]
plan.batch = 4
split.folds = 4
[[stages]]
name = "student"
epochs = 1
trained.student = { domains = ["ct", "mr"], network = "fast_unet", settings = { width = [8, 8] } }
links.label = { term = "domain_label" }
"""
MEASURED = """
scores = "small-ct.json"
analysis = "small-ct.md"
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """One network for two data sets, really trained for an epoch."""
    folder = tmp_path_factory.mktemp("shipping")
    (folder / "small.toml").write_text(RECIPE)
    data = [f"{name}={write_decathlon(folder / name)}" for name in ("ct", "mr")]
    words = ["train", str(folder / "small.toml"), "--data", *data, "--out", str(folder / "run")]
    assert main(words) == 0
    (folder / "small-ct.toml").write_text(CARD.replace("phantom-fast", "small-ct") + MEASURED)
    return folder


def test_one_modality_of_a_run_becomes_a_package_with_what_was_measured(
    run, tmp_path, in_this_process
):
    card, data = run / "small-ct.toml", f"ct={run / 'ct'}"
    out = tmp_path / "models"
    out.mkdir()
    path = ship.ship(run / "run", "student", card, data, ["first=_00"], out)
    assert [path] == list(out.iterdir()) and path.name == "small-ct-1.0.0.distillseg"
    package = read_package(path)
    scores = json.loads(card.with_suffix(".json").read_text(encoding="utf-8"))
    assert scores["model"] == path.name and len(scores["cases"]) == 2 * 2  # cases x structures
    held_out = package.manifest.provenance["held_out_cases"]
    assert {row["case"] for row in scores["cases"]} == set(held_out)
    assert package.manifest.test.cases == 2
    text = card.with_suffix(".md").read_text(encoding="utf-8")
    assert "**Confidence**" in text and "| first |" in text and text.strip() in package.card

    costs = measure_cost.measure([str(path), str(path)], next((run / "ct").rglob("*.nii.gz")), 1)
    assert costs["packages"][str(path)]["parameters"] > 0 and costs["network_ratio"] == 1.0


@pytest.mark.parametrize("failing", ["evaluate", "report", "second export", "move"])
def test_what_was_shipped_before_stays_when_a_step_fails(run, tmp_path, monkeypatch, failing):
    """Package, scores and analysis belong together: all are of one network, old or new."""
    card, out = tmp_path / "small-ct.toml", tmp_path / "models"
    card.write_text((run / "small-ct.toml").read_text())
    out.mkdir()
    package = out / "small-ct-1.0.0.distillseg"
    before = [package, card.with_suffix(".json"), card.with_suffix(".md")]
    for file in before:
        file.write_text("before")
    done = []

    def step(name):
        done.append(name)
        if failing == name or (failing == "second export" and done.count("export") == 2):
            raise RuntimeError(failing)

    def command(name, *words):
        step(name)
        made = words[words.index("--json" if name == "evaluate" else "--out") + 1]
        made.write_text(json.dumps({"model": r"C:\Temp\small.distillseg", "é": 0.1}), "utf-8")

    def report(plain, data, groups, path):
        step("report")
        path.write_text("after")

    def copy(file, place):
        place.write_bytes(file.read_bytes())
        if file.suffix == ".distillseg":
            step("move")

    monkeypatch.setattr(ship, "command", command)
    monkeypatch.setattr(ship, "write_report", report)
    monkeypatch.setattr(ship.shutil, "copyfile", copy)
    with pytest.raises(RuntimeError, match=failing):
        ship.ship(run / "run", "student", card, f"ct={run / 'ct'}", [], out)
    assert [file.read_text() for file in before] == ["before"] * 3
    assert len(list(tmp_path.rglob("*"))) == 5  # with the card and the folder

    monkeypatch.setattr(ship.shutil, "copyfile", lambda a, b: b.write_bytes(a.read_bytes()))
    failing = ""
    ship.ship(run / "run", "student", card, f"ct={run / 'ct'}", [], out)
    scores = before[1].read_text(encoding="utf-8")
    assert json.loads(scores) == {"model": package.name, "é": 0.1} and "é" in scores
    assert before[2].read_text() == "after" and package.read_text() != "before"


def test_of_a_model_that_finds_nothing_no_confidence_is_told():
    found = [examine.Finding("a", "Tumour", 0.0, float("inf"), 9.0, -1.0, None)]
    bins = examine.binned(examine.np.array([0.9]), examine.np.array([True]))
    text = examine.report(found, bins, bins, {})
    assert text.endswith("**Confidence**: no structure was found in any case.\n")
