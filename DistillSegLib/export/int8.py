"""A second, 8-bit form of a model, kept only where its labels stay those of the first.

NNCF quantises the exported network after training: ranges are measured on windows of training
cases, and what rounding shifts in each layer is put back into its bias. The result is ONNX with
QuantizeLinear and DequantizeLinear, which OpenVINO turns into 8-bit kernels (`Variant.engines`: in
ONNX Runtime such a network is slower than in 32 bits below 32 channels).

Reference: Jacob et al., 2018, arXiv:1712.05877; bias correction: Nagel et al., 2019,
arXiv:1906.04721.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import onnx
import SimpleITK as sitk
from numpy.typing import NDArray

from DistillSegLib.errors import DistillSegError
from DistillSegLib.export.onnx import INPUT
from DistillSegLib.export.resizing import with_resize
from DistillSegLib.inference import Segmenter
from DistillSegLib.metrics import dice
from DistillSegLib.training.cache import Cache
from DistillSegLib.upsampling import labels_on
from DistillSegLib.windows import Size, per_axis

ENGINE = "openvino"
NAME, FILE = "int8", "model-int8.onnx"
CALIBRATION_CASES = 32
LEAST_AGREEMENT = 0.995  # Dice of the labels with those of fp32, of every structure
MOST_LOSS = 0.002  # of the Dice with the reference labels, of any structure


@dataclass(frozen=True)
class Agreement:
    """One structure over the held-out cases, on the network's grid; each a mean, NaN without one.

    Attributes:
        with_fp32: Dice between the labels of both variants.
        fp32, int8: Dice of each with the reference labels.
    """

    structure: str
    with_fp32: float
    fp32: float
    int8: float


def check_int8(cache: Cache) -> None:
    """DistillSegError if this computer or this run lacks what an 8-bit variant needs."""
    missing = [name for name in ("nncf", ENGINE) if find_spec(name) is None]
    if missing:
        raise DistillSegError(
            f"An int8 variant needs {' and '.join(missing)}, which cannot be found here; install "
            'with: pip install "distillseg[openvino]"'
        )
    if not cache.training_cases or not cache.held_out_cases:
        raise DistillSegError(
            f"An int8 variant is calibrated on training cases and judged on held-out ones; the "
            f"cache '{cache.root}' has {len(cache.training_cases)} and "
            f"{len(cache.held_out_cases)}. Export from a run that held cases out, or without it."
        )


def quantise(model: bytes, windows: Sequence[NDArray[np.float32]]) -> bytes:
    """An exported network with 8-bit weights and activations.

    Args:
        model: fp32 ONNX as `export_onnx` writes it.
        windows: (1, C, d, h, w) each, as the network sees them.
    """
    float_model = with_resize(onnx.load_model_from_string(model))
    with _quiet_nncf() as nncf:
        quantised = nncf.quantize(
            float_model,
            nncf.Dataset(windows, lambda window: {INPUT: window}),
            subset_size=len(windows),
            target_device=nncf.TargetDevice.CPU,
            preset=nncf.QuantizationPreset.MIXED,
            # Layer by layer with what earlier layers already lost: on the hippocampus 0.997 of
            # agreement instead of 0.993.
            fast_bias_correction=False,
        )
    quantised.doc_string = ""
    del quantised.metadata_props[:]
    onnx.checker.check_model(quantised)
    return quantised.SerializeToString(deterministic=True)


def calibration_windows(cache: Cache, multiple: Size) -> list[NDArray[np.float32]]:
    """(1, C, d, h, w): a window of each of some training cases, at a random place in it."""
    cases = cache.training_cases
    chosen = np.unique(np.linspace(0, len(cases) - 1, CALIBRATION_CASES).astype(int))
    random, windows = np.random.default_rng(0), []
    for number in chosen:
        image = cache.image(cases[number])
        start = [
            random.integers(0, max(size - width, 0) + 1)
            for size, width in zip(image.shape[1:], cache.plan.window)
        ]
        part = [slice(s, s + width) for s, width in zip(start, cache.plan.window)]
        window = np.array(image[(slice(None), *part)])
        rest = [-n % each for n, each in zip(window.shape[1:], per_axis(multiple))]
        windows.append(np.pad(window, [(0, 0), *((0, n) for n in rest)])[None])
    return windows


def measure_agreement(fp32: Segmenter, int8: Segmenter, cache: Cache) -> list[Agreement]:
    """Both variants on every held-out case of the cache, as inference runs them."""
    names = [label.name for label in cache.labels]
    scores = []  # case, structure, which Dice
    for case in cache.held_out_cases:
        image, reference = np.array(cache.image(case)), cache.label(case)
        a, b = (_labels(segmenter, image) for segmenter in (fp32, int8))
        scores.append(
            [
                [dice(a == k, b == k), dice(a == k, reference == k), dice(b == k, reference == k)]
                for k in range(1, len(names) + 1)
            ]
        )
    counted = np.ma.masked_invalid(scores).mean(axis=0).filled(np.nan)
    return [Agreement(name, *map(float, row)) for name, row in zip(names, counted)]


def _labels(segmenter: Segmenter, image: NDArray[np.float32]) -> NDArray[np.unsignedinteger]:
    """(C, D, H, W) on the network's grid -> class indices (D, H, W), as if it were the image's."""
    grid = sitk.GetImageFromArray(image[0])
    found = labels_on(grid, segmenter.logits(image), grid, stride=segmenter.variant.stride)
    return sitk.GetArrayFromImage(found)


def objection(agreements: Sequence[Agreement]) -> str:
    """Why the 8-bit variant must not be kept; empty if it may be."""
    for each in agreements:
        if not each.with_fp32 >= LEAST_AGREEMENT:  # also true for NaN
            return (
                f"on held-out cases its labels of '{each.structure}' agree with those of fp32 by a "
                f"Dice of {each.with_fp32:.4f}, where {LEAST_AGREEMENT} is needed"
            )
        if each.fp32 - each.int8 > MOST_LOSS:
            return (
                f"on held-out cases the Dice of '{each.structure}' falls from {each.fp32:.4f} to "
                f"{each.int8:.4f}, by more than {MOST_LOSS}"
            )
    return ""


@contextmanager
def _quiet_nncf() -> Iterator:
    """NNCF without its progress bars and remarks, and without reports to its makers."""
    os.environ.setdefault("NNCF_CI", "1")  # read on import: nothing is sent from here
    import nncf

    log, level = logging.getLogger("nncf"), logging.getLogger("nncf").level
    log.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield nncf
    finally:
        log.setLevel(level)
