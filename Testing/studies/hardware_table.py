"""Write the README's table of speed and memory from a saved benchmark.

    distillseg benchmark --against nnunet,monai,torch --threads 2 --scale \
        --json Resources/Studies/benchmark.json --markdown Resources/Studies/benchmark.md
    python Testing/studies/hardware_table.py

No number passes through a person's hands; every file `Resources/Studies/benchmark*.json` gives one
table, headed by the hardware it was measured on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from readme_marks import between

from DistillSegLib.benchmark.hardware import hardware_line
from DistillSegLib.benchmark.report import ENGINES, Table, markdown_table
from DistillSegLib.files import write_text

ROOT = Path(__file__).resolve().parents[2]
BEGIN = "<!-- hardware:begin (generated from Resources/Studies/benchmark*.json) -->"
END = "<!-- hardware:end -->"
COLUMNS = (
    *("pipeline", "network (untrained)", "engine", "wall s", "CPU s", "peak memory MB"),
    *("in memory, wall s", "CPU, times ours"),
)


def table(result: Mapping[str, Any]) -> str:
    """One benchmark as Markdown: hardware, table, and what was measured."""
    parts = [hardware_line(result["hardware"], result["threads"])]
    for subject in result["subjects"]:
        if subject["kind"] == "phantom":
            rows = _rows(subject["rows"])
            parts += [f"{subject['name']}; medians of {result['repeats']}:"]
            parts += [markdown_table(Table("", COLUMNS, tuple(rows)))]
    return "\n\n".join(parts)


def _rows(measured: list[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """Each row beside the best of ours with the same network, or with any if ours has not that."""
    measured = [row for row in measured if row["median"]]
    ours = [row for row in measured if row["work"] == "lean"]
    rows = []
    for row in measured:
        middle, warm = row["median"], row.get("in_memory_median")
        alike = [one for one in ours if one["model"] == row["model"]]
        best = min(one["median"]["cpu_s"] for one in alike or ours)
        times = f"{middle['cpu_s'] / best:.1f}×"
        rows.append(
            (
                row["pipeline"],
                row["model"],
                ENGINES.get(row["engine"], row["engine"]),
                round(middle["wall_s"], 2),
                round(middle["cpu_s"], 2),
                round(middle["peak_mb"]),
                round(warm["wall_s"], 3) if warm else None,
                times if alike else f"{times}, another network",
            )
        )
    return rows


def filled(readme: str, results: list[Mapping[str, Any]]) -> str:
    """The README with the tables between its two marks."""
    return between(readme, BEGIN, END, "\n\n".join(table(result) for result in results))


if __name__ == "__main__":
    files = sorted((ROOT / "Resources" / "Studies").glob("benchmark*.json"))
    results = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    readme = ROOT / "README.md"
    write_text(readme, filled(readme.read_text(encoding="utf-8"), results))
