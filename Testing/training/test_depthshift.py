"""Depth shift: worked examples, what reaches which slice, sizes to the unit, and export."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from DistillSegLib.errors import RecipeError
from DistillSegLib.export.onnx import export_onnx, slow_operators
from DistillSegLib.networks import NetworkConfig, build_network, count_parameters, smallest_size
from DistillSegLib.networks.depthshift import (
    DepthShift,
    DepthShiftUNet,
    DistillDepthShift,
    ShiftBlock,
)
from DistillSegLib.networks.residual_unet import ResidualUNet3D
from DistillSegLib.runtime import Session
from DistillSegLib.training.validation import single_pass

SHIFTS = ("none", "plain", "learnable")
REACH = 8  # shifts in series


def unet(shift: str = "learnable", *, levels: int = 5, **settings) -> DepthShiftUNet:
    """Narrow, in evaluation mode, as after training."""
    torch.manual_seed(0)
    return settled(DepthShiftUNet(1, 2, (8,) * levels, shift=shift, **settings))


def settled(net: DepthShiftUNet) -> DepthShiftUNet:
    """With statistics as after training that leave no ReLU dead."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(std=0.1)
            nn.init.uniform_(layer.weight, 1.0, 2.0)
            nn.init.uniform_(layer.bias, 1.0, 3.0)
        elif isinstance(layer, DistillDepthShift):
            layer.convolution.weight.data *= 3  # so that far slices are felt
    return net.eval()


def ramp(channels: int, depth: int) -> torch.Tensor:
    """x[t, c] = 10t + c, one pixel: (depth, channels, 1, 1)."""
    numbers = 10 * torch.arange(depth)[:, None] + torch.arange(channels)
    return numbers.float()[..., None, None]


def at_pixel(slices: torch.Tensor) -> list[list[float]]:
    return slices[:, :, 0, 0].tolist()


def selecting(rows: list[list[float]]) -> DistillDepthShift:
    """A shift of 8 channels whose kernels see the centre only: rows R, R, B, F over 4 channels."""
    shift = DistillDepthShift(8, alpha=0.5)
    nn.init.zeros_(shift.convolution.weight)
    nn.init.zeros_(shift.convolution.bias)
    shift.convolution.weight.data[:, :, 1, 1] = torch.tensor(rows)
    return shift


ONE_EACH = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]  # R: 4, 5; B: 7; F: 6
MEANS_AND_SUMS = [[0.25] * 4, [0.25] * 4, [1] * 4, [1] * 4]


# Sizes


@pytest.mark.parametrize(
    ("channels", "classes", "settings", "parameters"),
    [
        (4, 3, {"shift": "none"}, 1_082_211),  # printed in the paper
        (4, 3, {"shift": "plain"}, 1_082_211),  # likewise
        (1, 2, {"alpha": 0.5}, 1_216_266),  # likewise, though beside nets of 4 channels
        (4, 3, {"alpha": 0.5}, 1_216_715),
        (4, 3, {"alpha": 1.0}, 1_619_635),
        (1, 2, {"alpha": 1.0}, 1_619_186),
        (4, 3, {"alpha": 0.25}, 1_115_911),
        (1, 2, {"alpha": 0.25}, 1_115_462),
        (1, 1, {"shift": "none"}, 1_081_745),
        (1, 2, {"shift": "none"}, 1_081_762),
        (1, 3, {"shift": "none"}, 1_081_779),
        (4, 4, {"shift": "none"}, 1_082_228),
    ],
)
def test_parameters_match_to_the_unit(channels, classes, settings, parameters):
    net = build_network(NetworkConfig("depth_shift_unet", settings), channels, classes)
    assert count_parameters(net) == parameters


def test_the_3d_baseline_matches_to_the_unit():
    net = build_network(NetworkConfig("residual_unet"), 4, 3)
    assert count_parameters(net) == 4_288_208
    assert not single_pass(net)  # group norm takes an image's own statistics


@pytest.mark.parametrize(
    ("channels", "alpha", "parameters"),
    [(16, 0.5, 584), (32, 0.5, 2_320), (64, 0.5, 9_248), (128, 0.5, 36_928), (16, 1.0, 2_320)],
)
def test_a_learnable_shift_costs_9_k_squared_plus_k(channels, alpha, parameters):
    assert count_parameters(DistillDepthShift(channels, alpha)) == parameters


def test_shares_are_rounded_down_and_what_is_over_stays():
    assert DistillDepthShift(16, 0.5).shares == (4, 2, 2)
    shift = DistillDepthShift(16, 0.3)  # 4.8 channels, to the nearest 5
    assert (shift.parts, shift.shares) == ((11, 5), (3, 1, 1))


