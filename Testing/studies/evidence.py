"""Write the README's evidence: pictures of every organ, and a short table of every study.

    python Testing/studies/evidence.py

takes what lies in `Resources/Studies`: no number passes through a person's hands. A study of which
no run is kept is left out. The full tables, which `study_table.py` makes, are linked.
"""

from __future__ import annotations

import re
from pathlib import Path

import study_design as studies
from readme_marks import between

from DistillSegLib.files import write_text

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "Resources/Studies"
BEGIN = "<!-- studies:begin (generated from Resources/Studies by evidence.py) -->"
END = "<!-- studies:end -->"
ORDER = (
    "nnunet",
    "methods",
    "tiny-long",
    "gtan",
    "few-labels",
    "distill-dsm",
    "lcov",
    "emkd",
    "ventricle-student",
    "ventricle-gtan",
    "ventricle-lcov",
    "ct-mr",
)  # then others
# Columns of the short tables.
KEPT = re.compile(r"arm|Dice .*|HD95 mm|difference, points|95 % interval|p|CPU min")
WAITING = re.compile(r"(\d+ of \d+ runs (?:is|are) still to be done\.)")
PICTURES = {
    "milliseconds": "accuracy against computing time",
    "parameters": "accuracy against size",
    "structures": "Dice of every case",
    "gallery": "outlines of best, median and worst case",
}
NOTES = (
    "In the tables, Dice is mean ± standard deviation over runs (seeds, or folds) of the mean over "
    "held-out cases. The difference is that of a patient's mean over structures and runs, in "
    "percentage points of Dice; its 95 % interval is of a bootstrap over patients, its p of a "
    "two-sided Wilcoxon signed-rank test over the patients, not corrected for the number of rows. "
    "Few patients cannot make p small: with seven, as on the left ventricle, it is never below "
    ".016. On the hippocampus a patient is one crop, of a left or right side. HD95 is over the "
    "cases in which the structure was found; 'missed' counts the others. "
    "CPU minutes are of the arm's own training on one processor core, without its teachers' and "
    "without the processes that prepare patches."
)


def evidence(root: Path = ROOT) -> str:
    """All of it as Markdown, with paths from the README's place."""
    folder = root / FOLDER
    parts = [pictures(folder, organ) for organ in organs(folder)]
    known = {path.stem for path in studies.HERE.glob("*.toml")}
    names = [name for name in ORDER if name in known] + sorted(known - set(ORDER))
    tables = [text for name in names if (text := section(folder, studies.load_study(name)))]
    return "\n\n".join([*parts, *([NOTES] if tables else []), *tables])


def organs(folder: Path) -> list[str]:
    """Those whose models' scores were drawn."""
    ending = "-structures.svg"
    return sorted(path.name.removesuffix(ending) for path in folder.glob(f"*{ending}"))


def pictures(folder: Path, organ: str) -> str:
    """The first picture of an organ, and the others to be unfolded; galleries are of a model."""
    there = {
        path: f"{_name(path.stem.removesuffix(kind))}: {words}"
        for kind, words in PICTURES.items()
        for path in sorted(folder.glob(f"{organ}-*{kind}.svg"))
    }
    shown = [f"![{words}]({FOLDER}/{path.name})" for path, words in there.items()]
    if len(shown) == 1:
        return shown[0]
    kinds = [kind for kind in PICTURES if any(path.stem.endswith(kind) for path in there)]
    more = "; ".join(PICTURES[kind] for kind in kinds[1:])
    summary = f"<summary>{_name(organ)}: {more}</summary>"
    return "\n\n".join([shown[0], f"<details>{summary}", *shown[1:], "</details>"])


def _name(stem: str) -> str:
    return stem.strip("-").replace("-", " ").capitalize()


def section(folder: Path, study: studies.Study) -> str:
    """A study's title, short table and sentences; empty if none of its runs is kept."""
    path = folder / f"{study.name}.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    if not rows:
        return ""
    baseline = next(arm.title for arm in study.arms if arm.name == study.baseline)
    waiting = "".join(f" {found}" for found in WAITING.findall(text))
    links = f"[All columns]({FOLDER}/{study.name}.md)"
    if (folder / f"{study.name}.svg").is_file():
        links += f", [every run]({FOLDER}/{study.name}.svg)"
    sentences = f"Compared with *{baseline}*. {study.size}{waiting} {links}."
    return f"### {study.title}\n\n{short_table(rows)}\n\n{sentences}"


def short_table(rows: list[str]) -> str:
    """Of a Markdown table the columns that a reader needs first."""
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    kept = [n for n, head in enumerate(cells[0]) if KEPT.fullmatch(head)]
    return "\n".join(f"| {' | '.join(row[n] for n in kept)} |" for row in cells)


def filled(readme: str, root: Path = ROOT) -> str:
    """The README with the evidence between its two marks."""
    return between(readme, BEGIN, END, evidence(root))


if __name__ == "__main__":
    readme = ROOT / "README.md"
    write_text(readme, filled(readme.read_text(encoding="utf-8")))
