"""The journey of a researcher: train, evaluate, export and evaluate again, on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from DistillSegLib.cli import main
from DistillSegLib.commands.train import duration
from DistillSegLib.export import packaging
from DistillSegLib.export.card import read_card
from Testing.datasets import write_decathlon
from Testing.training import phantom_run

ROOT = Path(__file__).resolve().parents[2]
CARD = phantom_run.CARD + 'scores = "student.json"\n'
SMALL = [
    *("workers=0", "split.folds=4", "validate_every=20"),
    *("optim.learning_rate=3e-2", "augmentation.affine=0", "stages.student.links.maps.weight=0"),
    *("stages.teacher.epochs=1", "stages.teacher.trained.teacher.settings={width=[4, 8]}"),
    *("stages.student.epochs=40", "stages.student.trained.student.settings={width=[8, 8]}"),
]


def test_a_student_scores_the_same_in_its_run_and_in_its_package(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(packaging, "measure_memory", lambda path, channels, multiple: 100.0)
    monkeypatch.setenv("DISTILLSEG_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    write_decathlon(tmp_path / "data")
    train = ["train", "distil", "--data", "data", "--out", "run", "--set", *SMALL]
    assert main(train) == 0
    said = capsys.readouterr().out
    assert said.startswith("Phantoms: 6 cases to train on, 2 held out; Ball (3), Tail (7)\n")
    for words in (
        "spacing_mm   1 x 1 x 1 (z, y, x)",
        "percentiles 0.5 to 99.5",
        "student epoch 6/40: loss label ",
        " s left\n",
        "; held-out Dice student Ball 0.",
        "Stage 'student': trained in ",
    ):
        assert words in said
    assert main([*train, "--resume"]) == 0
    assert "Stage 'student': trained before." in capsys.readouterr().out

    evaluate = ["--data", "data", "--json"]
    assert main(["evaluate", "run", "--stage", "student", *evaluate, "student.json"]) == 0
    (tmp_path / "card.toml").write_text(CARD)
    export = ["export", "run", "--stage", "student", "--card", "card.toml", "--out"]
    assert main([*export, "fast.distillseg"]) == 0
    assert main(["packages", "install", "fast.distillseg"]) == 0
    assert main(["evaluate", "phantom-fast", *evaluate, "package.json"]) == 0
    in_run, in_package = (
        json.loads((tmp_path / file).read_text()) for file in ("student.json", "package.json")
    )
    assert in_run["cases_chosen"] == in_package["cases_chosen"] == "held out from training"
    assert in_run["summary"][0]["mean"] > 0.5  # Dice of the ball
    for ours, theirs in zip(in_run["summary"], in_package["summary"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)

    write_decathlon(tmp_path / "other", channels=("T1", "T2"))
    capsys.readouterr()
    assert main(["evaluate", "run", "--data", "other"]) == 1
    assert "takes 1 images of a case (MRI), 'Phantoms' has 2 (T1, T2)" in capsys.readouterr().err


def test_who_evaluates_does_not_wait_for_what_only_training_needs(finished, data, tmp_path):
    """MONAI and Lightning Fabric take longer to import than all else together."""
    program = (
        "import sys\n"
        "from DistillSegLib.cli import main\n"
        "assert main(sys.argv[1:]) == 0 and 'torch' in sys.modules\n"
        "assert not {'monai', 'lightning_fabric'} & set(sys.modules)\n"
    )
    words = ["evaluate", finished[0], "--data", data, "--json", tmp_path / "scores.json"]
    subprocess.run([sys.executable, "-c", program, *words], cwd=ROOT, check=True)
    assert json.loads((tmp_path / "scores.json").read_text())["cases"]


def test_the_card_of_the_readme_is_one(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (tmp_path / "card.toml").write_text(text.split("```toml\n")[1].split("```")[0])
    assert read_card(tmp_path / "card.toml").id


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (99, "99 s"), (120, "2 min"), (9000, "2.5 h")],
)
def test_times_are_said_as_people_say_them(seconds, words):
    assert duration(seconds) == words
