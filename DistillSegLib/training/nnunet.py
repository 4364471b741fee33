"""An nnU-Net v2 results folder as a teacher (Isensee et al., Nature Methods 18, 2021).

nnU-Net's plans decide the grid and the intensities, and the student adopts them: `Results` is what
they say in our words. The network is built by the package `nnunetv2` itself. One fold gives its
logits; of several the probabilities are averaged, as nnU-Net does, and their logarithm is given.

**Differs from nnU-Net's own inference**: no mirrored copies are averaged; images are interpolated
linearly (nnU-Net: by cubic splines) and scaled after that (nnU-Net: before), which is the same
where images already have the target spacing; margins of zeros are not cut off.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from DistillSegLib.errors import RecipeError
from DistillSegLib.labels import LabelTable
from DistillSegLib.preprocessing import Intensity, Preprocessing
from DistillSegLib.training.foreign import Foreign, by_name, fill, read_tensors

LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Results:
    """What an nnU-Net results folder says, in our words and along our axes.

    Attributes:
        orientation: "" where arrays are taken as they are stored.
        axes: `transpose_forward`: which of our axes (0 = z) is its first, second and third.
        slicewise: a 2-D configuration.
        steps: what sizes along z, y and x must divide by.
        checkpoints: one of each fold.
        channels: names of the input channels, in order.
        structures: name -> channel of its logits.
        network: class, settings and names to import, as the plans give them.
    """

    name: str
    spacing_mm: tuple[float, float, float]
    intensity: tuple[Intensity, ...]
    orientation: str
    axes: tuple[int, int, int]
    slicewise: bool
    steps: tuple[int, int, int]
    checkpoints: tuple[Path, ...]
    channels: tuple[str, ...]
    structures: Mapping[str, int]
    network: tuple[str, Mapping[str, Any], Sequence[str]]


def read_results(folder: str, folds: Sequence[int | str], checkpoint: str) -> Results:
    """Read plans.json and dataset.json of a results folder; the weights stay on disk.

    Raises:
        RecipeError: nnunetv2 is not installed, no such folder or fold, plans that are damaged, or a
            kind of nnU-Net that cannot teach (cascades, regions, an ignored label, normalisation
            within a mask).
    """
    name, root = f"The nnU-Net '{folder}'", Path(folder)
    plans, dataset = (_json(root / file, name) for file in ("plans.json", "dataset.json"))
    try:
        return _results(plans, dataset, root, name, folds, checkpoint)
    except (LookupError, TypeError, ValueError, AttributeError) as problem:
        raise RecipeError(
            f"{name}: its plans.json or dataset.json is not as nnU-Net v2 writes it "
            f"({type(problem).__name__}: {problem}); copy the results folder again."
        ) from problem


def _results(
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    root: Path,
    name: str,
    folds: Sequence[int | str],
    checkpoint: str,
) -> Results:
    checkpoints = tuple(root / f"fold_{fold}" / checkpoint for fold in folds)
    for path in checkpoints:
        if not path.is_file():
            there = sorted(p.relative_to(root).as_posix() for p in root.glob("fold_*/*.pth"))
            raise RecipeError(
                f"{name} has no '{path.relative_to(root).as_posix()}'; it has "
                f'{", ".join(there) or "no checkpoint"}. Give folds = [0] and checkpoint = "…".'
            )
    configured = _configuration(plans, root, name)
    axes = tuple(plans["transpose_forward"])
    return Results(
        name=name,
        spacing_mm=_spacing(plans, configured, axes),
        intensity=_intensities(plans, configured, name),
        orientation="RAS" if "Reorient" in str(plans.get("image_reader_writer", "")) else "",
        axes=axes,
        slicewise=len(configured.patch_size) == 2,
        steps=_steps(configured, axes),
        checkpoints=checkpoints,
        channels=tuple(_channels(dataset).values()),
        structures=_structures(dataset, name),
        network=(
            configured.network_arch_class_name,
            configured.network_arch_init_kwargs,
            configured.network_arch_init_kwargs_req_import,
        ),
    )


def nnunet_teacher(
    results: Results,
    classes: tuple[int, ...],
    taps: Mapping[str, str],
    channels: int,
    labels: LabelTable,
    preprocessing: Preprocessing | None = None,
) -> Foreign:
    """The network of the results, with its weights, as a frozen role.

    Raises:
        RecipeError: other channels, structures, spacing or intensities than ours; taps of several
            folds.
    """
    name = results.name
    if len(results.channels) != channels:
        raise RecipeError(
            f"{name} takes {len(results.channels)} channels ({', '.join(results.channels)}), the "
            f"data set has {channels}."
        )
    if taps and len(results.checkpoints) > 1:
        raise RecipeError(
            f"{name}: the features of {len(results.checkpoints)} folds cannot be averaged; give "
            "one fold, or no taps."
        )
    if preprocessing:
        check_plan(results, preprocessing)
    heads = len(results.structures)
    nets = [_network(results, channels, heads, path) for path in results.checkpoints]
    return Foreign(
        name,
        nets[0] if len(nets) == 1 else Folds(nets),
        classes=classes or by_name(results.structures, labels, name),
        paths=taps,
        axes=results.axes,
        slicewise=results.slicewise,
        steps=results.steps,
        notes=notes(results),
    )


class Folds(nn.Module):
    """Several folds as one: the logarithm of their mean probability, (B, C, …) -> (B, K, …)."""

    def __init__(self, nets: Sequence[nn.Module]):
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, image: Tensor) -> Tensor:
        logs = torch.stack([net(image).float().log_softmax(1) for net in self.nets])
        return logs.logsumexp(0) - np.log(len(self.nets))


def check_plan(results: Results, preprocessing: Preprocessing) -> None:
    """RecipeError where the plan's images are not those that the nnU-Net was trained on."""
    for key in ("spacing_mm", "intensity", "orientation"):
        theirs, ours = getattr(results, key), getattr(preprocessing, key)
        if key == "orientation":
            same = theirs in ("", ours)
        elif key == "spacing_mm":
            same = bool(np.allclose(theirs, ours, rtol=1e-3))
        else:
            same = theirs == ours
        if not same:
            raise RecipeError(
                f"{results.name} was trained with the {key} {theirs}, the plan has {ours}; leave "
                f"plan.{key} out of the recipe and give the data set, not another run's cache: "
                "then the student adopts it."
            )


