"""The loss of Distill DSM: soft Dice of regions that lie inside one another.

Maheshwari et al., "Distill DSM", MIDL 2021, PMLR 143. What the paper distils, it distils inside one
network (`networks/depthshift.py`): there is no teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from DistillSegLib.distill.views import Batch, View, resize_label
from DistillSegLib.networks.nested import REGIONS, check_order, class_scores

SMALLEST = 1e-6  # of the denominator: no region and no probability give 0, not NaN


@dataclass(frozen=True)
class RegionDice:
    """Soft Dice with squared denominator, of a `Nested` network's regions r, one sigmoid for each.

        L = 1 - mean_r  2 sum(p_r g_r) / max(sum p_r² + sum g_r², 1e-6),   p = sigmoid(z)

    Sums run over the batch and all voxels. Not at its minimum when student equals teacher: it looks
    at the label only. A region that is absent from the whole batch costs 1 and, as in the paper,
    sends no gradient; a further link of cross-entropy would.

    **Differs from the released code**: its network returns logits, which enter the loss without the
    sigmoid that the configuration asks for.

    Attributes:
        order: classes from the outermost region inward, as the network's `nested`; left out, the
            classes as they are numbered. A term sees features, not networks, so it must be told;
            another order than the network's is refused.
        taps: the region logits, at the output and wherever else the network has a head for them.
    """

    order: tuple[int, ...] = ()
    taps: tuple[str, ...] = (REGIONS,)
    guided = False
    couples_batch = True

    def __post_init__(self) -> None:
        if self.order:
            check_order(self.order, name="order")
        if not self.taps:
            raise ValueError(f"taps is empty; give the region logits, ['{REGIONS}'].")

    def __call__(self, batch: Batch, student: View, teacher: View | None = None) -> Tensor:
        losses = []
        for tap in self.taps:
            regions = student.taps[tap]
            order = self.order or range(1, student.logits.shape[1])
            if batch.progress == 0:  # at the door; each further look would wait for the device
                _check_regions(tap, regions, student.logits, order)
            label = resize_label(batch.label, regions)
            losses.append(dice_loss(regions.float().sigmoid(), region_masks(label, order).float()))
        return torch.stack(losses).mean()


def region_masks(label: Tensor, order: Sequence[int]) -> Tensor:
    """(B, D, H, W) classes -> (B, R, D, H, W) bool: region r holds the classes order[r:]."""
    depth = torch.zeros(len(order) + 1, dtype=torch.int64, device=label.device)
    depth[list(order)] = torch.arange(1, len(order) + 1, device=label.device)
    regions = torch.arange(len(order), device=label.device).reshape(1, -1, 1, 1, 1)
    return depth[label][:, None] > regions  # how many regions a class is inside of


def dice_loss(probabilities: Tensor, masks: Tensor) -> Tensor:
    """(B, R, D, H, W) both -> 1 - the mean over regions of soft Dice."""
    axes = (0, 2, 3, 4)
    common = 2 * (probabilities * masks).sum(axes)
    total = probabilities.square().sum(axes) + masks.square().sum(axes)
    return 1 - (common / total.clamp(min=SMALLEST)).mean()


def _check_regions(tap: str, regions: Tensor, logits: Tensor, order: Sequence[int]) -> None:
    if regions.shape[1] != len(order) or logits.shape[1] != len(order) + 1:
        raise ValueError(
            f"'{tap}' has {regions.shape[1]} regions and the network {logits.shape[1]} classes for "
            f"the order {list(order)}; give each class but the background once."
        )
    if tap == REGIONS:  # the very first voxel suffices
        regions, logits = (t.detach()[:, :, :1, :1, :1] for t in (regions, logits))
        if not torch.allclose(class_scores(regions, order).float(), logits.float(), atol=1e-3):
            raise ValueError(
                f"the network nests its regions in another order than {list(order)}; give the "
                "link the order that the network has as nested: settings = { order = [...] }."
            )
