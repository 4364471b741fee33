"""Run a study: every arm, fold and seed of its table, one after the other, stopped at any time.

    python Testing/studies/study.py few-labels --data Task04_Hippocampus --work runs
    python Testing/studies/study.py ct-mr --data ct=Sarcoma/CT mr=Sarcoma/MR --work runs
    python Testing/studies/study.py few-labels --table

A study is a TOML file beside this one. Each run is `distillseg train` and `distillseg evaluate`
with the arm's settings; what it scored on each held-out case is kept in `results/<study>/`, a small
file for each run, and a run that has one is not repeated. A run that was killed goes on from its
last epoch when the command is given again. Guides, such as a teacher, are trained once for each
fold, when an arm that names them comes. Of several data sets, each structure is scored by data set
("ct Tumour"); an arm may train a network for each by itself. Table and picture are made from the
kept results alone, by `study_table.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

from study_commands import METRICS, Data, command, scores_in, words_of
from study_design import (
    HERE,
    RESULTS,
    Run,
    Study,
    check_kept,
    load_study,
    queue,
    recipe_path,
    result_of,
    settings,
)
from study_guides import teacher_of, train_guides

from DistillSegLib.benchmark.hardware import processor
from DistillSegLib.commands.train import read_domains
from DistillSegLib.errors import DistillSegError, RecipeError
from DistillSegLib.files import write_text


def train(study: Study, run: Run, data: Data, out: Path, work: Path, extra: Sequence[str]) -> None:
    """Train a run to its end, in `out`."""
    folders = train_guides(study, run, data, work, extra)
    known = {name: teacher_of(study, name, folder) for name, folder in folders.items()}
    known["domains"] = "[" + ",".join(f"'{domain}'" for domain in data) + "]"
    sets = [f"split.fold={run.fold}", f"seed={run.seed}", *extra]
    for setting in run.arm.set:
        for name, value in known.items():
            setting = setting.replace(f"{{{name}}}", str(value))
        sets.append(setting)
    options = ["--data", *words_of(data), "--out", out, "--resume", "--set", *sets]
    command("train", recipe_path(run.arm.recipe or study.recipe), *options)


def collect(study: Study, run: Run, parts: Mapping[Path, Data]) -> dict[str, Any]:
    """Who was scored how, and what it cost.

    Args:
        parts: the folder of each network that the run trained -> the data sets it knows.
    """
    cases: dict[str, dict[str, list]] = {}
    parameters, labelled, spent = 0, 0, []
    for folder, data in parts.items():
        for word in words_of(data):
            scores = folder / "scores.json"
            which = ["--stage", study.stage, "--role", study.role]
            command("evaluate", folder, *which, "--data", word, "--json", scores)
            domain = word.partition("=")[0] + " " if "" not in data else ""
            for case, found in scores_in(scores).items():
                named = {domain + structure: values for structure, values in found.items()}
                cases[domain + case] = named
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        parameters += summary["stages"][study.stage]["parameters"][study.role]
        spent.append(list(summary["stages"].values()))
        labelled += _labelled(summary["provenance"])
    return {
        "parameters": parameters,
        "epochs": sum(stage["epochs"] for stage in spent[0]),
        "labelled_cases": labelled,
        "cpu_minutes": round(sum(s["cpu_seconds"] for each in spent for s in each) / 60, 2),
        "minutes": round(sum(s["seconds"] for each in spent for s in each) / 60, 2),
        "cases": cases,
    }


def _labelled(provenance: Mapping[str, Any]) -> int:
    """Labelled cases of all data sets together."""
    each = provenance.get("domains", {"": provenance})
    return sum(one["labelled_cases"] for one in each.values())


def do(study: Study, run: Run, data: Data, work: Path, extra: Sequence[str]) -> dict[str, Any]:
    """Train and score one run; what is kept of it."""
    out = work / study.name / run.name
    if run.arm.package or run.arm.nnunet:
        from study_peers import nnunet, package

        if len(data) != 1:
            raise RecipeError(
                f"The arm '{run.arm.name}' takes one data set, and --data names {len(data)} "
                f"({', '.join(data)}); give one."
            )
        (path,) = data.values()
        found = package(run, path, out) if run.arm.package else nnunet(study, run, path, out)
    else:
        parts = {out: data}
        if run.arm.apart:
            parts = {out.with_name(f"{out.name}-{name}"): {name: data[name]} for name in data}
        for folder, its in parts.items():
            train(study, run, its, folder, work, extra)
        found = collect(study, run, parts)
    what = {"arm": run.arm.name, "fold": run.fold, "seed": run.seed}
    machine = f"{processor()}, {os.environ.get('OMP_NUM_THREADS', 'all')} threads"
    what |= settings(study, run) | {"machine": machine, "options": list(extra)}
    return what | {"metrics": list(METRICS)} | found


def work_off(
    study: Study,
    data: Data,
    work: Path,
    extra: Sequence[str],
    minutes: float,
    results: Path = RESULTS,
) -> bool:
    """Do what is not done yet; whether all is, when no run was begun after the time was over."""
    begun = time.monotonic()
    for run in queue(study):
        path = result_of(study, run, results)
        if path.is_file():
            check_kept(study, run, path)
            continue
        if time.monotonic() - begun > 60 * minutes:
            return False
        print(f"{study.name}: {run.name}", flush=True)
        kept = do(study, run, data, work, extra)
        write_text(path, json.dumps(kept, separators=(",", ":")) + "\n")
    return True


def main() -> None:
    """Run what is missing, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("study", choices=sorted(path.stem for path in HERE.glob("*.toml")))
    parser.add_argument("--data", nargs="+", metavar="[DOMAIN=]DIR", help="folder of the data set")
    parser.add_argument("--work", type=Path, default=Path("runs"), help="folder for the runs")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no run after so many")
    parser.add_argument("--set", nargs="*", default=[], help="of the machine, such as workers=0")
    parser.add_argument("--table", action="store_true", help="only table and picture")
    options = parser.parse_args()
    study = load_study(options.study)
    if not options.table and options.data is None:
        parser.error("give the data set with --data, or --table")
    try:
        done = options.table or work_off(
            study, read_domains(options.data), options.work, options.set, options.minutes
        )
        if done:
            from study_table import publish

            publish(study)
    except DistillSegError as problem:
        raise SystemExit(str(problem)) from problem
    except CalledProcessError as problem:
        raise SystemExit(
            f"A command failed, for the reason above: {shlex.join(map(str, problem.cmd))}. Mend "
            "that and give the study's command again; it goes on."
        ) from problem


if __name__ == "__main__":
    main()
