"""The right series becomes a volume in the right place; what is no even volume is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib import dicom
from DistillSegLib.errors import ImageError
from DistillSegLib.images import image_warnings, read_image

# Columns are the directions of x, y and z: rows to anterior, columns to superior, slices to left.
SAGITTAL = np.array([[0, 0, 1.0], [1, 0, 0], [0, 1, 0]])
VOXELS = np.random.default_rng(0).integers(-1000, 1000, (6, 12, 9)).astype(np.int16)


def write_series(
    folder: Path,
    voxels: np.ndarray = VOXELS,
    *,
    uid: str = "1.2.3.1",
    spacing: tuple = (0.7, 0.8, 2.5),
    origin: tuple = (-20, -30, 40),
    direction: np.ndarray = SAGITTAL,
    name: Callable[[int], str] = "im{:03d}.dcm".format,
    tags: dict | None = None,
) -> Path:
    """One file per slice, numbered backwards; `tags` are values or functions of the index."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    for index, plane in enumerate(voxels):
        image = sitk.GetImageFromArray(plane)
        image.SetSpacing(spacing[:2])
        position = np.array(origin) + direction[:, 2] * spacing[2] * index
        values = {
            "0008|0060": "CT",
            "0008|103e": "Thorax",
            "0008|0018": f"{uid}.{index + 1}",
            "0020|000d": "1.2.3",
            "0020|000e": uid,
            "0020|0013": str(len(voxels) - index),
            "0020|0032": "\\".join(map(str, position)),
            "0020|0037": "\\".join(map(str, [*direction[:, 0], *direction[:, 1]])),
        }
        for key, value in (values | (tags or {})).items():
            image.SetMetaData(key, value(index) if callable(value) else value)
        writer.SetFileName(str(folder / name(index)))
        writer.Execute(image)
    return folder


def at(positions: Callable[[int], tuple]) -> dict:
    return {"0020|0032": lambda index: "\\".join(map(str, positions(index)))}


def along_x(step: Callable[[int], float]) -> dict:
    return at(lambda index: (step(index), -30, 40))


def sentence(folder: Path, series: str | None = None) -> str:
    with pytest.raises(ImageError) as refused:
        dicom.read_series(folder, series)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    "name",
    [
        "im{:03d}.dcm".format,
        lambda index: f"IM{(index * 5) % 6}",  # no ending, names in another order
        lambda index: f"part {index % 2}/Schicht ü{9 - index}",  # in folders
    ],
)
def test_a_series_is_read_in_place_whatever_its_files_are_called(name, tmp_path, capfd):
    for index in range(6):
        (tmp_path / name(index)).parent.mkdir(exist_ok=True)
    image = read_image(write_series(tmp_path, name=name))
    assert np.array_equal(sitk.GetArrayFromImage(image), VOXELS)
    assert image.GetOrigin() == pytest.approx((-20, -30, 40))
    assert image.GetSpacing() == pytest.approx((0.7, 0.8, 2.5))
    assert np.allclose(np.reshape(image.GetDirection(), (3, 3)), SAGITTAL)
    assert image.GetMetaData("0008|0060") == "CT"
    assert capfd.readouterr() == ("", "")


def test_slices_that_run_against_the_normal_keep_their_place(tmp_path):
    backwards = SAGITTAL * [1, 1, -1]
    image = read_image(write_series(tmp_path, direction=backwards))
    assert np.array_equal(sitk.GetArrayFromImage(image), VOXELS[::-1])
    # The first voxel written lies where it was put.
    assert image.TransformIndexToPhysicalPoint((0, 0, 5)) == pytest.approx((-20, -30, 40))
    assert np.linalg.det(np.reshape(image.GetDirection(), (3, 3))) == pytest.approx(1)


def test_an_oblique_series_keeps_its_directions(tmp_path):
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    image = read_image(write_series(tmp_path, direction=turn @ SAGITTAL))
    corner = np.array((-20, -30, 40)) + (turn @ SAGITTAL) @ (0.7 * 8, 0.8 * 11, 2.5 * 5)
    assert image.TransformIndexToPhysicalPoint((8, 11, 5)) == pytest.approx(corner)


