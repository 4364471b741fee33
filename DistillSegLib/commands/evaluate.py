"""`distillseg evaluate`: a model scored on cases with reference label maps."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from DistillSegLib.commands import add_command, add_engine, add_tolerance, needs_training
from DistillSegLib.commands.train import read_domains
from DistillSegLib.errors import DatasetError, PackageError

if TYPE_CHECKING:
    from DistillSegLib.commands.console import Terminal
    from DistillSegLib.datasets import Case, Dataset
    from DistillSegLib.evaluation import Scores
    from DistillSegLib.labels import LabelTable
    from DistillSegLib.segmentations import Segmentation

EXAMPLES = """
distillseg evaluate hippocampus-fast --data Task04_Hippocampus
distillseg evaluate model.distillseg --data Dataset007_Liver --cases all --csv scores.csv
distillseg evaluate run --stage student --data Task04_Hippocampus --json scores.json
distillseg evaluate model.distillseg --data Task04_Hippocampus --split 5 2 0
distillseg evaluate run --data ct=Dataset007_Liver
"""
COLUMNS = {
    "dice": "Dice",
    "hd95_mm": "HD95 (mm)",
    "nsd": "surface Dice",
    "volume_ml": "volume (ml)",
}


def add(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "evaluate",
        help="score a package, or a training run, on labelled cases",
        description="Dice, HD95, surface Dice and volumes on the cases' own grids. A package "
        "needs no torch.",
        examples=EXAMPLES,
    )
    parser.add_argument(
        "model", metavar="PACKAGE_OR_RUN", help="id, .distillseg file or run folder"
    )
    parser.add_argument(
        "--data", required=True, metavar="[DOMAIN=]DIR_OR_JSON", help="labelled data set"
    )
    parser.add_argument("--csv", metavar="FILE", help="write a row per case and structure")
    parser.add_argument(
        "--cases",
        default="auto",
        metavar="all|held-out|FILE",
        help="which cases; FILE has an id per line (default: those held out from the training if "
        "the model was trained on this data set, else all)",
    )
    parser.add_argument(
        "--split",
        nargs=3,
        type=int,
        metavar=("FOLDS", "FOLD", "SEED"),
        help="the held-out cases of this split instead",
    )
    parser.add_argument("--stage", metavar="NAME", help="of a run (default: the last)")
    parser.add_argument("--role", metavar="NAME", help="of a run's stage, if it trained several")
    parser.add_argument(
        "--domain", metavar="NAME", help="of a run on several modalities; as in --data ct=DIR"
    )
    add_tolerance(parser)
    add_engine(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Segment the chosen cases, score them, and print mean and standard deviation."""
    from DistillSegLib.commands.console import Terminal, interruptible
    from DistillSegLib.datasets import read_dataset
    from DistillSegLib.evaluation import evaluate

    terminal = Terminal(options.json)
    ((named, path),) = read_domains([options.data]).items()
    domain = options.domain or named
    dataset = read_dataset(path, domain=domain)
    of_run = Path(options.model).is_dir()
    model = _of_run(options, domain) if of_run else _of_package(options)
    segment, labels, channels, provenance = model
    if len(channels) != len(dataset.channels):
        raise DatasetError(
            f"The model takes {len(channels)} images of a case ({', '.join(channels)}), "
            f"'{dataset.name}' has {len(dataset.channels)} ({', '.join(dataset.channels)}); "
            "evaluate it on a data set of the same kind."
        )
    _check_labels(labels, dataset.labels, terminal)
    cases, which = choose_cases(dataset, options.cases, options.split, provenance)
    title = f"Evaluating {options.model} on {len(cases)} cases"
    with terminal.progress(title, announce=False) as on_progress:
        scores = interruptible(
            lambda cancelled: evaluate(
                segment,
                cases,
                labels=labels,
                tolerance_mm=options.tolerance_mm,
                on_progress=on_progress,
                cancelled=cancelled,
            )
        )
    _show(scores, terminal, f"{options.model}: mean ± sd, {len(cases)} cases, {which}")
    if options.csv:
        scores.to_csv(options.csv)
    facts = {"model": options.model, "dataset": dataset.name, "cases_chosen": which}
    terminal.write_json(facts | scores.to_dict())
    if failures := scores.failures:
        raise DatasetError(
            f"{len(failures)} of {len(cases)} cases could not be scored, the first is "
            f"'{failures[0].case}' ({failures[0].failure.rstrip('.')})."
        )


def choose_cases(
    dataset: Dataset,
    wanted: str,
    split: Sequence[int] | None,
    provenance: Mapping[str, Any],
) -> tuple[tuple[Case, ...], str]:
    """The cases to score, and which they are in words."""
    if split:
        folds, fold, seed = split
        return dataset.split(folds, fold, seed)[1], f"fold {fold} of {folds}, seed {seed}"
    held_out = provenance.get("held_out_cases", ())
    same = provenance.get("dataset") == dataset.name and bool(held_out)
    if wanted == "all" or (wanted == "auto" and not same):
        return dataset.cases, "all cases"
    if wanted in ("auto", "held-out"):
        if not same:
            raise DatasetError(
                f"The model was trained on '{provenance.get('dataset', 'unknown')}' and does not "
                f"say which cases of '{dataset.name}' were held out; use --cases all or --split."
            )
        return _named_cases(dataset, held_out, "the model's provenance"), "held out from training"
    try:
        names = Path(wanted).read_text(encoding="utf-8").split()
    except (OSError, ValueError) as problem:
        raise DatasetError(
            f"--cases '{wanted}' is neither 'all' nor 'held-out', nor a list of case ids that can "
            f"be read ({problem})."
        ) from problem
    return _named_cases(dataset, names, f"'{wanted}'"), f"named in {wanted}"


