"""Learning from a teacher's answers: prediction maps softened by a temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from DistillSegLib.distill.checks import check_positive
from DistillSegLib.distill.views import Batch, View

UNDECIDED = 0.05  # deviation of logits that are as good as equal


@dataclass(frozen=True)
class PredictionMaps:
    """Voxel-wise knowledge distillation (Hinton et al., 2015, arXiv:1503.02531, section 2).

        forward:  L = T^2 * mean over voxels of KL( softmax(t / T) || softmax(s / T) )
        reverse:  L = T^2 * mean over voxels of KL( softmax(s / T) || softmax(t / T) )

    T^2 keeps the size of the gradient independent of the temperature. Forward makes the student
    cover all that the teacher holds possible; reverse, keep to what it holds likely.

    As in EMKD's paper (Qin et al., IEEE TMI 2021): direction = "reverse", temperature = 1.0. As in
    its released code: direction = "forward", temperature = 4.0. **Differs from the released code**:
    that reshapes (B, 2, H, W) to rows of two without moving the classes last; the value is the
    same, the rows are not pixels.

    Attributes:
        standardise: z-scores over the classes replace the logits on both sides, see `standardise`.
    """

    temperature: float = 2.0
    direction: Literal["forward", "reverse"] = "forward"
    standardise: bool = False
    taps: tuple[str, ...] = ()
    guided = True

    def __post_init__(self) -> None:
        check_positive(temperature=self.temperature)

    def __call__(self, batch: Batch, student: View, teacher: View) -> Tensor:
        voxels = student.logits[:, 0].numel()  # B * D * H * W
        sides = [student.logits.float(), teacher.logits.float()]
        if self.standardise:
            sides = [standardise(logits) for logits in sides]
        ours, theirs = (functional.log_softmax(each / self.temperature, dim=1) for each in sides)
        if self.direction == "reverse":
            ours, theirs = theirs, ours
        divergence = functional.kl_div(ours, theirs, reduction="sum", log_target=True)
        return self.temperature**2 * divergence / voxels


def standardise(logits: Tensor) -> Tensor:
    """Logits less their mean over the classes, divided by their deviation: (B, K, ...) to the same.

    What a teacher holds likely, free of how loudly it says so: a * z + b (a > 0) gives the same as
    z. Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024, arXiv:2403.01427.
    [1, 2, 3] becomes [-1.224745, 0, 1.224745].

    **Differs from the released code**: that divides by the sample's deviation (K - 1), and 1e-7
    added to it; this by the population's, which the paper's algorithm names, and by 0.05 at least:
    a voxel of nearly equal logits, whose scores now stay small, would have a gradient that
    outweighs all others.

    Raises:
        ValueError: fewer than three classes. Two z-scores are -1 and 1 whatever the logits, so that
            nothing is left to learn from.
    """
    if logits.shape[1] < 3:
        raise ValueError(
            f"logit standardisation needs three classes or more, found {logits.shape[1]}: of two, "
            "only which is larger would be left; leave it off."
        )
    centred = logits - logits.mean(dim=1, keepdim=True)
    deviation = torch.linalg.vector_norm(centred, dim=1, keepdim=True) / centred.shape[1] ** 0.5
    return centred / deviation.clamp(min=UNDECIDED)
