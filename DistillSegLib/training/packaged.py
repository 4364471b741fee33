"""A model package as a teacher: its network, rebuilt in torch from the ONNX file.

The package's recipe names the network, and the ONNX file holds the weights under torch's names.
Only batch norms are gone: the export folds each into the convolution before it,

    gamma (W * x - mean) / sqrt(var + eps) + beta  =  W' * x + b',

so the rebuilt convolution has W', and its norm does nothing but add b' (gamma 1, mean 0, var
1 - eps). Logits and features are then the package's own, which its check window proves before the
network teaches anyone. Side heads, which an export leaves out, are no taps here. The slopes of
PReLU and the weights of group norms lie in the file in another form, so that `enet` and
`residual_unet` are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from DistillSegLib.errors import PackageError, RecipeError
from DistillSegLib.labels import LabelTable
from DistillSegLib.manifest import Manifest, Variant
from DistillSegLib.networks import NetworkConfig, build_network, count_parameters
from DistillSegLib.package import ModelPackage, load_package
from DistillSegLib.preprocessing import Preprocessing
from DistillSegLib.records import from_dict, to_dict
from DistillSegLib.training.foreign import Foreign, by_name
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
    """The package's network as a frozen role, with the taps of its network but for side heads.

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
    net, taps = rebuild(package)
    theirs = {label.name: k for k, label in enumerate(manifest.labels, start=1)}
    cases = manifest.provenance.get("training_cases", ())
    return Foreign(
        what,
        net,
        classes=classes or by_name(theirs, labels, what),
        paths=taps,
        steps=per_axis(manifest.multiple),
        minimum=per_axis(manifest.minimum),
        cases=cases if isinstance(cases, Sequence) else (),
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


def rebuild(package: ModelPackage) -> tuple[nn.Module, dict[str, str]]:
    """The network of a package in evaluation mode, and its taps with the paths of their modules.

    Raises:
        RecipeError: none of the recipe's networks gives, with these weights, the check's logits.
    """
    what, variant = f"The package '{package.manifest.name}'", package.variant()
    held = _weights(package, variant, what)
    window, logits = _check(package, variant)
    for config in _configs(package.manifest, what):
        with torch.device("meta"):  # what a damaged recipe asks for may be larger than the memory
            if count_parameters(_built(config, package.manifest, what)) != variant.parameters:
                continue
        net = _built(config, package.manifest, what).eval()
        side = tuple(f"{path}." for tap, path in net.taps.items() if _beside(tap))
        try:
            absent = fill_folded(net, held, window)
            with torch.inference_mode():
                found = net.coarse(window) if variant.stride > 1 else net(window)
        except (AttributeError, RuntimeError):  # it takes other sizes, or has no coarse logits
            continue
        same = found.shape == logits.shape and bool(
            (found - logits).abs().max() <= (variant.tolerance or package.manifest.tolerance)
        )
        if same and all(name.startswith(side) for name in absent):
            return net, {tap: path for tap, path in net.taps.items() if not _beside(tap)}
    raise RecipeError(
        f"{what} holds a network that cannot be rebuilt in torch: none that its recipe names gives "
        "its logits with its weights. Let it segment the images and give the folder as stored."
    )


def _beside(tap: str) -> bool:
    """Whether a tap is a side head: "logits/1" …, or "regions/1" … of regions that nest."""
    kind, _, number = tap.partition("/")
    return kind == "logits" or (kind == "regions" and number != "0")


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
    try:
        with torch.inference_mode():
            net(image)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _weights(package: ModelPackage, variant: Variant, what: str) -> dict[str, Tensor]:
    """What the ONNX file holds by name; nothing that lies in other files is read."""
    import onnx  # only here: training without such a teacher goes on where it is not installed
    from onnx import numpy_helper
    from onnx.external_data_helper import uses_external_data

    try:
        model = onnx.load_model_from_string(package.model_bytes(variant))
        stored = [each for each in model.graph.initializer if not uses_external_data(each)]
        return {each.name: torch.tensor(numpy_helper.to_array(each)) for each in stored}
    except Exception as problem:  # protobuf, onnx, numpy and torch raise many kinds
        raise RecipeError(
            f"{what} holds a model that cannot be read ({type(problem).__name__}); copy or "
            "download the package again."
        ) from problem


def _check(package: ModelPackage, variant: Variant) -> tuple[Tensor, Tensor]:
    """The package's window, and the logits that it gives for it."""
    try:
        window, logits = package.check_window(variant)
    except PackageError as problem:
        raise RecipeError(str(problem)) from problem
    return torch.tensor(window), torch.tensor(logits)


def _configs(manifest: Manifest, what: str) -> Iterator[NetworkConfig]:
    """The networks that the recipe's stages train, the last one first."""
    stages = manifest.recipe.get("stages", ())
    for stage in reversed(stages if isinstance(stages, Sequence) else ()):
        trained = stage.get("trained") if isinstance(stage, Mapping) else None
        for plain in trained.values() if isinstance(trained, Mapping) else ():
            try:
                yield from_dict(NetworkConfig, plain)
            except (RecipeError, TypeError) as problem:
                raise _unknown(what, problem) from problem


def _built(config: NetworkConfig, manifest: Manifest, what: str) -> nn.Module:
    """The network with fresh weights; of several domains that of the package's."""
    try:
        net = build_network(config, len(manifest.channels), manifest.labels.classes)
        return net.specialise(manifest.provenance.get("domain", "")) if config.domains else net
    except (RecipeError, ValueError) as problem:
        raise _unknown(what, problem) from problem


def _unknown(what: str, problem: Exception) -> RecipeError:
    return RecipeError(f"{what} names a network that this DistillSeg does not know: {problem}")