def _named_cases(dataset: Dataset, names: Sequence[str], where: str) -> tuple[Case, ...]:
    known = {case.id: case for case in dataset.cases}
    missing = [name for name in names if name not in known]
    if missing or not names:
        raise DatasetError(
            f"{len(missing)} of {len(names)} cases named in {where} are not in '{dataset.name}'"
            f"{f', such as {missing[0]!r}' if missing else ''}; use --cases all or another list."
        )
    return tuple(known[name] for name in dict.fromkeys(names))


# What segments a case, its labels and channels, and where it comes from.
Model = tuple[Callable[["Case"], "Segmentation"], "LabelTable", tuple[str, ...], Mapping[str, Any]]


def _of_package(options: argparse.Namespace) -> Model:
    from DistillSegLib.inference import Segmenter

    segmenter = Segmenter(options.model, threads=options.threads, engine=options.engine)
    manifest = segmenter.package.manifest

    def segment(case: Case) -> Segmentation:
        return segmenter.segment(case.images)

    return segment, manifest.labels, manifest.channels, manifest.provenance


def _of_run(options: argparse.Namespace, domain: str) -> Model:
    """A run's network, of one domain, in torch, on the processor, logits on the full grid."""
    from DistillSegLib.images import read_image
    from DistillSegLib.labels import LabelTable
    from DistillSegLib.records import from_dict
    from DistillSegLib.segmentations import Segmentation
    from DistillSegLib.upsampling import labels_on

    with needs_training():
        import torch

        from DistillSegLib.training.checkpoints import load_specialised
        from DistillSegLib.training.folder import checkpoint_of
        from DistillSegLib.training.plan import Plan
        from DistillSegLib.training.validation import torch_predictor, volume_logits
    if options.threads:
        torch.set_num_threads(options.threads)
    folder = Path(options.model)
    net, facts = load_specialised(checkpoint_of(folder, options.stage, options.role), domain)
    plan, labels = from_dict(Plan, facts["plan"]), from_dict(LabelTable, facts["labels"])
    predict = torch_predictor(net)

    def segment(case: Case) -> Segmentation:
        images = [read_image(path) for path in case.images]
        prepared = plan.preprocessing.apply(images)
        logits = volume_logits(net, prepared.array, predict, plan.window)
        labelmap = labels_on(images[0], logits, prepared.grid, values=labels.values)
        return Segmentation(labelmap, labels)

    return segment, labels, plan.channels, facts["provenance"]


def _check_labels(model: LabelTable, data: LabelTable, terminal: Terminal) -> None:
    """Refuse other values; remark on names that share no word ("Anterior hippocampus" does)."""
    ours, theirs = ({label.value: label.name for label in table} for table in (model, data))
    if ours.keys() != theirs.keys():
        raise PackageError(
            f"The model segments {_some(ours)}, the data set is labelled {_some(theirs)}; scores "
            "need the same label values in both."
        )
    for value, name in ours.items():
        if not _words(name) & _words(theirs[value]):
            terminal.remark(
                f"Warning: the value {value} is '{name}' in the model and '{theirs[value]}' in the "
                "data set; the scores mean something only if both are the same structure."
            )


def _some(names: Mapping[int, str]) -> str:
    shown = ", ".join(f"{value} ({name})" for value, name in list(names.items())[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _words(name: str) -> set[str]:
    return set(re.findall(r"\w+", name.casefold().replace("_", " ")))


def _show(scores: Scores, terminal: Terminal, title: str) -> None:
    summaries = scores.summary()
    structures = dict.fromkeys(summary.structure for summary in summaries)
    found = {(s.structure, s.metric): s for s in summaries}
    rows = []
    for name in structures:
        distance = found[name, "hd95_mm"]
        means = [_mean(found[name, metric]) for metric in COLUMNS]
        rows.append([name, *means, distance.cases, distance.empty, distance.infinite])
    columns = ["structure", *COLUMNS.values(), "found in both", "in none", "in one"]
    terminal.table(columns, rows, title=title)
    done = [case for case in scores.cases if not case.failure]
    if done:
        seconds = sum(case.seconds for case in done) / len(done)
        cpu_seconds = sum(case.cpu_seconds for case in done) / len(done)
        terminal.print(f"{seconds:.3f} s per case, {cpu_seconds:.3f} s of processor time")
    for failure in scores.failures:
        terminal.print(f"Failed: {failure.case}: {failure.failure}")


def _mean(summary: Any) -> str:
    if not summary.cases:
        return "–"
    return f"{summary.mean:.4f}" + (f" ± {summary.sd:.4f}" if summary.cases > 1 else "")
