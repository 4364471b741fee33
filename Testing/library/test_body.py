"""The patient is found in a CT, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib.body import MARGIN_MM, body_part
from DistillSegLib.inference import Segmenter
from Testing.grids import volume
from Testing.models import LABELS, expected_labels, phantom, write_tiny_package


def scan(box, *, shape=(40, 100, 120), spacing_xyz=(2.0, 1.0, 3.0), inside=40):
    rng = np.random.default_rng(0)
    voxels = rng.normal(-1000, 30, shape)
    voxels[box] = inside
    return volume(voxels.astype(np.int16), spacing_xyz=spacing_xyz)


def test_it_holds_the_body_and_a_margin_of_air():
    box = (slice(15, 25), slice(40, 70), slice(50, 80))
    image = scan(box)
    part = body_part(image)
    for found, true, size, mm in zip(part, box, (40, 100, 120), (3.0, 1.0, 2.0), strict=True):
        margin = MARGIN_MM / mm
        assert max(0, true.start - margin - 8) <= found.start <= max(0, true.start - margin + 1)
        assert min(size, true.stop + margin - 1) <= found.stop <= min(size, true.stop + margin + 9)


@pytest.mark.parametrize("inside", [-1000, 40])
def test_air_alone_and_body_everywhere_are_left_whole(inside):
    assert body_part(scan((slice(None),) * 3, inside=inside)) is None


def test_only_ct_is_cropped_and_the_labels_are_those_of_the_whole(tmp_path):
    pytest.importorskip("onnxruntime")
    inner = phantom((30, 28, 26))
    values = np.full((60, 90, 100), -1000, np.float32)
    values[17:43, 31:59, 35:65] = sitk.GetArrayFromImage(inner)
    image = volume(values)
    for modality, cropped in (("CT", True), ("MR", False)):
        path = write_tiny_package(tmp_path / f"{modality}.distillseg", modality=modality)
        segmenter = Segmenter(path, engine="onnxruntime")
        assert (segmenter.body(image) is not None) == cropped
        found = segmenter.segment(image, force_scope=True)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(found.image), expected_labels(image))
    assert set(np.unique(expected_labels(image))) == {0, *(label.value for label in LABELS)}
