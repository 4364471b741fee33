"""What a recipe trains on: processor or GPUs, in which precision, in how many processes."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import nn

from DistillSegLib.errors import RecipeError
from DistillSegLib.training.recipe import Recipe


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
def gradients_checked(net: nn.Module, fabric: Fabric) -> Iterator[None]:
    """Watches a forward pass for convolutions that torch would train on numbers from nowhere.

    On processors, in bfloat16, the weight gradient of a convolution over D slices with a kernel of
    k > D > 1 slices holds what lay in memory before (measured with torch 2.13, stride 1; D = 1 and
    D >= k are right). Nothing else would say so: the loss falls, then it is NaN, or is not.

    Raises:
        RecipeError: the network has such a convolution.
    """
    found: dict[str, tuple[int, int]] = {}
    hooks = []
    if fabric.device.type == "cpu" and isinstance(fabric.strategy.precision, MixedPrecision):
        for name, layer in net.named_modules():
            if isinstance(layer, nn.Conv3d) and layer.stride[0] == 1:

                def look(layer: nn.Conv3d, inputs: tuple, name: str = name) -> None:
                    kernel, depth = layer.kernel_size[0], inputs[0].shape[2]
                    if 1 < depth < kernel:
                        found[name] = kernel, depth

                hooks.append(layer.register_forward_pre_hook(look))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    for name, (kernel, depth) in found.items():
        raise RecipeError(
            f"In 16 bits on a processor, torch gets the gradients of {len(found)} convolutions "
            f"wrong ('{name}' has a kernel of {kernel} slices and sees {depth}); set "
            "precision=32-true, or a plan.window with more slices."
        )


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
