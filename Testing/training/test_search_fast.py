"""The search over the fast family: what is measured, and which networks are pointed out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import search_fast
from search_fast import Candidate, Row, marked, within

ROOT = Path(__file__).resolve().parents[2]

RESULT = ROOT / "Resources" / "Studies" / "fast-search.json"


def row(parameters: int, gmac: float, cpu_ms: float) -> Row:
    return Row(2, (16, 32), 1, parameters, gmac, (cpu_ms, 2 * cpu_ms))


def test_a_front_holds_what_no_quicker_network_has_more_of():
    rows = marked([row(300, 2, 30), row(100, 3, 10), row(200, 3, 20), row(300, 4, 40)])
    assert [(each.cpu_ms[0], each.fronts) for each in rows] == [
        (10, ("parameters", "gmac")),
        (20, ("parameters",)),  # no more operations than the quicker one
        (30, ("parameters",)),
        (40, ("gmac",)),
    ]
    coarser = replace(row(500, 5, 5), stem=4)
    assert marked([coarser, row(300, 2, 30)])[1].fronts == ("parameters of stem", "gmac of stem")


def test_a_budget_chooses_the_largest_that_fit():
    rows = [row(300, 2, 30), row(100, 3, 10), row(200, 5, 20), row(300, 4, 40)]
    assert [r.gmac for r in within(rows, most_ms=30, most_parameters=1000)] == [5, 3, 2]
    assert [r.gmac for r in within(rows, most_ms=30, most_parameters=150)] == [3]
    assert within(rows, most_ms=5, most_parameters=1000) == []


def test_size_is_counted_as_by_hand():
    """128 cubed voxels are 32 cubed after the stem, and 16 cubed below."""
    parameters, gmac = search_fast.size(Candidate(4, (16, 32), 1))
    fine, coarse = 32**3, 16**3
    macs = fine * (64 * 16 + 2 * 27 * 16 * 16 + 16 * 14) + coarse * (8 * 16 * 32 + 27 * 32 * 32)
    macs += coarse * 32 * 16  # the reduction before repetition
    assert gmac == pytest.approx(macs / 1e9)
    weights = 64 * 16 + 2 * 27 * 16 * 16 + 16 * 14 + 8 * 16 * 32 + 27 * 32 * 32 + 32 * 16
    assert parameters == weights + 14 + 2 * (16 + 16 + 32 + 32 + 16)  # head's bias, five norms


@pytest.mark.slow
def test_candidates_are_really_run():
    chosen = [Candidate(4, (8, 8), 1), Candidate(2, (16, 32), 1)]
    rows = search_fast.measure(chosen, repeats=2, shapes=((32, 32, 32), (32, 48, 48)))
    assert {each.stem for each in rows} == {2, 4} and rows[0].stem == 4  # the quicker
    assert all(ms >= 0 for each in rows for ms in each.cpu_ms)
    assert rows[1].cpu_ms[1] > rows[0].cpu_ms[1]


@pytest.mark.skipif(not RESULT.exists(), reason="the study has not been run")
def test_the_table_says_what_the_result_holds():
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    text = search_fast.TABLE.read_text(encoding="utf-8")
    assert text.endswith(search_fast.table(result))
    rows = [Row(**each) for each in result["rows"]]
    assert [list(each.fronts) for each in marked(rows)] == [r["fronts"] for r in result["rows"]]
