"""Tables and pictures of studies say what the results hold."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import plots
import pytest
import study_design as studies
import study_table
from scipy.stats import wilcoxon

from DistillSegLib.errors import RecipeError
from DistillSegLib.records import from_dict
from Testing.training.small_study import ARMS, DONE, plain, result


@pytest.mark.parametrize("name", DONE)
def test_published_tables_are_those_of_the_kept_results(name):
    study = studies.load_study(name)
    text = (study_table.OUT / f"{name}.md").read_text(encoding="utf-8")
    assert text.endswith(study_table.table(study, study_table.read(study)))


def test_the_table_says_what_the_results_hold(small):
    found = {
        "none": [result("none", 0, 0.5, 0.6, 0.7, 0.8), result("none", 1, 0.7, 0.8, 0.9, 0.4)],
        "maps": [result("maps", 0, 0.6, 0.8, 0.9, 0.3)],
    }
    base, maps = (study_table.row_of("x", found[name]) for name in ("none", "maps"))
    mean, sd = base.dice["Ball"]
    assert (mean, sd) == (pytest.approx(0.675), pytest.approx(0.05 / math.sqrt(2)))
    assert base.by_patient == pytest.approx({"a": 0.6, "b": 0.7, "c": 0.8, "d": 0.6})
    assert (maps.missed, maps.hd95_mm) == (0, {"Ball": 2.0, "": 2.0})
    found_gap = study_table.against(maps, base)
    # of the baseline's two runs the one of the same seed: .1, .2, .2, -.5
    assert (found_gap.mean, found_gap.better, found_gap.patients) == (pytest.approx(0), 3, 4)
    assert found_gap.p == wilcoxon([0.1, 0.2, 0.2, -0.5]).pvalue
    low, high = found_gap.interval
    assert low == pytest.approx(-0.325, abs=0.03) and high == pytest.approx(0.2, abs=0.03)
    lost = [result("maps", 0, 0.6, 0.8, 0.9, 0.0)]
    assert study_table.row_of("x", lost).missed == 1
    assert "| 2.00 (1 missed) |" in study_table.table(small, found | {"maps": lost})
    other = study_table.row_of("x", [result("maps", 7, 0.7, 0.9)])
    assert study_table.against(other, base) is None
    text = study_table.table(small, found)
    assert "| with a teacher | 1 | 0.6500 | 2.00 | +0.00 | -" in text
    assert "| alone | 2 | 0.6750 ± 0.0354 | 2.00 |  |  |  |  | 1,234 | 6 | 1.5 |" in text
    assert "1 of 4 runs is still to be done." in text and "Far too small." in text


def test_an_arm_may_be_tested_against_another_than_the_baseline(small):
    arms = [*ARMS, ARMS[1] | {"name": "more", "title": "longer", "against": "maps"}]
    study = from_dict(studies.Study, plain(small) | {"arms": arms})
    found = {arm["name"]: [result(arm["name"], 0, n / 10)] for n, arm in enumerate(arms, 6)}
    text = study_table.table(study, found)
    assert (
        "| longer | 1 | 0.8000 | 2.00 | +10.00 to *with a teacher* | +10.00 to +10.00 | 1 of"
        in text
    )
    assert "| with a teacher | 1 | 0.7000 | 2.00 | +10.00 | +10.00 to +10.00 | 1 of 1 |" in text
    words = "arm 'more' is tested against 'less'; the arms are none, maps, more"
    with pytest.raises(RecipeError, match=words):
        from_dict(studies.Study, plain(small) | {"arms": [*ARMS, arms[2] | {"against": "less"}]})


def test_two_time_points_are_one_patient():
    """Two patients at end diastole and end systole: two values, not four."""
    runs = [result("none", 0, 0.5, 0.7, 0.8, 0.9)]
    names = ("p1_ED", "p1_ES", "p2_ED", "p2_ES")
    runs[0]["cases"] = dict(zip(names, runs[0]["cases"].values(), strict=True))
    row = study_table.row_of("x", runs)
    assert row.by_patient == pytest.approx({"p1": 0.6, "p2": 0.85})
    assert row.dice["Ball"][0] == pytest.approx(0.725)


def test_a_structure_that_is_in_neither_mask_counts_nowhere(small):
    """Tail is in case b of the second run only; case a holds nothing at all in the first."""
    runs = [result("none", seed, 0.5, 0.6) for seed in (0, 1)]
    runs[0]["cases"]["a"]["Ball"] = [None, None, None]
    for run in runs:
        run["cases"]["b"]["Tail"] = [None, None, None]
    runs[1]["cases"]["b"]["Tail"] = [0.8, 3.0, 0.9]
    row = study_table.row_of("x", runs)
    assert row.dice["Ball"][0] == pytest.approx((0.6 + 0.55) / 2)
    assert row.dice["Tail"][0] == 0.8 and math.isnan(row.dice["Tail"][1])
    assert row.by_patient == pytest.approx({"a": 0.5, "b": (0.6 + 0.7) / 2})
    assert row.by_run == pytest.approx({(0, 0): 0.6, (0, 1): (0.55 + 0.8) / 2})
    assert row.missed == 0
    text = study_table.table(small, {"none": runs[:1], "maps": [result("maps", 0, 0.5, 0.6)]})
    assert "| alone | 1 | 0.6000 | – |" in text and "| with a teacher | 1 | 0.5500 | – |" in text
    study_table.picture(small, {"none": runs, "maps": []})


def test_runs_alike_have_no_difference_to_test(small):
    row = study_table.row_of("x", [result("none", 0, 0.5, 0.6)])
    assert study_table.against(row, row) == study_table.Difference(0.0, (0.0, 0.0), 0, 2, 1.0)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.81, 0.89, [0.82, 0.84, 0.86, 0.88]), (0, 5, [0, 1, 2, 3, 4, 5]), (1, 1.05, None)],
)
def test_ticks_are_round_and_few(low, high, expected):
    found = plots.ticks(low, high)
    assert expected is None or found == expected
    assert 3 <= len(found) <= 6 and low <= found[0] and found[-1] <= high + 1e-9


def test_a_row_of_dots_has_one_for_each_run():
    page = ElementTree.fromstring(
        plots.dots([plots.Series("a", [0.8, 0.9]), plots.Series("b", [1])], "x")
    )
    assert len([e for e in page if e.tag.endswith("circle")]) == 3
