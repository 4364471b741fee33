"""The model card: what a person wrote, and what was measured, put together by code.

The person's part is a TOML file; numbers never pass through a person's hands:

    id           = "hippocampus-fast"
    version      = "1.0.0"
    title        = "Hippocampus, fast"
    description  = "…"
    intended_use = "…"
    licence      = "CC-BY-SA-4.0"
    attribution  = "…"
    scores       = "student.json"      # of `distillseg evaluate … --json`, beside this file
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from DistillSegLib.errors import PackageError
from DistillSegLib.labels import LabelTable
from DistillSegLib.manifest import Manifest, TestResult, TestScore
from DistillSegLib.postprocessing import Step
from DistillSegLib.records import from_dict

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

METRICS = {"dice": "Dice", "hd95_mm": "HD95 (mm)", "nsd": "surface Dice"}


@dataclass(frozen=True)
class CardConfig:
    """What a person says about a model; the fields are those of `Manifest`.

    Attributes:
        scores: the JSON of `distillseg evaluate`, relative to the card's file.
        analysis: Markdown, relative to the card's file, that becomes a section of the card: for
            whom the model fails, and how far its confidence can be trusted.
    """

    id: str
    version: str
    title: str
    description: str
    intended_use: str
    licence: str
    attribution: str
    not_for: str = ""
    known_failures: str = ""
    citation: str = ""
    modality: str = ""
    scores: str = ""
    analysis: str = ""
    overlap: float = 0.5
    postprocessing: tuple[Step, ...] = ()


_KEYS = ", ".join(field.name for field in fields(CardConfig))


def read_card(path: Path | str) -> CardConfig:
    """Read the person's part; PackageError names what is missing or misspelt."""
    try:
        plain = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as problem:
        raise PackageError(
            f"The card '{path}' could not be read ({problem.strerror or problem}); check the path."
        ) from problem
    except ValueError as problem:  # TOMLDecodeError, UnicodeDecodeError
        raise PackageError(
            f"The card '{path}' is not valid TOML ({problem}); its keys are {_KEYS}."
        ) from problem
    try:
        return from_dict(CardConfig, plain, error=PackageError)
    except PackageError as problem:
        raise PackageError(f"The card '{path}': {problem}") from problem


def read_scores(path: Path, labels: LabelTable, provenance: Mapping[str, Any]) -> TestResult:
    """The test scores in the JSON of `distillseg evaluate`.

    Raises:
        PackageError: it is no such file, lacks a structure, or scores cases of the training.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        cases = {row["case"] for row in data["cases"]}
        scores = tuple(
            from_dict(TestScore, {key: row[key] for key in TestScore.__dataclass_fields__})
            for row in data["summary"]
            if row["metric"] in METRICS
        )
        failures, tolerance_mm = len(data["failures"]), float(data["tolerance_mm"])
        description = f"{data.get('dataset', 'data set')}, {data.get('cases_chosen', 'cases')}"
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise PackageError(
            f"The scores '{path}' are not those of `distillseg evaluate --json` ({problem!r}); "
            "evaluate the model again."
        ) from problem
    trained_on = cases.intersection(provenance.get("training_cases", ()))
    if trained_on and data.get("dataset") == provenance.get("dataset"):
        raise PackageError(
            f"The scores '{path}' are of {len(trained_on)} cases that the model was trained on, "
            f"such as '{min(trained_on)}'; evaluate it on held-out cases."
        )
    missing = {label.name for label in labels} - {score.structure for score in scores}
    if missing:
        raise PackageError(
            f"The scores '{path}' lack the structure '{min(missing)}'; evaluate this very model."
        )
    if failures:
        description += f"; {failures} further cases could not be scored"
    if split := provenance.get("split"):  # who was held out; not how much of the rest was labelled
        known = [f"{key} {split[key]}" for key in ("folds", "fold", "seed") if key in split]
        description += "; split: " + ", ".join(known)
    return TestResult(description, len(cases), tolerance_mm, scores)


def read_analysis(path: Path) -> str:
    """The Markdown of an analysis; PackageError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as problem:
        raise PackageError(
            f"The analysis '{path}' could not be read ({problem}); check the card's `analysis`."
        ) from problem


