"""Small real models and packages for tests, made without torch.

The model has a closed form: at each voxel the class is 0 where the image is below 500, 1 up to 800
and 2 above, so a test can say what a segmentation must be without running a network.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import SimpleITK as sitk
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from DistillSegLib.labels import Label, LabelTable
from DistillSegLib.manifest import FORMAT, Manifest, Variant
from DistillSegLib.package import write_package
from DistillSegLib.preprocessing import Intensity, Preprocessing
from DistillSegLib.scope import Measured, scope_of

WINDOW = (4, 6, 8)
LABELS = LabelTable((Label(3, "Middle", (230, 159, 0)), Label(7, "Bright", (86, 180, 233))))


def threshold_logits(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 1, D, H, W) in hundreds -> (N, 3, D, H, W): the model's formula, in numpy."""
    return np.concatenate([0 * image, image - 5, 2 * image - 13], axis=1)


def threshold_model(*, stride: int = 1, blur: int = 1) -> bytes:
    """The formula as ONNX, of every `stride`-th mean; `blur` > 1 makes a slow convolution first."""
    weights = {
        "weight": np.array([0, 1, 2], np.float32).reshape(3, 1, 1, 1, 1),
        "bias": np.array([0, -5, -13], np.float32),
    }
    nodes, value = [], "image"
    if blur > 1:
        weights["centre"] = np.zeros((1, 1, blur, blur, blur), np.float32)
        weights["centre"][(0, 0, *[blur // 2] * 3)] = 1
        nodes.append(helper.make_node("Conv", [value, "centre"], ["same"], pads=[blur // 2] * 6))
        value = "same"
    if stride > 1:
        shape = {"kernel_shape": [stride] * 3, "strides": [stride] * 3}
        nodes.append(helper.make_node("AveragePool", [value], ["coarse"], **shape))
        value = "coarse"
    nodes.append(helper.make_node("Conv", [value, "weight", "bias"], ["logits"]))
    return onnx_bytes(nodes, weights)


def onnx_bytes(nodes: list, weights: dict[str, NDArray]) -> bytes:
    """Nodes from "image" to "logits" as a checked model with free sizes."""
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, "d", "h", "w"])
    result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3, "a", "b", "c"])
    stored = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "test", [given], [result], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def manifest(model: bytes, *, stride: int = 1, **changes: Any) -> Manifest:
    """A sound manifest for `threshold_model`, with some fields changed."""
    low = Measured((8.0, 10.0, 12.0), (1.0, 1.0, 1.0), ((0.0, 300.0, 800.0),))
    high = Measured((30.0, 30.0, 30.0), (1.0, 1.0, 1.0), ((100.0, 600.0, 1000.0),))
    sound = Manifest(
        format=FORMAT,
        id="threshold",
        version="1.0.0",
        title="Thresholds",
        description="Two thresholds, for tests.",
        modality="MR",
        channels=("MRI",),
        labels=LABELS,
        preprocessing=Preprocessing(
            (1.0, 1.0, 1.0), (Intensity("fixed", (0.0, 1000.0), mean=0.0, std=100.0),)
        ),
        window=WINDOW,
        overlap=0.5,
        multiple=2,
        minimum=2,
        single_pass=True,
        variants=(Variant("fp32", "model.onnx", stride, 6, len(model), bytes_per_voxel=100.0),),
        scope=scope_of([low, high], description="crops around a phantom", body_part="phantom"),
        tolerance=1e-3,
        licence="CC0-1.0",
        attribution="made by code",
        intended_use="Tests.",
    )
    return replace(sound, **changes)


def write_tiny_package(
    path: Path, *, stride: int = 1, blur: int = 1, error: float = 0.0, **changes: Any
) -> Path:
    """A package that passes every check, unless `changes` to its manifest say otherwise.

    `error` is added to the logits of the check window.
    """
    model = threshold_model(stride=stride, blur=blur)
    window = np.random.default_rng(0).uniform(0, 10, (1, 1, *WINDOW)).astype(np.float32)
    d, h, w = (n // stride for n in WINDOW)
    coarse = window.reshape(1, 1, d, stride, h, stride, w, stride).mean(axis=(3, 5, 7))
    return write_package(
        path,
        manifest(model, stride=stride, **changes),
        card="# Thresholds\n\nFor tests.\n",
        models={"model.onnx": model},
        window=window,
        logits={"fp32": threshold_logits(coarse) + error},
    )


def phantom(size: tuple[int, int, int] = (20, 18, 16)) -> sitk.Image:
    """Dark, with a middle and a bright box, asymmetric along every axis; `size` is x, y, z."""
    array = np.full(size[::-1], 100, np.float32)
    array += np.random.default_rng(1).uniform(0, 50, array.shape).astype(np.float32)
    array[3:9, 2:12, 4:15] = 600
    array[5:9, 8:12, 4:9] = 900
    image = sitk.GetImageFromArray(array)
    image.SetOrigin((-7.0, 11.0, 30.0))
    return image


def expected_labels(image: sitk.Image) -> NDArray[np.uint8]:
    """(D, H, W): what the model's thresholds make of an image, as label values."""
    array = sitk.GetArrayFromImage(image)
    return np.select([array < 500, array < 800], [0, 3], 7).astype(np.uint8)
