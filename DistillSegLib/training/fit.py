"""The loop: every step of every method, from top to bottom."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from DistillSegLib.distill.distillation import Distillation
from DistillSegLib.distill.views import Batch
from DistillSegLib.training import checkpoints
from DistillSegLib.training.patches import PatchLoader
from DistillSegLib.training.recipe import OptimConfig

STATE = "state.pt"


@dataclass(frozen=True)
class Epoch:
    """What is known at the end of an epoch.

    Attributes:
        losses: mean of each link's unweighted loss, and `total`.
        scores: role -> structure -> Dice on held-out cases; empty where not validated.
        seconds: of this epoch, validation included.
        waiting: share of the training time in which the step waited for patches.
    """

    number: int
    of: int
    losses: Mapping[str, float]
    scores: Mapping[str, Mapping[str, float]]
    seconds: float
    waiting: float

    @property
    def row(self) -> dict[str, float]:
        """One flat row for logs."""
        scores = {
            f"dice/{role}/{structure}": value
            for role, structures in self.scores.items()
            for structure, value in structures.items()
        }
        losses = {f"loss/{name}": value for name, value in self.losses.items()}
        return losses | scores | {"seconds": self.seconds, "waiting": self.waiting}


Validate = Callable[[nn.Module, Callable], dict[str, float]]


def fit(
    distillation: Distillation,
    patches: PatchLoader,
    *,
    optim: OptimConfig,
    epochs: int,
    fabric: Fabric,
    folder: Path,
    validate: Validate,
    validate_every: int = 1,
    keep: str = "last",
    on_epoch: Callable[[Epoch], None] = lambda _epoch: None,
) -> Distillation:
    """Train the trained roles; resume from `folder` if a state lies there.

    The state after each epoch is on disk, so a run that is killed goes on from its last epoch with
    the same result as one that was not.

    Args:
        validate: (network, its forward under the run's precision) -> structure -> Dice.
        keep: "last", or "best" by mean Dice of the first trained role.

    Returns:
        The distillation with the weights that were kept.
    """
    if has_3d_convolutions(distillation):
        distillation = distillation.to(memory_format=torch.channels_last_3d)
    optimizer = make_optimizer(distillation, optim)
    step, optimizer = fabric.setup(distillation, optimizer)
    first, best = _resume(folder / STATE, distillation, optimizer)
    for number in range(first, epochs):
        started = time.monotonic()
        step.train()
        totals: dict[str, torch.Tensor] = {}
        waited, asked = 0.0, time.monotonic()
        for index, batch in enumerate(patches.epoch(number)):
            waited += time.monotonic() - asked
            done = (number + index / len(patches)) / epochs
            set_learning_rate(optimizer, optim, done)
            losses = step(_on_device(batch, fabric, done))
            optimizer.zero_grad(set_to_none=True)
            fabric.backward(losses["total"])
            fabric.clip_gradients(step, optimizer, max_norm=optim.max_norm)
            optimizer.step()
            for name, loss in losses.items():
                totals[name] = totals.get(name, 0) + loss.detach()
            asked = time.monotonic()
        means = {name: float(total) / len(patches) for name, total in totals.items()}
        if not math.isfinite(means["total"]):
            raise FloatingPointError(
                f"The loss is {means['total']} in epoch {number + 1}; lower optim.learning_rate or "
                "choose precision = '32-true', and train again."
            )
        training = time.monotonic() - started
        scores = {}
        if (number + 1) % validate_every == 0 or number + 1 == epochs:
            step.eval()
            scores = {
                role: validate(net.net, _forward(net.net, fabric))
                for role, net in distillation.trained.items()
            }
        best = _keep_best(best, scores, distillation, keep)
        if fabric.is_global_zero:
            checkpoints.save(
                folder / STATE,
                {
                    "epoch": number + 1,
                    "trained": distillation.trained.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "best": best,
                },
            )
        seconds = time.monotonic() - started
        on_epoch(Epoch(number + 1, epochs, means, scores, seconds, waited / training))
    if keep == "best" and best is not None:
        distillation.trained.load_state_dict(best["trained"])
    return distillation.eval()


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
        left = 1 - (done - optim.warmup) / (1 - optim.warmup)
        factor = {
            "cosine": 0.5 * (1 + math.cos(math.pi * (1 - left))),
            "poly": left**0.9,
            "constant": 1.0,
        }[optim.schedule]
    for group in optimizer.param_groups:
        group["lr"] = optim.learning_rate * factor


def has_3d_convolutions(module: nn.Module) -> bool:
    """Whether channels-last memory applies: it speeds up 3-D convolutions about twice."""
    return any(isinstance(layer, nn.Conv3d) for layer in module.modules())


def _on_device(batch: Batch, fabric: Fabric, progress: float) -> Batch:
    image = batch.image.to(fabric.device, non_blocking=True)
    label = batch.label.to(fabric.device, non_blocking=True)
    return batch._replace(image=image, label=label, progress=progress)


def _forward(net: nn.Module, fabric: Fabric) -> Callable:
    def forward(image: torch.Tensor) -> torch.Tensor:
        with fabric.autocast():
            return net(image)

    return forward


def _keep_best(
    best: dict[str, Any] | None, scores: Mapping, distillation: Distillation, keep: str
) -> dict[str, Any] | None:
    if keep != "best" or not scores:
        return best
    structures = next(iter(scores.values())).values()
    score = sum(structures) / max(len(structures), 1)
    if best is not None and score <= best["score"]:
        return best
    weights = {name: w.detach().clone() for name, w in distillation.trained.state_dict().items()}
    return {"score": score, "trained": weights}


def _resume(
    path: Path, distillation: Distillation, optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, Any] | None]:
    """(epochs done, the best so far), with weights and optimiser as they were then."""
    if not path.is_file():
        return 0, None
    state = checkpoints.load(path)
    distillation.trained.load_state_dict(state["trained"], strict=True)
    optimizer.load_state_dict(state["optimizer"])
    return state["epoch"], state["best"]


@contextlib.contextmanager
def quiet():
    """Fabric's advice on data loaders and precision plug-ins does not concern users."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning_fabric.*")
        yield