def card_text(manifest: Manifest, analysis: str = "") -> str:
    """The card as Markdown, with the text of an analysis of the scores."""
    parts = [f"# {manifest.title}", manifest.description, _facts(manifest)]
    for title, text in (
        ("Intended use", manifest.intended_use),
        ("Not for", manifest.not_for),
        ("Known failures", manifest.known_failures),
        ("Scope", _scope(manifest)),
        ("Performance", _performance(manifest.test)),
        ("Analysis", analysis),
        ("The int8 variant", _int8(manifest.provenance.get("int8"))),
        ("Training", _training(manifest.provenance)),
        ("Licence and attribution", f"{manifest.licence}\n\n{manifest.attribution}"),
        ("Citation", manifest.citation),
    ):
        if text.strip():
            parts += [f"## {title}", text.strip()]
    return "\n\n".join(parts) + "\n"


def _facts(manifest: Manifest) -> str:
    rows = [("Package", f"{manifest.id} {manifest.version}")]
    rows += [("Input", f"{manifest.modality}: {', '.join(manifest.channels)}")]
    rows += [
        ("Structures", ", ".join(f"{label.name} ({label.value})" for label in manifest.labels))
    ]
    spacing = " x ".join(f"{value:.3g}" for value in manifest.preprocessing.spacing_mm[::-1])
    rows += [("Network grid", f"{spacing} mm (x, y, z)")]
    for variant in manifest.variants:
        size = f"{variant.size_bytes / 1e6:.1f} MB"
        rows += [(f"Variant {variant.name}", f"{variant.parameters:,} parameters, {size}")]
        memory = f"{variant.bytes_per_voxel:,.0f} bytes per voxel of the network's grid"
        rows += [("Memory of one pass", memory)]
    return _table(("", ""), rows)


def _scope(manifest: Manifest) -> str:
    scope = manifest.scope
    rows = [
        (axis, *(f"{low:.3g} to {high:.3g}" for low, high in ranges))
        for axis, *ranges in zip("xyz", scope.size_mm[::-1], scope.spacing_mm[::-1])
    ]
    table = _table(("axis", "field of view (mm)", "voxel spacing (mm)"), rows)
    return f"Trained on {scope.noun} ({scope.body_part}).\n\n{table}"


def _performance(test: TestResult | None) -> str:
    if test is None:
        return "Not measured."
    structures = dict.fromkeys(score.structure for score in test.scores)
    found = {(score.structure, score.metric): score for score in test.scores}
    rows = [
        (name, *(_mean_and_sd(found.get((name, metric))) for metric in METRICS))
        for name in structures
    ]
    return (
        f"{test.cases} cases: {test.description}. Mean ± standard deviation on the images' own "
        f"grid; surface Dice at {test.tolerance_mm:g} mm.\n\n"
        + _table(("structure", *METRICS.values()), rows)
    )


def _int8(figures: Mapping[str, Any] | None) -> str:
    if not figures:
        return ""
    columns = ("with_fp32", "fp32", "int8")
    rows = [
        (row["structure"], *(f"{row[key]:.4f}" for key in columns)) for row in figures["structures"]
    ]
    return (
        "For OpenVINO, in 8 bits; rounding differs a little between processors. Mean Dice of "
        f"{figures['held_out_cases']} held-out cases on the network's grid: of its labels with "
        "those of fp32, and of each with the reference labels.\n\n"
        + _table(("structure", "int8 with fp32", "fp32", "int8"), rows)
    )


def _mean_and_sd(score: TestScore | None) -> str:
    if score is None or score.mean is None:
        return "–"
    spread = "" if score.sd is None else f" ± {score.sd:.3f}"
    return f"{score.mean:.3f}{spread} (n = {score.cases})"


def _training(provenance: Mapping[str, Any]) -> str:
    rows = []
    for key, value in provenance.items():
        if key == "int8":
            continue  # has a section of its own
        if isinstance(value, Mapping):
            value = ", ".join(f"{_words(name)} {_number(each)}" for name, each in value.items())
        elif isinstance(value, (list, tuple)):
            value = f"{len(value)} (listed in the manifest)"
        rows.append((_words(key), str(value)))
    return _table(("", ""), rows) if rows else ""


def _words(key: str) -> str:
    return key.replace("_", " ")


def _number(value: Any) -> str:
    """As it is; of a fraction three digits that count."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = ([str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
