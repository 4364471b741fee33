"""A package proves its numbers where it runs; variants for some engines only."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib import Segmenter, inference
from DistillSegLib.errors import DistillSegError, PackageError
from DistillSegLib.inference import self_check
from DistillSegLib.package import ModelPackage, read_package, write_package
from Testing.models import (
    WINDOW,
    expected_labels,
    manifest,
    phantom,
    threshold_logits,
    threshold_model,
    write_tiny_package,
)


@pytest.fixture
def package(tmp_path):
    return read_package(write_tiny_package(tmp_path / "a"))


class Wrong:
    """A session whose logits are off by a half."""

    engine = "wrong"

    def __call__(self, window):
        return threshold_logits(window) + 0.5


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_sound_package_gives_its_own_numbers(package, engine):
    pytest.importorskip(engine)
    assert self_check(package, engine=engine) < 1e-4


def test_other_numbers_than_the_packages_are_refused(package, monkeypatch):
    monkeypatch.setattr(inference, "Session", lambda model, engine: Wrong())
    with pytest.raises(PackageError, match=r"differ by 0.5 where 0.001 is allowed"):
        self_check(package)


def two_variants(path: Path, *, error: float = 0.0) -> ModelPackage:
    """A package whose second variant is for OpenVINO, and may differ by 0.2."""
    model = threshold_model()
    window = np.random.default_rng(0).uniform(0, 10, (1, 1, *WINDOW)).astype(np.float32)
    first = manifest(model).variants[0]
    second = replace(first, name="int8", file="int8.onnx", engines=("openvino",), tolerance=0.2)
    logits = threshold_logits(window)
    return read_package(
        write_package(
            path,
            manifest(model, variants=(first, second)),
            card="# Thresholds\n",
            models={"model.onnx": model, "int8.onnx": model},
            window=window,
            logits={"fp32": logits, "int8": logits + error},
        )
    )


def test_a_variant_for_an_engine_runs_there_and_is_never_the_automatic_one(tmp_path):
    pytest.importorskip("openvino")
    package = two_variants(tmp_path / "a", error=0.1)  # within its own tolerance
    chosen = Segmenter(package, variant="int8")
    assert (chosen.variant.name, chosen.engine) == ("int8", "openvino")
    assert Segmenter(package).variant.name == "fp32"
    assert self_check(package) < 1e-4  # the first variant, as strictly as ever
    with pytest.raises(DistillSegError, match="tried for openvino, not for onnxruntime; leave the"):
        Segmenter(package, variant="int8", engine="onnxruntime")


def test_a_variant_that_is_not_itself_here_gives_way_with_one_line(tmp_path, caplog):
    pytest.importorskip("openvino")
    package = two_variants(tmp_path / "a", error=0.5)
    segmenter = Segmenter(package, variant="int8")
    assert segmenter.variant.name == "fp32"
    (line,) = [record.getMessage() for record in caplog.records]
    assert "'int8' gives way to 'fp32'" in line and "differ by 0.5 where 0.2 is allowed" in line
    found = sitk.GetArrayFromImage(segmenter.segment(phantom()).image)
    np.testing.assert_array_equal(found, expected_labels(phantom()))
    with pytest.raises(PackageError, match=r"differ by 0\.5"):
        Segmenter(package, variant="int8", engine="openvino")
    assert self_check(package) < 1e-4


def test_a_variant_whose_engine_is_absent_gives_way_with_one_line(tmp_path, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed
    segmenter = Segmenter(two_variants(tmp_path / "a"), variant="int8", threads=1)
    assert (segmenter.variant.name, segmenter.engine) == ("fp32", "onnxruntime")
    assert "pip install openvino" in caplog.text


def test_the_first_variant_must_run_everywhere():
    first = replace(manifest(threshold_model()).variants[0], engines=("openvino",))
    with pytest.raises(ValueError, match="the first variant must run in every one"):
        manifest(threshold_model(), variants=(first,))
    with pytest.raises(ValueError, match="tolerance is nan; it must be above zero"):
        replace(first, tolerance=float("nan"))
