"""Commands and scripts that a study starts, and the data sets and scores as these take them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
METRICS = ("dice", "hd95_mm", "nsd")
Data = Mapping[str, Path]  # data set by domain; "" where there is one only


def command(*words: object) -> None:
    """A command of `distillseg`, in a process of its own; the same Python."""
    subprocess.run([sys.executable, "-m", "DistillSegLib.cli", *map(str, words)], check=True)


def script(name: str, *words: object) -> None:
    """A script beside this one, in a process of its own; DistillSeg may be installed or not."""
    places = [str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    full = [sys.executable, str(HERE / name), *map(str, words)]
    subprocess.run(full, check=True, env=environment)


def words_of(data: Data) -> list[str]:
    """Data sets as `--data` takes them."""
    return [f"{domain}={path}" if domain else str(path) for domain, path in data.items()]


def scores_in(path: Path) -> dict[str, dict[str, list]]:
    """Case -> structure -> its METRICS, of what `distillseg evaluate --json` wrote."""
    cases: dict[str, dict[str, list]] = {}
    for row in json.loads(path.read_text(encoding="utf-8"))["cases"]:
        values = [None if row[key] is None else round(row[key], 4) for key in METRICS]
        cases.setdefault(row["case"], {})[row["structure"]] = values
    return cases
