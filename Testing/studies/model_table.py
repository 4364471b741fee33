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
from DistillSegLib.manifest import Manifest, TestScore
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
        dice, hd95, nsd = (found[label.name, metric] for metric in ("dice", "hd95_mm", "nsd"))
        cells = [_cell(dice, 4), _cell(hd95, 2) + _missed(dice, hd95), _cell(nsd, 4)]
        facts = [
            f"{cost['parameters']:,}",
            f"{cost['package_mb']} MB",
            f"{cost['network_cpu_ms']:.0f}",
        ]
        name = f"`{manifest.id}`" if number == 0 else ""
        facts = facts if number == 0 else [""] * len(facts)
        rows.append(f"| {' | '.join([name, label.name, *cells, *facts])} |")
    return rows


def _cell(score: TestScore, digits: int) -> str:
    """Mean and standard deviation, which one case has not; a dash where no case gave a value."""
    if score.mean is None:
        return "–"
    return f"{score.mean:.{digits}f}" + ("" if score.sd is None else f" ± {score.sd:.{digits}f}")


def _missed(dice: TestScore, hd95: TestScore) -> str:
    """How many cases the mean distance leaves out: one that was missed has a Dice of 0 and none."""
    missed = dice.cases - hd95.cases
    return f" ({missed} of {dice.cases} missed)" if missed else ""


def filled(readme: str) -> str:
    """The README with the table between its two marks."""
    return between(readme, BEGIN, END, table())


if __name__ == "__main__":
    readme = ROOT / "README.md"
    write_text(readme, filled(readme.read_text(encoding="utf-8")))
