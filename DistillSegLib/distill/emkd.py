"""EMKD: where a network looks, and how it tells regions apart.

Qin et al., "Efficient Medical Image Segmentation Based on Knowledge Distillation", IEEE TMI 40(12),
2021, doi:10.1109/TMI.2021.3098703, arXiv:2108.09987. Its third transfer, of prediction maps, is in
`response.py`. The paper's total:

    L = focal_dice + 0.1 * prediction maps + 0.9 * importance maps + 0.9 * region affinity

Neither term needs equal numbers of features, so that any two networks can be linked. The paper's
networks see one slice at a time. `per = "slice"` compares as it does: each slice has a map of norm
one and regions of its own, so that every slice counts alike. `per = "volume"` is the same in three
dimensions: slices in which much happens count for more, and regions reach through them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from DistillSegLib.distill.checks import check_not_negative, check_shares
from DistillSegLib.distill.directions import direction
from DistillSegLib.distill.views import Batch, View
from DistillSegLib.networks.blocks import fold_depth

FEATURES = ("encoder/1", "encoder/3")  # the paper's low and high feature: strides 2 and 8
EMPTY = 1e-6  # voxels of a region, where it is divided by them
SMALLEST = 1e-3  # length of a vector that has no direction, beside a largest activation of 1


@dataclass(frozen=True)
class ImportanceMaps:
    """Where in space the features are strong (the paper's IMD).

        a(F) = m / |m|_2,   m = sum over channels of |F_c|^power, one value for each voxel
        L = sum over taps of mean over samples of |a(student) - a(teacher)|^2

    Blind to a feature's scale, sign and order of channels; at most 2 for each tap. After Zagoruyko
    and Komodakis, "Paying More Attention to Attention", ICLR 2017, arXiv:1612.03928.

    **Differs from the released code**: there the power is 4, which looks at the strongest voxels
    only; 1 is the paper's. There features are resized, here their maps: the same where the grids
    agree, and by averaging where the teacher's is coarser, so that no voxel is passed over.

    Attributes:
        power: of the features' sizes; 4 is the released code's.
        per: "volume", or "slice" as in the paper.
    """

    taps: tuple[str, ...] = FEATURES
    power: float = 1.0
    per: Literal["volume", "slice"] = "volume"
    guided = True

    def __post_init__(self) -> None:
        _check_taps(self.taps)
        if not 1 <= self.power < math.inf:
            raise ValueError(f"power is {self.power}; use 1 or more.")

    def __call__(self, batch: Batch, student: View, teacher: View) -> Tensor:
        return sum(self._distance(student.taps[name], teacher.taps[name]) for name in self.taps)

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        ours, theirs = _importance(student, self.power), _importance(teacher, self.power)
        ours = _resized(ours, theirs.shape[2:])  # (B, 1, D, H, W)
        if self.per == "slice":
            ours, theirs = fold_depth(ours), fold_depth(theirs)
        ours, theirs = (
            direction(each.flatten(1), dim=1, least=SMALLEST) for each in (ours, theirs)
        )
        return (ours - theirs).square().sum(dim=1).mean()


@dataclass(frozen=True)
class RegionAffinity:
    """How alike a network finds the structures that the label shows (the paper's RAD).

        R_i = mean of the features over region i;   V_ij = cos(R_i, R_j)
        L = sum over taps of mean over samples of sum over i < j present of (V_ij^s - V_ij^t)^2

    Background is a region too. Of K structures present there are K (K + 1) / 2 pairs, each at most
    4: lower the weight where there are many. A sample of one region gives 0. Blind to rotations and
    scale of the channels and to the order of voxels within a region. Teacher and student may have
    different grids: each takes the label to its own.

    **Differs from the released code**: all pairs, as in the paper, where it has background and
    foreground only; an absent background is passed over, where it gives NaN. **Differs from both**:
    a label comes to a coarser grid as the share of each voxel that it covers, where they take the
    nearest voxel, at which a tumour of a few voxels may vanish at stride 8.

    Attributes:
        per: "volume", or "slice" as in the paper; slices of one region then do not count, which its
            training leaves out.
    """

    taps: tuple[str, ...] = FEATURES
    per: Literal["volume", "slice"] = "volume"
    guided = True
    reads_label = True

    def __post_init__(self) -> None:
        _check_taps(self.taps)

    def __call__(self, batch: Batch, student: View, teacher: View) -> Tensor:
        classes = student.logits.shape[1]
        return sum(
            self._distance(batch.label, classes, student.taps[name], teacher.taps[name])
            for name in self.taps
        )

    def _distance(self, label: Tensor, classes: int, student: Tensor, teacher: Tensor) -> Tensor:
        if self.per == "slice" and student.shape[2] != teacher.shape[2]:
            raise ValueError(
                f"the student's feature has {student.shape[2]} slices, the teacher's "
                f'{teacher.shape[2]}; use per = "volume".'
            )
        (ours, seen), (theirs, _) = (
            _contrasts(features, shares(label, classes, features), self.per == "slice")
            for features in (student, teacher)
        )
        gaps = torch.where(seen, (ours - theirs).square(), 0.0).sum(dim=-1)  # (B, slices or 1)
        counted = seen.any(dim=-1).sum(dim=-1)
        return (gaps.sum(dim=-1) / counted.clamp(min=1)).mean()


@dataclass(frozen=True)
class FocalDice:
    """The paper's segmentation loss: half focal loss, half Dice.

        L = focal * mean over voxels of -(1 - p_y)^gamma log p_y
          + dice * mean over structures of 1 - (2 sum p g + 1) / (sum p + sum g + 1)

    with the sums of Dice over the whole batch and without background; two classes give the paper's
    value. Not at its minimum when student equals teacher: it looks at the label only.

    **Differs from the released code**: there no gradient passes through (1 - p_y)^gamma; here it
    does, as in the loss's own paper (Lin et al., ICCV 2017, arXiv:1708.02002).
    """

    gamma: float = 2.0
    focal: float = 0.5
    dice: float = 0.5
    taps: tuple[str, ...] = ()
    guided = False
    couples_batch = True

    def __post_init__(self) -> None:
        check_not_negative(gamma=self.gamma)
        check_shares(focal=self.focal, dice=self.dice)

    def __call__(self, batch: Batch, student: View, teacher: View | None = None) -> Tensor:
        from monai.losses import DiceLoss, FocalLoss  # takes seconds; only training needs it

        logits, label = student.logits.float(), batch.label[:, None]
        focal = FocalLoss(gamma=self.gamma, to_onehot_y=True, use_softmax=True)
        dice = DiceLoss(
            include_background=False,
            to_onehot_y=True,
            softmax=True,
            batch=True,
            smooth_nr=1.0,
            smooth_dr=1.0,
        )
        voxelwise = logits.shape[1] * focal(logits, label)  # it is a mean over classes, too
        return self.focal * voxelwise + self.dice * dice(logits, label)


def shares(label: Tensor, classes: int, like: Tensor) -> Tensor:
    """(B, D, H, W) class indices -> (B, K, d, h, w): the share of each voxel a class covers."""
    index = torch.arange(classes, device=label.device).reshape(1, -1, 1, 1, 1)
    return functional.adaptive_avg_pool3d((label[:, None] == index).float(), like.shape[2:])


def _contrasts(features: Tensor, masks: Tensor, slices: bool) -> tuple[Tensor, Tensor]:
    """Cosine between the mean features of every two regions, and whether both are there.

    (B, C, D, H, W) and (B, K, D, H, W) -> twice (B, D or 1, K (K - 1) / 2).
    """
    size = len(features)
    features = _unit(features)
    if slices:
        features, masks = fold_depth(features), fold_depth(masks)  # (B*D, C or K, H, W)
    features, masks = features.flatten(2), masks.flatten(2)
    extent = masks.sum(dim=-1)
    with torch.autocast(features.device.type, enabled=False):
        means = masks @ features.transpose(1, 2) / extent.clamp(min=EMPTY)[..., None]
        means = direction(means, dim=-1, least=SMALLEST)
        cosines = means @ means.transpose(1, 2)  # (B or B*D, K, K)
    one, other = map(list, zip(*combinations(range(masks.shape[1]), 2)))
    seen = (extent[:, one] > 0) & (extent[:, other] > 0)
    return cosines[:, one, other].unflatten(0, (size, -1)), seen.unflatten(0, (size, -1))


def _importance(features: Tensor, power: float) -> Tensor:
    """(B, C, D, H, W) -> (B, 1, D, H, W)."""
    return _unit(features).abs().pow(power).sum(dim=1, keepdim=True)


def _unit(features: Tensor) -> Tensor:
    """In 32 bits, with 1 as each sample's strongest activation: no power under- or overflows."""
    features = features.float()
    strongest = features.detach().abs().amax(dim=(1, 2, 3, 4), keepdim=True)
    return features / strongest.clamp(min=torch.finfo(torch.float32).tiny)


def _resized(maps: Tensor, size: torch.Size) -> Tensor:
    """(B, 1, D, H, W) -> (B, 1, *size): averaged along axes that shrink, then interpolated."""
    if maps.shape[2:] == size:
        return maps
    smaller = [min(ours, theirs) for ours, theirs in zip(maps.shape[2:], size)]
    maps = functional.adaptive_avg_pool3d(maps, smaller)
    return functional.interpolate(maps, size=size, mode="trilinear", align_corners=False)


def _check_taps(taps: tuple[str, ...]) -> None:
    if not taps:
        raise ValueError('taps is empty; name the features to compare, as in ["encoder/1"].')
