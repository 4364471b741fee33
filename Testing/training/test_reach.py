"""How far networks see is found by trying, and agrees with what is known by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from DistillSegLib.export.reach import measure_reach
from DistillSegLib.networks.fast import FastUNet
from DistillSegLib.networks.unet import UNet


def predictor(net: nn.Module):
    net.eval()

    def predict(windows):
        with torch.no_grad():
            return net(torch.from_numpy(windows)).numpy()

    return predict


@pytest.mark.parametrize(("kernel", "reach"), [((1, 1, 1), (0, 0, 0)), ((3, 5, 1), (1, 2, 0))])
def test_of_one_convolution_it_is_half_the_kernel(kernel, reach):
    torch.manual_seed(0)
    net = nn.Conv3d(2, 3, kernel, padding=tuple(k // 2 for k in kernel))
    assert measure_reach(predictor(net), channels=2, multiple=1, minimum=1, stride=1) == reach
    two = tuple(-(-n // 2) * 2 for n in reach)
    assert measure_reach(predictor(net), channels=2, multiple=2, minimum=2, stride=1) == two


def test_of_the_fast_family_it_is_what_its_levels_add_up_to():
    torch.manual_seed(0)
    net = FastUNet(1, 3, (16, 16, 16), stem=2)
    # One 3x3x3 convolution on each way at strides 2 and 4, one at 8: 2 * (2 + 4) + 8 = 20 voxels,
    # and the patches that are shared reach up to the next multiple of 8.
    assert measure_reach(
        lambda x: net.eval().coarse(torch.from_numpy(x)).detach().numpy(),
        channels=1, multiple=net.multiple, minimum=net.multiple, stride=2,
    ) == (24, 24, 24)  # fmt: skip


def test_instance_statistics_have_no_end():
    torch.manual_seed(0)
    net = UNet(1, 2, (8, 8), norm="instance")
    found = measure_reach(predictor(net), channels=1, multiple=net.multiple, minimum=4, stride=1)
    assert found is None
