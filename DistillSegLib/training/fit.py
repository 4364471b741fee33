"""The loop: every step of every method, from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from DistillSegLib.distill.distillation import TOTAL, Distillation
from DistillSegLib.errors import RecipeError
from DistillSegLib.networks.domains import by_domain
from DistillSegLib.records import from_dict, to_dict
from DistillSegLib.training import checkpoints
from DistillSegLib.training.patches import PatchLoader
from DistillSegLib.training.recipe import OptimConfig, Recipe, Stage
from DistillSegLib.training.seeds import mixed, seed_of
from DistillSegLib.training.start import Moments, give_moments, moments_by_name

STATE = "state.pt"


@dataclass(frozen=True)
class Epoch:
    """What is known at the end of an epoch.

    Attributes:
        losses: mean of each link's unweighted loss, and `total`.
        scores: role -> structure -> Dice on held-out cases; empty where not validated. Of several
            domains, "role domain" -> structure -> Dice.
        seconds, cpu_seconds: of this epoch, validation included; processor time without workers'.
        waiting: share of the training time in which the step waited for patches.
    """

    number: int
    of: int
    losses: Mapping[str, float]
    scores: Mapping[str, Mapping[str, float]]
    seconds: float
    cpu_seconds: float
    waiting: float

    @property
    def score(self) -> float:
        """Mean Dice of the first trained role, domains included; below all others without one."""
        first = next(iter(self.scores), "").split(" ")[0]
        of_role = [d for role, d in self.scores.items() if role.split(" ")[0] == first]
        dice = [value for structures in of_role for value in structures.values()]
        return sum(dice) / len(dice) if dice else -1.0

    @property
    def row(self) -> dict[str, float]:
        """One flat row for logs."""
        scores = {
            f"dice/{role}/{structure}": value
            for role, structures in self.scores.items()
            for structure, value in structures.items()
        }
        losses = {f"loss/{name}": value for name, value in self.losses.items()}
        times = {name: getattr(self, name) for name in ("seconds", "cpu_seconds", "waiting")}
        return losses | scores | times


Validate = Callable[[nn.Module, str, Callable], dict[str, float]]


def fit(
    distillation: Distillation,
    patches: PatchLoader,
    recipe: Recipe,
    stage: Stage,
    *,
    fabric: Fabric,
    folder: Path,
    validate: Validate,
    on_epoch: Callable[[Sequence[Epoch]], None] = lambda _epochs: None,
    moments: Mapping[str, Moments] = MappingProxyType({}),
) -> tuple[list[Epoch], Epoch, dict[str, Moments]]:
    """Train the trained roles; resume from `folder` if a state lies there.

    The state after each epoch is on disk, and an epoch depends on that and on (seed, stage, number)
    only, so a run that is killed goes on from its last epoch with the same result as one that was
    not.

    Args:
        validate: (network of a domain, the domain, its forward under the run's precision) ->
            structure -> Dice.
        on_epoch: told all epochs so far when one has ended and is safe on disk.
        moments: role -> what the optimiser remembers of it from an earlier stage.

    Returns:
        All epochs; the one whose weights the distillation now holds (`recipe.keep`); role -> its
        moments, if that is the last epoch: those of another are gone.
    """
    for net in (*distillation.trained.values(), *distillation.frozen.values()):
        use_channels_last(net)
    optim = stage.optim or recipe.optim
    optimizer = make_optimizer(distillation, optim)
    step, optimizer = fabric.setup(distillation, optimizer)
    for role, known in moments.items():
        give_moments(optimizer, distillation.trained[role].net, known)
    epochs, best = _resume(folder / STATE, distillation, optimizer, fabric)
    for number in range(len(epochs), stage.epochs):
        started, cpu = time.monotonic(), time.process_time()
        torch.manual_seed(mixed(seed_of(recipe, stage), number, fabric.global_rank))
        losses, waiting = _train(step, optimizer, optim, patches, number, stage.epochs, fabric)
        _check_finite(losses, number, stage, optim)
        scores = {}
        if (number + 1) % recipe.validate_every == 0 or number + 1 == stage.epochs:
            step.eval()
            scores = {
                f"{role} {domain}".strip(): validate(net, domain, _forward(net, fabric))
                for role, tapped in distillation.trained.items()
                for domain, net in by_domain(tapped.net).items()
            }
        epoch = Epoch(
            number=number + 1,
            of=stage.epochs,
            losses=losses,
            scores=scores,
            seconds=time.monotonic() - started,
            cpu_seconds=time.process_time() - cpu,
            waiting=waiting,
        )
        epochs.append(epoch)
        if recipe.keep == "best" and (best is None or epoch.score > epochs[best["epoch"]].score):
            best = {"epoch": number, "trained": _copied(distillation.trained.state_dict())}
        if fabric.is_global_zero:
            _save(folder / STATE, distillation, optimizer, fabric, epochs, best)
        on_epoch(epochs)
    if best is not None:
        distillation.trained.load_state_dict(best["trained"])
    distillation.eval()
    kept = epochs[-1 if best is None else best["epoch"]]
    ended = distillation.trained.items() if kept is epochs[-1] else ()
    return epochs, kept, {role: moments_by_name(optimizer, tapped.net) for role, tapped in ended}


def _train(
    step: nn.Module,
    optimizer: torch.optim.Optimizer,
    optim: OptimConfig,
    patches: PatchLoader,
    number: int,
    epochs: int,
    fabric: Fabric,
) -> tuple[dict[str, float], float]:
    """One epoch: the mean of each loss, and the share of the time spent waiting for patches."""
    step.train()
    totals: dict[str, torch.Tensor] = {}
    started = asked = time.monotonic()
    waited = 0.0
    for index, batch in enumerate(patches.epoch(number)):
        waited += time.monotonic() - asked
        done = (number + index / len(patches)) / epochs
        set_learning_rate(optimizer, optim, done)
        losses = step(fabric.to_device(batch)._replace(progress=done))
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(losses[TOTAL])
        # A gradient that overflows is no error: 16-mixed skips such steps, else the loss tells.
        fabric.clip_gradients(step, optimizer, max_norm=optim.max_norm, error_if_nonfinite=False)
        optimizer.step()
        for name, loss in losses.items():
            totals[name] = totals.get(name, 0) + loss.detach()
        asked = time.monotonic()
    means = {name: float(total) / len(patches) for name, total in totals.items()}
    return means, waited / (time.monotonic() - started)


def _check_finite(losses: Mapping[str, float], number: int, stage: Stage, optim: OptimConfig):
    if not math.isfinite(losses[TOTAL]):
        raise RecipeError(
            f"Stage '{stage.name}': the loss is {losses[TOTAL]} in epoch {number + 1}; lower "
            f"learning_rate (now {optim.learning_rate:g}) or set precision=32-true, and train "
            "again in another folder."
        )


def make_optimizer(distillation: Distillation, optim: OptimConfig) -> torch.optim.Optimizer:
    """An optimiser over the trained roles; norms and biases (one-dimensional) do not decay."""
    weights = list(distillation.trained.parameters())
    groups = [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": optim.weight_decay},
        {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
    ]
    if optim.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=optim.learning_rate, momentum=0.99, nesterov=True)
    return torch.optim.AdamW(groups, lr=optim.learning_rate)


def set_learning_rate(optimizer: torch.optim.Optimizer, optim: OptimConfig, done: float) -> None:
    """The rate when the share `done` of the stage is over."""
    if done < optim.warmup:
        factor = done / optim.warmup
    else:
        begun = optim.warmup + optim.hold
        left = 1 - max(0.0, done - begun) / (1 - begun)
        factor = {
            "cosine": 0.5 * (1 + math.cos(math.pi * (1 - left))),
            "poly": left**0.9,
            "constant": 1.0,
        }[optim.schedule]
    for group in optimizer.param_groups:
        group["lr"] = optim.learning_rate * factor


def use_channels_last(net: nn.Module) -> None:
    """The memory layout that speeds up 3-D convolutions about twice; 2-D ones refuse it."""
    if any(isinstance(layer, nn.Conv3d) for layer in net.modules()):
        net.to(memory_format=torch.channels_last_3d)


def _forward(net: nn.Module, fabric: Fabric) -> Callable:
    def forward(image: torch.Tensor) -> torch.Tensor:
        with fabric.autocast():
            return net(image)

    return forward


def _copied(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in weights.items()}


def _save(
    path: Path,
    distillation: Distillation,
    optimizer: torch.optim.Optimizer,
    fabric: Fabric,
    epochs: Sequence[Epoch],
    best: Mapping[str, Any] | None,
) -> None:
    state = {
        "trained": distillation.trained.state_dict(),
        "optimizer": optimizer.state_dict(),
        "precision": fabric.strategy.precision.state_dict(),  # the loss scale of 16-mixed
        "epochs": [to_dict(epoch) for epoch in epochs],
        "best": best,
    }
    checkpoints.save(path, state)


def _resume(
    path: Path, distillation: Distillation, optimizer: torch.optim.Optimizer, fabric: Fabric
) -> tuple[list[Epoch], dict[str, Any] | None]:
    """(epochs done, the best so far), with weights and optimiser as they were then."""
    if not path.is_file():
        return [], None
    state = checkpoints.load(path)
    try:
        distillation.trained.load_state_dict(state["trained"], strict=True)
        optimizer.load_state_dict(state["optimizer"])
        fabric.strategy.precision.load_state_dict(state["precision"])
        return [from_dict(Epoch, epoch) for epoch in state["epochs"]], state["best"]
    except (KeyError, ValueError, RuntimeError) as problem:
        raise RecipeError(
            f"The state '{path}' is not of this stage or of another version of DistillSeg; delete "
            "it to train the stage from its beginning."
        ) from problem
