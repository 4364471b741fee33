"""From an image to a segmentation on its grid, and what is refused or warned about."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib import Segmenter, inference
from DistillSegLib.errors import (
    Cancelled,
    DistillSegError,
    GeometryError,
    ImageError,
    ScopeError,
)
from DistillSegLib.package import read_package
from DistillSegLib.postprocessing import KeepLargest
from DistillSegLib.preprocessing import Intensity, Preprocessing
from DistillSegLib.regions import Region
from DistillSegLib.scope import measure, scope_of
from Testing.models import (
    LABELS,
    expected_labels,
    phantom,
    write_tiny_package,
)


@pytest.fixture
def package(tmp_path):
    return read_package(write_tiny_package(tmp_path / "日本 @ threshold.distillseg"))


@pytest.fixture
def segmenter(package) -> Segmenter:
    return Segmenter(package, engine="onnxruntime")


def labels(segmentation) -> np.ndarray:
    return sitk.GetArrayFromImage(segmentation.image)


def test_the_result_is_the_models_formula_on_the_exact_input_grid(segmenter):
    image = phantom()
    segmentation = segmenter.segment(image)
    np.testing.assert_array_equal(labels(segmentation), expected_labels(image))
    for get in ("GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
        assert getattr(segmentation.image, get)() == getattr(image, get)()
    assert segmentation.labels == LABELS
    assert segmentation.source == "threshold 1.0.0"
    assert list(segmentation.seconds) == ["read", "preprocess", "network", "labels"]
    assert segmentation.warnings == ()


def test_each_structure_and_each_voxel_has_its_confidence(segmenter):
    image = phantom()
    box = Region.from_numbers(-2, -19, 38, 12, 12, 10)
    for region in (None, box):
        found = segmenter.segment(image, region=region, confidence_map=True)
        sure = sitk.GetArrayFromImage(found.confidence_map)
        values = labels(found)
        assert sure.shape == values.shape and sure.min() >= 0 and sure.max() <= 1
        assert set(found.confidence) == set(np.unique(values)) - {0}
        for value, share in found.confidence.items():
            assert 1 / 3 < share <= 1
            assert sure[values == value].mean() == pytest.approx(share, abs=0.05)
        if region:
            outside = np.ones(values.shape, bool)
            outside[region.index_box(image)] = False
            assert not sure[outside].any()
    assert segmenter.segment(image).confidence_map is None


@pytest.mark.parametrize("code", ["LPS", "RAS", "PIL", "SAR", "LAI"])
def test_label_in_label_out_for_any_orientation(segmenter, code):
    image = sitk.DICOMOrient(phantom(), code)
    segmentation = segmenter.segment(image)
    np.testing.assert_array_equal(labels(segmentation), expected_labels(image))
    assert segmentation.image.GetDirection() == image.GetDirection()


def test_label_in_label_out_for_an_oblique_left_handed_grid(segmenter):
    image = phantom()
    turn = sitk.Euler3DTransform((0, 0, 0), 0.2, -0.1, 0.3).GetMatrix()
    image.SetDirection((np.reshape(turn, (3, 3)) @ np.diag([1, 1, -1])).ravel().tolist())
    segmentation = segmenter.segment(image)
    np.testing.assert_array_equal(labels(segmentation), expected_labels(image))


def test_label_in_label_out_for_a_model_that_follows_the_slices(tmp_path):
    values = Intensity("fixed", (0.0, 1000.0), mean=0.0, std=100.0)
    preprocessing = Preprocessing((4.0, 1.0, 1.0), (values,), "slices")
    path = write_tiny_package(tmp_path / "s.distillseg", preprocessing=preprocessing)
    image = phantom()
    image.SetSpacing((4.0, 1.0, 1.0))
    turn = sitk.Euler3DTransform((0, 0, 0), 0.7, -0.6, 0.8).GetMatrix()
    image.SetDirection(turn)
    segmentation = Segmenter(path, engine="onnxruntime").segment(image, force_scope=True)
    np.testing.assert_array_equal(labels(segmentation), expected_labels(image))
    assert segmentation.image.GetDirection() == image.GetDirection()


def test_windows_and_a_single_pass_agree(tmp_path, segmenter):
    path = write_tiny_package(tmp_path / "w.distillseg", single_pass=False)
    image = phantom((21, 17, 15))
    in_windows = Segmenter(path, engine="onnxruntime").segment(image)
    np.testing.assert_array_equal(labels(in_windows), labels(segmenter.segment(image)))


def between(coarse: sitk.Image, grid: sitk.Image) -> sitk.Image:
    """SimpleITK's own linear interpolation. The model is linear, so its logits behave the same."""
    nowhere = sitk.Transform(3, sitk.sitkIdentity)
    return sitk.Resample(coarse, grid, nowhere, sitk.sitkLinear, 0.0, sitk.sitkFloat32, True)


