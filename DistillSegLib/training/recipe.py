"""A recipe is data: which networks, which links between them, in which stages.

    recipe = load_recipe("hippocampus", overrides=["stages.student.epochs=5", "seed=1"])

Every key is a field of one of the dataclasses below; an unknown one stops the run and names the
nearest known one, before anything is computed. `recipes/distil.toml` shows all of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

from DistillSegLib.distill import TERMS
from DistillSegLib.distill.distillation import Link
from DistillSegLib.errors import RecipeError
from DistillSegLib.labels import Label
from DistillSegLib.networks import NetworkConfig
from DistillSegLib.places import recipes
from DistillSegLib.preprocessing import Intensity, Preprocessing
from DistillSegLib.records import from_dict, nearest
from DistillSegLib.scope import Wider
from DistillSegLib.training.teachers import TeacherConfig


@dataclass(frozen=True)
class LinkConfig:
    """A weighted term by name, with the fields of its dataclass as settings."""

    term: str
    weight: float = 1.0
    student: str = "student"
    teacher: str | None = "teacher"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"weight is {self.weight}; use 0 or more.")

    def build(self) -> Link:
        """The link; RecipeError names an unknown term or setting."""
        if self.term not in TERMS:
            raise RecipeError(f"No term '{self.term}'; {nearest(self.term, TERMS)}")
        term = from_dict(TERMS[self.term], self.settings, where=f"settings of '{self.term}'")
        return Link(term, self.weight, self.student, self.teacher)


@dataclass(frozen=True)
class OptimConfig:
    """How weights move.

    Attributes:
        learning_rate: at its peak, after the warm-up.
        schedule: how it falls to zero; "poly" is nnU-Net's, (1 - share done)^0.9.
        warmup: share of the stage over which it rises from zero.
        hold: share of the stage, after the warm-up, over which it stays at its peak.
        max_norm: gradients are clipped to this norm.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    warmup: float = 0.02
    hold: float = 0.0
    max_norm: float = 12.0

    def __post_init__(self) -> None:
        if not (0 < self.learning_rate < math.inf and self.max_norm > 0):
            raise ValueError(
                f"learning_rate is {self.learning_rate} and max_norm {self.max_norm}; use numbers "
                "above 0."
            )
        shares = min(self.warmup, self.hold) >= 0 and self.warmup + self.hold < 1
        if not (0 <= self.weight_decay < math.inf and shares):
            raise ValueError(
                f"weight_decay is {self.weight_decay}, warmup {self.warmup}, hold {self.hold}; use "
                "0 or more, and a warmup below 1, with hold too."
            )


@dataclass(frozen=True)
class Stage:
    """One training: roles that learn, roles that guide, links between them.

    Attributes:
        trained: role -> network that learns.
        frozen: role -> "stage/role" of an earlier stage, the path of a checkpoint (.pt), or a
            teacher from elsewhere.
        start: role -> where its weights and the optimiser's memory of them come from, a stage/role
            or a checkpoint; the same network, or a narrower "unet", which grows.
        growth_noise: what sets the copies of a grown network apart, as a share of the standard
            deviation of a layer's weights.
        optim: instead of the recipe's.
    """

    name: str
    epochs: int
    trained: Mapping[str, NetworkConfig]
    links: Mapping[str, LinkConfig]
    frozen: Mapping[str, str | TeacherConfig] = field(default_factory=dict)
    start: Mapping[str, str] = field(default_factory=dict)
    growth_noise: float = 0.01
    optim: OptimConfig | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1 or not self.trained or not self.links:
            raise ValueError(f"stage '{self.name}' needs epochs, a trained role and a link.")
        if not any(link.weight for link in self.links.values()):
            raise ValueError(
                f"stage '{self.name}' learns nothing, since its links weigh 0; give one a weight."
            )
        if not 0 <= self.growth_noise < math.inf:
            raise ValueError(
                f"stage '{self.name}' has the growth_noise {self.growth_noise}; use 0 or more."
            )
        for name in (self.name, *self.trained, *self.frozen):  # they become names of files
            if not re.fullmatch(r"[\w-]+", name) or name == "cache":
                raise ValueError(f"'{name}' names no stage or role; use letters, digits, - and _.")


@dataclass(frozen=True)
class SplitConfig:
    """Which cases are held out: whole patients, in `fold` of `folds`, dealt out by `seed`.

    Attributes:
        labelled: share of the other patients whose labels are learnt from, rounded up; which these
            are follows from `seed` alone, and a smaller share is part of a larger one.
        unlabelled: what becomes of the rest: it is left out, or its images are used without labels,
            half of each batch, by links whose terms look at a teacher only.
    """

    folds: int = 5
    fold: int = 0
    seed: int = 0
    labelled: float = 1.0
    unlabelled: Literal["left out", "images"] = "left out"

    def __post_init__(self) -> None:
        if not 0 < self.labelled <= 1:
            raise ValueError(f"labelled is {self.labelled:g}; use a share above 0, up to 1.")


