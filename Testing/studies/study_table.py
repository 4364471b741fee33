"""The table and the picture of a study, from its kept results alone.

    python Testing/studies/study.py few-labels --table

writes `Resources/Studies/<study>.md` and `.svg`. Each patient has one value for each arm, the mean
over structures, time points and seeds; arms are tested against the baseline on these, by Wilcoxon's
signed-rank test. Seeds are no patients: several of them make no difference more certain than the
patients allow.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plots import Series, dots
from scipy.stats import wilcoxon
from study import RESULTS, Study, queue, result_of

from DistillSegLib.datasets import patient_of
from DistillSegLib.files import write_text

OUT = Path(__file__).resolve().parents[2] / "Resources" / "Studies"
HEAD = (
    "| arm | runs | {dice} | HD95 mm | difference, points | patients better | p | parameters | "
    "labelled cases | CPU min |"
)
NOTES = (
    "Dice: mean ± standard deviation over runs of the mean over held-out cases, on the images' own "
    "grid. Difference: to *{baseline}* unless it names another row, in points of a hundred, of a "
    "patient's mean over structures and runs; p: two-sided Wilcoxon signed-rank test over the "
    "patients, not corrected for the number of rows."
)


@dataclass(frozen=True)
class Row:
    """An arm over its runs.

    Attributes:
        dice: structure -> (mean over runs of the mean over cases, standard deviation over runs).
        by_patient: patient -> mean Dice over structures, cases and runs.
        by_run: (fold, seed) -> mean Dice over structures and cases.
    """

    title: str
    runs: Sequence[Mapping[str, Any]]
    dice: Mapping[str, tuple[float, float]]
    hd95_mm: float
    missed: int
    by_patient: Mapping[str, float]
    by_run: Mapping[tuple[int, int], float]


def read(study: Study, results: Path = RESULTS) -> dict[str, list[dict[str, Any]]]:
    """Arm -> its finished runs."""
    found: dict[str, list] = {arm.name: [] for arm in study.arms}
    for run in queue(study):
        path = result_of(study, run, results)
        if path.is_file():
            found[run.arm.name].append(json.loads(path.read_text(encoding="utf-8")))
    return found


def row_of(title: str, runs: Sequence[Mapping[str, Any]]) -> Row:
    """An arm's numbers. A structure in neither mask counts nowhere; one missed has no HD95."""
    at = {name: index for index, name in enumerate(runs[0]["metrics"])}
    every = [case for run in runs for case in run["cases"].values()]
    structures = list(dict.fromkeys(structure for case in every for structure in case))

    def values(run: Mapping[str, Any], metric: str, structure: str) -> list[float]:
        scored = (case[structure] for case in run["cases"].values() if structure in case)
        return [scores[at[metric]] for scores in scored if scores[at[metric]] is not None]

    dice = {}
    for structure in structures:
        scored = (values(run, "dice", structure) for run in runs)
        means = [statistics.fmean(found) for found in scored if found]
        dice[structure] = (statistics.fmean(means) if means else math.nan), _sd(means)
    distances = [d for run in runs for s in structures for d in values(run, "hd95_mm", s)]
    count = sum(len(values(run, "dice", s)) for run in runs for s in structures)
    of_patient: dict[str, list[float]] = {}
    for run in runs:
        for case, scores in run["cases"].items():
            found = [s[at["dice"]] for s in scores.values() if s[at["dice"]] is not None]
            if found:
                of_patient.setdefault(patient_of(case), []).append(statistics.fmean(found))
    by_run = {
        (run["fold"], run["seed"]): statistics.fmean(
            statistics.fmean(found) for s in structures if (found := values(run, "dice", s))
        )
        for run in runs
    }
    by_patient = {patient: statistics.fmean(found) for patient, found in of_patient.items()}
    mean_mm = statistics.fmean(distances) if distances else math.nan
    return Row(title, runs, dice, mean_mm, count - len(distances), by_patient, by_run)


def against(row: Row, baseline: Row) -> tuple[float, int, int, float]:
    """(mean difference of Dice, patients better, patients, p of a two-sided signed-rank test)."""
    shared = sorted(set(row.by_patient) & set(baseline.by_patient))
    gaps = [row.by_patient[patient] - baseline.by_patient[patient] for patient in shared]
    p = float(wilcoxon(gaps).pvalue) if any(gaps) else 1.0
    return statistics.fmean(gaps), sum(gap > 0 for gap in gaps), len(gaps), p


def table(study: Study, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The study as Markdown; arms without a finished run are named as waiting."""
    rows = {arm.name: row_of(arm.title, found[arm.name]) for arm in study.arms if found[arm.name]}
    if not rows:
        return f"### {study.title}\n\nNo run is finished.\n"
    structures = list(dict.fromkeys(name for row in rows.values() for name in row.dice))
    head = HEAD.format(dice=" | ".join(f"Dice {name}" for name in structures))
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    titles = {arm.name: arm.title for arm in study.arms}
    against_what = {arm.name: arm.against or study.baseline for arm in study.arms}
    for arm, row in rows.items():
        cells = [row.title, str(len(row.runs))]
        cells += [_dice(*row.dice.get(name, (math.nan, math.nan))) for name in structures]
        cells.append(f"{row.hd95_mm:.2f}" + (f" ({row.missed} missed)" if row.missed else ""))
        other = against_what[arm]
        named = "" if other == study.baseline else f" to *{titles[other]}*"
        cells += _compared(row, rows.get(other), arm == other, named)
        first = row.runs[0]
        cells += [f"{first['parameters']:,}", str(first["labelled_cases"]), _minutes(row.runs)]
        lines.append(f"| {' | '.join(cells)} |")
    every, done = len(list(queue(study))), sum(map(len, found.values()))
    waiting = "" if done == every else f" {every - done} of {every} runs are still to be done."
    notes = NOTES.format(baseline=titles[study.baseline])
    return f"### {study.title}\n\n" + "\n".join(lines) + f"\n\n{notes} {study.size}{waiting}\n"


def _dice(mean: float, sd: float) -> str:
    """One run has no standard deviation, and a structure that is nowhere has no mean."""
    if math.isnan(mean):
        return "–"
    return f"{mean:.4f}" if math.isnan(sd) else f"{mean:.4f} ± {sd:.4f}"


def _minutes(runs: Sequence[Mapping[str, Any]]) -> str:
    """Of a bundled model they are not kept."""
    spent = [run["cpu_minutes"] for run in runs if run["cpu_minutes"] is not None]
    return f"{statistics.fmean(spent):.1f}" if spent else "–"


def _compared(row: Row, other: Row | None, same: bool, named: str) -> list[str]:
    if other is None or same:
        return ["", "", ""]
    gap, better, patients, p = against(row, other)
    chance = "< 0.001" if p < 0.001 else f"{p:.3f}"
    return [f"{100 * gap:+.2f}{named}", f"{better} of {patients}", chance]


def picture(study: Study, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Mean Dice of every run of every arm, as SVG."""
    rows = [row_of(arm.title, found[arm.name]) for arm in study.arms if found[arm.name]]
    series = [Series(row.title, list(row.by_run.values())) for row in rows]
    return dots(series, "mean Dice of a run")


def _sd(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan


def publish(study: Study) -> None:
    """Write table and picture, and show the table."""
    found = read(study)
    text = table(study, found)
    write_text(OUT / f"{study.name}.md", f"<!-- made by study_table.py -->\n{text}")
    if any(found.values()):
        write_text(OUT / f"{study.name}.svg", picture(study, found))
    print(text)
