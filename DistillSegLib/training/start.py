"""How a trained role begins where another one ended: same weights, or grown to a wider network.

The optimiser's memory of each weight (its moments) goes with it. It lies in a role's checkpoint
where a later stage of the recipe starts from that role, and is kept by parameter name, because a
stage's optimiser covers several roles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn
from torch.optim import Optimizer

from DistillSegLib.distill.growth import Moments, widen
from DistillSegLib.distill.views import Tapped
from DistillSegLib.errors import RecipeError
from DistillSegLib.networks.unet import UNet
from DistillSegLib.records import nearest
from DistillSegLib.training.checkpoints import load_network
from DistillSegLib.training.recipe import Recipe, Stage

Source = Callable[[str], tuple[nn.Module, Moments]]  # "stage/role" or a path -> what it ended with


def begin(
    stage: Stage, trained: Mapping[str, Tapped], source: Source, seed: int
) -> dict[str, Moments]:
    """Give the stage's trained networks the weights that `start` names.

    Args:
        trained: role -> freshly built network; changed.
        seed: of growth, when the network is wider than what it starts from.

    Returns:
        role -> its moments, by parameter.

    Raises:
        RecipeError: no such role, or a network that cannot take these weights over.
    """
    moments = {}
    for role, name in stage.start.items():
        if role not in trained:
            raise RecipeError(f"start names '{role}', no trained role; {nearest(role, trained)}")
        net = trained[role].net
        failure = f"'{role}' cannot start from '{name}'"
        moments[role] = _take_over(net, *source(name), failure, stage.growth_noise, seed)
    return moments


def ended(name: str, finished: Mapping[str, Path]) -> tuple[nn.Module, Moments]:
    """What a finished stage's role, or a checkpoint from elsewhere, ended with."""
    net, data = load_network(finished.get(name, Path(name)))
    return net, data.get("moments", {})


def is_start(recipe: Recipe, stage: Stage, role: str) -> bool:
    """Whether a stage of the recipe starts from this role."""
    name = f"{stage.name}/{role}"
    return any(name in later.start.values() for later in recipe.stages)


def moments_by_name(optimizer: Optimizer, net: nn.Module) -> Moments:
    """The moments of a network's weights, by parameter; a weight never stepped has none."""
    return {
        name: dict(optimizer.state[weight])
        for name, weight in net.named_parameters()
        if optimizer.state.get(weight)
    }


def give_moments(optimizer: Optimizer, net: nn.Module, moments: Moments) -> None:
    """Let the optimiser remember a network's weights, unless another kind of optimiser wrote it."""
    weights = dict(net.named_parameters())
    kind = "momentum_buffer" if "momentum" in optimizer.defaults else "exp_avg"
    for name, moment in moments.items():
        if kind in moment:
            weight = weights[name]
            optimizer.state[weight] = {
                key: value.clone() if key == "step" else value.to(weight).clone()
                for key, value in moment.items()
            }


def _take_over(
    net: nn.Module, source: nn.Module, moments: Moments, failure: str, noise: float, seed: int
) -> Moments:
    theirs = {name: weight.shape for name, weight in source.state_dict().items()}
    if {name: weight.shape for name, weight in net.state_dict().items()} == theirs:
        net.load_state_dict(source.state_dict(), strict=True)
        return moments
    if not (isinstance(net, UNet) and isinstance(source, UNet)):
        raise RecipeError(
            f"{failure}: its weights are those of another network. Use the same network and "
            "settings in both stages; only a 'unet' may grow, without domains or nested regions."
        )
    try:
        return widen(net, source, moments, noise=noise, seed=seed)
    except ValueError as problem:
        raise RecipeError(f"{failure}: {problem}.") from problem