def test_other_files_scouts_and_single_pictures_are_passed_over(tmp_path):
    write_series(tmp_path)
    write_series(tmp_path / "scout", uid="1.2.3.2", tags={"0008|0008": "ORIGINAL\\LOCALIZER"})
    write_series(tmp_path / "dose", VOXELS[:1], uid="1.2.3.3")
    turned = {"0020|0037": lambda i: ["1\\0\\0\\0\\1\\0", "0\\1\\0\\0\\0\\-1"][i % 2]}
    write_series(tmp_path / "planes", uid="1.2.3.4", tags=turned)
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + b"no image")
    (tmp_path / "empty.dcm").touch()
    assert np.array_equal(sitk.GetArrayFromImage(dicom.read_series(tmp_path)), VOXELS)
    assert len(dicom.series_in(tmp_path)) == 4


def test_of_several_volumes_one_must_be_named(tmp_path):
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", VOXELS[:, ::-1], uid="1.2.3.9", tags={"0008|103e": "Liver late"})
    said = sentence(tmp_path)
    assert "2 series" in said
    assert "1. 'Thorax' (CT, 6 slices, 1.2.3.1); 2. 'Liver late' (CT, 6 slices, 1.2.3.9)" in said
    for choice in ("1.2.3.9", "Liver late", "2"):
        image = dicom.read_series(tmp_path, choice)
        assert np.array_equal(sitk.GetArrayFromImage(image), VOXELS[:, ::-1])
    assert "no series 'Head'" in sentence(tmp_path, "Head")
    write_series(tmp_path / "c", uid="1.2.3.10", tags={"0008|103e": "Liver late"})
    assert "2 series 'Liver late'" in sentence(tmp_path, "Liver late")


def test_a_missing_slice_is_named_with_its_place(tmp_path):
    write_series(tmp_path)
    (tmp_path / "im002.dcm").unlink()
    said = sentence(tmp_path)
    assert "1 slice missing" in said
    assert "between -17.50 and -12.50 mm (usual step 2.5 mm)" in said


def test_uneven_steps_are_named_and_rounded_ones_are_not(tmp_path):
    write_series(tmp_path / "a", tags=along_x(lambda i: 2.5 * i + 0.4 * (i > 2)))
    assert "2.5 to 2.9 mm apart" in sentence(tmp_path / "a")
    write_series(tmp_path / "b", tags=along_x(lambda i: round(2.333 * i, 1)))
    assert dicom.read_series(tmp_path / "b").GetSpacing()[2] == pytest.approx(2.34)


def test_a_tilted_gantry_is_named_with_its_angle(tmp_path):
    lean = np.tan(np.radians(12))
    write_series(tmp_path, tags=at(lambda i: (2.5 * i, -30, 40 + 2.5 * i * lean)))
    assert "leans by 12.0 degrees (a tilted gantry)" in sentence(tmp_path)


def test_slices_at_the_same_place_are_named_but_copies_of_a_file_are_dropped(tmp_path):
    write_series(tmp_path)
    shutil.copy(tmp_path / "im002.dcm", tmp_path / "copy of im002.dcm")
    assert np.array_equal(sitk.GetArrayFromImage(dicom.read_series(tmp_path)), VOXELS)
    second_phase = {"0008|0018": lambda index: f"1.2.3.1.5.{index}"}
    write_series(tmp_path / "phase", tags=second_phase)
    assert "6 of its 12 slices lie where another one lies" in sentence(tmp_path)


def test_mixed_spacings_sizes_and_orientations_are_named(tmp_path):
    for number, (what, options) in enumerate(
        {
            "2 pixel spacings": {"spacing": (0.9, 0.8, 2.5)},
            "2 sizes": {"voxels": VOXELS[:, :10]},
            "2 orientations": {"direction": np.eye(3)},
        }.items()
    ):
        folder = write_series(tmp_path / str(number))
        own = {"0008|0018": lambda index: f"1.2.3.1.7.{index}"}
        write_series(folder, name="b{}".format, origin=(90, -30, 40), tags=own, **options)
        assert what in sentence(folder)


def test_slices_without_a_position_are_refused(tmp_path):
    for path in write_series(tmp_path).iterdir():  # the tag (0020,0032) becomes (0020,0033)
        path.write_bytes(path.read_bytes().replace(b"\x20\x00\x32\x00", b"\x20\x00\x33\x00"))
    assert "do not say where they lie" in sentence(tmp_path)


