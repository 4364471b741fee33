"""The networks that are measured by default: 14 classes, weights of a fixed seed, not trained.

Labels of a random network are noise, which is the worst case for writing them on the image's grid
and says nothing about practice. So every convolution mixes channels at random but blurs in space,
the statistics of BatchNorm are those of the phantom, and the last layer is fitted to the phantom's
classes in closed form (linear discriminant analysis). The label maps are then like organs; how
like, and how many cells of the grid hold several classes, is measured and told. The speed of a
network does not depend on its weights. torch is imported by these functions only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from DistillSegLib.benchmark.subject import CLASSES, Setup, as_image, phantom
from DistillSegLib.preprocessing import Intensity, Preprocessing

if TYPE_CHECKING:
    from torch import nn

    from DistillSegLib.manifest import Manifest

CLIP, MEAN, STD = (-1000.0, 800.0), -100.0, 400.0  # Hounsfield units
SEED = 0
COARSE = 0.1  # weight of what comes from coarser levels, which would blur organs into each other

# Plain data, so that a child can build the network again and fill it from a file of weights.
STUDENTS: dict[str, dict[str, Any]] = {
    "untrained-full": {"width": (8, 16, 32), "stem": 1, "convolutions": 2},
    "untrained-fast": {"width": (16, 32, 32), "stem": 2, "convolutions": 1},
}
TITLES = {
    "untrained-full": "full-resolution student",
    "untrained-fast": "patch-stem student",
    "nnunet-default": "nnU-Net default",
}


def preprocessing(setup: Setup) -> Preprocessing:
    """What the networks see of the phantom."""
    return Preprocessing(setup.network_spacing_mm, (Intensity("fixed", CLIP, MEAN, STD),))


def build(name: str, patch: tuple[int, int, int]) -> nn.Module:
    """A network by name, with random weights of the fixed seed."""
    import torch

    from DistillSegLib.networks.fast import FastUNet

    torch.manual_seed(SEED)
    if name in STUDENTS:
        net = FastUNet(1, len(CLASSES), **STUDENTS[name])
    else:
        net = _nnunet_default(patch)
    _blur(net)
    return net


def _blur(net: nn.Module) -> None:
    """Give every convolution a binomial (3) or uniform (2) kernel times random channel weights."""
    import torch
    from torch import nn

    along = {1: [1.0], 2: [0.5, 0.5], 3: [0.25, 0.5, 0.25]}
    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            z, y, x = (torch.tensor(along[size]) for size in module.kernel_size)
            kernel = z[:, None, None] * y[:, None] * x
            inputs = module.in_channels
            mixing = torch.randn(module.out_channels, inputs, 1, 1, 1) * (2 / inputs) ** 0.5
            module.weight.data.copy_(mixing * kernel * (COARSE if kernel.numel() == 1 else 1))


def default_architecture(patch: tuple[int, int, int]) -> dict[str, Any]:
    """nnU-Net's 3d_fullres network for a patch, as its plans state it: 32 to 320 features.

    Each axis is halved up to five times while at least four voxels remain.
    """
    sizes, strides = list(patch), [[1, 1, 1]]
    for _ in range(5):
        strides.append([2 if size >= 8 else 1 for size in sizes])
        sizes = [size // stride for size, stride in zip(sizes, strides[-1])]
    settings = {
        "n_stages": 6,
        "features_per_stage": [32, 64, 128, 256, 320, 320],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * 6,
        "strides": strides,
        "n_conv_per_stage": [2] * 6,
        "n_conv_per_stage_decoder": [2] * 5,
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": settings,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _nnunet_default(patch: tuple[int, int, int]) -> nn.Module:
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    architecture = default_architecture(patch)
    return get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        len(CLASSES),
        allow_init=True,
        deep_supervision=False,
    )


def load(name: str, patch: tuple[int, int, int], weights: str) -> nn.Module:
    """A network as `make` left it, in evaluation mode."""
    import torch

    net = build(name, patch)
    net.load_state_dict(torch.load(weights, weights_only=True))
    return net.eval()


def make(
    stopwatch: Any, threads: int, *, setup: Mapping[str, Any], names: list[str], folder: str
) -> dict[str, Any]:
    """Work of a child: fit, save and, for students, export and pack the networks.

    Returns:
        For each name: its files, its parameters, the share of `mixed` cells, and the share of
        voxels `like_phantom`.
    """
    import torch

    from DistillSegLib.networks import count_parameters

    torch.set_num_threads(threads)
    setup = Setup(**{key: tuple(value) for key, value in setup.items()})
    image, classes = phantom(setup.shape)
    prepare = preprocessing(setup)
    array = prepare.apply([as_image(image, setup.spacing_mm)]).array
    classes = prepare.apply_label(as_image(classes, setup.spacing_mm))
    found = {}
    for name in names:
        net = build(name, setup.patch)
        student = name in STUDENTS
        # InstanceNorm looks at a whole patch at a time, so that network is fitted on one of them.
        seen, wanted = (array, classes) if student else _centre(array, classes, setup.patch)
        fitted = fit_last_layer(net, seen, wanted)
        weights = Path(folder) / f"{name}.pt"
        torch.save(net.state_dict(), weights)
        found[name] = {"weights": str(weights), "parameters": count_parameters(net), **fitted}
        if student:
            found[name]["package"] = str(_pack(name, net, setup, array, Path(folder)))
    return found


def fit_last_layer(
    net: nn.Module, array: NDArray[np.float32], classes: NDArray
) -> dict[str, float]:
    """Give the last 1x1x1 convolution the weights that tell the classes apart best, linearly.

    Args:
        array: (1, D, H, W), what the network sees; classes: (D, H, W).

    Returns:
        The shares of `mixed` cells and of voxels `like_phantom`, on the logits' grid.
    """
    import torch
    from torch import nn

    head = [m for m in net.modules() if isinstance(m, nn.Conv3d) and m.out_channels == len(CLASSES)]
    head, kept = head[-1], []
    hook = head.register_forward_hook(lambda module, given, result: kept.append(given[0]))
    run = getattr(net, "coarse", net)
    image = torch.from_numpy(array)[None]
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm3d)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0
        net.train(bool(norms))
        run(image)
        net.eval()
        run(image)
        hook.remove()
        features = kept[-1][0].numpy()  # (F, d, h, w)
        step = getattr(net, "stride", 1)
        wanted = classes[step // 2 :: step, step // 2 :: step, step // 2 :: step]
        clear = _inside(wanted)  # borders, where classes mix, would blur what is learnt of each
        weight, bias = discriminant(features[:, clear].T, wanted[clear])
        head.weight.copy_(torch.from_numpy(weight)[:, :, None, None, None])
        head.bias.copy_(torch.from_numpy(bias))
        logits = np.tensordot(weight, features, axes=1) + bias[:, None, None, None]
        labels = logits.argmax(axis=0).astype(np.uint8)
    return {"mixed": mixed_share(labels), "like_phantom": float(np.mean(labels == wanted))}


def discriminant(
    features: NDArray[np.float32], classes: NDArray
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Linear discriminant analysis with equal priors: (n, F) and (n,) -> (K, F) and (K,).

    Classes that do not occur get a bias that never wins.
    """
    features = features.astype(np.float64)
    present = [k for k in range(len(CLASSES)) if (classes == k).any()]
    means = np.array([features[classes == k].mean(axis=0) for k in present])
    lookup = np.zeros(len(CLASSES), int)
    lookup[present] = range(len(present))
    centred = features - means[lookup[classes]]
    spread = centred.T @ centred / len(centred)
    spread += 1e-3 * np.trace(spread) / len(spread) * np.eye(len(spread))
    weight, bias = np.zeros((len(CLASSES), features.shape[1])), np.full(len(CLASSES), -1e3)
    weight[present] = np.linalg.solve(spread, means.T).T
    bias[present] = -0.5 * (weight[present] * means).sum(axis=1)
    scale = max(np.abs(weight).max(), 1.0)  # logits of a size that half precision can add up
    return (weight / scale).astype(np.float32), (bias / scale).astype(np.float32)


