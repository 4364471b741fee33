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


def test_lung_at_the_edge_of_a_scan_is_not_cut_off():
    body = scan(BOX)
    assert dense_part(body) is not None
    lung = sitk.GetArrayFromImage(body)
    lung[lung < -500] += 150  # a crop within the lung, of which the box would be a vessel
    cut = volume(lung, spacing_xyz=body.GetSpacing())
    assert dense_part(cut) is None


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


@pytest.mark.parametrize("first", range(276, 300))
def test_no_logit_that_the_body_needs_sees_beyond_the_box(package, first):
    """Along z one of the network's voxels is as long as three of the image's, or 12 mm.

    A logit depends on whole patches of `multiple` voxels, of which each may change those up to
    `halo` before and behind it.
    """
    coarse = replace(package.manifest.preprocessing, spacing_mm=(12.0, 1.0, 1.0))
    manifest, stride = replace(package.manifest, preprocessing=coarse), package.variant().stride
    voxels = np.full((600, 16, 16), -1000, np.int16)
    voxels[first : first + 30] = 0
    body = find_body(volume(voxels, spacing_xyz=(1, 1, 4)), manifest)
    ends = np.array([body.part[0].start, body.part[0].stop - 1])
    logits = ((ends - 1) / 3 - (stride - 1) / 2) / stride  # between which these voxels lie
    lowest, highest = np.floor(logits[0]) * stride, np.ceil(logits[1]) * stride
    halo = manifest.halo[0]
    assert body.box[0].start + halo < lowest + stride
    assert highest < body.box[0].stop - halo


def test_only_ct_of_a_known_halo_is_cropped(package):
    image = scan(BOX, shape=(160, 160, 160))
    assert find_body(image, package.manifest) is not None
    by_image = Preprocessing((1.0, 1.0, 1.0), (Intensity("image", (0.5, 99.5)),))
    for changes in (
        {"modality": "MR"},
        {"halo": None},
        {"single_pass": False},
        {"preprocessing": by_image},
    ):
        assert find_body(image, replace(package.manifest, **changes)) is None
    everywhere = scan((slice(None),) * 3)
    assert find_body(everywhere, manifest(threshold_model(), modality="CT", halo=2)) is None