def test_a_damaged_slice_is_not_taken_for_an_absent_one(tmp_path, capfd):
    write_series(tmp_path)
    last = tmp_path / "im005.dcm"
    content = last.read_bytes()
    for length in (len(content) // 2, 900, len(content) - 5):
        last.write_bytes(content[:length])
        assert "im005.dcm" in sentence(tmp_path) or "cannot be decoded" in sentence(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_a_damaged_slice_of_another_series_does_not_matter(tmp_path):
    write_series(tmp_path / "a")
    other = write_series(tmp_path / "b", uid="1.2.4.7") / "im000.dcm"
    other.write_bytes(other.read_bytes()[:-40])
    image = dicom.read_series(tmp_path, "1.2.3.1")
    assert np.array_equal(sitk.GetArrayFromImage(image), VOXELS)


def test_values_are_rescaled_with_each_slices_own_factor(tmp_path):
    stored = np.abs(VOXELS).astype(np.int16)
    write_series(tmp_path, 2 * stored - 8, tags={"0028|1053": "2", "0028|1052": "-8"})
    slope = b"\x28\x00\x53\x10\x02\x00\x00\x00"  # tag and length of the value
    factors = np.array([2, 2, 2, 0.5, 2, 2])[:, None, None]
    path = tmp_path / "im003.dcm"  # SimpleITK writes whole factors only
    content = path.read_bytes()
    assert content.count(slope + b"2 ") == 1
    path.write_bytes(content.replace(slope + b"2 ", slope + b".5"))
    voxels = sitk.GetArrayFromImage(dicom.read_series(tmp_path))
    assert np.array_equal(voxels, stored * factors - 8)


def test_compressed_slices_are_read(tmp_path):
    plain = write_series(tmp_path / "plain")
    packed = tmp_path / "packed"
    packed.mkdir()
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    writer.UseCompressionOn()
    for path in plain.iterdir():
        writer.SetFileName(str(packed / path.name))
        writer.Execute(sitk.ReadImage(str(path)))
    assert b"1.2.840.10008.1.2.4." in (packed / "im000.dcm").read_bytes()[:1000]  # JPEG family
    assert np.array_equal(sitk.GetArrayFromImage(dicom.read_series(packed)), VOXELS)


def multiframe(path: Path, *, compress: bool = False) -> sitk.Image:
    image = sitk.GetImageFromArray(np.abs(VOXELS).astype(np.uint16))
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-20, -30, 40))
    image.SetDirection(SAGITTAL.ravel())
    sitk.WriteImage(image, str(path), useCompression=compress)
    return image


@pytest.mark.parametrize("compress", [False, True])
def test_frames_of_one_file_are_a_volume(compress, tmp_path):
    image = multiframe(tmp_path / "frames.dcm", compress=compress)
    for path in (tmp_path, tmp_path / "frames.dcm"):
        again = read_image(path)
        assert np.array_equal(sitk.GetArrayFromImage(again), sitk.GetArrayFromImage(image))
        assert again.GetOrigin() == pytest.approx(image.GetOrigin())
        assert again.GetSpacing() == pytest.approx(image.GetSpacing())
        assert again.GetDirection() == pytest.approx(image.GetDirection())


def test_frames_in_another_order_than_the_grid_are_refused(tmp_path):
    multiframe(tmp_path / "frames.dcm")
    content = (tmp_path / "frames.dcm").read_bytes()
    places = [rb"-15\-30\40", rb"-10\-30\40"]  # of the third and fifth frame: exchanged
    assert all(content.count(place) == 1 for place in places)
    content = content.replace(places[0], b"?").replace(places[1], places[0])
    (tmp_path / "frames.dcm").write_bytes(content.replace(b"?", places[1]))
    assert "equal steps along one line" in sentence(tmp_path)


def test_one_slice_of_several_asks_for_its_folder_and_a_single_one_is_read(tmp_path):
    write_series(tmp_path / "a")
    with pytest.raises(ImageError, match="one of 6 slices"):
        read_image(tmp_path / "a" / "im003.dcm")
    write_series(tmp_path / "b", VOXELS[:1])
    image = read_image(tmp_path / "b" / "im000.dcm")
    assert image.GetSize() == (9, 12, 1)
    assert "single slice" in image_warnings(image)[0]


def test_segmentations_and_doses_are_no_scans(tmp_path):
    write_series(tmp_path / "seg", uid="1.2.3.8", tags={"0008|0060": "SEG"})
    assert "is no scan" in sentence(tmp_path)
    write_series(tmp_path / "ct")
    assert np.array_equal(sitk.GetArrayFromImage(dicom.read_series(tmp_path)), VOXELS)


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"x")
    assert "holds no DICOM images" in sentence(tmp_path)
