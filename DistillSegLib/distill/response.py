"""Learning from a teacher's answers: prediction maps softened by a temperature."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from DistillSegLib.distill.views import Batch, View


@dataclass(frozen=True)
class PredictionMaps:
    """Voxel-wise knowledge distillation (Hinton et al., 2015, arXiv:1503.02531, section 2).

        L = T^2 * mean over voxels of KL( softmax(t / T) || softmax(s / T) )

    T^2 keeps the size of the gradient independent of the temperature. With T = 4 this is the
    prediction-map term that EMKD's released code computes (Qin et al., IEEE TMI 2021).

    Differs from EMKD's paper: there the arguments of KL are the other way round and no temperature
    is named; this order makes the student cover all that the teacher holds possible.
    """

    temperature: float = 2.0
    taps: tuple[str, ...] = ()
    guided = True

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"the temperature is {self.temperature}; use a positive number.")

    def __call__(self, batch: Batch, student: View, teacher: View) -> Tensor:
        voxels = student.logits[:, 0].numel()  # B * D * H * W
        divergence = functional.kl_div(
            functional.log_softmax(student.logits.float() / self.temperature, dim=1),
            functional.log_softmax(teacher.logits.float() / self.temperature, dim=1),
            reduction="sum",
            log_target=True,
        )
        return self.temperature**2 * divergence / voxels
