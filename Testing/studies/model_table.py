"""Write the README's table of models from the bundled packages' manifests.

    python Testing/studies/model_table.py

No number passes through a person's hands: accuracy comes from the manifests, which the export
filled from `distillseg evaluate`; cost from `measure_cost.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

from readme_marks import between

from DistillSegLib.files import write_text
from DistillSegLib.manifest import Manifest
from DistillSegLib.package import read_package

ROOT = Path(__file__).resolve().parents[2]
BEGIN = "<!-- models:begin (generated from the packages' manifests) -->"
END = "<!-- models:end -->"
HEAD = (
    "| model | structure | Dice | HD95 mm | surface Dice 1 mm | parameters | package | "
    "CPU ms (network) |\n|---|---|---|---|---|---|---|---|"
)


def table() -> str:
    """The table and the sentence below it, as Markdown."""
    costs = {}
    for file in sorted((ROOT / "Resources" / "Studies").glob("*-cost.json")):
        costs |= json.loads(file.read_text(encoding="utf-8"))["packages"]
    packages = sorted((ROOT / "Resources" / "Models").glob("*.distillseg"))
    manifests = [read_package(path).manifest for path in packages]
    rows = [row for manifest in manifests for row in _rows(manifest, costs[manifest.id])]
    tests = dict.fromkeys((m.test.cases, m.test.description) for m in manifests)
    notes = "; ".join(f"{cases} cases, {text}" for cases, text in tests)
    return (
        "\n".join([HEAD, *rows])
        + f"\n\nMean ± standard deviation over {notes}, on the images' own grid. CPU time on the "
        "organ's bundled sample, one thread; all models of an organ in one run."
    )


def _rows(manifest: Manifest, cost: dict) -> list[str]:
    found = {(score.structure, score.metric): score for score in manifest.test.scores}
    rows = []
    for number, label in enumerate(manifest.labels):
        scores = (found[label.name, metric] for metric in ("dice", "hd95_mm", "nsd"))
        digits = (4, 2, 4)
        cells = [f"{s.mean:.{d}f} ± {s.sd:.{d}f}" for s, d in zip(scores, digits, strict=True)]
        facts = [
            f"{cost['parameters']:,}",
            f"{cost['package_mb']} MB",
            f"{cost['network_cpu_ms']:.0f}",
        ]
        name = f"`{manifest.id}`" if number == 0 else ""
        facts = facts if number == 0 else [""] * len(facts)
        rows.append(f"| {' | '.join([name, label.name, *cells, *facts])} |")
    return rows


def filled(readme: str) -> str:
    """The README with the table between its two marks."""
    return between(readme, BEGIN, END, table())


if __name__ == "__main__":
    readme = ROOT / "README.md"
    write_text(readme, filled(readme.read_text(encoding="utf-8")))
