"""A study small enough for a test: its recipe and arms, and results as if it had run."""

from __future__ import annotations

import pytest
import study_design as studies

from DistillSegLib.cli import main
from DistillSegLib.records import from_dict

DONE = sorted(path.name for path in studies.RESULTS.iterdir() if path.is_dir())
SMALL = """
name = "small"
precision = "32-true"
accelerator = "cpu"
workers = 0
plan.window = [8, 8, 8]
plan.batch = 2
split.folds = 4
[[stages]]
name = "student"
epochs = 1
trained.student = { network = "unet", settings = { width = [4, 8] } }
links.label = { term = "label" }
"""
ARMS = [
    {"name": "none", "title": "alone", "set": ["split.labelled=0.5"]},
    {
        "name": "maps",
        "title": "with a teacher",
        "set": [
            "stages.student.frozen.teacher={teacher}",
            "stages.student.links.maps={term='prediction_maps'}",
        ],
    },
]


@pytest.fixture
def small(tmp_path) -> studies.Study:
    """Two arms, one fold, two seeds; the teacher is a network like the student."""
    (tmp_path / "small.toml").write_text(SMALL)
    recipe = str(tmp_path / "small.toml")
    guide = {"recipe": recipe, "stage": "student", "role": "student", "set": ["seed=9"]}
    form = {"title": "A small study", "recipe": recipe, "stage": "student", "baseline": "none"}
    form |= {"name": "small", "arms": ARMS, "seeds": [0, 1], "guides": {"teacher": guide}}
    return from_dict(studies.Study, form | {"size": "Far too small."})


@pytest.fixture
def in_this_process(monkeypatch) -> None:
    """Commands of a study or of `ship` run in this process; starting one for each takes seconds."""
    import ship
    import study
    import study_guides

    def command(*words: object) -> None:
        assert main([str(word) for word in words]) == 0

    for module in (ship, study, study_guides):
        monkeypatch.setattr(module, "command", command)


def study_of(small: studies.Study, *arms: studies.Arm) -> studies.Study:
    """The same with other arms, the first being the baseline, and no guides."""
    form = {"arms": [vars(arm) for arm in arms], "baseline": arms[0].name, "guides": {}}
    return from_dict(studies.Study, plain(small) | form)


def plain(study: studies.Study) -> dict:
    """A study as its file would say it."""
    form = dict(vars(study))
    form["arms"] = [vars(arm) for arm in study.arms]
    form["guides"] = {name: vars(guide) for name, guide in study.guides.items()}
    return form


def result(arm: str, seed: int, *dice: float) -> dict:
    """A run that scored cases a, b, … so on one structure; a Dice of zero has no distance."""
    cases = {
        chr(97 + n): {"Ball": [value, None if value == 0 else 2.0, value]}
        for n, value in enumerate(dice)
    }
    form = {"arm": arm, "fold": 0, "seed": seed, "parameters": 1234, "labelled_cases": 6}
    return form | {
        "cpu_minutes": 1.5,
        "machine": "a laptop",
        "metrics": ["dice", "hd95_mm", "nsd"],
        "cases": cases,
    }
