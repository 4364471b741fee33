"""A model package as a teacher: its network, rebuilt in torch from the ONNX file.

The package's recipe names the network, and the ONNX file holds the weights under torch's names.
Only batch norms are gone: the export folds each into the convolution before it,

    gamma (W * x - mean) / sqrt(var + eps) + beta  =  W' * x + b',

so the rebuilt convolution has W', and its norm does nothing but add b' (gamma 1, mean 0, var
1 - eps). Logits and features are then the package's own, which its check window proves before the
network teaches anyone. Side heads, which an export leaves out, are no taps here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from DistillSegLib.errors import PackageError, RecipeError
from DistillSegLib.labels import LabelTable
from DistillSegLib.manifest import Manifest
from DistillSegLib.networks import NetworkConfig, build_network, count_parameters
from DistillSegLib.package import ModelPackage, load_package
from DistillSegLib.preprocessing import Preprocessing
from DistillSegLib.records import from_dict, to_dict
from DistillSegLib.training.foreign import Foreign
from DistillSegLib.windows import per_axis

WRAPPED = re.compile(r"^(net\.)+")  # by what an export, or regions that nest, put around a network


def open_package(name: str) -> ModelPackage:
    """A package by its file, or by its id among the bundled and the installed ones; RecipeError."""
    try:
        return load_package(name)
    except PackageError as problem:
        raise RecipeError(f"package = '{name}': {problem}") from problem


def packaged_teacher(
    name: str,
    classes: Sequence[int],
    channels: int,
    labels: LabelTable,
    preprocessing: Preprocessing | None = None,
) -> Foreign:
    """The package's network as a frozen role, with all its taps.

    Args:
        classes: which of its channels is our class k; by the structures' names where empty.

    Raises:
        RecipeError: no such package, other channels, structures, spacing or intensities than ours,
            or a network that cannot be rebuilt.
    """
    package = open_package(name)
    manifest, what = package.manifest, f"The package '{package.manifest.name}'"
    if len(manifest.channels) != channels:
        raise RecipeError(
            f"{what} takes {len(manifest.channels)} channels ({', '.join(manifest.channels)}), the "
            f"data set has {channels}."
        )
    if preprocessing:
        check_images(manifest, preprocessing, what)
    net, taps = rebuild(package, what)
    return Foreign(
        what,
        net,
        classes=classes or _order(manifest, labels, what),
        paths=taps,
        steps=per_axis(manifest.multiple),
    )


def check_images(manifest: Manifest, preprocessing: Preprocessing, what: str) -> None:
    """RecipeError where the plan's images are not those that the package was trained on."""
    theirs, ours = to_dict(manifest.preprocessing), to_dict(preprocessing)
    for key, value in theirs.items():
        if ours[key] != value:
            raise RecipeError(
                f"{what} was trained with the {key} {value}, the plan has {ours[key]}; leave "
                f"plan.{key} out of the recipe and give the data set, not another run's cache: "
                "then the student adopts it."
            )


def rebuild(package: ModelPackage, what: str) -> tuple[nn.Module, dict[str, str]]:
    """The network of a package in evaluation mode, and its taps with the paths of their modules.

    Raises:
        RecipeError: none of the recipe's networks gives, with these weights, the check's logits.
    """
    variant = package.variant()
    model = onnx.load_model_from_string(package.model_bytes(variant))
    held = {
        each.name: torch.tensor(numpy_helper.to_array(each)) for each in model.graph.initializer
    }
    tolerance = variant.tolerance or package.manifest.tolerance
    window, logits = map(torch.tensor, package.check_window(variant))
    for net in _candidates(package.manifest, what):
        if count_parameters(net) != variant.parameters:
            continue
        absent = fill_folded(net, held, window)
        if _gives(net, window, logits, variant.stride > 1, tolerance):
            gone = tuple(f"{name.rpartition('.')[0]}." for name in absent)
            return net, {t: p for t, p in net.taps.items() if not f"{p}.".startswith(gone)}
    raise RecipeError(
        f"{what} holds a network that cannot be rebuilt in torch: none that its recipe names gives "
        "its logits with its weights. Let it segment the images and give the folder as stored."
    )


