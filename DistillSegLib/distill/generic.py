"""Terms that fit any pair of networks: channel-wise distributions, and correlations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from DistillSegLib.distill.checks import check_positive, check_shares
from DistillSegLib.distill.directions import direction
from DistillSegLib.distill.views import Batch, View

# Norms of probabilities about their mean, up to which they count as one number: of the classes at a
# voxel, and of a class over all voxels of a batch.
UNDECIDED, CONSTANT = 1e-2, 1e-4


@dataclass(frozen=True)
class ChannelWise:
    """CWD: where in the image each channel looks (Shu et al., ICCV 2021, arXiv:2011.13256, eq. 4).

        phi_c(y) = softmax over the voxels i of y_{c,i} / T
        L = T^2 / C * sum over channels c of KL( phi_c(teacher) || phi_c(student) )

    averaged over samples, and over maps where several taps are named. A number added to a channel
    changes nothing. One added to all classes of a voxel's logits changes no prediction, but y_{c,i}
    and so the loss: student and teacher are made to agree in it too, unless `centred`.

    Differs from the paper: features of another number of channels are refused, where it learns a
    1x1 convolution to match them. Like its released code, logits are the default. `centred` is
    ours.

    Attributes:
        taps: features to compare instead of the logits, of equal channels and sizes on both sides.
        centred: takes from each voxel's logits their mean over the classes first.
    """

    temperature: float = 4.0
    taps: tuple[str, ...] = ()
    centred: bool = False
    guided = True

    def __post_init__(self) -> None:
        check_positive(temperature=self.temperature)
        if self.centred and self.taps:
            raise ValueError(
                "centred is for logits, whose mean over the classes says nothing, and taps are "
                f"{list(self.taps)}; leave out one of the two."
            )

    def __call__(self, batch: Batch, student: View, teacher: View) -> Tensor:
        pairs = [(name, student.taps[name], teacher.taps[name]) for name in self.taps]
        pairs = pairs or [("logits", student.logits, teacher.logits)]
        return torch.stack([self._divergence(*pair) for pair in pairs]).mean()

    def _divergence(self, name: str, student: Tensor, teacher: Tensor) -> Tensor:
        if student.shape != teacher.shape:
            raise ValueError(
                f"'{name}' is (B, C, D, H, W) = {tuple(student.shape)} of the student and "
                f"{tuple(teacher.shape)} of the teacher; name a tap where both have the same "
                "channels and size, or none to compare the logits."
            )
        pair = [maps.float().flatten(2) for maps in (student, teacher)]  # (B, C, N)
        if self.centred:
            pair = [maps - maps.mean(dim=1, keepdim=True) for maps in pair]
        ours, theirs = (functional.log_softmax(maps / self.temperature, dim=2) for maps in pair)
        divergence = functional.kl_div(ours, theirs, reduction="sum", log_target=True)
        return self.temperature**2 * divergence / ours[..., 0].numel()  # B * C


@dataclass(frozen=True)
class DIST:
    """Keep the relations of a stronger teacher, not its values (Huang et al., NeurIPS 2022).

        q = softmax(z / T) as a matrix of voxels x classes,  r = Pearson's correlation
        L = T^2 * ( beta  * mean over voxels  of 1 - r(q_S[v, :], q_T[v, :])     between classes
                  + gamma * mean over classes of 1 - r(q_S[:, k], q_T[:, k]) )   within a class

    arXiv:2205.10536, eqs. 7 to 10. All voxels of the batch are the samples of the second part, as
    in the released code for segmentation, so its value for a batch is not the mean over samples. A
    row that is all but constant on either side (its norm about the mean is .01 or less between
    classes, 1e-4 within one) correlates with nothing: r = 0, without a gradient. The
    first part is blind with two classes, where a correlation is a sign only. Correlation itself
    ignores offset and scale, so there is nothing to standardise.

    Differs from the paper: the weights are those of the released code, beta = gamma = 1. Differs
    from the released code: that adds 1e-8 to the norms, so that one voxel of equal logits
    outweighs the gradient of all others.
    """

    beta: float = 1.0
    gamma: float = 1.0
    temperature: float = 1.0
    taps: tuple[str, ...] = ()
    guided = True
    couples_batch = True

    def __post_init__(self) -> None:
        check_positive(temperature=self.temperature)
        check_shares(beta=self.beta, gamma=self.gamma)

    def __call__(self, batch: Batch, student: View, teacher: View) -> Tensor:
        ours, theirs = (
            torch.softmax(view.logits.float() / self.temperature, dim=1).transpose(0, 1).flatten(1)
            for view in (student, teacher)
        )  # (K, B*D*H*W)
        between = 1 - correlation(ours, theirs, dim=0, least=UNDECIDED).mean()
        within = 1 - correlation(ours, theirs, dim=1, least=CONSTANT).mean()
        return self.temperature**2 * (self.beta * between + self.gamma * within)


def correlation(one: Tensor, other: Tensor, *, dim: int, least: float) -> Tensor:
    """Pearson's correlation along an axis; 0, without a gradient, where either side is constant.

    Args:
        least: norm about the mean up to which a side counts as constant.
    """
    ours, theirs = (
        direction(values - values.mean(dim=dim, keepdim=True), dim=dim, least=least)
        for values in (one, other)
    )
    return (ours * theirs).sum(dim=dim)
