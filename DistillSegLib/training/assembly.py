"""A stage's networks in their roles, linked: for training, and without weights before it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from DistillSegLib.distill.distillation import Distillation, roles_table
from DistillSegLib.distill.views import Batch, Tapped
from DistillSegLib.errors import RecipeError
from DistillSegLib.labels import LabelTable
from DistillSegLib.networks import NetworkConfig, build_network
from DistillSegLib.networks.domains import by_domain
from DistillSegLib.preprocessing import Preprocessing
from DistillSegLib.records import nearest, to_dict
from DistillSegLib.training.checkpoints import load, load_network
from DistillSegLib.training.foreign import Foreign
from DistillSegLib.training.plan import Plan
from DistillSegLib.training.recipe import Recipe, Stage
from DistillSegLib.training.start import begin
from DistillSegLib.training.stored import StoredTeacher
from DistillSegLib.training.teachers import TeacherConfig, build_teacher

EXAMPLE = (64, 64, 64)  # voxels, where no window is planned yet

# "stage/role", the path of a checkpoint, or a teacher from elsewhere -> its network
Source = Callable[[str | TeacherConfig], nn.Module]


def rehearse(
    recipe: Recipe,
    channels: int,
    labels: LabelTable,
    preprocessing: Preprocessing | None = None,
    window: Sequence[int] | None = None,
) -> None:
    """Put every stage together once, without weights, so that no mistake waits for the night.

    Args:
        preprocessing: of the data, once it is planned; guides from elsewhere must share it.
        window: of the plan; guides that are not ours are tried on it.

    Raises:
        RecipeError: an unknown network, term, setting, stage, role or tap, or a checkpoint that
            does not fit; as its note the table of the stage's roles, with all their taps.
    """
    made: dict[str, NetworkConfig] = {}

    def source(name: str | TeacherConfig) -> nn.Module:
        if isinstance(name, TeacherConfig):
            with torch.device("cpu"):
                guide = build_teacher(name, channels, labels, preprocessing)
                if window and isinstance(guide, Foreign):
                    guide.try_on(channels, window, labels.classes)
            return guide.to("meta")
        if name in made:
            return build_network(made[name], channels, labels.classes)
        if not name.endswith(".pt"):
            raise RecipeError(
                f"no earlier stage makes '{name}'; {nearest(name, made)} A teacher from elsewhere "
                f"is a table, such as {{ package = '{name}' }}."
            )
        with torch.device("cpu"):
            return _from_elsewhere(Path(name), channels, labels, preprocessing).to("meta")

    with torch.device("meta"):
        for stage in recipe.stages:
            try:
                distillation = assemble(stage, channels, labels.classes, source)
                begin(stage, distillation.trained, lambda name: (source(name), {}), recipe.seed)
            except RecipeError as problem:
                stopped = RecipeError(f"Stage '{stage.name}': {problem}")
                stopped.__notes__ = _roles(stage, channels, labels.classes, source, window)
                raise stopped from problem
            made |= {f"{stage.name}/{role}": config for role, config in stage.trained.items()}


def _roles(
    stage: Stage, channels: int, classes: int, source: Source, window: Sequence[int] | None
) -> list[str]:
    """What a link of the stage may name: each role's taps and their shapes, nothing computed.

    Empty where a role cannot be built: the mistake lies there then.
    """
    image = torch.empty(2, channels, *(window or EXAMPLE), device="meta")
    batch = Batch(image, torch.empty(0, device="meta"))
    try:
        trained = {role: build_network(c, channels, classes) for role, c in stage.trained.items()}
        trained = {role: next(iter(by_domain(net).values())) for role, net in trained.items()}
        frozen = {role: source(name) for role, name in stage.frozen.items()}
        networks = {r: n for r, n in (trained | frozen).items() if not isinstance(n, StoredTeacher)}
        views = {r: Tapped(n, getattr(n, "taps", ()))(batch) for r, n in networks.items()}
    except (RecipeError, RuntimeError):
        return []
    return [roles_table(networks, views, frozen)]


def assemble(stage: Stage, channels: int, classes: int, source: Source) -> Distillation:
    """The stage's networks, tapped where its links look, and the links between them."""
    links = {name: link.build() for name, link in stage.links.items()}
    trained = {role: build_network(c, channels, classes) for role, c in stage.trained.items()}
    frozen = {role: source(name) for role, name in stage.frozen.items()}
    for role, guide in frozen.items():
        if isinstance(guide, StoredTeacher):
            guide.role = role

    def tapped(role: str, net: nn.Module) -> nn.Module:
        wanted = {
            tap: None
            for link in links.values()
            if role == link.student or (link.term.guided and role == link.teacher)
            for tap in link.term.taps
        }
        if isinstance(net, StoredTeacher):
            if wanted:
                raise RecipeError(f"role '{role}': stored maps have no tap '{next(iter(wanted))}'.")
            return net
        try:
            return Tapped(net, list(wanted))
        except ValueError as problem:
            raise RecipeError(f"role '{role}': {problem}") from problem

    return Distillation(
        {role: tapped(role, net) for role, net in trained.items()},
        {role: tapped(role, net) for role, net in frozen.items()},
        links,
    )