def test_a_share_of_which_no_quarter_is_a_channel_is_refused():
    with pytest.raises(
        RecipeError, match=r"alpha 0\.125 of 16 channels are 2, of which no quarter"
    ):
        build_network(NetworkConfig("depth_shift_unet", {"alpha": 0.125}), 1, 2)
    with pytest.raises(ValueError, match="at most 1"):
        DistillDepthShift(16, 1.5)
    with pytest.raises(ValueError, match="use 2 or more"):
        DepthShift(16, 1)
    with pytest.raises(RecipeError, match="'learnable'"):
        build_network(NetworkConfig("depth_shift_unet", {"shift": "learnt"}), 1, 2)


@pytest.mark.parametrize(("width", "smallest"), [((16, 16), 2), ((8, 16), 4), ((12, 16), 4)])
def test_the_3d_baseline_takes_a_single_image_of_its_smallest_size(width, smallest):
    net = build_network(NetworkConfig("residual_unet", {"width": list(width)}), 1, 2)
    assert (net.multiple, smallest_size(net)) == (2, smallest)
    image = torch.randn(1, 1, smallest, smallest, smallest)
    assert net.train()(image).shape == net.eval()(image).shape == (1, 2, *image.shape[2:])


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_a_dropout_that_leaves_nothing_is_refused(dropout):
    with pytest.raises(RecipeError, match=rf"dropout is {dropout:g}; use 0 or more, below 1"):
        build_network(NetworkConfig("residual_unet", {"dropout": dropout}), 1, 2)


# Both networks as the paper lays them out, in plain functions of their weights