def test_a_strided_model_is_put_back_in_its_place(tmp_path):
    image = phantom()
    found = labels(Segmenter(write_tiny_package(tmp_path / "s", stride=2)).segment(image))
    means = between(sitk.BinShrink(image, [2, 2, 2]), image)
    assert np.mean(found != expected_labels(means)) < 1e-3
    assert (found == 7).any()


def test_another_spacing_is_resampled_and_put_back(segmenter):
    image = phantom()
    fine = sitk.Expand(image, [2, 2, 2], sitk.sitkNearestNeighbor)
    found = labels(segmenter.segment(fine))
    assert np.mean(found != expected_labels(between(image, fine))) < 1e-3
    assert (found == 7).any()


def test_files_and_paths_are_read(segmenter, tmp_path):
    path = tmp_path / "体 image.nii.gz"
    sitk.WriteImage(phantom(), str(path))
    segmentation = segmenter.segment(path)
    np.testing.assert_array_equal(labels(segmentation), expected_labels(phantom()))
    np.testing.assert_array_equal(labels(segmenter.segment([str(path)])), labels(segmentation))


def test_progress_only_rises_and_ends_at_one(tmp_path):
    segmenter = Segmenter(write_tiny_package(tmp_path / "w.distillseg", single_pass=False))
    shares = []
    segmenter.segment(phantom(), on_progress=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1.0 and len(shares) > 5


def test_postprocessing_of_the_package_is_applied(tmp_path):
    image = phantom()
    image[17, 15, 13] = 600  # one voxel apart
    assert labels(Segmenter(write_tiny_package(tmp_path / "a")).segment(image))[13, 15, 17] == 3
    path = write_tiny_package(tmp_path / "b", postprocessing=(KeepLargest((3, 7)),))
    found = labels(Segmenter(path).segment(image))
    assert found[13, 15, 17] == 0
    assert (found == 7).sum() == (expected_labels(image) == 7).sum()


# --- scope ---


def test_a_volume_much_larger_than_in_training_is_refused_with_the_way_out(segmenter):
    with pytest.raises(ScopeError) as caught:
        segmenter.segment(phantom((60, 50, 40)))
    sentence = str(caught.value)
    assert "60 x 50 x 40 mm" in sentence
    assert "crops around a phantom of 12–30 x 10–30 x 8–30 mm" in sentence
    assert "--roi X Y Z SX SY SZ" in sentence and ".mrk.json" in sentence


def test_a_region_of_a_large_volume_is_segmented_and_put_back(segmenter):
    large = phantom((60, 50, 40))
    # Voxels 0…19, 0…17, 0…15 of the phantom, whose corner lies at (-7.5, 10.5, 29.5) LPS.
    region = Region.from_numbers(-2.5, -19.5, 37.5, 20, 18, 16)
    segmentation = segmenter.segment(large, region=region)
    expected = expected_labels(large)
    assert segmentation.image.GetSize() == large.GetSize()
    np.testing.assert_array_equal(labels(segmentation), expected)
    assert segmentation.warnings == ()


def test_nothing_is_found_outside_of_the_region(segmenter):
    image = phantom()
    region = Region.from_numbers(-2.5, -19.5, 33.5, 20, 18, 8)  # slices 0 to 7
    found = labels(segmenter.segment(image, region=region))
    np.testing.assert_array_equal(found[:8], expected_labels(image)[:8])
    assert not found[8:].any() and expected_labels(image)[8:].any()


def test_a_region_that_is_too_large_is_refused_too(segmenter):
    with pytest.raises(ScopeError, match="give the region"):
        segmenter.segment(phantom((60, 50, 40)), region=Region.from_numbers(0, -30, 40, 99, 99, 99))


def test_a_region_beside_the_image_is_refused(segmenter):
    with pytest.raises(GeometryError):
        segmenter.segment(phantom(), region=Region.from_numbers(500, 0, 0, 20, 20, 20))


def test_scope_can_be_overruled_but_stays_a_warning(segmenter):
    segmentation = segmenter.segment(phantom((60, 50, 40)), force_scope=True)
    assert any("60 x 50 x 40 mm" in warning for warning in segmentation.warnings)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda image: image - 1024, "Hounsfield"),
        (lambda image: image * 100, "in its original units"),
        (lambda image: image / 1000, "in its original units"),
    ],
)
def test_values_unlike_those_of_training_are_warned_about(segmenter, change, words):
    segmentation = segmenter.segment(change(phantom()))
    assert any(words in warning for warning in segmentation.warnings), segmentation.warnings


