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

import numpy as np
from plots import Series, dots
from scipy.stats import wilcoxon
from study_design import RESULTS, Study, check_kept, queue, result_of

from DistillSegLib.datasets import patient_of
from DistillSegLib.files import write_text

OUT = Path(__file__).resolve().parents[2] / "Resources" / "Studies"
HEAD = (
    "| arm | runs | {dice} | {hd95} | difference, points | 95 % interval | patients better | p | "
    "parameters | labelled cases | CPU min |"
)
NOTES = (
    "Dice: mean ± standard deviation over runs (seeds, or folds, which weigh alike) of the mean "
    "over held-out cases, on the images' own grid. Difference: to *{baseline}* unless it names "
    "another row, in percentage points of Dice, of a patient's mean over structures and runs; its "
    "interval by a bootstrap over patients; p: two-sided Wilcoxon signed-rank test over the "
    "patients, not corrected for the number of rows. Neither knows how much a training differs "
    "from its repetition. HD95: over the cases in which the structure was found; 'missed' counts "
    "the others. CPU min: of the arm's own training, without its teachers' and without "
    "the processes that prepare patches; {machines}."
)
CROPS = (
    "A patient is here one crop of a left or right hippocampus: the data set does not say which "
    "two are of one person."
)
RESAMPLES = 10_000
SPAN = 0.02  # of Dice, shown at least; seeds alone differ by a quarter of it


@dataclass(frozen=True)
class Row:
    """An arm over its runs.

    Attributes:
        dice: structure -> (mean over runs of the mean over cases, standard deviation over runs).
        hd95_mm: structure, "" for all -> mean over runs and cases in which it was found.
        missed: how often a structure was found in one of both masks only.
        by_patient: patient -> mean Dice over structures, cases and runs.
        by_run: (fold, seed) -> mean Dice over structures and cases.
    """

    title: str
    runs: Sequence[Mapping[str, Any]]
    dice: Mapping[str, tuple[float, float]]
    hd95_mm: Mapping[str, float]
    missed: int
    by_patient: Mapping[str, float]
    by_run: Mapping[tuple[int, int], float]


def read(study: Study, results: Path = RESULTS) -> dict[str, list[dict[str, Any]]]:
    """Arm -> its finished runs. RecipeError if one was made with other settings."""
    found: dict[str, list] = {arm.name: [] for arm in study.arms}
    for run in queue(study):
        path = result_of(study, run, results)
        if path.is_file():
            check_kept(study, run, path)
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
    distances = {s: [d for run in runs for d in values(run, "hd95_mm", s)] for s in structures}
    together = [d for found in distances.values() for d in found]
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
    means_mm = {s: _mean(mm) for s, mm in distances.items()} | {"": _mean(together)}
    return Row(title, runs, dice, means_mm, count - len(together), by_patient, by_run)


@dataclass(frozen=True)
class Difference:
    """Of Dice, between two arms, over the patients of both.

    Attributes:
        interval: of the mean; 95 %, by a bootstrap.
        better: patients of a higher Dice.
        p: two-sided, of Wilcoxon's signed-rank test.
    """

    mean: float
    interval: tuple[float, float]
    better: int
    patients: int
    p: float


def against(row: Row, baseline: Row) -> Difference | None:
    """How much better an arm is than another, on the folds and seeds of both; None without any."""
    both = row.by_run.keys() & baseline.by_run.keys()
    if not both:
        return None
    row, baseline = (
        row_of(one.title, [run for run in one.runs if (run["fold"], run["seed"]) in both])
        for one in (row, baseline)
    )
    shared = sorted(set(row.by_patient) & set(baseline.by_patient))
    gaps = np.array([row.by_patient[patient] - baseline.by_patient[patient] for patient in shared])
    drawn = np.random.default_rng(0).choice(gaps, (RESAMPLES, len(gaps))).mean(axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    p = float(wilcoxon(gaps).pvalue) if gaps.any() else 1.0
    interval = float(low), float(high)
    return Difference(float(gaps.mean()), interval, int((gaps > 0).sum()), len(gaps), p)


def table(study: Study, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The study as Markdown; arms without a finished run are named as waiting."""
    rows = {arm.name: row_of(arm.title, found[arm.name]) for arm in study.arms if found[arm.name]}
    if not rows:
        return f"### {study.title}\n\nNo run is finished.\n"
    structures = list(dict.fromkeys(name for row in rows.values() for name in row.dice))
    distances = ["", *structures] if len(structures) > 1 else [""]
    head = HEAD.format(
        dice=" | ".join(f"Dice {name}" for name in structures),
        hd95=" | ".join(f"HD95 mm {name}".rstrip() for name in distances),
    )
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    titles = {arm.name: arm.title for arm in study.arms}
    against_what = {arm.name: arm.against or study.baseline for arm in study.arms}
    for arm, row in rows.items():
        cells = [row.title, str(len(row.runs))]
        cells += [_dice(*row.dice.get(name, (math.nan, math.nan))) for name in structures]
        cells += [_mm(row.hd95_mm.get(name, math.nan)) for name in distances]
        if row.missed:
            cells[-len(distances)] += f" ({row.missed} missed)"
        other = against_what[arm]
        named = "" if other == study.baseline else f" to *{titles[other]}*"
        cells += _compared(row, rows.get(other), arm == other, named)
        first = row.runs[0]
        cells += [f"{first['parameters']:,}", str(first["labelled_cases"]), _minutes(row.runs)]
        lines.append(f"| {' | '.join(cells)} |")
    every, done = len(list(queue(study))), sum(map(len, found.values()))
    be = "is" if every - done == 1 else "are"
    waiting = "" if done == every else f" {every - done} of {every} runs {be} still to be done."
    machines = dict.fromkeys(run["machine"] for runs in found.values() for run in runs)
    notes = NOTES.format(baseline=titles[study.baseline], machines="; ".join(machines))
    if study.data == "hippocampus":
        notes += f" {CROPS}"
    return f"### {study.title}\n\n" + "\n".join(lines) + f"\n\n{notes} {study.size}{waiting}\n"


def _dice(mean: float, sd: float) -> str:
    """One run has no standard deviation, and a structure that is nowhere has no mean."""
    if math.isnan(mean):
        return "–"
    return f"{mean:.4f}" if math.isnan(sd) else f"{mean:.4f} ± {sd:.4f}"


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def _mm(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _minutes(runs: Sequence[Mapping[str, Any]]) -> str:
    """Of a bundled model they are not kept."""
    spent = [run["cpu_minutes"] for run in runs if run["cpu_minutes"] is not None]
    return f"{statistics.fmean(spent):.1f}" if spent else "–"


def _compared(row: Row, other: Row | None, same: bool, named: str) -> list[str]:
    if other is None or same:
        return ["", "", "", ""]
    found = against(row, other)
    if found is None:
        return ["", "", "", ""]
    interval = " to ".join(f"{100 * value:+.2f}" for value in found.interval)
    chance = "< 0.001" if found.p < 0.001 else f"{found.p:.3f}"
    better = f"{found.better} of {found.patients}"
    return [f"{100 * found.mean:+.2f}{named}", interval, better, chance]


def picture(study: Study, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Mean Dice of every run of every arm, as SVG."""
    rows = [row_of(arm.title, found[arm.name]) for arm in study.arms if found[arm.name]]
    series = [Series(row.title, list(row.by_run.values())) for row in rows]
    return dots(series, "mean Dice of a run", SPAN)


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