def flat_layer(slices: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    """Convolution with bias, norm, rectifier."""
    of = {key.removeprefix(f"{name}."): w for key, w in weights.items() if key.startswith(name)}
    slices = functional.conv2d(slices, of["0.weight"], of["0.bias"], padding=1)
    statistics = of["1.running_mean"], of["1.running_var"]
    return functional.batch_norm(slices, *statistics, of["1.weight"], of["1.bias"]).clamp(min=0)


def distilled(slices: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Z'_i = (Z_i[: C-k], R_i, B_{i+1}, F_{i-1}) with k = C/2, slice after slice."""
    k = slices.shape[1] // 2
    r, b, f = functional.conv2d(slices[:, -k:], weight, bias, padding=1).split(
        (k // 2, k // 4, k // 4), dim=1
    )
    nothing = torch.zeros_like(b[0])
    rows = []
    for i in range(len(slices)):
        following = b[i + 1] if i + 1 < len(slices) else nothing
        preceding = f[i - 1] if i > 0 else nothing
        rows.append(torch.cat((slices[i, :-k], r[i], following, preceding)))
    return torch.stack(rows)


def test_the_network_is_the_paper_s_block_for_block():
    torch.manual_seed(0)
    net = settled(DepthShiftUNet(2, 3, (16, 32, 64)))
    weights, image = net.state_dict(), torch.randn(1, 2, 5, 8, 12)

    def block(slices: Tensor, name: str) -> Tensor:
        slices = flat_layer(slices, weights, f"{name}.first")
        kernels = [weights.get(f"{name}.shift.convolution.{key}") for key in ("weight", "bias")]
        slices = distilled(slices, *kernels) if name != "encoder.0" else slices
        return flat_layer(slices, weights, f"{name}.second")

    def up(slices: Tensor, skip: Tensor) -> Tensor:
        size = {"scale_factor": 2, "mode": "bilinear", "align_corners": True}
        return torch.cat((skip, functional.interpolate(slices, **size)), dim=1)

    with torch.no_grad():
        fine = block(image[0].transpose(0, 1), "encoder.0")
        middle = block(functional.max_pool2d(fine, 2), "encoder.1")
        coarse = block(functional.max_pool2d(middle, 2), "encoder.2")
        slices = block(up(coarse, middle), "decoder.1")
        slices = block(up(slices, fine), "decoder.0")
        slices = functional.conv2d(slices, weights["head.weight"], weights["head.bias"])
        torch.testing.assert_close(net(image), slices.transpose(0, 1)[None], rtol=1e-4, atol=1e-4)


def test_the_3d_baseline_is_the_paper_s_block_for_block():
    torch.manual_seed(0)
    net, image = ResidualUNet3D(4, 3, (8, 16)).eval(), torch.randn(1, 4, 4, 6, 8)
    for layer in net.modules():
        if isinstance(layer, nn.GroupNorm):
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    weights = net.state_dict()
    assert isinstance(net.encoder[0][1], nn.Dropout3d) and net.encoder[0][1].p == 0.2

    def convolved(features: Tensor, name: str, **settings) -> Tensor:
        return functional.conv3d(features, weights[f"{name}.weight"], **settings)

    def block(features: Tensor, name: str) -> Tensor:
        found = features
        for norm, convolution in ((0, 2), (3, 5)):
            groups = 8 if found.shape[1] % 8 == 0 else found.shape[1]
            scale = [weights[f"{name}.branch.{norm}.{key}"] for key in ("weight", "bias")]
            found = functional.group_norm(found, groups, *scale).clamp(min=0)
            found = convolved(found, f"{name}.branch.{convolution}", padding=1)
        wider = found.shape[1] != features.shape[1]
        return found + (convolved(features, f"{name}.identity") if wider else features)

    with torch.no_grad():
        fine = block(block(image, "encoder.0.0"), "encoder.0.2")
        coarse = convolved(fine, "down.0", stride=2, padding=1)
        coarse = block(block(block(coarse, "encoder.1.0"), "encoder.1.1"), "decoder.1")
        size = {"scale_factor": 2, "mode": "trilinear", "align_corners": False}
        up = functional.interpolate(convolved(coarse, "reduce.0"), **size)
        expected = convolved(block(torch.cat((fine, up), dim=1), "decoder.0"), "head")
        torch.testing.assert_close(net(image), expected, rtol=1e-4, atol=1e-4)


# Worked examples: the rows are slices t = 0, 1, 2


def test_the_plain_shift_by_hand():
    shifted = DepthShift(4)(ramp(4, 3), batch=1)
    assert at_pixel(shifted) == [[10, 0, 2, 3], [20, 1, 12, 13], [0, 11, 22, 23]]


@pytest.mark.parametrize(
    ("kernels", "expected"),
    [
        (
            ONE_EACH,
            [
                [0, 1, 2, 3, 4, 5, 17, 0],
                [10, 11, 12, 13, 14, 15, 27, 6],
                [20, 21, 22, 23, 24, 25, 0, 16],
            ],
        ),
        (
            MEANS_AND_SUMS,
            [
                [0, 1, 2, 3, 5.5, 5.5, 62, 0],
                [10, 11, 12, 13, 15.5, 15.5, 102, 22],
                [20, 21, 22, 23, 25.5, 25.5, 0, 62],
            ],
        ),
    ],
)
def test_the_learnable_shift_by_hand(kernels, expected):
    assert at_pixel(selecting(kernels)(ramp(8, 3), batch=1)) == expected


def test_kernels_that_select_make_the_learnable_shift_a_plain_one():
    shift = selecting([[0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]])
    slices = torch.randn(2 * 5, 8, 3, 4)
    plain = DepthShift(4)(slices[:, 4:], batch=2)  # backward, forward, kept, kept
    expected = torch.cat((slices[:, :4], plain[:, 2:], plain[:, :2]), dim=1)
    torch.testing.assert_close(shift(slices, batch=2), expected, rtol=0, atol=1e-6)


def test_a_single_slice_has_no_neighbours_to_hear_from():
    slices = torch.randn(2, 8, 3, 4)  # two volumes of one slice
    learnt = DistillDepthShift(8, 1.0)
    out = learnt(slices, batch=2)
    assert not out[:, 4:].any()
    torch.testing.assert_close(out[:, :4], learnt.convolution(slices)[:, :4])
    plain = DepthShift(8)(slices, batch=2)
    assert not plain[:, :4].any()
    assert torch.equal(plain[:, 4:], slices[:, 4:])


def test_a_divisor_beyond_the_channels_leaves_the_2d_network():
    flat, still, moved = unet("none"), unet("plain", divisor=16), unet("plain")
    image = torch.randn(1, 1, 4, 16, 16)
    with torch.no_grad():
        assert torch.equal(flat(image), still(image))
        assert not torch.allclose(flat(image), moved(image), atol=1e-3)


# Which slices see which


def changed_slices(net: nn.Module, depth: int, at: int, batch: int = 1) -> list[int]:
    """Slices of the last volume's logits that a change of one slice of the first reaches."""
    image = torch.randn(batch, 1, depth, 16, 16, dtype=torch.float64)
    other = image.clone()
    other[0, 0, at] += torch.randn(16, 16)
    net = net.double()
    with torch.no_grad():
        moved = (net(image) - net(other)).abs().amax(dim=(1, 3, 4))[-1]
    return torch.nonzero(moved > 0).flatten().tolist()


@pytest.mark.parametrize("shift", ["plain", "learnable"])
def test_a_slice_reaches_eight_slices_either_way(shift):
    assert changed_slices(unet(shift), depth=16, at=0) == list(range(REACH + 1))
    assert changed_slices(unet(shift), depth=21, at=10) == list(range(2, 19))
    assert changed_slices(unet("none"), depth=5, at=2) == [2]


@pytest.mark.parametrize("shift", SHIFTS)
def test_volumes_of_a_batch_do_not_see_each_other(shift):
    assert changed_slices(unet(shift), depth=4, at=3, batch=2) == []
    net, image = unet(shift), torch.randn(3, 1, 5, 16, 32)
    with torch.no_grad():
        alone = torch.cat([net(volume[None]) for volume in image])
        torch.testing.assert_close(net(image), alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shift", ["plain", "learnable"])
def test_parts_that_overlap_by_eight_slices_are_exact_in_their_middle(shift):
    net, image = unet(shift).double(), torch.randn(1, 1, 40, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        whole = net(image)
        for start, stop in ((0, 12), (12, 28), (28, 40)):
            low, high = max(start - REACH, 0), min(stop + REACH, 40)
            part = net(image[:, :, low:high])[:, :, start - low : stop - low]
            torch.testing.assert_close(part, whole[:, :, start:stop], rtol=0, atol=1e-12)
        short = net(image[:, :, 12 - REACH + 1 : 28])[:, :, REACH - 1]  # one slice too few
        assert (short - whole[:, :, 12]).abs().max() > 1e-9


def turned(net: DepthShiftUNet) -> DepthShiftUNet:
    """With the kernels of the forward and the backward features swapped, and who reads them."""
    net = copy.deepcopy(net)
    for block in net.modules():
        if isinstance(block, ShiftBlock) and block.shift is not None:
            kept, _ = block.shift.parts
            retained, moved, _ = block.shift.shares
            order = torch.arange(kept + retained + 2 * moved)
            order = torch.cat((order[: -2 * moved], order[-moved:], order[-2 * moved : -moved]))
            for weight in block.shift.convolution.parameters():
                weight.data = weight.data[order[kept:] - kept]
            reader = block.second[0].weight
            reader.data = reader.data[:, order]
    return net


def test_slices_in_reverse_and_swapped_kernels_reverse_the_answer():
    net, image = unet(), torch.randn(2, 1, 7, 16, 32)
    with torch.no_grad():
        expected = net(image).flip(2)
        found = turned(net)(image.flip(2))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        assert not torch.allclose(net(image.flip(2)), expected, atol=1e-3)


def test_what_leaves_the_volume_gets_no_gradient():
    shift, depth = DistillDepthShift(8, 1.0), 4
    seen = []
    shift.convolution.register_forward_hook(
        lambda _module, _inputs, output: seen.append(output) or output.retain_grad()
    )
    shift(torch.randn(2 * depth, 8, 3, 3), batch=2).square().sum().backward()
    retained, backward, forward = seen[0].grad.unflatten(0, (2, depth)).split(shift.shares, dim=2)
    reached = [
        [bool(part[:, t].abs().min() > 0) for t in range(depth)]
        for part in (retained, backward, forward)
    ]
    assert reached == [[True] * 4, [False, True, True, True], [True, True, True, False]]
    assert not backward[:, 0].any() and not forward[:, -1].any()


# Depth and size


def test_any_depth_and_sizes_of_sixteen_are_taken():
    net = unet()
    assert net.multiple == (1, 16, 16)
    with torch.no_grad():
        for shape in ((1, 16, 16), (2, 32, 16), (9, 16, 48)):
            assert net(torch.randn(2, 1, *shape)).shape == (2, 2, *shape)


def test_windows_are_kept_where_corners_are_aligned():
    # The interpolation's weights depend on the size of the image, so a larger one is seen anew.
    assert not single_pass(unet())


@pytest.mark.parametrize(("shift", "depth"), [("plain", 3), ("learnable", 1)])
def test_it_exports_with_free_depth_and_size(tmp_path, shift, depth):
    net, path = unet(shift, levels=2), tmp_path / "model.onnx"
    parity = export_onnx(net, (depth, 4, 6), path, multiple=net.multiple)
    assert parity.max_difference < 1e-5
    assert slow_operators(path) == []
    session = Session(path, engine="onnxruntime")
    for shape in ((1, 1, 1, 8, 4), (2, 1, 11, 12, 6)):
        image = torch.randn(shape)
        with torch.no_grad():
            expected = net(image).numpy()
        np.testing.assert_allclose(session(image.numpy()), expected, atol=1e-4)


@pytest.mark.slow
def test_the_3d_baseline_exports(tmp_path):
    net = build_network(NetworkConfig("residual_unet", {"width": [4, 8]}), 1, 2)
    parity = export_onnx(net, (4, 6, 8), tmp_path / "model.onnx", multiple=net.multiple)
    assert parity.max_difference < 1e-5
