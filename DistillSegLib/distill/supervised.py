"""Learning from labels: Dice and cross-entropy, the loss that nnU-Net made standard.

Isensee et al., "nnU-Net", Nature Methods 18, 2021. MONAI computes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from DistillSegLib.distill.checks import check_shares
from DistillSegLib.distill.views import Batch, View, resize_label


@dataclass(frozen=True)
class LabelLoss:
    """Soft Dice (without background, over the whole batch) plus cross-entropy.

        L = w_0 * l(logits, label) + sum_i w_i * l(tap_i, label at the tap's size),   sum w = 1

    Not at its minimum when student equals teacher: it looks at the label only. Labels are brought
    to a side head's grid by nearest voxel, as nnU-Net does.

    Attributes:
        taps: side heads for deep supervision, such as ("logits/1", "logits/2"), finest first.
        weights: of the output and of each tap, brought to a sum of 1. Left out, they are 1 / 2^i:
            0.533, 0.267, 0.133, 0.067 for four, which are nnU-Net's of a network with five poolings
            and a masked lowest head. [4, 2, 1, 0] are those of one with four poolings.
        dice: weight of the Dice part.
        cross_entropy: weight of the cross-entropy part.
    """

    taps: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    dice: float = 1.0
    cross_entropy: float = 1.0
    guided = False
    couples_batch = True

    def __post_init__(self) -> None:
        check_shares(dice=self.dice, cross_entropy=self.cross_entropy)
        if not self.weights:
            return
        fits = len(self.weights) == 1 + len(self.taps)
        if not (fits and min(self.weights) >= 0 and 0 < sum(self.weights) < math.inf):
            raise ValueError(
                f"weights are {list(self.weights)} for the output and the taps {list(self.taps)}; "
                "give each a number of 0 or more, and one at least more than 0."
            )

    def __call__(self, batch: Batch, student: View, teacher: View | None = None) -> Tensor:
        from monai.losses import DiceCELoss  # takes seconds, and only training needs it

        loss = DiceCELoss(
            include_background=False,
            to_onehot_y=True,
            softmax=True,
            batch=True,
            lambda_dice=self.dice,
            lambda_ce=self.cross_entropy,
        )
        outputs = [student.logits, *(student.taps[name] for name in self.taps)]
        weights = self.weights or [0.5**i for i in range(len(outputs))]
        losses = [
            weight * loss(output.float(), resize_label(batch.label, output)[:, None])
            for weight, output in zip(weights, outputs, strict=True)
        ]
        return sum(losses) / sum(weights)