def notes(results: Results) -> list[str]:
    """What the rehearsal says about it."""
    said = []
    if not results.orientation:
        said.append(
            f"{results.name} sees images as they are stored; that those it was trained on were "
            "stored along the same axes could not be checked."
        )
    said.append(
        f"{results.name} scaled its images before it interpolated them by splines and cut off "
        "margins of zeros; here they are interpolated linearly, then scaled, and not cut."
    )
    return said


def _configuration(plans: Mapping[str, Any], root: Path, name: str):
    """nnU-Net's own reading of its plans."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its own dependencies
            from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    except ModuleNotFoundError as problem:
        raise RecipeError(
            f"{name} needs the package '{problem.name}', which is not installed; run: "
            'pip install "distillseg[nnunet]".'
        ) from problem
    configuration = root.resolve().name.split("__")[-1]
    if configuration not in plans.get("configurations", {}):
        raise RecipeError(
            f"{name}: its plans have no configuration '{configuration}' (the end of the folder's "
            f"name), but {', '.join(plans.get('configurations', {})) or 'none'}; keep the "
            "name that nnU-Net gave the folder."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old plans are translated
        configured = PlansManager(dict(plans)).get_configuration(configuration)
    if configured.previous_stage_name is not None:
        raise RecipeError(
            f"{name} is the second stage of a cascade, which needs the first one's result as an "
            "image; take the configuration 3d_fullres, or store its predictions."
        )
    return configured


def _spacing(plans: Mapping[str, Any], configured: Any, axes: tuple[int, ...]):
    """(z, y, x); a 2-D configuration leaves the distance of slices, so theirs is the median's."""
    theirs = list(configured.spacing)
    if len(theirs) == 2:
        theirs.insert(0, plans["original_median_spacing_after_transp"][0])
    return tuple(float(theirs[axes.index(axis)]) for axis in range(3))