def test_an_image_normalised_by_itself_is_judged_by_its_distribution(tmp_path):
    scheme = Preprocessing((1.0, 1.0, 1.0), (Intensity("image", (0.5, 99.5)),))
    trained = measure([phantom()], orientation="LPS")
    scope = scope_of([trained], description="phantoms", body_part="phantom")
    path = write_tiny_package(tmp_path / "a", preprocessing=scheme, scope=scope)

    def remarks(image: sitk.Image) -> list[str]:
        warnings = Segmenter(path).segment(image).warnings
        return [warning for warning in warnings if "Nothing was found" not in warning]

    assert remarks(phantom() * 3) == []
    assert ["with the median at" in remark for remark in remarks(1000 - phantom())] == [True]
    assert ["rescaling" in remark for remark in remarks(phantom() / 900)] == [True]


def test_a_ct_is_told_from_mr_also_by_a_region_that_holds_no_air(segmenter):
    image = phantom()
    air = sitk.Cast(image < 500, sitk.sitkFloat32)
    image -= 1000 * air
    soft = image.TransformIndexToPhysicalPoint((9, 7, 6))
    region = Region((-soft[0], -soft[1], soft[2]), (4, 4, 4))
    warnings = segmenter.segment(image, region=region).warnings
    assert any("Hounsfield" in warning for warning in warnings), warnings


def test_the_modality_of_a_dicom_header_is_believed(segmenter):
    image = phantom()
    image.SetMetaData("0008|0060", "MR")
    assert segmenter.segment(image).warnings == ()
    image.SetMetaData("0008|0060", "CT")
    assert any("of modality CT" in warning for warning in segmenter.segment(image).warnings)


def test_a_network_that_overflows_is_reported_and_finds_nothing_silently(segmenter, monkeypatch):
    monkeypatch.setattr(segmenter, "logits", lambda array, *_: np.log(array[[0, 0, 0]] * 0 - 1))
    with np.errstate(invalid="ignore"), pytest.raises(DistillSegError, match="not finite"):
        segmenter.segment(phantom())


def test_coarse_voxels_are_warned_about(segmenter):
    coarse = sitk.Shrink(phantom(), [1, 1, 4])
    assert any("coarser" in warning for warning in segmenter.segment(coarse).warnings)


