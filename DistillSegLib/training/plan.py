"""A plan made from the data: target spacing, intensities, window and batch, each with its reason.

The rules are nnU-Net's where they apply (Isensee et al., Nature Methods 18, 2021): median spacing
and size, fixed intensities for CT and each image's own for MR. Any value can be given in the
recipe's [plan] instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from DistillSegLib.datasets import Case, Dataset
from DistillSegLib.errors import DatasetError, RecipeError
from DistillSegLib.machine import free_memory_bytes
from DistillSegLib.networks import smallest_size
from DistillSegLib.preprocessing import Intensity, Preprocessing
from DistillSegLib.scope import Measured, Scope, measure, scope_of, widened
from DistillSegLib.training.recipe import PlanConfig
from DistillSegLib.windows import Shape, Size, ignore, per_axis

ANISOTROPIC = 3.0  # spacing ratio from which the coarse axis follows the finer images
LARGEST_WINDOW = 128**3  # voxels
LARGEST_BATCH = 8
SHARE_OF_DATA = 0.05  # of all voxels in one batch, at most
GIVEN = "given in the recipe"
SAMPLE = 5_000  # foreground voxels taken from each case


@dataclass(frozen=True)
class Plan:
    """How a data set is brought to a network.

    Attributes:
        window: (d, h, w) of training patches and of sliding windows.
        batch: patches per step.
        multiple: the networks' sizes divide by this, along all axes or along (z, y, x).
        modality: "CT", "MR", or as the data set names it.
        reasons: value -> why.
    """

    preprocessing: Preprocessing
    window: tuple[int, int, int]
    batch: int
    multiple: Size
    channels: tuple[str, ...]
    modality: str
    scope: Scope
    reasons: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        values = {
            "spacing_mm": f"{_by(self.preprocessing.spacing_mm)} (z, y, x)",
            "orientation": self.preprocessing.orientation,
            "intensity": "; ".join(map(_scaling, self.preprocessing.intensity)),
            "window": f"{_by(self.window)} voxels",
            "batch": f"{self.batch} patches",
        }
        return "\n".join(
            f"{name:<12} {value:<22} – {self.reasons.get(name, '')}"
            for name, value in values.items()
        )


@dataclass(frozen=True)
class Fingerprint:
    """What the training images are, measured.

    Attributes:
        measured: field of view, spacing and percentiles of each case, oriented.
        foreground: channel -> values under any label, a sample over all labelled cases.
    """

    measured: tuple[Measured, ...]
    foreground: tuple[np.ndarray, ...]


def fingerprint(
    cases: Sequence[Case],
    orientation: str,
    *,
    labelled: Collection[Case] | None = None,
    seed: int = 0,
    on_progress: Callable[[float], None] = ignore,
) -> Fingerprint:
    """Read every training case once and measure it.

    Args:
        labelled: whose labels may be looked at; None: everyone's.
    """
    import SimpleITK as sitk  # only here: training from a cache needs none

    from DistillSegLib.images import read_image
    from DistillSegLib.segmentations import read_segmentation

    random = np.random.default_rng(seed)
    measured, foreground = [], []
    for number, case in enumerate(cases):
        images = [read_image(file) for file in case.images]
        measured.append(measure(images, orientation=orientation))
        on_progress((number + 1) / len(cases))
        if labelled is not None and case not in labelled:
            continue
        label = sitk.GetArrayFromImage(read_segmentation(case.label).image) > 0
        samples = []
        for image in images:
            values = sitk.GetArrayFromImage(image)
            values = values[label] if values.shape == label.shape else values.ravel()
            count = min(SAMPLE, values.size)
            samples.append(random.choice(values, count, replace=False).astype(np.float64))
        foreground.append(samples)
    channels = [np.concatenate(values) for values in zip(*foreground, strict=True)]
    if not channels[0].size:
        raise DatasetError(f"None of the {len(foreground)} training cases holds a labelled voxel.")
    return Fingerprint(tuple(measured), tuple(channels))


def make_plan(
    dataset: Dataset,
    found: Fingerprint,
    config: PlanConfig,
    networks: Sequence[nn.Module],
    *,
    device: torch.device | str = "cpu",
) -> Plan:
    """Decide what the recipe leaves open.

    Args:
        networks: all that will be trained; on the "meta" device they cost no memory.
        device: where training runs; its free memory bounds the batch.
    """
    reasons: dict[str, str] = {}

    def choose(name: str, find: Callable, *arguments):
        given = getattr(config, name)
        value, reasons[name] = (given, GIVEN) if given is not None else find(*arguments)
        return value

    spacing = choose("spacing_mm", _spacing, found.measured)
    orientation = choose("orientation", lambda: (Preprocessing.orientation, "axes as in DICOM"))
    intensity = choose("intensity", _intensity, dataset.channels, found)
    if len(intensity) != len(dataset.channels):
        raise RecipeError(
            f"plan.intensity has {len(intensity)} entries for {len(dataset.channels)} channels "
            f"({', '.join(dataset.channels)}); give one for each."
        )
    multiple, smallest = _limits(networks)
    sizes = _sizes(found.measured, spacing)
    window = choose("window", _window, sizes, multiple, smallest)
    check_window(window, networks)
    memory = _memory(device)
    batch = choose("batch", _batch, sizes, window, networks, len(dataset.channels), memory)
    scope = scope_of(found.measured, description=config.field_of_view, body_part=config.body_part)
    scope = widened(scope, config.scope)
    modalities = {_modality(channel) for channel in dataset.channels}
    return Plan(
        preprocessing=Preprocessing(spacing, intensity, orientation),
        window=window,
        batch=batch,
        multiple=_compact(multiple),
        channels=dataset.channels,
        modality=modalities.pop() if len(modalities) == 1 else ", ".join(dataset.channels),
        scope=scope,
        reasons=reasons,
    )


def check_window(window: Sequence[int], networks: Sequence[nn.Module]) -> Size:
    """What the networks' sizes divide by. RecipeError if the window's do not, or are too small."""
    multiple, smallest = _limits(networks)
    limits = zip(window, multiple, smallest, strict=True)
    if any(size < least or size % each for size, each, least in limits):
        raise RecipeError(
            f"plan.window is {_by(window)}; the networks need multiples of {_compact(multiple)}, "
            f"at least {_compact(smallest)}, on each axis."
        )
    return _compact(multiple)


def _limits(networks: Sequence[nn.Module]) -> tuple[Shape, Shape]:
    """(what sizes must divide by, the smallest sizes), both (z, y, x)."""
    multiples = zip(*(per_axis(network.multiple) for network in networks))
    multiple = tuple(math.lcm(*each) for each in multiples)
    smallest = zip(multiple, *(per_axis(smallest_size(network)) for network in networks))
    return multiple, tuple(max(each) for each in smallest)


def _spacing(measured: Sequence[Measured]):
    spacings = np.array([one.spacing_mm for one in measured])
    spacing, reason = np.median(spacings, axis=0), "median of the training images"
    coarse = int(spacing.argmax())
    if spacing[coarse] > ANISOTROPIC * spacing.min():
        spacing[coarse] = max(np.percentile(spacings[:, coarse], 10), spacing.min())
        reason += "; along the coarse axis the finest tenth, so that thin slices are not lost"
    return tuple(float(round(value, 4)) for value in spacing), reason


def _intensity(channels: Sequence[str], found: Fingerprint):
    chosen, reasons = [], []
    for channel, values in zip(channels, found.foreground, strict=True):
        if _modality(channel) == "CT":
            low, high = np.percentile(values, (0.5, 99.5))
            kept = values.clip(low, high)
            chosen.append(
                Intensity("fixed", (float(low), float(high)), float(kept.mean()), float(kept.std()))
            )
            reasons.append(f"{channel} has fixed units: as in the labelled voxels of all images")
        else:
            chosen.append(Intensity("image", (0.5, 99.5)))
            reasons.append(f"{channel} has no fixed units: each image's own mean and deviation")
    return tuple(chosen), "; ".join(reasons)


def _sizes(measured: Sequence[Measured], spacing: Sequence[float]) -> np.ndarray:
    """Voxels of each case along z, y, x after resampling."""
    return np.array([np.array(one.size_mm) / spacing for one in measured])


def _window(sizes: np.ndarray, multiple: Shape, smallest: Shape):
    rounded = np.rint(np.median(sizes, axis=0) / multiple) * np.array(multiple)
    window = np.maximum(rounded, smallest)
    reason = f"median size {_by(np.rint(np.median(sizes, axis=0)).astype(int))}"
    shrunk = False
    while window.prod() > LARGEST_WINDOW:
        axis = window.argmax()
        window[axis] -= multiple[axis]
        shrunk = True
    reason += f", in multiples of {_compact(multiple)}" + (", shrunk to fit" if shrunk else "")
    return tuple(int(size) for size in window), reason


def _batch(sizes, window, networks, channels: int, memory: int):
    needed = max(activation_bytes(network, channels, window) for network in networks)
    by_memory = memory // 2 // needed
    by_data = int(SHARE_OF_DATA * sizes.prod(axis=1).sum() / np.prod(window))
    if by_memory < 1:
        raise RecipeError(
            f"One patch of {_by(window)} voxels needs about {needed / 1e9:.1f} GB to train on and "
            f"{memory / 1e9:.1f} GB are free; give a smaller plan.window or narrower networks."
        )
    batch = max(min(by_memory, by_data, LARGEST_BATCH), 2)
    return batch, f"{needed / 1e6:.0f} MB a patch of {memory / 1e9:.0f} GB; at most {LARGEST_BATCH}"


def activation_bytes(network: nn.Module, channels: int, window: Sequence[int]) -> int:
    """Memory that one patch takes in training: every layer's output twice, in 32 bits.

    Counted on the "meta" device, without computing anything.
    """
    network = network.to("meta").eval()  # in training a norm refuses one voxel of one patch
    counted = []
    hooks = [
        layer.register_forward_hook(lambda _m, _i, output: counted.append(output.numel()))
        for layer in network.modules()
        if not any(layer.children())
    ]
    network(torch.empty(1, channels, *window, device="meta"))
    for hook in hooks:
        hook.remove()
    return 2 * 4 * sum(counted)


def _memory(device: torch.device | str) -> int:
    device = torch.device(device)
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory_bytes()


def _modality(channel: str) -> str:
    name = channel.upper()
    if name == "CT":
        return "CT"
    return "MR" if name.startswith(("MR", "T1", "T2", "FLAIR")) else channel


def _scaling(intensity: Intensity) -> str:
    low, high = intensity.clip
    if intensity.scheme == "image":
        return f"percentiles {low:g} to {high:g}"
    return f"{low:g} to {high:g}, mean {intensity.mean:.4g}, sd {intensity.std:.4g}"


def _compact(sizes: Shape) -> Size:
    """One number where all are alike."""
    return sizes[0] if len(set(sizes)) == 1 else sizes


def _by(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:g}" for size in sizes)
