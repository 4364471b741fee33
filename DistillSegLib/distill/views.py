"""What a loss term may see: the batch, and what each network said about it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from DistillSegLib.networks.blocks import unfold_depth
from DistillSegLib.records import nearest

EMPTY: Mapping[str, Tensor] = MappingProxyType({})


class Batch(NamedTuple):
    """What one step trains on; a named tuple, because Fabric refuses frozen dataclasses.

    Attributes:
        image: (B, C, D, H, W) float32.
        label: (B, D, H, W) int64 class indices, 0 = background.
        domain: (B,) int64, samples grouped by domain; None: one domain.
        progress: share of the stage that is done, for terms whose target moves.
        stored: role -> (B, K, D, H, W), predictions of a teacher that was run elsewhere.
        labelled: (B,) bool, whose label is known; None: everyone's. The others' labels are zero and
            say nothing.
    """

    image: Tensor
    label: Tensor
    domain: Tensor | None = None
    progress: float = 0.0
    stored: Mapping[str, Tensor] = EMPTY
    labelled: Tensor | None = None


@dataclass(frozen=True)
class View:
    """What one network said about one batch.

    Attributes:
        logits: (B, K, D, H, W).
        taps: name -> (B, C_i, D_i, H_i, W_i); also of slice-wise networks, always 5-D.
    """

    logits: Tensor
    taps: Mapping[str, Tensor] = field(default_factory=lambda: EMPTY)

    def detached(self) -> View:
        """The same numbers without gradients: what a guide may give away."""
        return View(self.logits.detach(), {name: t.detach() for name, t in self.taps.items()})

    def of(self, samples: Tensor) -> View:
        """What it said about some samples of the batch, (B,) bool."""
        return View(self.logits[samples], {name: t[samples] for name, t in self.taps.items()})


@runtime_checkable
class Term(Protocol):
    """A loss between what the student and its guide said; a frozen dataclass that is called.

    It computes in 32 bits, whatever the precision of the run. What it cannot work with (features of
    another shape, a batch of one domain) it refuses with a ValueError that says so; the rehearsal
    adds the name of the link.

    A term whose value for a batch is not the mean of its values for the samples (Dice over the
    batch) sets `couples_batch = True`: among several processes each computes it on its own share.

    A term that compares domains sets `compares_domains = True`: where of several domains in a batch
    only one is labelled, it is not asked and counts as zero.

    Attributes:
        taps: names of the features it needs, from student and teacher alike.
        guided: whether it needs a teacher. One that does not looks at the label, and so does one
            with `reads_label = True`: of a batch these are given the labelled samples only.
    """

    taps: tuple[str, ...]
    guided: bool

    def __call__(self, batch: Batch, student: View, teacher: View | None) -> Tensor: ...


class Tapped(nn.Module):
    """A network whose named features are reported beside its logits: a `Batch -> View`.

    Args:
        net: maps (B, C, D, H, W), and the samples' domain if it has `domains`, to logits.
        wanted: names of the taps to report; hooks are set on these only.
        paths: tap name -> sub-module path; `net.taps` when absent.
    """

    def __init__(
        self,
        net: nn.Module,
        wanted: Collection[str] = (),
        paths: Mapping[str, str] | None = None,
    ):
        super().__init__()
        self.net = net
        self._seen: dict[str, list[Tensor]] | None = None  # while nobody asks for features
        paths = getattr(net, "taps", {}) if paths is None else paths
        for name in wanted:
            if name not in paths:
                called = getattr(net, "name", type(net).__name__)
                raise ValueError(f"{called} has no tap '{name}'; {nearest(name, paths)}")
            net.get_submodule(paths[name]).register_forward_hook(self._hook(name))

    def _hook(self, name: str):
        def see(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
            if self._seen is not None:  # the network alone is run to validate it, window by window
                self._seen.setdefault(name, []).append(output)

        return see

    def forward(self, batch: Batch) -> View:
        inputs = (batch.image, batch.domain) if hasattr(self.net, "domains") else (batch.image,)
        self._seen = {}
        try:
            logits = self.net(*inputs)
            taps = {name: torch.cat(parts) for name, parts in self._seen.items()}  # one per domain
        finally:
            self._seen = None  # nothing outlives the step
        size = len(batch.image)
        return View(
            logits, {n: unfold_depth(t, size) if t.ndim == 4 else t for n, t in taps.items()}
        )


def reads_label(term: Term) -> bool:
    """Whether a term looks at the label."""
    return getattr(term, "reads_label", not term.guided)


def resize_label(label: Tensor, like: Tensor) -> Tensor:
    """(B, D, H, W) class indices -> the grid of `like` (B, C, d, h, w), by nearest voxel.

    Nearest to a coarse voxel's middle, where pooling and upsampling see it too; torch's "nearest"
    is its first corner, 3.5 voxels away at stride 8.
    """
    if label.shape[1:] == like.shape[2:]:
        return label
    size = like.shape[2:]
    return functional.interpolate(label[:, None].float(), size, mode="nearest-exact")[:, 0].long()
