"""`distillseg evaluate`: scores of a package on a data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from Testing.commands import refused, run
from Testing.models import expected_labels, phantom, write_tiny_package


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