def test_thick_slices_are_not_odd_for_a_model_of_thick_slices(tmp_path):
    image = phantom()
    image.SetSpacing((1.0, 1.0, 5.0))
    whole = measure([image], orientation="LPS")
    scope = scope_of([whole], description="stacks", body_part="phantom")
    for changes, expected in (({}, True), ({"scope": scope}, False)):
        path = write_tiny_package(tmp_path / "a.distillseg", **changes)
        warnings = Segmenter(path).segment(image, force_scope=True).warnings
        assert any("5.0 times longer" in warning for warning in warnings) == expected, warnings


def test_an_empty_result_is_reported(segmenter):
    segmentation = segmenter.segment(sitk.Minimum(phantom(), 400.0))
    assert not labels(segmentation).any()
    assert any("Nothing was found of: Middle, Bright" in w for w in segmentation.warnings)


# --- bad input ---


def test_a_label_map_given_as_an_image_is_refused(segmenter):
    image = sitk.GetImageFromArray(expected_labels(phantom()))
    with pytest.raises(ImageError, match="label map"):
        segmenter.segment(image)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(segmenter, value):
    image = phantom()
    image[2, 3, 4] = float(value)
    with pytest.raises(ImageError, match="finite"):
        segmenter.segment(image)


def test_two_images_for_one_channel_are_refused(segmenter):
    with pytest.raises(ImageError, match=r"takes 1 image\(s\) of a patient \(MRI\), found 2"):
        segmenter.segment([phantom(), phantom()])


def test_a_time_series_is_refused(segmenter):
    with pytest.raises(ImageError, match="dimensions"):
        segmenter.segment(sitk.JoinSeries([phantom(), phantom()]))


def test_a_single_slice_becomes_a_volume_of_one(segmenter):
    slice_ = phantom()[:, :, 6]
    found = labels(segmenter.segment(slice_))
    np.testing.assert_array_equal(found[0], expected_labels(phantom())[6])


# --- memory, cancel, threads ---


def test_what_does_not_fit_into_memory_goes_in_windows(package, monkeypatch):
    segmenter = Segmenter(package)
    monkeypatch.setattr(inference, "free_memory_bytes", lambda: 1000)
    monkeypatch.setattr(inference, "whole_volume", None)  # calling it would fail
    np.testing.assert_array_equal(labels(segmenter.segment(phantom())), expected_labels(phantom()))


def test_a_single_pass_that_runs_out_of_memory_is_done_again_in_windows(
    package, monkeypatch, caplog
):
    def too_large(*arguments, **options):
        raise MemoryError("no")

    segmenter = Segmenter(package)
    monkeypatch.setattr(inference, "whole_volume", too_large)
    with caplog.at_level(logging.WARNING):
        found = labels(segmenter.segment(phantom()))
    np.testing.assert_array_equal(found, expected_labels(phantom()))
    assert "going on in parts" in caplog.text
    monkeypatch.setattr(inference, "sliding_window", too_large)
    with pytest.raises(DistillSegError, match="not enough memory"):
        segmenter.segment(phantom())


def test_cancel_before_the_network_raises_and_the_next_call_works(segmenter):
    with pytest.raises(Cancelled):
        segmenter.segment(phantom(), cancelled=lambda: True)
    assert labels(segmenter.segment(phantom())).any()


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_cancel_ends_a_long_single_pass(tmp_path, engine):
    pytest.importorskip(engine)
    path = write_tiny_package(tmp_path / "slow", blur=25)
    segmenter = Segmenter(path, engine=engine, threads=1)
    started = threading.Event()
    image = phantom((30, 30, 30))
    with pytest.raises(Cancelled):
        segmenter.segment(
            image,
            on_progress=lambda share: started.set(),
            cancelled=started.is_set,
        )
    assert labels(segmenter.segment(image)).any()


def test_threads_may_share_a_segmenter(segmenter):
    results = {}

    def work(number: int) -> None:
        image = phantom((20 + number, 18, 16))
        results[number] = (labels(segmenter.segment(image)), expected_labels(image))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for found, expected in results.values():
        np.testing.assert_array_equal(found, expected)
