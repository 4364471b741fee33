"""Regions that lie inside one another, as in BraTS: whole tumour ⊃ tumour core ⊃ enhancing tumour.

A network that answers with one sigmoid per region, as Distill DSM does, answers here in classes as
well, so that labels, validation, export and packages need not know about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

REGIONS = "regions/0"  # the tap that holds the regions' own logits
BY_VALUE = "by value"  # of the labels: the smallest is the outermost region
Order = tuple[int, ...] | Literal["by value"]


def check_order(order: Sequence[int], name: str = "nested") -> None:
    """ValueError unless `order` holds each class 1 … K-1 once; `name`: what the recipe calls it."""
    if not order or sorted(order) != list(range(1, len(order) + 1)):
        raise ValueError(
            f"{name} is {list(order)}; give the class of each structure once, outermost region "
            f"first: the numbers 1 to {max(len(order), 1)} in some order."
        )


def class_scores(regions: Tensor, order: Sequence[int]) -> Tensor:
    """Region logits z (B, K-1, D, H, W) -> scores s (B, K, D, H, W), whose argmax is the class.

        s_0 = 0,   s_{order[r]} = sum_{q <= r} min(z_0, …, z_q)

    The running minimum falls, so its sum rises as long as all regions so far are positive: the
    argmax is the innermost class of the regions that hold without a gap from the outermost on.
    """
    lowest = score = regions[:, 0]
    scores = {0: torch.zeros_like(score), order[0]: score}
    for region, name in enumerate(order[1:], start=1):
        lowest = torch.minimum(lowest, regions[:, region])
        scores[name] = score = score + lowest
    return torch.stack([scores[name] for name in range(len(scores))], dim=1)


class Nested(nn.Module):
    """A network of R = K-1 region logits as one of K classes.

    Region r is the union of the classes `order[r]`, `order[r + 1]` …: for the labels 1 necrosis,
    2 oedema, 3 enhancing tumour of BraTS the order is (2, 1, 3). The regions' logits are the tap
    `regions/0`; side heads of the network, which are of regions too, become `regions/1` ….

    Args:
        net: (B, C, D, H, W) -> region logits (B, R, D, H, W).
        order: classes, outermost region first.
    """

    def __init__(self, net: nn.Module, order: Sequence[int]):
        super().__init__()
        check_order(order)
        self.net, self.order = net, tuple(order)
        self.multiple = net.multiple
        if hasattr(net, "minimum"):
            self.minimum = net.minimum
        self.taps = {REGIONS: "net"} | {
            tap.replace("logits/", "regions/"): f"net.{path}" for tap, path in net.taps.items()
        }

    def forward(self, image: Tensor) -> Tensor:
        return class_scores(self.net(image), self.order)


def nest(build: Callable[[int], nn.Module], classes: int, order: Order) -> Nested:
    """The nested network of K classes that `build` makes for K-1 outputs."""
    order = tuple(range(1, classes)) if order == BY_VALUE else order
    check_order(order)
    if len(order) != classes - 1:
        raise ValueError(
            f"nested is {list(order)}, the data set has {classes - 1} structures; name each once, "
            f"or write '{BY_VALUE}'."
        )
    return Nested(build(classes - 1), order)
