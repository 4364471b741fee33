"""Teachers from elsewhere: a package, a torch module, a MONAI bundle, an nnU-Net, or stored maps.

A recipe names one as a table with one source:

    [stages.frozen]
    teacher = { nnunet = "results/Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres" }

Whatever it is, it becomes a frozen role, a `Batch -> View`; no term and no loop knows the
difference.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import nn

from DistillSegLib.errors import RecipeError
from DistillSegLib.labels import LabelTable
from DistillSegLib.preprocessing import Preprocessing
from DistillSegLib.records import nearest
from DistillSegLib.training.foreign import Foreign, load_weights
from DistillSegLib.training.nnunet import nnunet_teacher, read_results
from DistillSegLib.training.packaged import packaged_teacher
from DistillSegLib.training.stored import Maps, StoredTeacher

OWN = "own"
# source -> the keys that belong to it alone
SOURCES: dict[str, tuple[str, ...]] = {
    "package": (),
    "nnunet": ("folds", "checkpoint"),
    "bundle": (),
    "module": ("settings", "weights"),
    "stored": ("smoothing",),
}


@dataclass(frozen=True)
class TeacherConfig:
    """Where a frozen role comes from; exactly one of the sources.

    Attributes:
        package: a model package, by its file or by the id of a bundled or installed one.
        nnunet: results folder of nnU-Net v2, "…/nnUNetTrainer__nnUNetPlans__3d_fullres".
        folds: of that folder; the mean of several.
        checkpoint: of each fold.
        bundle: folder of a MONAI bundle.
        module: "package.module:callable" that returns a network. This runs code of that module.
        settings: keyword arguments of the callable; `channels` and `classes` are given by the data
            where it takes them.
        weights: file with the network's state_dict, or "own": the callable loads them itself.
        stored: folder of label maps or probabilities, a file for each case by its name.
        smoothing: share of each hard label that is spread over all classes.
        classes: which of the teacher's channels (of stored label maps: values) is our class k;
            empty: by name where it knows names, otherwise the same.
        taps: tap name -> path of its sub-module, for terms that compare features; those of a
            package are known.
    """

    package: str = ""
    nnunet: str = ""
    folds: tuple[int | str, ...] = (0,)
    checkpoint: str = "checkpoint_final.pth"
    bundle: str = ""
    module: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    weights: str = ""
    stored: str = ""
    smoothing: float = 0.05
    classes: tuple[int, ...] = ()
    taps: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = [source for source in SOURCES if getattr(self, source)]
        if len(given) != 1:
            raise ValueError(
                f"a teacher has one source, found {', '.join(given) or 'none'}; give one of "
                f"{', '.join(SOURCES)}, or a stage/role or a checkpoint.pt as text."
            )
        plain = {each.name: each.default for each in fields(self)} | {"settings": {}}
        for source, keys in SOURCES.items():
            for key in keys:
                if source != given[0] and getattr(self, key) != plain[key]:
                    raise ValueError(f"'{key}' belongs to {source}, not to {given[0]}; remove it.")
        if self.package and self.taps:
            raise ValueError("the taps of a package have their names already; remove the taps.")
        if self.stored and self.taps:
            raise ValueError("stored maps have no features; remove the taps.")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing is {self.smoothing}; use 0 to below 1.")
        if self.classes and (min(self.classes) < 0 or len(set(self.classes)) < len(self.classes)):
            raise ValueError(f"classes is {list(self.classes)}; use different numbers from 0 on.")
        if self.nnunet and not self.folds:
            raise ValueError("folds is empty; give one fold or more, as in folds = [0].")


def maps_of(frozen: Mapping[str, str | TeacherConfig]) -> dict[str, Maps]:
    """The stored teachers among a stage's frozen roles."""
    return {
        role: Maps(guide.stored, guide.classes, guide.smoothing)
        for role, guide in frozen.items()
        if isinstance(guide, TeacherConfig) and guide.stored
    }


def build_teacher(
    config: TeacherConfig,
    channels: int,
    labels: LabelTable,
    preprocessing: Preprocessing | None = None,
) -> nn.Module:
    """The frozen role's network, with its weights, on the processor.

    Args:
        preprocessing: of the data, once it is planned; the teacher must have been trained on such
            images, as far as it says.

    Raises:
        RecipeError: whatever in the teacher does not fit, in one sentence.
    """
    if config.classes and len(config.classes) != labels.classes:
        raise RecipeError(
            f"classes = {list(config.classes)} names {len(config.classes)} channels for "
            f"{labels.classes} classes (0 is the background); give one for each."
        )
    if config.stored:
        return StoredTeacher(config.stored)
    if config.package:
        return packaged_teacher(config.package, config.classes, channels, labels, preprocessing)
    if config.nnunet:
        results = read_results(config.nnunet, config.folds, config.checkpoint)
        return nnunet_teacher(results, config.classes, config.taps, channels, labels, preprocessing)
    if config.bundle:
        from DistillSegLib.training.bundle import bundle_teacher  # MONAI, which takes seconds

        return bundle_teacher(
            config.bundle, config.classes, config.taps, channels, labels, preprocessing
        )
    return _module_teacher(config, channels, labels)


def _module_teacher(config: TeacherConfig, channels: int, labels: LabelTable) -> Foreign:
    name = f"The module '{config.module}'"
    build = _callable(config.module, name)
    settings = dict(config.settings)
    known = inspect.signature(build).parameters
    for key, value in {"channels": channels, "classes": labels.classes}.items():
        if key in known:
            settings.setdefault(key, value)
    if not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in known.values()):
        for key in settings:
            if key not in known:
                raise RecipeError(f"{name} takes no '{key}'; {nearest(key, known)}")
    try:
        net = build(**settings)
    except (Exception, SystemExit) as problem:  # another's code may raise anything
        raise RecipeError(
            f"{name} failed with {settings}: {type(problem).__name__}: {problem}"
        ) from problem
    if not isinstance(net, nn.Module):
        raise RecipeError(f"{name} returns a {type(net).__name__}; a torch.nn.Module is needed.")
    if not config.weights:
        raise RecipeError(
            f'{name} has no weights, and an untrained teacher teaches nothing; give weights = "…", '
            f'or weights = "{OWN}" if it loads them itself.'
        )
    if config.weights != OWN:
        load_weights(net, Path(config.weights), name)
    note = (
        f"{name} says nothing about the images that it was trained on: their spacing, orientation "
        "and intensities, and the order of its classes, could not be checked."
    )
    return Foreign(name, net, classes=config.classes, paths=config.taps, notes=[note])


def _callable(place: str, name: str):
    module, colon, attribute = place.partition(":")
    if not (module and colon and attribute):
        raise RecipeError(f"'{place}' names no callable; write package.module:callable.")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as problem:
        raise RecipeError(
            f"{name} cannot be imported ({problem}); install it, or set PYTHONPATH to its folder."
        ) from problem
    except (Exception, SystemExit) as problem:  # another's code may raise anything
        raise RecipeError(
            f"{name} fails when it is imported: {type(problem).__name__}: {problem}"
        ) from problem
    if not callable(build := getattr(found, attribute, None)):
        known = [key for key, value in vars(found).items() if callable(value) and key[0] != "_"]
        raise RecipeError(
            f"{name}: there is no callable '{attribute}'; {nearest(attribute, known)}"
        )
    return build
