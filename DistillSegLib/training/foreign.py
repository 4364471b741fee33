"""A network that was made elsewhere, seen as one of ours: image in, logits of our classes out.

It is turned to the axes that it knows, its channels are put in our order, and what does not fit is
said in words.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from DistillSegLib.errors import RecipeError
from DistillSegLib.labels import LabelTable
from DistillSegLib.networks.blocks import fold_depth, unfold_depth
from DistillSegLib.records import nearest

NESTED = ("network_weights", "state_dict", "model_state_dict", "model", "net")
WRAPPED = ("module.", "_orig_mod.")  # written by data-parallel and compiled networks


class Foreign(nn.Module):
    """A network from elsewhere with the interface of ours: (B, C, D, H, W) -> (B, K, D, H, W).

    Args:
        name: how messages call it.
        net: the network; its own taps stand at `paths`.
        classes: which of its channels is our class k; as they come where empty.
        paths: tap name -> path of a sub-module of `net`.
        axes: which of our axes (0 = z) is its first, second and third.
        flipped: those of its axes that run against ours.
        slicewise: it takes slices (B*n, C, h, w) across its first axis.
        steps: what a patch's voxels along z, y and x must divide by.
        minimum: the fewest voxels along these; None: `steps`.
        cases: that it was trained on, as far as it is known.
        notes: what could not be checked, for the rehearsal.
    """

    def __init__(
        self,
        name: str,
        net: nn.Module,
        *,
        classes: Sequence[int] = (),
        paths: Mapping[str, str] = {},
        axes: tuple[int, int, int] = (0, 1, 2),
        flipped: Sequence[int] = (),
        slicewise: bool = False,
        steps: tuple[int, int, int] = (1, 1, 1),
        minimum: tuple[int, int, int] | None = None,
        cases: Collection[str] = (),
        notes: Sequence[str] = (),
    ):
        super().__init__()
        self.name, self.net, self.notes, self.steps = name, net, tuple(notes), steps
        self.multiple, self.minimum = steps, minimum or steps
        self.cases = frozenset(cases)
        self.classes, self.slicewise = list(classes), slicewise
        self._to = [0, 1, *(2 + axis for axis in axes)]
        self._back = [self._to.index(axis) for axis in range(5)]
        self._flipped = [2 + axis for axis in flipped]
        self._heard: dict[str, Tensor] = {}
        self.taps = {tap: f"said.{number}" for number, tap in enumerate(paths)}
        self.said = nn.ModuleList(nn.Identity() for _ in paths)  # features, turned to our axes
        known = dict(net.named_modules())
        for tap, path in paths.items():
            if path not in known:
                near = nearest(path, [n for n in known if n.count(".") <= path.count(".")][1:])
                raise RecipeError(f"{name} has no sub-module '{path}' (tap '{tap}'); {near}")
            known[path].register_forward_hook(self._hook(tap))

    def _hook(self, tap: str):
        return lambda _module, _inputs, output: self._heard.update({tap: output})

    def forward(self, image: Tensor, domain: Tensor | None = None) -> Tensor:
        """Logits; `domain` is taken as all roles' is, and a foreign network knows none."""
        for size, step in zip(image.shape[2:], self.steps, strict=True):
            if size % step:
                raise RecipeError(
                    f"{self.name} needs sizes that divide by {_by(self.steps)} (z, y, x), found "
                    f"{_by(image.shape[2:])}; give such a plan.window."
                )
        turned = image.permute(self._to).flip(self._flipped)
        output = self._run(fold_depth(turned) if self.slicewise else turned, len(image))
        self._check(output, turned)
        for said, tap in zip(self.said, self.taps, strict=True):
            said(self._turned_back(self._features(tap, len(image))))
        self._heard.clear()  # nothing outlives the step
        if self.classes:
            output = output[:, self.classes]
        return self._turned_back(output)

    def try_on(self, channels: int, window: Sequence[int], classes: int) -> None:
        """Run it once on a ramp. RecipeError if it does not take our images or give our classes.

        Args:
            classes: K, that its logits must have.
        """
        image = torch.linspace(-1, 1, channels * math.prod(window)).reshape(1, channels, *window)
        with torch.inference_mode():
            logits = self.eval()(image)
        if (found := logits.shape[1]) != classes:
            raise RecipeError(
                f"{self.name} has {found} classes, the data set has {classes} with the background; "
                "say by classes = [0, …] which of its channels is which of ours."
            )
        if not torch.isfinite(logits).all():
            raise RecipeError(
                f"{self.name} answers with numbers that are not finite, so its weights or its code "
                "are broken; take another checkpoint."
            )

    def _run(self, image: Tensor, batch: int) -> Tensor:
        try:
            output = self.net(image)
        except (torch.OutOfMemoryError, RecipeError):
            raise
        except Exception as problem:  # another's code may raise anything
            raise RecipeError(
                f"{self.name} does not take {_by(image.shape)} numbers (B, C, sizes): "
                f"{_first(problem)}"
            ) from problem
        if self.slicewise and isinstance(output, Tensor):
            return unfold_depth(output, batch)
        return output

    def _check(self, output: object, image: Tensor) -> None:
        if not isinstance(output, Tensor):
            raise RecipeError(
                f"{self.name} gives a {type(output).__name__}, not logits alone; take a network "
                "without side outputs, or wrap it in a module of your own."
            )
        if not output.is_floating_point():
            raise RecipeError(
                f"{self.name} answers with numbers of the kind {output.dtype}; logits are needed, "
                "before any argmax."
            )
        if output.ndim != 5 or output.shape[2:] != image.shape[2:]:
            raise RecipeError(
                f"{self.name} answers with {_by(output.shape)} numbers to an image of "
                f"{_by(image.shape)}; logits (B, K, D, H, W) on the image's grid are needed."
            )
        if self.classes and max(self.classes) >= output.shape[1]:
            raise RecipeError(
                f"{self.name} has {output.shape[1]} channels, so classes = {self.classes} names "
                f"one that it has not; number them from 0 to {output.shape[1] - 1}."
            )

    def _features(self, tap: str, batch: int) -> Tensor:
        features = self._heard.get(tap)
        if not isinstance(features, Tensor) or features.ndim not in (4, 5):
            what = "nothing" if features is None else type(features).__name__
            raise RecipeError(
                f"{self.name}: tap '{tap}' gives {what}, not features (B, C, D, H, W); choose the "
                "path of a layer that runs and returns one tensor."
            )
        return unfold_depth(features, batch) if features.ndim == 4 else features

    def _turned_back(self, output: Tensor) -> Tensor:
        return output.flip(self._flipped).permute(self._back)


