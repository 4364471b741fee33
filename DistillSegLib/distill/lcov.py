"""Class affinity and multi-scale distillation, by which LCOV-Net learns from its dense teacher.

Zhao et al., "Efficient Multi-Organ Segmentation From 3D Abdominal CT Images With Lightweight
Network and Knowledge Distillation", IEEE TMI 42(9), 2023, doi:10.1109/TMI.2023.3262680.

    L = 0.8 * L_label + 0.2 * sum_r w_r * MSKD_r + 0.1 * sum_r w_r * CAKD_r

over the decoder's scales r = 0 … 3, finest first, with w = 0.4, 0.2, 0.2, 0.2. The sums over r are
the two terms here, the outer weights are those of the recipe's links.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from DistillSegLib.distill.checks import check_positive
from DistillSegLib.distill.views import Batch, View

SMALLEST_NORM = 1e-3  # of a voxel's features; where a network is silent, logits stay finite


@dataclass(frozen=True)
class ClassAffinity:
    """CAKD: which classes a network confuses with which, over the whole image.

        Q = softmax(Z), (K, N);   M = Q Q^T / N, (K, K);   unit columns m_j = M[:, j] / |M[:, j]|
        CAKD_r = mean over columns and samples of 1 - cos(M_S[:, j], M_T[:, j])

    The affinity forgets where a voxel lies: student and teacher may answer on different grids, and
    the term alone teaches no shape. Two unrelated predictions already differ by 0.006 only.

    Differs from the paper: it minimises -cos; 1 - cos has the same gradient and is 0 where both are
    equal, so the log tells something. It is computed as |m_S - m_T|^2 / 2, the same number without
    the cancellation, and 0 too for a class that neither side ever predicts. M is divided by N,
    which no cosine sees.

    Differs from the released code: all samples of the batch count, not the first two alone, and the
    teacher's predictions have no temperature (there, a setting that is never stored).

    Attributes:
        taps: side heads, finest first; the output is the scale before them.
        weights: of the output and of each tap.
    """

    taps: tuple[str, ...] = ("logits/1", "logits/2", "logits/3")
    weights: tuple[float, ...] = (0.4, 0.2, 0.2, 0.2)
    guided = True

    def __post_init__(self) -> None:
        _check_weights(self.weights, ("the output", *self.taps))

    def __call__(self, batch: Batch, student: View, teacher: View) -> Tensor:
        total = torch.zeros((), device=student.logits.device)
        for weight, name in zip(self.weights, (None, *self.taps), strict=True):
            ours, theirs = _heads(student, teacher, name)
            total = total + weight * column_gap(affinity(ours), affinity(theirs))
        return total


def affinity(logits: Tensor) -> Tensor:
    """(B, K, D, H, W) -> (B, K, K): how often two classes are held possible at the same voxel.

    In 32 bits also inside autocast: sums over 1.6 million voxels exceed what 16 bits hold. Slice
    by slice, since one running sum over as many voxels is off by 6e-4.
    """
    with torch.autocast(logits.device.type, enabled=False):
        shares = torch.softmax(logits.float(), dim=1).transpose(1, 2).flatten(3)  # (B, D, K, H*W)
        return (shares @ shares.transpose(2, 3)).mean(dim=1) / shares.shape[3]


def column_gap(ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean of 1 - cos over the columns of two (B, K, K), whatever the columns' lengths."""
    gap = functional.normalize(ours, dim=1) - functional.normalize(theirs, dim=1)
    return gap.square().sum(dim=1).mean() / 2


