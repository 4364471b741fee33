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


def test_one_modality_of_a_run_becomes_a_package_with_what_was_measured(run, tmp_path):
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


def test_of_a_model_that_finds_nothing_no_confidence_is_told():
    found = [examine.Finding("a", "Tumour", 0.0, float("inf"), 9.0, -1.0, None)]
    bins = examine.binned(examine.np.array([0.9]), examine.np.array([True]))
    text = examine.report(found, bins, bins, {})
    assert text.endswith("**Confidence**: no structure was found in any case.\n")