def by_name(theirs: Mapping[str, int], labels: LabelTable, name: str) -> tuple[int, ...]:
    """A teacher's channel of each of our classes, whatever the case of the structures' names.

    Args:
        theirs: structure -> channel.

    Raises:
        RecipeError: it does not know one of our structures.
    """
    known = {structure.casefold(): channel for structure, channel in theirs.items()}
    ours = [label.name for label in labels]
    if absent := [structure for structure in ours if structure.casefold() not in known]:
        raise RecipeError(
            f"{name} knows the structures {list(theirs)}, not '{absent[0]}' (ours: {ours}); say by "
            "classes = [0, …] which of its channels is which of ours."
        )
    return (0, *(known[structure.casefold()] for structure in ours))


def load_weights(net: nn.Module, path: Path, name: str) -> None:
    """Load a file of weights, and nothing but weights, into the network, every one of them.

    A table under "state_dict", "model" or "network_weights" is taken from within, and the prefix
    that data-parallel or compiled networks write is taken off.

    Raises:
        RecipeError: no such file, no table of weights, or weights of another network.
    """
    fill(net, read_tensors(path, name), path, name)


def read_tensors(path: Path, name: str, allowed: Sequence[object] = ()) -> dict:
    """What `torch.save` wrote, without running code of the file.

    Args:
        allowed: classes that the file may hold beside plain data and tensors.
    """
    try:
        with torch.serialization.safe_globals(list(allowed)):
            data = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RecipeError(f"{name}: there is no file '{path}'; check the path.") from None
    except UnpicklingError as problem:
        raise RecipeError(
            f"{name}: '{path}' is damaged, or holds a whole network or other objects beside "
            "weights, which would run code and is not read; save the network's state_dict() with "
            "torch.save."
        ) from problem
    except Exception as problem:  # torch raises many kinds
        raise RecipeError(
            f"{name}: '{path}' cannot be read as weights ({_first(problem)}); save the network's "
            "state_dict() with torch.save."
        ) from problem
    if not isinstance(data, Mapping):
        raise RecipeError(
            f"{name}: '{path}' holds a {type(data).__name__}, not a table of weights; save the "
            "network's state_dict() with torch.save."
        )
    return dict(data)


def fill(net: nn.Module, data: Mapping, path: Path, name: str) -> None:
    """Give the network all weights of a table, strictly."""
    for key in NESTED:
        if isinstance(data.get(key), Mapping):
            data = data[key]
            break
    weights = {key: value for key, value in data.items() if isinstance(value, Tensor)}
    for prefix in WRAPPED:
        if weights and all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    try:
        net.load_state_dict(weights, strict=True)
    except RuntimeError as problem:
        wanted = net.state_dict()
        missing, strange = (sorted(a) for a in (wanted - weights.keys(), weights.keys() - wanted))
        shapes = [
            key for key in wanted if key in weights and wanted[key].shape != weights[key].shape
        ]
        found = "; ".join(
            f"{len(keys)} {what} ({keys[0]}{' …' if len(keys) > 1 else ''})"
            for what, keys in (
                ("missing", missing),
                ("unknown", strange),
                ("of another size", shapes),
            )
            if keys
        )
        raise RecipeError(
            f"{name}: '{path}' holds the weights of another network: {found or _first(problem)}. "
            "Give the settings and the file that belong together."
        ) from problem


def _by(sizes: Sequence[int]) -> str:
    return " x ".join(str(int(size)) for size in sizes)


def _first(problem: Exception) -> str:
    lines = str(problem).splitlines() or [""]
    return f"{type(problem).__name__}: {lines[0]}".rstrip(": ")
