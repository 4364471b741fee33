"""The rate that rises and falls, and the weights that do not decay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from DistillSegLib.training.fit import make_optimizer, set_learning_rate
from DistillSegLib.training.recipe import OptimConfig


@pytest.mark.parametrize(
    ("schedule", "done", "factor"),
    [
        ("cosine", 0.05, 0.5),  # half-way through the warm-up
        ("cosine", 0.1, 1.0),
        ("cosine", 0.55, 0.5),
        ("cosine", 1.0, 0.0),
        ("poly", 0.55, 0.5**0.9),
        ("constant", 0.99, 1.0),
    ],
)
def test_the_learning_rate_rises_and_falls(schedule, done, factor):
    optim = OptimConfig(learning_rate=2.0, schedule=schedule, warmup=0.1)
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    set_learning_rate(optimizer, optim, done)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2 * factor, abs=1e-12)


def test_the_learning_rate_may_stay_at_its_peak_before_it_falls():
    optim = OptimConfig(learning_rate=2.0, schedule="cosine", warmup=0.1, hold=0.5)
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    for done, factor in {0.05: 0.5, 0.1: 1.0, 0.6: 1.0, 0.8: 0.5, 1.0: 0.0}.items():
        set_learning_rate(optimizer, optim, done)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(2 * factor, abs=1e-12)


def test_norms_and_biases_do_not_decay():
    net = nn.Module()
    net.trained = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2))
    decaying, free = make_optimizer(net, OptimConfig(weight_decay=0.1)).param_groups
    assert [w.shape for w in decaying["params"]] == [net.trained[0].weight.shape]
    assert (decaying["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert len(free["params"]) == 3
