"""The pictures of accuracy and of structures show what was kept, where it belongs."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import accuracy_plots
import numpy as np
import plots
import pytest
import scatter
import structure_plots
import study_design as studies

from Testing.training.small_study import study_of

STUDIES = Path(__file__).resolve().parents[2] / "Resources" / "Studies"


def found(page: ElementTree.Element, tag: str) -> list[ElementTree.Element]:
    return [element for element in page.iter() if element.tag.endswith(tag)]


def place_of(page: ElementTree.Element, text: str) -> tuple[float, float, float, float]:
    """The box of a text, seven pixels a letter: more than any browser takes."""
    (element,) = (e for e in found(page, "text") if e.text == text)
    x, y, wide = float(element.get("x")), float(element.get("y")), 7 * len(text)
    left = x - {"start": 0, "middle": wide / 2, "end": wide}[element.get("text-anchor")]
    return left, y - 10, left + wide, y + 3


def chart(*points: scatter.Point, aims=()) -> ElementTree.Element:
    text = scatter.scatter(scatter.Chart("Title", "cost", "Dice", points, aims))
    return ElementTree.fromstring(text)


def test_a_better_model_stands_higher_and_a_dearer_one_further_right():
    cheap, dear = scatter.Point("cheap & <bad>", 10, 0.80), scatter.Point("dear", 1000, 0.90)
    page = chart(cheap, dear)
    cheap, dear, _ = found(page, "circle")  # the third is the legend's
    assert float(dear.get("cx")) > float(cheap.get("cx"))
    assert float(dear.get("cy")) < float(cheap.get("cy"))
    assert "cheap & <bad>" in [e.text for e in page]


def test_references_students_and_arms_are_told_apart():
    page = chart(
        scatter.Point("fast .88", 10, 0.88),
        scatter.Point("reference .89", 100, 0.89, special=True),
        scatter.Point("alone", 10, 0.85, "few-labels", True),
        scatter.Point("taught", 10, 0.86, "few-labels"),
    )
    assert len(found(page, "polygon")) == 2  # one and the legend's
    names = [e.text for e in found(page, "title")]
    assert names[:2] == ["few-labels: alone", "few-labels: taught"]
    fills = {e[0].text: e.get("fill") for e in found(page, "circle") if len(e)}
    assert fills["few-labels: alone"] == "white" != fills["few-labels: taught"]
    assert {"student", "reference", "study few-labels"} <= {e.text for e in found(page, "text")}


@pytest.mark.parametrize("gap", [0.0, 0.001, 0.01])
def test_names_cover_no_other_name_and_no_aim_and_stay_within_the_page(gap):
    """Three models, as near to each other as they may come."""
    names = ["tiny .881", "fast .882", "reference .886"]
    points = [scatter.Point(n, 20 + i, 0.88 + i * gap) for i, n in enumerate(names)]
    page = chart(*points, scatter.Point("low", 9000, 0.87), aims=[(0.88, "an aim of some length")])
    boxes = [place_of(page, name) for name in (*names, "low", "an aim of some length")]
    for a, b in itertools.combinations(boxes, 2):
        assert scatter.overlap(a, b) < 20  # of more than 900 square pixels each
    height = float(page.get("height"))
    for left, top, right, bottom in boxes:
        assert left >= 0 and top >= 0 and right <= 760 and bottom <= height


def test_the_words_of_an_aim_stand_where_they_cover_no_mark():
    """Both ends of its line have a mark above them."""
    ends = scatter.Point("fast", 10, 0.901), scatter.Point("reference", 500, 0.907, special=True)
    page = chart(*ends, scatter.Point("low", 10, 0.75, "arms"), aims=[(0.902, "aim " * 12)])
    left, top, right, bottom = place_of(page, "aim " * 12)
    for x, y in (marked(page, "circle"), marked(page, "polygon")):
        assert not (left < x < right and top - 6 < y < bottom + 6)


def marked(page: ElementTree.Element, tag: str) -> tuple[float, float]:
    """The middle of the first large mark of a kind: a student's circle, a reference's diamond."""
    if tag == "polygon":
        above, beside = (p.split(",") for p in found(page, tag)[0].get("points").split()[:2])
        return float(above[0]), float(beside[1])
    (circle,) = (e for e in found(page, tag)[:2] if float(e.get("r")) == 6)
    return float(circle.get("cx")), float(circle.get("cy"))


def test_an_arm_is_the_mean_of_its_runs_and_a_study_without_runs_has_none(small, tmp_path):
    alone = small.arms[0]
    study = study_of(small, alone, studies.Arm(name="b", title="taught"))
    assert accuracy_plots.arms_of(study, tmp_path) == []
    (tmp_path / "small").mkdir()
    runs = (run for run in studies.queue(study) if run.arm == alone)
    for run, dice in zip(runs, (0.6, 0.8), strict=True):
        cases = {"x": {"Ball": [dice, 2.0], "Tail": [None, None]}, "y": {"Ball": [dice, 2.0]}}
        form = {"metrics": ["dice", "hd95_mm"], "parameters": 77}
        form["cases"] = cases | {"z": {"Tail": [1.0, 0.0]}}
        kept = studies.settings(study, run) | {"fold": run.fold, "seed": run.seed} | form
        studies.result_of(study, run, tmp_path).write_text(json.dumps(kept))
    (point,) = accuracy_plots.arms_of(study, tmp_path)
    assert (point.name, point.x, point.study, point.special) == ("alone", 77, "small", True)
    assert point.y == pytest.approx((0.8 + 0.9) / 2)  # structures count alike


def card(path: Path, **dice: list[float | None]) -> None:
    rows = [{"structure": name, "dice": d} for name, values in dice.items() for d in values]
    path.write_text(json.dumps({"cases": rows}))


def test_each_study_has_a_colour_of_its_own():
    files = [studies.load_study(path.stem) for path in studies.HERE.glob("*.toml")]
    for organ in {study.data for study in files if study.data}:
        colors = scatter.colors_of(accuracy_plots.arms(organ))
        assert len(set(colors.values())) == len(colors), organ


def test_arms_far_below_the_models_are_named_and_do_not_press_the_rest_together():
    model, close = scatter.Point("fast .900", 1e5, 0.9), scatter.Point("arm", 1e5, 0.8, "one")
    far = [scatter.Point("arm", 1e5, dice, "other") for dice in (0.4, 0.59)]
    assert accuracy_plots.near([model, close]) == ([model, close], "")
    kept, note = accuracy_plots.near([model, close, *far])
    assert kept == [model, close]
    assert note == "Far below, not drawn: other (2 arms, .40 to .59)"
    page = scatter.scatter(scatter.Chart("Organ", "cost", "Dice", kept, (), note))
    assert note in page and "study other" not in page


def test_every_case_is_a_dot_that_hides_no_other(tmp_path):
    card(tmp_path / "organ-fast.json", Ball=[0.9] * 7 + [0.5, None], Tail=[0.7, 0.8])
    card(tmp_path / "organ-reference.json", Ball=[0.95, 0.9], Tail=[0.75])
    card(tmp_path / "left-thing-tiny.json", Ball=[0.5])
    organs = structure_plots.read(tmp_path)
    assert sorted(organs) == ["left-thing", "organ"]
    assert list(organs["organ"]["Ball"]) == ["reference", "fast"]
    page = ElementTree.fromstring(structure_plots.picture("organ", organs["organ"]))
    places = [(float(e.get("cx")), float(e.get("cy"))) for e in found(page, "circle")]
    assert len(places) == 8 + 2 + 2 + 1
    apart = [np.hypot(a[0] - b[0], a[1] - b[1]) for a, b in itertools.combinations(places, 2)]
    assert min(apart) >= 2 * structure_plots.RADIUS - 0.1
    texts = [e.text for e in found(page, "text")]
    assert {".5", ".9", ".7", ".75"} <= set(texts) and "Tail" in texts
    assert structure_plots.picture("left-thing", organs["left-thing"]).endswith("</svg>\n")


def test_a_high_pile_stays_in_its_row_and_shows_every_dot():
    places = structure_plots.stacked([10.0] * 30)
    assert len(set(places)) == 30
    assert max(abs(up) for _, up in places) <= structure_plots.ROW / 2 - structure_plots.RADIUS


def test_the_bar_runs_from_quartile_to_quartile():
    values = [0.5, 0.61, 0.7, 0.82, 0.9]
    assert structure_plots.quartiles(values) == pytest.approx(np.percentile(values, (25, 50, 75)))
    page = ElementTree.fromstring(structure_plots.picture("organ", {"Ball": {"fast": values}}))
    _, bar = found(page, "rect")
    x = {float(e.get("cx")): v for e, v in zip(found(page, "circle"), values)}
    ends = float(bar.get("x")), float(bar.get("x")) + float(bar.get("width"))
    assert [v for px, v in x.items() if min(abs(px - end) for end in ends) < 0.2] == [0.61, 0.82]


def test_published_pictures_are_those_of_what_was_kept():
    made = accuracy_plots.plots() | {
        f"{organ}-structures.svg": structure_plots.picture(organ, scores)
        for organ, scores in structure_plots.read().items()
    }
    for name, text in made.items():
        assert (STUDIES / name).read_text(encoding="utf-8") == text, f"make {name} again"
        assert not re.search(r"\bnan\b", text)


def test_a_long_name_leaves_its_dots_the_width_of_the_page():
    names = ("16 labels", "16 labels, prediction maps on these and on 144 images without")
    page = ElementTree.fromstring(plots.dots([plots.Series(n, [0.8, 0.9]) for n in names], "x"))
    x = [float(e.get("cx")) for e in page if e.tag.endswith("circle")]
    assert max(x) - min(x) > plots.WIDTH / 2
    places = [(e.get("x"), float(e.get("y"))) for e in page if e.text in names]
    assert places[0][0] == places[1][0] and places[1][1] - places[0][1] > plots.ROW


def test_a_difference_of_no_account_does_not_fill_the_page():
    spread, width = ([0.880, 0.882], [0.85, 0.89]), []
    for values in spread:
        page = ElementTree.fromstring(plots.dots([plots.Series("a", values)], "x", 0.02))
        x = [float(e.get("cx")) for e in page if e.tag.endswith("circle")]
        width.append(max(x) - min(x))
    axis = width[1] * 1.24  # of .04, which is drawn with 12 % at either side
    assert width[0] == pytest.approx(axis * 0.1, abs=0.2)