@dataclass(frozen=True)
class PlanConfig:
    """What the plan would find in the data by itself; a value given here wins.

    Attributes:
        field_of_view: what the images show, for the package's scope: "crops around one liver".
        body_part: what a user's region must hold.
        scope: what the package is meant for beyond the training images, where these are varied to
            stand for it: other scanners' spacings, for example.
    """

    spacing_mm: tuple[float, float, float] | None = None
    orientation: str | None = None
    intensity: tuple[Intensity, ...] | None = None
    window: tuple[int, int, int] | None = None
    batch: int | None = None
    field_of_view: str = "images"
    body_part: str = "structures"
    scope: Wider = field(default_factory=Wider)

    def __post_init__(self) -> None:
        unit = (Intensity("image", (0.0, 100.0)),)  # stands in for what is left open
        Preprocessing(  # refuses what is no spacing or orientation
            self.spacing_mm or (1.0, 1.0, 1.0),
            self.intensity or unit,
            self.orientation or Preprocessing.orientation,
        )
        if min(self.window or (1,)) < 1 or (self.batch is not None and self.batch < 1):
            raise ValueError(f"window is {self.window} and batch {self.batch}; use 1 or more.")


@dataclass(frozen=True)
class AugmentationConfig:
    """How training images are varied. Angles in degrees, lengths as shares, axes z, y, x.

    Attributes:
        flips: probability of mirroring along each axis. Zero by default: mirroring x turns left
            into right, which is wrong where labels know sides.
        rotation: largest angle about each axis.
        scale: largest relative change of size.
        affine: probability of rotating and scaling at all.
        noise, smooth, contrast, brightness, low_resolution: probability of each.
        foreground: share of patches centred on a labelled voxel, where images exceed the window.
    """

    flips: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation: tuple[float, float, float] = (15.0, 15.0, 15.0)
    scale: float = 0.15
    affine: float = 0.6
    noise: float = 0.15
    smooth: float = 0.15
    contrast: float = 0.3
    brightness: float = 0.15
    low_resolution: float = 0.15
    foreground: float = 0.34

    def __post_init__(self) -> None:
        chances = ("affine", "noise", "smooth", "contrast", "brightness", "low_resolution")
        shares = {name: getattr(self, name) for name in (*chances, "foreground", "scale")}
        shares |= {f"flips[{axis}]": chance for axis, chance in enumerate(self.flips)}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}; use 0 to 1.")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run, apart from the data.

    Attributes:
        seed: of weights, order and augmentation.
        precision: "auto" is bf16-mixed on a GPU that has it and 32-true elsewhere.
        devices, nodes, strategy: as Lightning Fabric names them.
        workers: processes that prepare patches; -1 chooses by the machine.
        validate_every: epochs between Dice scores on the held-out cases.
        keep: which epoch's weights become the stage's result. "last" takes no look at the held-out
            cases, so their scores stay honest.
        labels: names, colours and terminology instead of the data set's, by value.
    """

    name: str
    stages: tuple[Stage, ...]
    description: str = ""
    seed: int = 0
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"
    workers: int = -1
    validate_every: int = 1
    keep: Literal["last", "best"] = "last"
    split: SplitConfig = SplitConfig()
    plan: PlanConfig = PlanConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    optim: OptimConfig = OptimConfig()
    labels: tuple[Label, ...] = ()

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"stages need names of their own, found {names}.")
        for name in ("devices", "nodes", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; use 1 or more.")
        if not 0 <= self.seed < 2**62 or self.workers < -1:
            raise ValueError(
                f"seed is {self.seed} and workers {self.workers}; use 0 or more (-1 workers: as "
                "many as suit the machine), and a seed below 2^62."
            )


def teachers(recipe: Recipe) -> list[TeacherConfig]:
    """All teachers from elsewhere that a recipe's stages name."""
    frozen = [guide for stage in recipe.stages for guide in stage.frozen.values()]
    return [guide for guide in frozen if isinstance(guide, TeacherConfig)]


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by the name of a bundled one or by path, with "key=value" overrides.

    Keys are dotted, stages are named: "stages.student.links.maps.weight=2". Values are TOML; a bare
    word is text.

    Raises:
        RecipeError: no such recipe, bad TOML, an unknown key.
    """
    path = Path(name_or_path)
    bundled = recipes()
    path = bundled.get(str(name_or_path), path)
    if not path.is_file():
        raise RecipeError(
            f"No recipe '{name_or_path}'; give a .toml file or a name. "
            f"{nearest(str(name_or_path), bundled)}"
        )
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise RecipeError(f"'{path}' could not be read ({problem.strerror}).") from problem
    except ValueError as problem:  # TOMLDecodeError, UnicodeDecodeError
        raise RecipeError(f"'{path}' is not valid TOML ({problem}); repair it.") from problem
    for override in overrides:
        _override(data, override)
    return from_dict(Recipe, data)


def _override(data: dict[str, Any], override: str) -> None:
    key, found, text = override.partition("=")
    if not found or not key:
        raise RecipeError(f"'{override}' is no override; write key=value, as in seed=1.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *path, last = key.strip().split(".")
    place: Any = data
    for part in path:
        if isinstance(place, list):
            names = [entry.get("name") for entry in place if isinstance(entry, dict)]
            if part not in names:
                raise RecipeError(f"'{override}': no '{part}'; {nearest(part, names)}")
            place = place[names.index(part)]
        else:
            place = place.setdefault(part, {})
        if not isinstance(place, (dict, list)):
            raise RecipeError(f"'{override}': '{part}' holds a value, not a table of settings.")
    if isinstance(place, list):
        raise RecipeError(
            f"'{override}': name an entry and its key, as in stages.student.epochs=5."
        )
    place[last] = value