def fill_folded(net: nn.Module, held: Mapping[str, Tensor], image: Tensor) -> list[str]:
    """Give a network the weights of an export, whose batch norms were folded.

    Args:
        net: in evaluation mode.
        held: weights of the export by torch's name; b' stands as the convolution's own bias where
            it has one, otherwise as its "weight_bias".
        image: (B, C, D, H, W) that it takes; run once, to see which norm follows which convolution.

    Returns:
        The names of the weights that the export does not hold; left as they are.
    """
    held = {WRAPPED.sub("", name): weight for name, weight in held.items()}
    weights, absent = net.state_dict(), []
    folded = _folded(net, image)
    for name, old in weights.items():
        place, _, key = name.rpartition(".")
        if key == "num_batches_tracked":  # says nothing to a network that does not learn
            continue
        found = held.get(WRAPPED.sub("", name))
        if found is None and place in folded:
            found = torch.full_like(old, _plain(key, net.get_submodule(place).eps))
            if key == "bias":
                found = held.get(WRAPPED.sub("", f"{folded[place]}.weight_bias"), found)
        if found is None or found.shape != old.shape:
            absent.append(name)
        else:
            weights[name] = found
    net.load_state_dict(weights)
    return absent


def _plain(key: str, epsilon: float) -> float:
    """A value of a batch norm that changes nothing."""
    return {"weight": 1.0, "running_var": 1 - epsilon}.get(key, 0.0)


def _folded(net: nn.Module, image: Tensor) -> dict[str, str]:
    """Path of each batch norm that sees what a convolution gave -> that convolution's."""
    made: dict[int, tuple[str, Tensor]] = {}  # the tensors too, lest an id is given twice
    found: dict[str, str] = {}

    def heard(name: str, _module: nn.Module, _inputs: tuple, output: Tensor) -> None:
        made[id(output)] = (name, output)

    def seen(name: str, _module: nn.Module, inputs: tuple) -> None:
        if id(inputs[0]) in made:
            found[name] = made[id(inputs[0])][0]

    hooks = []
    for name, module in net.named_modules():
        if isinstance(module, _ConvNd):
            hooks.append(module.register_forward_hook(partial(heard, name)))
        elif isinstance(module, _BatchNorm):
            hooks.append(module.register_forward_pre_hook(partial(seen, name)))
    with torch.inference_mode():
        net(image)
    for hook in hooks:
        hook.remove()
    return found


def _candidates(manifest: Manifest, what: str) -> Iterator[nn.Module]:
    """The networks of the recipe's stages, the last one first."""
    for stage in reversed(manifest.recipe.get("stages", ())):
        for plain in stage.get("trained", {}).values():
            try:
                config = from_dict(NetworkConfig, plain)
                net = build_network(config, len(manifest.channels), manifest.labels.classes)
            except (RecipeError, TypeError) as problem:
                raise RecipeError(
                    f"{what} names a network that this DistillSeg does not know: {problem}"
                ) from problem
            domain = manifest.provenance.get("domain", "")
            yield (net.specialise(domain) if config.domains else net).eval()


def _gives(net: nn.Module, window: Tensor, logits: Tensor, coarse: bool, tolerance: float) -> bool:
    """Whether the network answers to the window with these logits."""
    with torch.inference_mode():
        found = net.coarse(window) if coarse else net(window)
    return found.shape == logits.shape and bool((found - logits).abs().max() <= tolerance)


def _order(manifest: Manifest, labels: LabelTable, what: str) -> tuple[int, ...]:
    """Its channel of each of our classes, by name."""
    theirs = {label.name.casefold(): k for k, label in enumerate(manifest.labels, start=1)}
    for label in labels:
        if label.name.casefold() not in theirs:
            raise RecipeError(
                f"{what} knows the structures {[label.name for label in manifest.labels]}, not "
                f"'{label.name}'; say by classes = [0, …] which of its channels is which of ours."
            )
    return (0, *(theirs[label.name.casefold()] for label in labels))
