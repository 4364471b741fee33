"""Where things lie: what comes with DistillSeg, and what the user adds."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent


def resources() -> Path:
    """The folder of what is bundled: `Models/` (packages) and `Samples/`.

    A wheel carries it inside `DistillSegLib`; a source checkout and an installed extension beside.
    """
    inside = _HERE / "Resources"
    return inside if inside.is_dir() else _HERE.parent / "Resources"


def sample_facts(sample: Path) -> dict[str, Any]:
    """What is known of a bundled sample: its name, licence, attribution, and volumes in ml."""
    facts = sample.with_name(sample.name.replace(".nii.gz", ".json"))
    return json.loads(facts.read_text(encoding="utf-8"))


def recipes() -> dict[str, Path]:
    """The bundled recipes by name."""
    return {file.stem: file for file in sorted((_HERE / "recipes").glob("*.toml"))}


def user_folder() -> Path:
    """The folder of what the user installs; it need not exist yet.

    The environment variable DISTILLSEG_HOME moves it, otherwise it lies where the platform keeps
    the data of programs.
    """
    if chosen := os.environ.get("DISTILLSEG_HOME"):
        return Path(chosen).expanduser()
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "DistillSeg"
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "DistillSeg"
    return Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "DistillSeg"
