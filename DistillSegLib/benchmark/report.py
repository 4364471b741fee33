"""What a benchmark says, as tables: medians, ratios, growth; the same for terminal and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from DistillSegLib.benchmark.hardware import hardware_line
from DistillSegLib.benchmark.summary import growth, ratios

STAGES = ("import", "load", "read", "preprocess", "network", "labels", "postprocess", "write")
WHAT = ("pipeline", "network", "engine")
ENGINES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "torch": "PyTorch"}
NOTES = (
    "Medians of {repeats}. Wall and CPU seconds are those of a fresh process from its start to the "
    "written file, memory is its resident peak. Pipelines took turns and had the same threads.",
    "In memory: process and model warm, image in memory, labels not written.",
)


@dataclass(frozen=True)
class Table:
    """A title, the names of the columns, the rows, and sentences below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    notes: tuple[str, ...] = ()


def tables(result: Mapping[str, Any]) -> list[Table]:
    """All that a result has to say, in order."""
    found = []
    for subject in result["subjects"]:
        found.append(_times(subject, result["repeats"]))
        found.append(_stages(subject, "median", "stages in wall seconds", ()))
        in_memory = _stages(subject, "in_memory_median", "in memory", NOTES[1:])
        found += [in_memory] if in_memory.rows else []
        if compared := _ratios(subject):
            found.append(compared)
    return found + _growth(result["scale"])


def _times(subject: Mapping[str, Any], repeats: int) -> Table:
    measured = [row for row in subject["rows"] if row["median"]]
    rows = [
        (
            *_what(row),
            _seconds(row["median"]["wall_s"]),
            _seconds(row["median"]["cpu_s"]),
            round(row["median"]["peak_mb"]),
            _percent(row["agreement"]),
        )
        for row in measured
    ]
    columns = (*WHAT, "wall s", "CPU s", "peak MB", "labels equal")
    if not any(row["agreement"] is not None for row in measured):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    failed = [
        f"{row['pipeline']}, {row['model']}: {row['failed']}"
        for row in subject["rows"]
        if row["failed"]
    ]
    notes = (NOTES[0].format(repeats=repeats), *_about(subject), *failed)
    return Table(subject["name"], columns, tuple(rows), notes)


def _stages(subject: Mapping[str, Any], median: str, title: str, notes: tuple[str, ...]) -> Table:
    """Wall seconds of each stage; `median` is the key of a row where they stand."""
    measured = [row for row in subject["rows"] if row.get(median)]
    seen = {stage for row in measured for stage in row[median]["stages"]}
    stages = [stage for stage in STAGES if stage in seen] + sorted(seen - set(STAGES))
    whole = median == "in_memory_median"
    rows = tuple(
        (
            *_what(row),
            *([_seconds(row[median]["wall_s"]), _seconds(row[median]["cpu_s"])] if whole else []),
            *(_seconds(row[median]["stages"].get(stage)) for stage in stages),
        )
        for row in measured
    )
    columns = (*WHAT, *(["wall s", "CPU s"] if whole else []), *stages)
    return Table(f"{subject['name']}, {title}", columns, rows, notes)


def _about(subject: Mapping[str, Any]) -> list[str]:
    """What was segmented, and that the networks are not trained."""
    if subject["kind"] != "phantom":
        return []
    voxels, grid = (_by(subject[key]) for key in ("shape", "grid"))
    notes = [
        f"A volume made by code, {voxels} voxels of {_by(subject['spacing_mm'])} mm, segmented "
        f"into 14 classes on a grid of {grid} voxels. The networks are untrained: weights of a "
        "fixed seed that blur in space, the last layer fitted to the phantom in closed form, so "
        "that the labels are like organs. No accuracy is measured."
    ]
    for title, network in subject["networks"].items():
        notes.append(
            f"{title}: {network['parameters']:,} parameters; "
            f"{network['mixed']:.0%} of the cells of its grid hold several classes; "
            f"{network['like_phantom']:.0%} of its voxels are of the phantom's class."
        )
    if any(row["agreement"] is not None for row in subject["rows"]):
        notes.append(
            "Labels equal: share of voxels labelled as DistillSeg labels them with the same "
            "weights; resampling, borders and the crop to the body differ between the projects."
        )
    return notes


def _ratios(subject: Mapping[str, Any]) -> Table | None:
    # Other students through the peers' pipelines say nothing new; the teacher's network does.
    compared = [each for each in ratios(subject["rows"]) if each["same_weights"] or each["teacher"]]
    if not compared:
        return None
    rows = tuple(
        (
            each["peer"],
            each["peer_model"],
            each["model"],
            ENGINES.get(each["engine"], each["engine"]),
            f"{each['cpu']:.1f}×",
            f"{each['memory']:.1f}×",
            f"{each['wall']:.1f}×",
        )
        for each in compared
    )
    columns = ("other pipeline", "its network", "DistillSeg with", "engine")
    return Table(
        f"{subject['name']}, other pipelines divided by DistillSeg",
        (*columns, "CPU", "memory", "wall"),
        rows,
        (
            "Medians divided by medians: CPU seconds, peak memory and wall seconds of processes. "
            "Above 1, DistillSeg takes less.",
        ),
    )


def _growth(steps: Sequence[Mapping[str, Any]]) -> list[Table]:
    if not steps:
        return []
    rows = tuple(
        (
            _by(step["shape"]),
            round(step["voxels"] / 1e6, 2),
            ENGINES.get(step["engine"], step["engine"]),
            _seconds(step["median"]["wall_s"]),
            _seconds(step["median"]["cpu_s"]),
            _seconds(step["median"]["computing_s"]),
            _seconds(step["median"]["segment_cpu_s"]),
            round(step["median"]["peak_mb"]),
        )
        for step in steps
        if step["median"]
    )
    notes = [
        "Computing is all but import, loading, reading and writing, in wall seconds; segmenting is "
        "computing and reading, in CPU seconds of all threads. Files are uncompressed."
    ]
    for engine in dict.fromkeys(step["engine"] for step in steps):
        if found := growth(list(steps), engine):
            notes.append(
                f"{ENGINES.get(engine, engine)}: segmenting (CPU) grows with the voxels to "
                f"the power {found['time_exponent']:.2f}, memory to the power "
                f"{found['memory_exponent']:.2f}; each further voxel takes "
                f"{found['bytes_per_voxel']:.1f} bytes."
            )
    columns = ("voxels", "million", "engine", "wall s", "CPU s", "computing s", "segmenting CPU s")
    columns = (*columns, "peak MB")
    return [Table("Growth with the volume", columns, rows, tuple(notes))]


def markdown(result: Mapping[str, Any]) -> str:
    """The whole result as Markdown."""
    parts = [hardware_line(result["hardware"], result["threads"])]
    for table in tables(result):
        parts += [f"**{table.title}**", markdown_table(table), *table.notes]
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """Rows and columns only."""
    numeric = [
        any(isinstance(row[i], (int, float)) for row in table.rows)
        for i in range(len(table.columns))
    ]
    lines = [table.columns, ["---:" if each else "---" for each in numeric], *table.rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


def _what(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["pipeline"], row["model"], ENGINES.get(row["engine"], row["engine"])


def _seconds(value: float | None) -> float | None:
    """Three digits that mean something."""
    if value is None:
        return None
    return round(value, 3 if value < 1 else 2 if value < 100 else 1)


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.2%}"


def _by(zyx: Sequence[float]) -> str:
    return "x".join(f"{each:.4g}" for each in zyx[::-1])
