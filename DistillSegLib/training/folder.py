"""The folder of a run: whose it is, and whether it may be gone on with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from DistillSegLib.errors import RecipeError
from DistillSegLib.files import write_text
from DistillSegLib.records import nearest, to_dict
from DistillSegLib.training.recipe import Recipe

MACHINE = ("accelerator", "devices", "nodes", "strategy", "workers")  # may differ when resumed


def check_recipe(recipe: Recipe, out: Path, resume: bool) -> bool:
    """Whether a run was begun in the folder. RecipeError if it must not be touched."""
    if out.exists() and not out.is_dir():
        raise RecipeError(f"'{out}' is a file; give a folder for the run.")
    if not (out / "recipe.json").is_file():
        return False
    if not resume:
        raise RecipeError(
            f"'{out}' holds a run already; give --resume to go on with it, or another folder."
        )
    _check_same(read(out / "recipe.json"), to_dict(recipe), out, "recipe", MACHINE)
    return True


def check_plan(plan: Mapping[str, Any], out: Path) -> None:
    """RecipeError if a begun run has another plan: its data are not those it was begun with."""
    if (out / "plan.json").is_file():
        _check_same(read(out / "plan.json"), plan, out, "plan")


def checkpoint_of(run: Path, stage: str | None = None, role: str | None = None) -> Path:
    """The network of a run's stage: by default of the last one, and the only one it trained.

    Raises:
        RecipeError: no run, stage or role of that name, or several roles to choose from.
    """
    try:
        recipe = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
        stages = {each["name"]: list(each["trained"]) for each in recipe["stages"]}
    except (OSError, ValueError, LookupError, TypeError) as problem:
        raise RecipeError(
            f"'{run}' is no folder of `distillseg train`: its recipe.json cannot be read "
            f"({type(problem).__name__}); give the folder of a run."
        ) from problem
    stage = stage or list(stages)[-1]
    if stage not in stages:
        raise RecipeError(f"The run '{run}' has no stage '{stage}'; {nearest(stage, stages)}")
    roles = stages[stage]
    if role is not None and role not in roles:
        raise RecipeError(f"Stage '{stage}' trained no role '{role}'; {nearest(role, roles)}")
    if role is None and len(roles) > 1:
        raise RecipeError(f"Stage '{stage}' trained {', '.join(roles)}; choose one with --role.")
    return run / stage / f"{role or roles[0]}.pt"


def _check_same(
    before: Mapping, now: Mapping, out: Path, what: str, but: Sequence[str] = ()
) -> None:
    """Resuming with other settings would mix two experiments."""
    for key in now:
        if key not in but and (place := _difference(before.get(key), now[key], key)):
            raise RecipeError(
                f"'{out}' was begun with another {what}: '{place}' differs. Resume it with the "
                "recipe, the --set values and the data it was begun with, or choose another folder."
            )


def _difference(before: Any, now: Any, place: str) -> str:
    """Where two plain values first differ, as --set writes it; empty if they do not."""
    if _tables(before) and _tables(now) and len(before) == len(now):
        before, now = (dict(enumerate(entries)) for entries in (before, now))
    if isinstance(before, Mapping) and isinstance(now, Mapping) and before.keys() == now.keys():
        for key, value in now.items():
            name = value.get("name", key) if isinstance(value, Mapping) else key
            if found := _difference(before[key], value, f"{place}.{name}"):
                return found
        return ""
    return "" if before == now else place


def _tables(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value)


def read(path: Path) -> Any:
    """A JSON file of the run. RecipeError if it is absent or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise RecipeError(
            f"'{path}' cannot be read ({problem}); begin the run anew in another folder."
        ) from problem


def write(path: Path, data: Any) -> None:
    """Write plain data as JSON, whole or not at all."""
    write_text(path, json.dumps(data, indent=1))
