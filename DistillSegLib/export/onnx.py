"""A network as ONNX: free batch and sizes, BatchNorm folded, and checked against torch.

torch's own exporter (`dynamo=True`) is used, the one that is maintained. It follows sizes
symbolically, so a size that the network's code fixed by mistake shows as an error here and not in
the clinic. Operator set 18 is the lowest it writes and needs IR version 10, which ONNX Runtime
reads from 1.18 on.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from DistillSegLib.errors import PackageError
from DistillSegLib.files import replacing
from DistillSegLib.runtime import Session
from DistillSegLib.windows import Size, per_axis

OPSET = 18
TOLERANCE = 1e-4  # between torch and ONNX Runtime, see `Parity`
INPUT, OUTPUT = "image", "logits"


@dataclass(frozen=True)
class Parity:
    """How far ONNX Runtime is from torch.

    Attributes:
        max_difference: of any logit, over all windows; where a window's largest logit exceeds 1, as
            a share of that. Both sum in 32 bits, in another order: instance norm of a slice of
            256 x 256 voxels moves logits of 5 by 2e-4.
        windows: how many were compared.
    """

    max_difference: float
    windows: int


class Coarse(nn.Module):
    """A network of the fast family up to its logits at `stride`, which it would upsample itself."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, C, D, H, W) -> (B, K, D/s, H/s, W/s)."""
        return self.net.coarse(image)


def exported(net: nn.Module, *, coarse: bool) -> nn.Module:
    """The very function that is exported: a copy in evaluation mode, on the CPU, in float32."""
    net = copy.deepcopy(net).eval().cpu().float()
    return Coarse(net) if coarse else net


def export_onnx(
    net: nn.Module,
    window: Sequence[int],
    path: Path | str,
    *,
    channels: int = 1,
    coarse: bool = False,
    multiple: Size = 16,
    real: Sequence[NDArray[np.float32]] = (),
) -> Parity:
    """Write a network as ONNX and compare both on random and on real windows of several sizes.

    Args:
        window: (z, y, x) of training, multiples of `multiple`.
        coarse: export `net.coarse`, logits at `net.stride`.
        multiple: sizes that the network takes are multiples of this, on all axes or (z, y, x).
        real: (1, C, d, h, w) each, as the network saw them in training.

    Raises:
        PackageError: the network cannot be exported, or differs by more than `TOLERANCE`; nothing
            is written then.
    """
    function = exported(net, coarse=coarse)
    steps = enumerate(zip(window, per_axis(multiple), strict=True), start=1)
    larger = [size + step * each for step, (size, each) in steps]
    random = np.random.default_rng(0)
    windows = [
        random.standard_normal((count, channels, *shape)).astype(np.float32)
        for count, shape in ((1, window), (2, larger), (1, larger))
    ]
    windows += [np.ascontiguousarray(each, np.float32) for each in real]
    with replacing(path) as temporary:
        model = _traced(function, torch.from_numpy(windows[1]))
        onnx.checker.check_model(model, full_check=True)
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        parity = compare(function, Session(temporary, engine="onnxruntime"), windows)
        if not parity.max_difference <= TOLERANCE:  # also true for NaN
            raise PackageError(
                f"ONNX Runtime's logits differ from torch's by {parity.max_difference:.2g}, "
                f"more than {TOLERANCE:.0e} of the largest; an operation is exported wrongly."
            )
    return parity


def compare(
    function: nn.Module, session: Session, windows: Sequence[NDArray[np.float32]]
) -> Parity:
    """The largest difference between torch and a session."""
    largest = 0.0
    for window in windows:
        with torch.no_grad():
            expected = function(torch.from_numpy(window)).numpy()
        found = session(window)
        if found.shape != expected.shape:
            raise PackageError(
                f"For {window.shape} ONNX Runtime gives logits {found.shape}, torch "
                f"{expected.shape}; the network fixes a size that must stay free."
            )
        scale = max(1.0, float(np.abs(expected).max()))
        largest = float(np.maximum(largest, np.abs(found - expected).max() / scale))
    return Parity(largest, len(windows))


def slow_operators(model: Path | str | bytes) -> list[str]:
    """Operators that ONNX Runtime runs slowly, and for which there is a quick substitute.

    PRelu takes twenty times as long as LeakyRelu; nearest Resize ten times as long as repetition; a
    depthwise convolution of volumes half as long as a full one with sixteen times the arithmetic.
    Softmax has no place where labels are wanted; BatchNormalization, and whatever is computed of
    constants alone, should have been folded.
    """
    if isinstance(model, bytes):
        graph = onnx.load_model_from_string(model).graph
    else:
        graph = onnx.load(str(model)).graph
    constants = {each.name: list(each.dims) for each in graph.initializer}
    found = set()
    for node in graph.node:
        modes = [a.s.decode() for a in node.attribute if a.name == "mode"]
        if node.op_type in ("Resize", "Upsample") and "nearest" in (modes or ["nearest"]):
            found.add("Resize (nearest)")
        elif node.op_type in ("PRelu", "Softmax", "LogSoftmax", "BatchNormalization"):
            found.add(node.op_type)
        elif node.op_type == "Conv" and _depthwise(node, constants.get(node.input[1], [])):
            found.add("Conv (depthwise, 3-D)")
        given = [name for name in node.input if name]
        if node.op_type == "Constant" or (given and all(name in constants for name in given)):
            constants |= {name: [] for name in node.output}
            if node.op_type != "Constant":
                found.add(f"{node.op_type} (of constants)")
    return sorted(found)


def _depthwise(node: onnx.NodeProto, weight: Sequence[int]) -> bool:
    """A filter for each channel of a volume: weights (channels, 1, d, h, w) in as many groups."""
    groups = next((each.i for each in node.attribute if each.name == "group"), 1)
    return groups > 1 and len(weight) == 5 and weight[1] == 1


def _traced(function: nn.Module, example: torch.Tensor) -> onnx.ModelProto:
    free = dict.fromkeys((0, 2, 3, 4), torch.export.Dim.DYNAMIC)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                function,
                (example,),  # no axis of one, which would be taken for fixed
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=(free,),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as problem:  # the exporter raises many kinds
        reason = " ".join(str(problem).split())[:500]
        raise PackageError(
            f"The network cannot be exported ({reason}); see the log of torch.onnx."
        ) from problem
    return _anonymous(program.model_proto)


def _anonymous(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the traces of source files that the exporter leaves, and with readable sizes."""
    model.doc_string = ""
    del model.metadata_props[:]
    graph = model.graph
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    del graph.metadata_props[:]
    del graph.value_info[:]  # sizes within, by the exporter's names; engines infer their own
    for end, names in ((graph.input[0], "n c d h w"), (graph.output[0], "n k z y x")):
        for size, name in zip(end.type.tensor_type.shape.dim, names.split()):
            if not size.HasField("dim_value"):
                size.dim_param = name
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on optional packages and its own future; errors remain."""
    logs = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, levels):
            log.setLevel(level)
