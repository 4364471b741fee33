"""Writes the address of the repository on GitHub wherever it is needed.

    python Testing/studies/set_repository.py OWNER/SlicerDistillSeg

The one constant is `Repository` in pyproject.toml. The Extensions Index reads addresses as text, so
that they are written out in the other files; a test compares all with the constant.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = ("pyproject.toml", "CMakeLists.txt", "Resources/DistillSeg.json", "README.md")
CONSTANT = re.compile(r'^Repository = "https://github\.com/([\w.-]+/[\w.-]+)"$', re.MULTILINE)
NAME = re.compile(r"[\w.-]+/Slicer[\w.-]+")  # what the Extensions Index asks of a repository


def repository(root: Path = ROOT) -> str:
    """The constant, as "owner/name"."""
    return CONSTANT.search((root / "pyproject.toml").read_text(encoding="utf-8"))[1]


def set_repository(new: str, root: Path = ROOT) -> list[str]:
    """Replace the address; returns the files that changed.

    Raises:
        ValueError: it is not owner/name, or the name does not begin with "Slicer".
    """
    if not NAME.fullmatch(new):
        raise ValueError(
            f"'{new}' is not OWNER/NAME with a NAME that begins with 'Slicer', as the Extensions "
            "Index asks; give for example OWNER/SlicerDistillSeg."
        )
    old, changed = repository(root), []
    for name in FILES:
        path = root / name
        text = path.read_text(encoding="utf-8")
        if old in text:
            path.write_text(text.replace(old, new), encoding="utf-8", newline="\n")
            changed.append(name)
    return changed


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Usage: set_repository.py OWNER/SlicerDistillSeg")
    try:
        print("Changed:", ", ".join(set_repository(sys.argv[1])))
    except ValueError as problem:
        sys.exit(str(problem))
