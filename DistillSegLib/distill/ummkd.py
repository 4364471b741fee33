"""Unpaired CT and MR: what one modality learns from the other, and the paper's label loss.

Dou et al., "Unpaired Multi-modal Segmentation via Knowledge Distillation", IEEE TMI 39(7), 2020,
doi:10.1109/TMI.2019.2963882. There is no teacher: one network with norms for each modality
(`networks/domains.py`) sees a share of each in every batch. The formulas are those of the released
code, which computes the agreement for its 2-D network only; the paper has it for both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional

from DistillSegLib.distill.checks import check_positive, check_shares
from DistillSegLib.distill.views import Batch, View


@dataclass(frozen=True)
class DomainAgreement:
    """What is confused with what shall be the same in every modality.

        z_i = mean over the voxels of class i of logits (B, K, D, H, W)            (K,), per domain
        q_i = softmax(z_i / T)
        L   = mean over classes i of 1/2 [KL(q_i^s || q_i^t) + KL(q_i^t || q_i^s)]

    Both domains receive gradients: all voxels of a class the same one. There is no factor T². Over
    three domains and more the mean over the pairs is taken. Not at its minimum when student equals
    teacher: there is none, and it is zero where all domains agree. A batch of one domain is
    refused; one of several of which only one is labelled counts as zero (`compares_domains`).

    Differs from the released code: a class that either domain lacks in the batch is left out. The
    code takes zeros for its mean, which softened are a uniform and false target. Means are exact,
    without 1e-6 in the denominator.
    """

    temperature: float = 2.0
    taps: tuple[str, ...] = ()
    guided = False
    couples_batch = True
    compares_domains = True

    def __post_init__(self) -> None:
        check_positive(temperature=self.temperature)

    def __call__(self, batch: Batch, student: View, teacher: View | None = None) -> Tensor:
        means = [class_means(*domain) for domain in domains(batch, student.logits)]
        if len(means) < 2:
            raise ValueError(
                "the agreement between modalities needs samples of two in every batch, found one; "
                "give a second --data, with its domain in the recipe's `domains`."
            )
        zero = student.logits.float().sum() * 0  # where no class is in both: no loss, no gradient
        pairs = list(combinations(means, 2))
        return sum((self._divergence(*a, *b) for a, b in pairs), start=zero) / len(pairs)

    def _divergence(self, z: Tensor, present: Tensor, other: Tensor, there: Tensor) -> Tensor:
        """1/2 [KL(p || q) + KL(q || p)] = 1/2 sum (p - q) (log p - log q); mean over classes."""
        both = present & there
        log_p, log_q = (
            functional.log_softmax(mean[both] / self.temperature, dim=1) for mean in (z, other)
        )
        divergence = 0.5 * ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum()
        return divergence / both.sum().clamp(min=1)


@dataclass(frozen=True)
class DomainLabel:
    """Learning from labels in each modality by itself: Dice and weighted cross-entropy.

        L     = sum over domains of  dice * L_dice + cross_entropy * L_ce
        L_dice = 1 - 1/K sum_c 2 sum p_c y_c / (sum p_c^2 + sum y_c + 1e-7)
        L_ce   = mean over voxels of -w_c log max(p_c, 0.005),   w_c = 1 - share of class c

    with c the voxel's class in L_ce, and sums and shares over all of a domain's samples, background
    included. Where a voxel's probability is below 0.005 its cross-entropy gives no gradient, as in
    the released code. Not at its minimum when student equals teacher: it looks at the label only.

    Differs from the released code in the constant of L_dice, which is 0 there, so that the loss of
    a perfect answer is 0 here.
    """

    dice: float = 1.0
    cross_entropy: float = 1.0
    taps: tuple[str, ...] = ()
    guided = False
    couples_batch = True

    def __post_init__(self) -> None:
        check_shares(dice=self.dice, cross_entropy=self.cross_entropy)

    def __call__(self, batch: Batch, student: View, teacher: View | None = None) -> Tensor:
        return sum(
            self.dice * squared_dice_loss(logits, label)
            + self.cross_entropy * weighted_cross_entropy(logits, label)
            for logits, label in domains(batch, student.logits)
        )


def domains(batch: Batch, logits: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Each domain's logits (b, K, D, H, W) in 32 bits and labels (b, D, H, W); all if it is one."""
    if batch.domain is None:
        yield logits.float(), batch.label
        return
    for domain in batch.domain.unique().tolist():
        chosen = batch.domain == domain
        yield logits[chosen].float(), batch.label[chosen]


def class_means(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """(mean logits over the voxels of each class (K, K), which classes are there (K,))."""
    of_class = _one_hot(label, logits).flatten(2)
    counts = of_class.sum((0, 2))
    with torch.autocast(logits.device.type, enabled=False):
        sums = torch.einsum("bin,bkn->ik", of_class, logits.flatten(2))
    return sums / counts.clamp(min=1)[:, None], counts > 0


def squared_dice_loss(logits: Tensor, label: Tensor) -> Tensor:
    """1 minus the mean over classes of Dice with squared probabilities, over the whole batch."""
    probabilities, reference = functional.softmax(logits, dim=1), _one_hot(label, logits)
    axes = (0, 2, 3, 4)
    overlap = 2 * (probabilities * reference).sum(axes)
    total = probabilities.square().sum(axes) + reference.sum(axes) + 1e-7
    return 1 - (overlap / total).mean()


def weighted_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Mean over voxels of cross-entropy, weighted by the share of all other classes."""
    counts = torch.bincount(label.flatten(), minlength=logits.shape[1])
    weights = 1 - counts / label.numel()
    log_p = functional.log_softmax(logits, dim=1).clamp(min=math.log(0.005))
    chosen = log_p.gather(1, label[:, None])[:, 0]
    return -(weights[label] * chosen).mean()


def _one_hot(label: Tensor, logits: Tensor) -> Tensor:
    """(b, D, H, W) -> (b, K, D, H, W) of zeros and ones."""
    return torch.zeros_like(logits).scatter_(1, label[:, None], 1.0)