def _inside(classes: NDArray) -> NDArray[np.bool_]:
    """Voxels whose neighbours along all axes are of their own class."""
    same = np.ones(classes.shape, bool)
    for axis in range(3):
        differs = np.diff(classes.astype(np.int16), axis=axis) != 0
        before = [(0, 0)] * 3
        after = [(0, 0)] * 3
        before[axis], after[axis] = (1, 0), (0, 1)
        same &= ~np.pad(differs, before) & ~np.pad(differs, after)
    return same


def mixed_share(labels: NDArray) -> float:
    """The share of the grid's cells whose eight corners are not all of one class."""
    low = high = labels
    for axis in range(3):
        ends = np.arange(labels.shape[axis] - 1)
        low = np.minimum(low.take(ends, axis), low.take(ends + 1, axis))
        high = np.maximum(high.take(ends, axis), high.take(ends + 1, axis))
    return float(np.mean(low != high))


def _centre(array: NDArray, classes: NDArray, patch: tuple[int, int, int]):
    starts = [(n - size) // 2 for n, size in zip(classes.shape, patch)]
    box = tuple(slice(start, start + size) for start, size in zip(starts, patch))
    return np.ascontiguousarray(array[(slice(None), *box)]), classes[box]


def _pack(
    name: str, net: nn.Module, setup: Setup, array: NDArray[np.float32], folder: Path
) -> Path:
    import torch

    from DistillSegLib.export.onnx import export_onnx, exported
    from DistillSegLib.export.packaging import check_window, measure_halo, measure_memory
    from DistillSegLib.manifest import Variant, check_shape
    from DistillSegLib.networks import count_parameters, smallest_size
    from DistillSegLib.package import write_package

    coarse, minimum = net.stride > 1, smallest_size(net)
    shape = check_shape(setup.patch, multiple=net.multiple, minimum=minimum)
    with tempfile.TemporaryDirectory(dir=folder) as inner:
        path = Path(inner) / "model.onnx"
        export_onnx(net, shape, path, coarse=coarse, multiple=net.multiple)
        model, per_voxel = path.read_bytes(), measure_memory(path, 1, net.multiple)
        halo = measure_halo(net, path, 1, net.stride)
    variant = Variant(
        "fp32", "model.onnx", net.stride, count_parameters(net), len(model), per_voxel
    )
    window = check_window(1, shape)
    with torch.no_grad():
        logits = exported(net, coarse=coarse)(torch.from_numpy(window)).numpy()
    manifest = replace(_manifest(name, setup, net.multiple, minimum, variant), halo=halo)
    return write_package(
        folder / f"{name}.distillseg",
        manifest,
        card=f"# {manifest.title}\n\nRandom weights, for measurements of speed.\n",
        models={"model.onnx": model},
        window=window,
        logits={"fp32": logits},
    )


def _manifest(name: str, setup: Setup, multiple: int, minimum: Any, variant: Any) -> Manifest:
    from DistillSegLib.labels import label_table
    from DistillSegLib.manifest import FORMAT, Manifest
    from DistillSegLib.scope import Measured, scope_of

    size_mm = tuple(n * step for n, step in zip(setup.shape, setup.spacing_mm))
    measured = Measured(size_mm, setup.spacing_mm, ((CLIP[0], -100.0, 700.0),), "CT")
    return Manifest(
        format=FORMAT,
        id=name,
        version="1.0.0",
        title=TITLES[name],
        description="Random weights of a fixed seed; for measurements of speed only.",
        modality="CT",
        channels=("CT",),
        labels=label_table({i: part for i, part in enumerate(CLASSES) if i}),
        preprocessing=preprocessing(setup),
        window=setup.patch,
        overlap=0.5,
        multiple=multiple,
        minimum=minimum,
        single_pass=True,
        variants=(variant,),
        scope=scope_of([measured], description="a phantom", body_part="phantom"),
        tolerance=1e-3,
        licence="CC0-1.0",
        attribution="made by code",
        intended_use="Measurements of speed.",
        recipe={"setup": asdict(setup), "seed": SEED},
    )
