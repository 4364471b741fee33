"""GTAN without an assistant: the target itself moves from the student to the teacher.

A reconstruction. Xu et al., "Efficient knowledge distillation for liver CT segmentation using
growing assistant network", Physics in Medicine & Biology 66(23):235005, 2021, gives the idea in its
abstract (knowledge that grows step by step, at no further cost); text and code are not public.
The assistant that grows as a network is `growth.py` and the recipe `gtan`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from DistillSegLib.distill.response import PredictionMaps
from DistillSegLib.distill.views import Batch, View


@dataclass(frozen=True)
class MovingTarget:
    """Prediction maps of an assistant without weights, between student s and teacher t.

        a = (1 - g) * s + g * t,    no gradient through a
        L = T^2 * mean over voxels of KL( softmax(a / T) || softmax(s / T) )

    g, the share of the way to the teacher, rises from 0 to 1 with the stage's progress and stays
    there. At g = 0 the loss and its gradient are 0 for any student; at g = 1 this is
    `PredictionMaps`. The gradient through a is blocked, else the student could draw the target to
    itself.

    GTAN reconstruction; whether it **differs from the paper** cannot be told, which names neither
    the assistant's form nor a temperature.

    Attributes:
        until: share of the stage at which g is 1; 0: from the start.
        rise: g over that time, "linear" or "cosine" (slow at both ends).
    """

    temperature: float = 2.0
    until: float = 0.7
    rise: Literal["linear", "cosine"] = "linear"
    taps: tuple[str, ...] = ()
    guided = True

    def __post_init__(self) -> None:
        PredictionMaps(self.temperature)  # refuses what is no temperature
        if not 0 <= self.until <= 1:
            raise ValueError(f"until is {self.until}; use a share of the stage, 0 to 1.")

    def share(self, progress: float) -> float:
        """The share g when `progress` of the stage is done."""
        if progress >= self.until:
            return 1.0
        done = progress / self.until
        return done if self.rise == "linear" else 0.5 * (1 - math.cos(math.pi * done))

    def __call__(self, batch: Batch, student: View, teacher: View) -> Tensor:
        g = self.share(batch.progress)
        target = (1 - g) * student.logits.detach().float() + g * teacher.logits.float()
        return PredictionMaps(self.temperature)(batch, student, View(target))
