"""At once, in slabs, in windows: what fits is chosen, and slabs change nothing."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib.inference import Segmenter
from DistillSegLib.package import load_package, read_package
from DistillSegLib.passes import plan_passes
from DistillSegLib.runtime import Session
from DistillSegLib.windows import slabs, whole_volume
from Testing.models import manifest, phantom, threshold_model, write_tiny_package

SHAPE = (40, 36, 100)


@pytest.fixture
def tiny():
    return manifest(threshold_model(), halo=4)


def test_what_fits_goes_through_at_once(tiny):
    passes = plan_passes(tiny, tiny.variants[0], SHAPE, 100 * prod(SHAPE))
    assert (passes.kind, passes.voxels) == ("whole", prod(SHAPE))
    assert passes.memory_bytes == 100 * prod(SHAPE)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.3])
def test_less_memory_means_thinner_slabs_across_the_longest_axis(tiny, share):
    memory = share * 100 * prod(SHAPE)
    passes = plan_passes(tiny, tiny.variants[0], SHAPE, memory)
    assert passes.kind == "slabs" and passes.axis == 2 and passes.halo == 4
    assert passes.thickness % 2 == 0 and passes.memory_bytes <= memory
    assert prod(SHAPE) < passes.voxels
    thicker = 100 * 40 * 36 * (passes.thickness + 2 + 8) + 4 * 3 * prod(SHAPE)
    assert thicker > memory  # it could not have been thicker


def test_what_no_slab_fits_goes_in_windows(tiny):
    for one, memory in [(tiny, 100.0), (replace(tiny, halo=None), 50.0 * prod(SHAPE))]:
        assert plan_passes(one, one.variants[0], SHAPE, memory).kind == "windows"
    apart = replace(tiny, single_pass=False)
    assert plan_passes(apart, apart.variants[0], SHAPE, 1e12).kind == "windows"


def blurred(windows):
    """A network that sees two voxels in z and one in x, and pads with zeros like a convolution."""
    padded = np.pad(windows, [(0, 0), (0, 0), (2, 2), (0, 0), (1, 1)])
    total = sum(padded[:, :, i : i + windows.shape[2], :, 1:-1] for i in range(5))
    total = total + padded[:, :, 2:-2, :, :-2] - padded[:, :, 2:-2, :, 2:]
    return np.concatenate([total, -total], axis=1)


@pytest.mark.parametrize(("axis", "thickness"), [(0, 4), (0, 10), (2, 6), (1, 2)])
def test_slabs_of_a_network_that_sees_no_farther_are_the_whole(axis, thickness):
    array = np.random.default_rng(0).normal(size=(1, 25, 8, 14)).astype(np.float32)
    whole = whole_volume(array, blurred, multiple=2)
    told = []
    parts = slabs(
        array, blurred, axis=axis, thickness=thickness, halo=2, multiple=2, on_progress=told.append
    )
    np.testing.assert_array_equal(parts, whole)
    assert told[-1] == 1 and told == sorted(told)


def test_slabs_without_enough_around_them_differ():
    array = np.random.default_rng(0).normal(size=(1, 24, 8, 14)).astype(np.float32)
    parts = slabs(array, blurred, axis=0, thickness=6, halo=0, multiple=2)
    assert (parts != whole_volume(array, blurred, multiple=2)).any()


def test_a_real_network_in_slabs_gives_the_very_labels():
    pytest.importorskip("onnxruntime")
    package = load_package("hippocampus-fast")
    session = Session(package.model_bytes(package.variant()), engine="onnxruntime")
    array = np.random.default_rng(0).normal(size=(1, 160, 32, 40)).astype(np.float32)
    multiple, stride = package.manifest.multiple, package.variant().stride
    whole = whole_volume(array, session, multiple=multiple, stride=stride)
    cut = {"axis": 0, "thickness": 48, "halo": 32, "multiple": multiple, "stride": stride}
    parts = slabs(array, session, **cut)
    np.testing.assert_array_equal(parts.argmax(axis=0), whole.argmax(axis=0))
    np.testing.assert_allclose(parts, whole, atol=1e-4)


def test_a_segmenter_keeps_within_the_memory_it_is_given(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    package = read_package(write_tiny_package(tmp_path / "a.distillseg", halo=4))
    image = phantom((30, 30, 60))
    shapes = []
    monkeypatch.setattr(
        "DistillSegLib.inference.Session",
        lambda *a, **k: _Watching(Session(*a, **k), shapes),
    )
    free = Segmenter(package, engine="onnxruntime").segment(image, force_scope=True)
    bound = Segmenter(package, engine="onnxruntime", memory_bytes=2_000_000)
    found = bound.segment(image, force_scope=True)
    assert shapes[0][2:] == (60, 30, 30) and len(shapes) > 2
    assert all(100 * prod(shape) <= 2_000_000 for shape in shapes[1:])
    before, after = (sitk.GetArrayFromImage(one.image) for one in (free, found))
    assert before.any()
    np.testing.assert_array_equal(before, after)


class _Watching:
    def __init__(self, session, shapes):
        self._session, self._shapes = session, shapes
        self.engine, self.cancel = session.engine, session.cancel

    def __call__(self, windows):
        self._shapes.append(windows.shape)
        return self._session(windows)
