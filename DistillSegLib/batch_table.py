"""The table beside a batch's results: what became of each input, one row each."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from DistillSegLib.errors import ImageError
from DistillSegLib.files import write_text

TABLE = "results.csv"

_FIRST = ("case", "status", "input", "output", "seconds")
_LAST = ("warnings", "reason", "package", "fingerprint")
_UNIT = " (ml)"


@dataclass(frozen=True)
class Row:
    """What became of one input; a line of the table.

    Attributes:
        status: "done", "failed" or "skipped" (not an image; it was not tried).
        seconds: from image in memory to label map.
        volumes_ml: by structure.
        reason: why it failed or was skipped, in one sentence.
        fingerprint: of the input files, the package and the region; equal only if a second run
            would give the same result.
    """

    case: str
    status: str
    input: str
    output: str = ""
    seconds: float = 0.0
    volumes_ml: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    reason: str = ""
    package: str = ""
    fingerprint: str = ""


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write all rows, whole or not at all."""
    structures = dict.fromkeys(name + _UNIT for row in rows for name in row.volumes_ml)
    text = io.StringIO()
    table = csv.DictWriter(text, [*_FIRST, *structures, *_LAST], restval="", lineterminator="\n")
    table.writeheader()
    for row in rows:
        line = {name: getattr(row, name) for name in (*_FIRST, *_LAST)}
        line["warnings"] = " ".join(row.warnings)
        line |= {name + _UNIT: f"{volume:.6g}" for name, volume in row.volumes_ml.items()}
        table.writerow(line)
    write_text(path, text.getvalue())


def read_table(path: Path) -> dict[str, Row]:
    """The rows of an earlier run by case; none if there was none."""
    if not path.exists():
        return {}
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            lines = list(csv.DictReader(stream))
        return {line["case"]: _row(line) for line in lines}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as problem:
        raise ImageError(
            f"'{path}' is not a table of an earlier run ({type(problem).__name__}: {problem}); "
            "remove it or choose another output folder."
        ) from problem


def _row(line: dict[str, str]) -> Row:
    volumes = {
        name.removesuffix(_UNIT): float(value)
        for name, value in line.items()
        if name.endswith(_UNIT) and value
    }
    known = {name: line[name] for name in (*_FIRST, *_LAST)}
    warnings = (known["warnings"],) if known["warnings"] else ()
    seconds = float(known["seconds"])
    return Row(**known | {"volumes_ml": volumes, "warnings": warnings, "seconds": seconds})