def guide_network(
    name: str | TeacherConfig, finished: Mapping[str, Path], plan: Plan, labels: LabelTable
) -> nn.Module:
    """The network of a finished stage's role, of a checkpoint, or of a teacher from elsewhere."""
    if isinstance(name, TeacherConfig):
        return build_teacher(name, len(plan.channels), labels, plan.preprocessing)
    return load_network(finished.get(name, Path(name)))[0]


def notes(
    distillation: Distillation,
    stage: Stage,
    finished: Collection[str],
    held_out: Mapping[str, Collection[str]],
) -> list[str]:
    """What could not be checked of guides from elsewhere, and what they, or starts, saw already.

    Args:
        finished: the "stage/role" of this run, which have seen none of the held-out cases.
        held_out: domain -> cases that students are judged by.
    """
    guides = [getattr(guide, "net", guide) for guide in distillation.frozen.values()]
    said = [note for guide in guides for note in getattr(guide, "notes", ())]
    seen = {guide.name: {"": guide.cases} for guide in guides if getattr(guide, "cases", ())}
    for name in (*stage.frozen.values(), *stage.start.values()):
        if isinstance(name, str) and name not in finished:
            seen[f"The checkpoint '{name}'"] = _training_cases(Path(name))
    for name, theirs in seen.items():
        known = set().union(*theirs.values())  # of whichever domain: one data set has no name
        both = [
            case
            for domain, cases in held_out.items()
            for case in sorted(cases)
            if case in (theirs.get(domain, theirs.get("", ())) if domain else known)
        ]
        if both:
            said.append(
                f"{name} was trained on {len(both)} of the {sum(map(len, held_out.values()))} "
                f"held-out cases (the first is '{both[0]}'), so that scores on these flatter what "
                "is trained with it; split the data set as its training did."
            )
    return said


def _training_cases(path: Path) -> dict[str, Collection[str]]:
    """Domain ("" if there is one only) -> what a checkpoint was trained on."""
    provenance = load(path)["provenance"]
    each = provenance.get("domains", {"": provenance})
    return {domain: known.get("training_cases", ()) for domain, known in each.items()}


def _from_elsewhere(
    path: Path, channels: int, labels: LabelTable, preprocessing: Preprocessing | None
) -> nn.Module:
    net, data = load_network(path)
    if data["channels"] != channels:
        raise RecipeError(
            f"'{path}' takes images of {data['channels']} channel(s), the data set has {channels}; "
            "both must be trained on the same channels."
        )
    theirs = [label["name"] for label in data["labels"]["labels"]]
    ours = [label.name for label in labels]
    if theirs != ours:
        raise RecipeError(
            f"'{path}' knows the structures {theirs}, the data set has {ours}; both must be "
            "trained on the same label table."
        )
    seen = data["plan"]["preprocessing"]
    for key, value in to_dict(preprocessing).items() if preprocessing else ():
        if seen[key] != value:
            raise RecipeError(
                f"'{path}' was trained on images with the {key} {seen[key]}, the plan has {value}; "
                f"give plan.{key} as it was there."
            )
    return net