@dataclass(frozen=True)
class MultiScale:
    """MSKD: voxel-wise predictions at each scale, softened by the size of the features below them.

        q = softmax(tau * Z / |F|),   MSKD_r = mean over voxels of KL(q_T || q_S)

    Z are a scale's logits and F the features that its head reads; |F| is taken over the channels of
    a voxel, so that multiplying F and Z by one factor leaves q as it is (feature-normalised
    distillation: Xu et al., ECCV 2020). The teacher's Z / |F| is interpolated to the student's grid
    where they differ. A norm counts as 0.001 at least.

    Differs from the paper: it minimises the cross-entropy of q_T and q_S, which is this plus the
    teacher's entropy. The gradient is the same, and this is 0 where both are equal.

    Differs from the released code: the teacher's side is a probability (there, raw logits or no
    gradient at all), the norm is each voxel's own (there, one for a whole batch, some thousands, so
    that every prediction is almost uniform), and no gradient flows through it (there, a student
    could follow its teacher by shrinking its features).

    Attributes:
        taps: side heads `logits/…`, finest first, and the features of the output and of each head.
        weights: of the scales, finest first.
        tau: sharpness.
        detach_norm: whether |F| is a number only; False lets the gradient through it.
    """

    taps: tuple[str, ...] = (
        *("logits/1", "logits/2", "logits/3"),
        *("decoder/0", "decoder/1", "decoder/2", "decoder/3"),
    )
    weights: tuple[float, ...] = (0.4, 0.2, 0.2, 0.2)
    tau: float = 2.0
    detach_norm: bool = True
    guided = True

    def __post_init__(self) -> None:
        heads, features = self._scales()
        if len(heads) != len(features):
            raise ValueError(
                f"the taps {list(self.taps)} name {len(heads) - 1} side heads and {len(features)} "
                "features; name one of features for the output and one for each head, as in "
                '["logits/1", "decoder/0", "decoder/1"].'
            )
        _check_weights(self.weights, features)
        check_positive(tau=self.tau)

    def __call__(self, batch: Batch, student: View, teacher: View) -> Tensor:
        total = torch.zeros((), device=student.logits.device)
        for weight, head, name in zip(self.weights, *self._scales(), strict=True):
            ours, theirs = _heads(student, teacher, head)
            ours = self._scaled(ours, student.taps[name], name)
            theirs = self._scaled(theirs, teacher.taps[name], name)
            if ours.shape != theirs.shape:
                theirs = functional.interpolate(theirs, size=ours.shape[2:], mode="trilinear")
            divergence = functional.kl_div(
                functional.log_softmax(ours, dim=1),
                functional.log_softmax(theirs, dim=1),
                reduction="sum",
                log_target=True,
            )
            total = total + weight * divergence / ours[:, 0].numel()  # B * D * H * W
        return total

    def _scales(self) -> tuple[list[str | None], list[str]]:
        """Heads (None: the output) and the features below them, finest first."""
        heads = [name for name in self.taps if name.startswith("logits/")]
        return [None, *heads], [name for name in self.taps if name not in heads]

    def _scaled(self, logits: Tensor, features: Tensor, name: str) -> Tensor:
        """Logits over the size of their features, times tau: (B, K, D, H, W)."""
        if logits.shape[2:] != features.shape[2:]:
            raise ValueError(
                f"the features '{name}' have {tuple(features.shape[2:])} voxels and the logits "
                f"that they should scale {tuple(logits.shape[2:])}; name taps of one scale."
            )
        norm = torch.linalg.vector_norm(features.float(), dim=1, keepdim=True)
        norm = norm.detach() if self.detach_norm else norm
        return self.tau * logits / norm.clamp_min(SMALLEST_NORM)


def _heads(student: View, teacher: View, name: str | None) -> tuple[Tensor, Tensor]:
    """Both sides' logits at the tap `name`, or their output, in 32 bits."""
    ours, theirs = (view.logits if name is None else view.taps[name] for view in (student, teacher))
    if ours.shape[1] != theirs.shape[1]:
        raise ValueError(
            f"the student has {ours.shape[1]} classes at '{name or 'the output'}' and the teacher "
            f"{theirs.shape[1]}; name taps that hold logits of the same labels."
        )
    return ours.float(), theirs.float()


def _check_weights(weights: Sequence[float], scales: Sequence[str]) -> None:
    if len(weights) != len(scales) or not (min(weights) >= 0 and 0 < sum(weights) < math.inf):
        raise ValueError(
            f"weights are {list(weights)} for the scales {list(scales)}; give each a number of 0 "
            "or more, and one at least more than 0."
        )