def _steps(configured: Any, axes: tuple[int, ...]) -> tuple[int, int, int]:
    strides = configured.network_arch_init_kwargs.get("strides") or [[1, 1, 1]]
    strides = [s if isinstance(s, (list, tuple)) else [s] * 3 for s in strides]
    total = [int(n) for n in np.prod(strides, axis=0)]
    total = [1] * (3 - len(total)) + total
    return tuple(total[axes.index(axis)] for axis in range(3))


def _intensities(plans: Mapping[str, Any], configured: Any, name: str) -> tuple[Intensity, ...]:
    found = []
    measured = plans.get("foreground_intensity_properties_per_channel", {})
    for channel, (scheme, masked) in enumerate(
        zip(configured.normalization_schemes, configured.use_mask_for_norm, strict=True)
    ):
        if scheme == "ZScoreNormalization" and not masked:
            found.append(Intensity("image", (0.0, 100.0)))
        elif scheme == "CTNormalization":
            of = measured[str(channel)]
            ends = (of["percentile_00_5"], of["percentile_99_5"])
            found.append(Intensity("fixed", ends, of["mean"], max(of["std"], 1e-8)))
        elif scheme == "NoNormalization":
            found.append(Intensity("fixed", (-LARGEST, LARGEST)))
        elif scheme == "RGBTo01Normalization":
            found.append(Intensity("fixed", (0.0, 255.0), 0.0, 255.0))
        else:
            what = f"{scheme} within a mask of non-zero voxels" if masked else scheme
            raise RecipeError(
                f"{name} scales channel {channel} by {what}, which our images cannot follow; let "
                "it predict with --save_probabilities and give the folder as stored."
            )
    return tuple(found)


def _channels(dataset: Mapping[str, Any]) -> dict[str, str]:
    return dict(dataset.get("channel_names") or dataset.get("modality") or {})


def _structures(dataset: Mapping[str, Any], name: str) -> dict[str, int]:
    labels = dataset.get("labels", {})
    if "ignore" in labels or any(isinstance(value, (list, tuple)) for value in labels.values()):
        kind = "an 'ignore' label" if "ignore" in labels else "regions that overlap"
        raise RecipeError(
            f"{name} was trained with {kind}, so its channels are not one class each; let it "
            "predict label maps and give the folder as stored."
        )
    return {str(structure): int(value) for structure, value in labels.items()}


def _network(results: Results, channels: int, heads: int, checkpoint: Path) -> nn.Module:
    kind, settings, imported = results.network
    try:
        # Its modules greet and warn as they are imported, which is none of our output.
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

            net = get_network_from_plans(
                kind, settings, imported, channels, heads, allow_init=False, deep_supervision=False
            )
    except (ImportError, TypeError, ValueError, RuntimeError) as problem:
        raise RecipeError(
            f"{results.name}: its network '{kind}' cannot be built ({problem}); install what it "
            "was trained with."
        ) from problem
    allowed = [np.dtype, np.ndarray, *_numpy_globals()]
    fill(net, read_tensors(checkpoint, results.name, allowed), checkpoint, results.name)
    return net


def _numpy_globals() -> list[object]:
    """What numpy's numbers, of which nnU-Net's log consists, are pickled with."""
    core = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray
    return [core.scalar, core._reconstruct, *(type(np.dtype(k)) for k in ("f4", "f8", "i8", "?"))]


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
        problem: Exception = TypeError(f"it holds a {type(found).__name__}")
    except (OSError, ValueError) as failure:
        problem = failure
    raise RecipeError(
        f"{name}: '{path.name}' cannot be read ({problem}); give a results folder of nnU-Net v2, "
        "…/nnUNetTrainer__nnUNetPlans__3d_fullres."
    ) from problem
