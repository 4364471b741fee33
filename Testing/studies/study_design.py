"""What a study compares: its arms, the guides that they learn from, its folds and seeds.

A study is a TOML file beside this one; `study.py` runs it, and `study_table.py` makes its table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from DistillSegLib.errors import RecipeError
from DistillSegLib.places import recipes
from DistillSegLib.records import from_dict

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


@dataclass(frozen=True)
class Arm:
    """A row of the table.

    Attributes:
        title: what the row says.
        set: overrides of the study's recipe, as `--set` takes them; "{teacher}" becomes the
            checkpoint of the guide of that name, and {domains} those of the run's data sets.
        apart: whether each data set has a network of its own.
        against: the arm that it is tested against, where this is not the study's baseline.
        recipe: where it is not the study's; has a stage of the same name. All its stages are the
            arm's cost.
        package: a bundled model that is scored as it is, in place of a training.
        nnunet: options of `train_nnunet.py`, in place of a training of ours.
    """

    name: str
    title: str
    set: tuple[str, ...] = ()
    apart: bool = False
    against: str = ""
    recipe: str = ""
    package: str = ""
    nnunet: tuple[str, ...] = ()


@dataclass(frozen=True)
class Guide:
    """A network that arms learn from: a stage of another recipe, trained once for each fold.

    Attributes:
        package: a bundled model that was trained on the fold, in place of a recipe's stage.
        stored: whether its answers are stored once, by `store_maps.py`, and the network stays away.
    """

    recipe: str = ""
    stage: str = ""
    role: str = ""
    set: tuple[str, ...] = ()
    package: str = ""
    stored: bool = False

    def __post_init__(self) -> None:
        trained = (self.recipe, self.stage, self.role)
        if all(trained) == bool(self.package) or any((*trained, *self.set)) == bool(self.package):
            raise ValueError("a guide is a recipe's stage and role, or a package.")


@dataclass(frozen=True)
class Study:
    """What is compared with what.

    Attributes:
        data: the organ or body part whose data set it is on, as the pictures name it.
        recipe: bundled, or a file beside the study's.
        stage, role: the network that is scored.
        baseline: the arm that the others are tested against.
        size: what is smaller here than it should be, and what holds for all runs; stands below the
            table.
    """

    name: str
    title: str
    recipe: str
    stage: str
    baseline: str
    arms: tuple[Arm, ...]
    size: str
    role: str = "student"
    data: str = ""
    folds: tuple[int, ...] = (0,)
    seeds: tuple[int, ...] = (0, 1, 2)
    guides: dict[str, Guide] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if self.baseline not in names or len(set(names)) != len(names):
            raise ValueError(f"baseline is '{self.baseline}'; the arms are {', '.join(names)}.")
        for arm in self.arms:
            if arm.against and arm.against not in names:
                raise ValueError(
                    f"arm '{arm.name}' is tested against '{arm.against}'; the arms are "
                    f"{', '.join(names)}."
                )
        if self.guides and any(arm.apart for arm in self.arms):
            raise ValueError("an arm trains each data set apart, and a guide knows one only.")


@dataclass(frozen=True)
class Run:
    """One training of one arm."""

    arm: Arm
    fold: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm.name}-f{self.fold}-s{self.seed}"


def load_study(name: str) -> Study:
    """The study of that name; RecipeError names an unknown key."""
    path = HERE / f"{name}.toml"
    return from_dict(Study, {"name": name} | tomllib.loads(path.read_text(encoding="utf-8")))


def queue(study: Study) -> Iterator[Run]:
    """All runs; every arm once before any comes again, so that what is done can be compared."""
    for seed in study.seeds:
        for fold in study.folds:
            for arm in study.arms:
                yield Run(arm, fold, seed)


def result_of(study: Study, run: Run, results: Path = RESULTS) -> Path:
    """Where the scores of a run are kept."""
    return results / study.name / f"{run.name}.json"


def recipe_path(name: str) -> Path | str:
    """A recipe beside the studies, or the name of a bundled one."""
    return HERE / name if name.endswith(".toml") else name


def recipe_form(name: str) -> dict[str, Any]:
    """What the file of either says, before any override."""
    path = HERE / name if name.endswith(".toml") else recipes()[name]
    return tomllib.loads(path.read_text(encoding="utf-8"))


def guides_of(study: Study, arm: Arm) -> list[str]:
    """The guides that an arm's settings name; it waits for no other."""
    return [name for name in study.guides if any(f"{{{name}}}" in word for word in arm.set)]


def settings(study: Study, run: Run) -> dict[str, Any]:
    """What makes a run what it is, beside fold and seed: overrides, recipe, guides, package."""
    guides = {name: study.guides[name] for name in guides_of(study, run.arm)}
    return {
        "set": list(run.arm.set or run.arm.nnunet),
        "recipe": _digest(recipe_form(run.arm.recipe or study.recipe)),
        "package": run.arm.package,
        "guides": {name: _digest(_form(guide)) for name, guide in guides.items()},
    }


def _form(guide: Guide) -> dict[str, Any]:
    """All that a guide follows from."""
    return vars(guide) | {"recipe": recipe_form(guide.recipe) if guide.recipe else ""}


def _digest(form: Any) -> str:
    return hashlib.sha256(json.dumps(form, sort_keys=True).encode()).hexdigest()[:12]


def check_kept(study: Study, run: Run, path: Path) -> None:
    """RecipeError if a kept run had other settings than its arm and its recipe have now."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    now = settings(study, run)
    changed = [key for key in now if kept.get(key) != now[key]]
    if changed:
        raise RecipeError(
            f"'{path}' was made with other settings ({', '.join(changed)}) than the "
            f"study '{study.name}' has now; delete it to repeat the run, or set that back."
        )
