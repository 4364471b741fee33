"""The patient is found in a CT, and cutting off the air around changes no label within."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from DistillSegLib import inference
from DistillSegLib.body import dense_part, find_body
from DistillSegLib.geometry import reorient, resample
from DistillSegLib.inference import Segmenter
from DistillSegLib.package import load_package
from DistillSegLib.places import resources
from DistillSegLib.preprocessing import Intensity, Preprocessing
from Testing.grids import CODES, any_direction, volume
from Testing.models import manifest, threshold_model


def scan(box, *, shape=(40, 100, 120), spacing_xyz=(2.0, 1.0, 3.0), inside=40, direction=None):
    rng = np.random.default_rng(0)
    voxels = rng.normal(-1000, 30, shape)
    voxels[box] = inside + 60 * rng.normal(size=voxels[box].shape)
    return volume(voxels.astype(np.int16), spacing_xyz=spacing_xyz, direction=direction)


BOX = (slice(15, 25), slice(40, 70), slice(50, 80))


def test_it_holds_the_body_closely():
    for found, true in zip(dense_part(scan(BOX)), BOX, strict=True):
        assert true.start - 4 < found.start <= true.start
        assert true.stop <= found.stop < true.stop + 4


def test_air_alone_holds_none():
    assert dense_part(scan((slice(0, 0),) * 3)) is None


@pytest.fixture(scope="module")
def package():
    """The bundled network, as if it were for CT: whatever it finds, it must find it again."""
    pytest.importorskip("onnxruntime")
    fast = load_package("hippocampus-fast")
    values = Intensity("fixed", (-1000.0, 1000.0), mean=0.0, std=100.0)
    ct = replace(
        fast.manifest, modality="CT", preprocessing=Preprocessing((1.0, 1.0, 1.0), (values,))
    )
    return replace(fast, manifest=ct)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), code=st.sampled_from(CODES))
def test_the_labels_in_the_body_are_those_of_the_whole_image(package, seed, code):
    rng = np.random.default_rng(seed)
    preprocessing = replace(package.manifest.preprocessing, orientation=code)
    one = replace(package, manifest=replace(package.manifest, preprocessing=preprocessing))
    sample = sitk.ReadImage(str(resources() / "Samples" / "hippocampus-mean.nii.gz"))
    spacing = rng.uniform(0.8, 1.2, 3)
    sample = sitk.GetArrayFromImage(resample(sample, tuple(spacing), linear=True))
    voxels = np.full((120, 140, 130), -1000, np.float32)
    starts = rng.integers(0, np.array(voxels.shape) - sample.shape)
    box = tuple(slice(n, n + size) for n, size in zip(starts, sample.shape, strict=True))
    voxels[box] = 100 * (sample - sample.mean()) / sample.std()
    image = volume(voxels, spacing_xyz=spacing[::-1], direction=any_direction(rng))
    image = reorient(image, code)
    body = find_body(image, one.manifest)
    assert body is not None
    segmenter = Segmenter(one, engine="onnxruntime", threads=1)
    cropped = sitk.GetArrayFromImage(segmenter.segment(image, force_scope=True).image)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "find_body", lambda *_: None)
        whole = sitk.GetArrayFromImage(segmenter.segment(image, force_scope=True).image)
    assert whole[body.part].any()
    assert (cropped[body.part] != whole[body.part]).sum() <= 1  # a tie may fall either way
    cropped[body.part] = 0
    assert not cropped.any()


def test_only_ct_of_a_known_halo_is_cropped(package):
    image = scan(BOX, shape=(160, 160, 160))
    assert find_body(image, package.manifest) is not None
    for changes in ({"modality": "MR"}, {"halo": None}, {"single_pass": False}):
        assert find_body(image, replace(package.manifest, **changes)) is None
    everywhere = scan((slice(None),) * 3)
    assert find_body(everywhere, manifest(threshold_model(), modality="CT", halo=2)) is None
