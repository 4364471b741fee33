"""What a recipe trains on: processor or GPUs, in which precision, in how many processes."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric

from DistillSegLib.errors import RecipeError
from DistillSegLib.training.recipe import Recipe

MACHINE = ("accelerator", "devices", "nodes", "strategy", "workers")  # may differ when resumed


def make_fabric(recipe: Recipe) -> Fabric:
    """Fabric as the recipe asks. RecipeError where this machine cannot give it.

    Under `torchrun`, which says how many processes there are, that decides on devices and nodes.
    """
    precision = recipe.precision
    if precision == "auto":
        gpu = torch.cuda.is_available() and recipe.accelerator != "cpu"
        precision = "bf16-mixed" if gpu and torch.cuda.is_bf16_supported() else "32-true"
    devices, nodes = recipe.devices, recipe.nodes
    if torch.distributed.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    try:
        fabric = Fabric(
            accelerator=recipe.accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy=recipe.strategy,
            precision=precision,
        )
    except (RuntimeError, ValueError) as problem:
        raise RecipeError(
            f"This machine cannot train with accelerator '{recipe.accelerator}', devices "
            f"{devices}, strategy '{recipe.strategy}' and precision '{precision}' "
            f"({problem}); change them with --set."
        ) from problem
    fabric.launch()
    return fabric


@contextmanager
def memory_in_words(stage: str, batch: int) -> Iterator[None]:
    """What ends for want of memory ends in a sentence; torch says it at length, in two ways.

    Raises:
        RecipeError: the memory of the device, or of the machine, did not suffice.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as problem:
        said = str(problem)
        if not isinstance(problem, MemoryError | torch.OutOfMemoryError) and (
            "allocate memory" not in said
        ):
            raise
        reason = (said.splitlines() or ["the machine's is full"])[0][:200]
        raise RecipeError(
            f"Stage '{stage}' does not fit into memory ({reason}); set a "
            f"smaller plan.batch (now {batch}) or plan.window, and train in another folder."
        ) from problem


@contextmanager
def undisturbed() -> Iterator[None]:
    """Silence for advice on precision, data loaders and memory layouts: no concern of users."""
    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning_fabric.*")
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view")
            yield
    finally:
        logger.setLevel(level)
