"""Every export of the fast family holds quick operators only; so do the bundled models."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from DistillSegLib.export.onnx import export_onnx, slow_operators
from DistillSegLib.networks import NetworkConfig, build_network
from DistillSegLib.package import read_package
from DistillSegLib.places import resources

# Arithmetic is convolution, rectifier and sum alone; the rest moves data, or counts voxels for it.
ARITHMETIC = {"Conv", "Relu", "Add"}
MOVES = {"Concat", "Reshape", "Unsqueeze", "Squeeze", "Transpose", "Slice", "Split", "Pad"}
SIZES = {"Shape", "Gather", "Mul", "Div", "Sub", "Cast"}  # on shapes, never on voxels
BUNDLED = sorted((resources() / "Models").glob("*.distillseg"))


FAMILY = [
    {"stem": 1, "width": [16, 32]},
    {"stem": 2, "width": [16, 32]},
    {"stem": 2, "width": [8, 24], "convolutions": 2},
    {"stem": 2, "width": [32, 32, 64]},  # the bundled student's
    {"stem": 4, "width": [32, 64]},
    {"stem": 2, "width": [16, 32], "dims": 2},
    {"stem": 1, "width": [16, 32], "dims": 2, "shift": True},
]


def used(net: nn.Module) -> nn.Module:
    """With statistics as after training: a BatchNorm with none would fold into nothing."""
    torch.manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, (nn.BatchNorm2d, nn.BatchNorm3d)):
            layer.running_mean.normal_(std=0.2)
            layer.running_var.uniform_(0.5, 2)
    return net


@pytest.mark.slow
@pytest.mark.parametrize("settings", FAMILY, ids=str)
def test_the_fast_family_exports_to_quick_operators(tmp_path, settings):
    net = used(build_network(NetworkConfig("fast_unet", settings), 1, 3))
    path = tmp_path / "model.onnx"
    coarse = net.stride > 1
    export_onnx(net, (16, 32, 32), path, multiple=net.multiple, coarse=coarse)
    assert slow_operators(path) == []
    graph = onnx.load(path).graph
    found = {node.op_type for node in graph.node}
    # a network of slices interpolates them by itself, linearly
    interpolated = {"Resize"} if net.dims == 2 and settings["stem"] > 1 else set()
    assert found <= ARITHMETIC | MOVES | SIZES | interpolated, found
    convolutions = sum(isinstance(each, (nn.Conv2d, nn.Conv3d)) for each in net.modules())
    assert sum(node.op_type == "Conv" for node in graph.node) == convolutions
    # of each convolution a weight and a bias, into which its BatchNorm went, and no third
    stored = sum(np.prod(each.dims) for each in graph.initializer if each.data_type == 1)
    learnt = {id(m): m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))}.values()
    assert stored <= sum(m.weight.numel() + m.out_channels for m in learnt) + 16


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.stem)
def test_bundled_models_hold_quick_operators_only(path):
    package = read_package(path)
    for variant in package.manifest.variants:
        if not variant.engines:  # what is for OpenVINO alone is quick there
            assert slow_operators(package.model_bytes(variant)) == []


def a_model(nodes, **weights) -> bytes:
    """Nodes from "image" to "logits", not optimised by any exporter."""
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4, "d", "h", "w"])
        for name in ("image", "logits")
    ]
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "test", ends[:1], ends[1:], stored)
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset).SerializeToString()


ONES = np.ones(4, np.float32)


@pytest.mark.parametrize(
    "nodes, weights, found",
    [
        (
            [helper.make_node("Conv", ["image", "w"], ["logits"], group=4, pads=[1] * 6)],
            {"w": np.ones((4, 1, 3, 3, 3), np.float32)},
            ["Conv (depthwise, 3-D)"],
        ),
        (  # a filter for each channel within slices is as slow, as its weights are of five axes
            [helper.make_node("Conv", ["image", "w"], ["logits"], group=4, pads=[0, 1, 1] * 2)],
            {"w": np.ones((4, 1, 1, 3, 3), np.float32)},
            ["Conv (depthwise, 3-D)"],
        ),
        (  # two groups of two channels are a convolution like others
            [helper.make_node("Conv", ["image", "w"], ["logits"], group=2)],
            {"w": np.ones((4, 2, 1, 1, 1), np.float32)},
            [],
        ),
        (
            [helper.make_node("BatchNormalization", ["image", *"abcd"], ["logits"])],
            dict.fromkeys("abcd", ONES),
            ["BatchNormalization"],
        ),
        (  # the weight is computed anew with each image
            [
                helper.make_node("Mul", ["w", "scale"], ["scaled"]),
                helper.make_node("Conv", ["image", "scaled"], ["logits"]),
            ],
            {"w": np.ones((4, 4, 1, 1, 1), np.float32), "scale": np.float32(2)},
            ["Mul (of constants)"],
        ),
        (  # so is what follows from it, and what a Constant node holds is as constant
            [
                helper.make_node("Constant", [], ["scale"], value_float=2.0),
                helper.make_node("Mul", ["w", "scale"], ["scaled"]),
                helper.make_node("Neg", ["scaled"], ["negative"]),
                helper.make_node("Conv", ["image", "negative"], ["logits"]),
            ],
            {"w": np.ones((4, 4, 1, 1, 1), np.float32)},
            ["Mul (of constants)", "Neg (of constants)"],
        ),
        (
            [helper.make_node("LogSoftmax", ["image"], ["logits"], axis=1)],
            {},
            ["LogSoftmax"],
        ),
    ],
)
def test_what_is_slow_is_named(nodes, weights, found):
    assert slow_operators(a_model(nodes, **weights)) == found
