"""What the rehearsal says about checkpoints from elsewhere that have seen the held-out cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from DistillSegLib.distill.distillation import Distillation
from DistillSegLib.training import checkpoints
from DistillSegLib.training.assembly import notes
from DistillSegLib.training.stages import run

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = ("stages.teacher.epochs=1", "stages.student.epochs=1")


def said(recipe, data: Path, out: Path) -> dict[str, list[str]]:
    """Stage -> the lines of its rehearsal that speak of held-out cases."""
    events = []
    run(recipe, {"": data}, out, on_event=events.append)
    texts = {event.stage: event.text for event in events if event.kind == "rehearsal"}
    return {
        stage: [line for line in text.splitlines() if "held-out" in line]
        for stage, text in texts.items()
    }


@pytest.mark.parametrize(
    ("key", "file"), [("frozen.teacher", "teacher/teacher"), ("start.student", "student/student")]
)
def test_a_checkpoint_of_another_fold_is_said_to_know_the_held_out_cases(
    tiny, data, finished, tmp_path, key, file
):
    path = finished[0] / f"{file}.pt"
    elsewhere = f"stages.student.{key}='{path}'"
    found = said(tiny(*SHORT, elsewhere, "split.fold=1"), data, tmp_path / "other")
    assert not found["teacher"]
    (note,) = found["student"]
    assert note.startswith(f"The checkpoint '{path}' was trained on 2 of the 2 held-out cases (the")
    assert note.endswith("; split the data set as its training did.")


def test_a_checkpoint_of_the_same_fold_knows_none(tiny, data, finished, tmp_path):
    elsewhere = f"stages.student.frozen.teacher='{finished[0] / 'teacher/teacher.pt'}'"
    found = said(tiny(*SHORT, elsewhere), data, tmp_path / "same")
    assert found == {"teacher": [], "student": []}


def test_cases_of_one_name_in_two_domains_are_told_apart(tiny, tmp_path):
    path = tmp_path / "net.pt"
    known = {"ct": {"training_cases": ["a", "b"]}, "mr": {"training_cases": ["c"]}}
    checkpoints.save(path, {"provenance": {"domains": known}})
    _, stage = tiny(f"stages.student.frozen.teacher='{path}'").stages
    apart = {"ct": ("c",), "mr": ("a", "b")}
    assert notes(Distillation({}, {}, {}), stage, {}, apart) == []
    (note,) = notes(Distillation({}, {}, {}), stage, {}, {"": ("c", "b")})  # one without a name
    assert "2 of the 2 held-out" in note
    (note,) = notes(Distillation({}, {}, {}), stage, {}, {"ct": ("c", "b"), "mr": ("a", "b")})
    assert "1 of the 4 held-out cases (the first is 'b')" in note
