"""The README's evidence is what the published tables and pictures say."""

from __future__ import annotations

from pathlib import Path

import evidence
import pytest
import study_design as studies
import study_table

from Testing.training.small_study import result

FOLDER = Path(__file__).resolve().parents[1] / "studies"


@pytest.fixture
def published(tmp_path) -> Path:
    """A repository in which two arms of one study, and none of another, were run."""
    folder = tmp_path / evidence.FOLDER
    folder.mkdir(parents=True)
    found = {
        "few-labels": {
            "none": [result("none", 0, 0.5, 0.6)],
            "maps": [result("maps", 0, 0.7, 0.8)],
        },
        "methods": {},
    }
    for name, runs in found.items():
        study = studies.load_study(name)
        every = {arm.name: runs.get(arm.name, []) for arm in study.arms}
        text = study_table.table(study, every)
        (folder / f"{name}.md").write_text(f"<!-- made -->\n{text}", encoding="utf-8")
    return tmp_path


def test_the_readme_shows_the_evidence_that_is_published():
    readme = (evidence.ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == evidence.filled(readme), "run Testing/studies/evidence.py"


def test_a_study_is_short_and_says_what_it_is_compared_with(published):
    text = evidence.evidence(published)
    study = studies.load_study("few-labels")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == (
        "| arm | Dice Ball | HD95 mm | difference, points | 95 % interval | p | CPU min |"
    )
    assert lines[1] == "| --- | --- | --- | --- | --- | --- | --- |"
    base, maps = lines[2:]
    assert base == "| 16 labels | 0.5500 | 2.00 |  |  |  | 1.5 |"
    assert maps.startswith(f"| {study.arms[1].title} | 0.7500 | 2.00 | +20.00 | ")
    assert f"### {study.title}" in text and study.size in text
    assert "Compared with *16 labels*." in text
    every = len(list(studies.queue(study)))
    assert f"{every - 2} of {every} runs are still to be done." in text
    assert f"]({evidence.FOLDER}/few-labels.md)" in text


def test_a_study_without_a_run_is_left_out(published):
    assert studies.load_study("methods").title not in evidence.evidence(published)
    (published / evidence.FOLDER / "few-labels.md").unlink()
    assert evidence.evidence(published) == ""


def test_every_study_has_its_place():
    assert set(evidence.ORDER) <= {path.stem for path in FOLDER.glob("*.toml")}


def test_of_the_pictures_those_that_exist_are_shown(published):
    for name in ("thigh-structures.svg", "thigh-fast-gallery.svg", "arm-parameters.svg"):
        (published / evidence.FOLDER / name).write_text("<svg/>")
    text = evidence.evidence(published)
    assert text.count("![") == 2 and "<details>" in text and "</details>" in text
    assert "![Thigh fast: outlines of best, median and worst case]" in text
    (published / evidence.FOLDER / "thigh-fast-gallery.svg").unlink()
    assert "<details>" not in evidence.evidence(published)


def test_only_what_lies_between_the_marks_is_replaced(published):
    readme = f"above\n{evidence.BEGIN}\nreplace me\n{evidence.END}\nbelow"
    once = evidence.filled(readme, published)
    assert once.startswith("above\n") and once.endswith("\nbelow") and "replace me" not in once
    assert evidence.filled(once, published) == once
