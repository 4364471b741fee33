"""Time and memory said before a run are those of the run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib import estimates, inference
from DistillSegLib.estimates import Speed, estimate, keep_speed, known_speed, speed_of_run
from DistillSegLib.package import load_package
from DistillSegLib.places import resources


@pytest.fixture(scope="module")
def package():
    return load_package("hippocampus-fast")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLSEG_HOME", str(tmp_path))


def sample() -> sitk.Image:
    return sitk.ReadImage(str(resources() / "Samples" / "hippocampus-mean.nii.gz"))


def measured_in(image: sitk.Image) -> dict:
    size = [n * s for n, s in zip(image.GetSize()[::-1], image.GetSpacing()[::-1])]
    return {"size_mm": size, "voxels": image.GetNumberOfPixels()}


def test_the_second_run_is_foretold_by_the_first(package):
    pytest.importorskip("onnxruntime")
    manifest, variant = package.manifest, package.variant()
    segmenter = inference.Segmenter(package, threads=1, engine="onnxruntime")
    run = segmenter.segment(sample())
    what = measured_in(sample())
    speed = speed_of_run(manifest, variant, **what, seconds=run.seconds)
    told = estimate(manifest, variant, **what, speed=speed)
    assert told.seconds == pytest.approx(sum(run.seconds.values()))
    assert told.network_seconds == pytest.approx(run.seconds["network"])
    assert told.measured and told.single_pass and told.fits


def test_a_region_makes_the_network_s_part_shorter_and_not_the_rest(package):
    manifest, variant = package.manifest, package.variant()
    speed = Speed(network=1e-6, rest=1e-8)
    whole = estimate(manifest, variant, size_mm=(160, 160, 160), voxels=160**3, speed=speed)
    region = estimate(manifest, variant, size_mm=(40, 80, 160), voxels=160**3, speed=speed)
    assert whole.network_seconds == pytest.approx(160**3 * 1e-6)
    assert region.network_seconds == pytest.approx(whole.network_seconds / 8)
    for each in (whole, region):
        assert each.seconds - each.network_seconds == pytest.approx(160**3 * 1e-8)


@pytest.mark.parametrize("single_pass", [True, False])
def test_the_voxels_counted_are_those_that_the_network_is_given(package, monkeypatch, single_pass):
    manifest = replace(package.manifest, single_pass=single_pass)
    package = replace(package, manifest=manifest)
    given = []

    class Counting:
        engine = "none"

        def __init__(self, *_, **__): ...

        def __call__(self, windows):
            given.append(windows[:, 0].size)
            n, _, *size = windows.shape
            return np.zeros((n, 3, *(each // 2 for each in size)), np.float32)

        def cancel(self): ...

    monkeypatch.setattr(inference, "Session", Counting)
    inference.Segmenter(package).segment(sample())
    told = estimate(
        manifest, package.variant(), **measured_in(sample()), speed=Speed(network=1.0, rest=0.0)
    )
    assert told.seconds == sum(given)


def test_too_little_memory_means_windows_and_too_much_is_said(package, monkeypatch):
    manifest, variant = package.manifest, package.variant()
    what = {"size_mm": (400, 400, 400), "voxels": 400**3}
    monkeypatch.setattr(estimates, "free_memory_bytes", lambda: 16 << 30)
    plenty = estimate(manifest, variant, **what)
    assert plenty.single_pass and plenty.fits
    assert plenty.memory_bytes > 400**3 * variant.bytes_per_voxel
    monkeypatch.setattr(estimates, "free_memory_bytes", lambda: 4 << 30)
    little = estimate(manifest, variant, **what)
    assert not little.single_pass and little.memory_bytes < plenty.memory_bytes
    monkeypatch.setattr(estimates, "free_memory_bytes", lambda: 1 << 28)
    assert not estimate(manifest, variant, **what).fits


def test_a_speed_is_kept_for_each_model_and_engine():
    assert known_speed("liver-fast-1.0.0") is None
    keep_speed(Speed(1e-6, 2e-8), "liver-fast-1.0.0")
    keep_speed(Speed(3e-6, 2e-8), "liver-fast-1.0.0", "openvino")
    assert known_speed("liver-fast-1.0.0") == Speed(1e-6, 2e-8)
    assert known_speed("liver-fast-1.0.0", "openvino") == Speed(3e-6, 2e-8)
    assert known_speed("liver-fast-1.1.0") is None


@pytest.mark.parametrize("text", ["", "[1]", '{"a onnxruntime": 3}', '{"a onnxruntime": {}}'])
def test_a_damaged_file_of_speeds_is_as_none(tmp_path, text):
    (tmp_path / "speed.json").write_text(text)
    assert known_speed("a") is None
    keep_speed(Speed(1e-6, 2e-8), "a")
    assert known_speed("a") == Speed(1e-6, 2e-8)


def test_a_folder_that_refuses_costs_a_line_of_log(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DISTILLSEG_HOME", str(tmp_path / "file" / "inside"))
    keep_speed(Speed(1e-6, 2e-8), "a")
    assert "is not kept" in caplog.text
