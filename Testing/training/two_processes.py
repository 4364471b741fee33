"""Run by `torchrun` in two processes: the gradients of one step of every stage of every recipe.

    torchrun --nproc_per_node 2 two_processes.py OUT.pt
    python two_processes.py OUT.pt

Without `torchrun`, one process writes the mean gradient of the same two halves; `test_processes.py`
compares them. Both are processes of their own, so that neither depends on what ran before.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from DistillSegLib.distill.distillation import TOTAL, Distillation
from DistillSegLib.distill.views import Batch
from DistillSegLib.networks import NetworkConfig, build_network
from DistillSegLib.training.assembly import assemble
from DistillSegLib.training.devices import make_fabric
from DistillSegLib.training.fit import make_optimizer
from DistillSegLib.training.recipe import Recipe, Stage, load_recipe
from Testing.training.small_recipes import EVERYWHERE, SMALL

CLASSES = 3
SIZE = 32  # voxels on each axis: what every network takes


def methods() -> Iterator[tuple[str, Recipe, Stage]]:
    """Every stage of every bundled recipe, made small, under a name."""
    for name in SMALL:
        recipe = load_recipe(name, [*EVERYWHERE, *SMALL[name].overrides])
        for stage in recipe.stages:
            yield f"{name}/{stage.name}", recipe, stage


def build(recipe: Recipe, stage: Stage) -> Distillation:
    """The stage with fresh weights, the same in every process."""
    configs: dict[str, NetworkConfig] = {
        f"{each.name}/{role}": config
        for each in recipe.stages
        for role, config in each.trained.items()
    }
    torch.manual_seed(0)
    return assemble(stage, 1, CLASSES, lambda name: build_network(configs[name], 1, CLASSES))


def half(number: int, domains: int) -> Batch:
    """One process's share of a batch; samples of every domain, grouped."""
    random = torch.Generator().manual_seed(number)
    samples = max(2, domains)
    image = torch.randn(samples, 1, SIZE, SIZE, SIZE, generator=random)
    label = torch.randint(CLASSES, (samples, SIZE, SIZE, SIZE), generator=random)
    domain = torch.arange(domains) if domains else None
    return Batch(image, label, domain, progress=0.5)


def domains_of(stage: Stage) -> int:
    return max(len(config.domains) for config in stage.trained.values())


def gradients(distillation: Distillation) -> dict[str, Tensor]:
    """Of every trained weight, by name."""
    return {n: w.grad.detach().clone() for n, w in distillation.trained.named_parameters()}


def gradients_in_one_process(distillation: Distillation, stage: Stage) -> Mapping[str, Tensor]:
    """The mean of the gradients of both halves, each with batch statistics of its own."""
    halves = []
    for number in range(2):
        distillation.train()
        distillation.zero_grad(set_to_none=True)
        torch.manual_seed(number)  # of dropout
        distillation(half(number, domains_of(stage)))[TOTAL].backward()
        halves.append(gradients(distillation))
    return {name: (gradient + halves[1][name]) / 2 for name, gradient in halves[0].items()}


def alone(out: str) -> None:
    found = {
        name: gradients_in_one_process(build(recipe, stage), stage)
        for name, recipe, stage in methods()
    }
    torch.save({"processes": 1, "gradients": found}, out)


def main(out: str) -> None:
    found = {}
    fabric = None
    for name, recipe, stage in methods():
        fabric = fabric or make_fabric(recipe)
        distillation = build(recipe, stage)
        optimizer = make_optimizer(distillation, recipe.optim)
        step, optimizer = fabric.setup(distillation, optimizer)
        step.train()
        torch.manual_seed(fabric.global_rank)
        fabric.backward(step(half(fabric.global_rank, domains_of(stage)))[TOTAL])
        found[name] = gradients(distillation)
    if fabric.is_global_zero:
        torch.save({"processes": fabric.world_size, "gradients": found}, out)
    fabric.barrier()


if __name__ == "__main__":
    (main if torch.distributed.is_torchelastic_launched() else alone)(sys.argv[1])
