"""Damage and contradictions that ITK reads past are refused from the raw bytes."""

from __future__ import annotations

import builtins
import errno
import gzip
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib.errors import ImageError
from DistillSegLib.headers import check_file
from DistillSegLib.images import header_warnings, read_image

# Bytes of fields in a NIfTI-1 header.
DIM, KIND, PIXDIM, OFFSET, CODES, SROW = 40, 70, 76, 108, 252, 280


@pytest.fixture
def image() -> sitk.Image:
    voxels = np.random.default_rng(0).integers(0, 1000, (7, 11, 13)).astype(np.int16)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((1, 1.5, 2))
    image.SetOrigin((3, 4, 5))
    return image


def written(image: sitk.Image, path: Path, compress: bool = True) -> Path:
    sitk.WriteImage(image, str(path), useCompression=compress)
    return path


def edited(image: sitk.Image, path: Path, *edits: tuple) -> Path:
    """A NIfTI file with fields changed: (byte, struct format, values…)."""
    content = bytearray(written(image, path).read_bytes())
    for place, form, *values in edits:
        struct.pack_into("<" + form, content, place, *values)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "name", ["a.nii", "a.nii.gz", "a.mha", "raw.mha", "a.mhd", "a.nrrd", "raw.nrrd", "a.nhdr"]
)
def test_a_whole_file_passes(name, image, tmp_path):
    check_file(written(image, tmp_path / name, compress=name[:3] != "raw"))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "raw.mha", "a.nrrd", "raw.nrrd"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.99])
def test_a_file_cut_short_is_refused(name, share, image, tmp_path):
    path = written(image, tmp_path / name, compress=name[:3] != "raw")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ImageError, match=r"cut short|damaged"):
        check_file(path)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mha", "a.nrrd"])
def test_one_changed_byte_in_compressed_data_is_refused(name, image, tmp_path):
    path = written(image, tmp_path / name)
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ImageError, match="damaged"):
        check_file(path)


def test_the_data_file_beside_a_metaimage_header_is_checked_too(image, tmp_path):
    path = written(image, tmp_path / "a.mhd", compress=False)
    data = tmp_path / "a.raw"
    data.write_bytes(data.read_bytes()[:-10])
    with pytest.raises(ImageError, match=r"a\.raw' is cut short"):
        check_file(path)
    data.unlink()
    with pytest.raises(ImageError, match="not beside it"):
        check_file(path)


@pytest.mark.parametrize(
    "kind", ["short", "signed short int", "uint16", "float", "unsigned long long int", "uchar"]
)
def test_every_name_of_a_type_in_nrrd_is_counted_right(kind, tmp_path):
    width = {"float": 4, "unsigned long long int": 8, "uchar": 1}.get(kind, 2)
    header = f"NRRD0004\n# made\ntype: {kind}\ndimension: 3\nsizes: 2 3 4\nencoding: raw\n\n"
    path = tmp_path / "a.nrrd"
    path.write_bytes(header.encode() + bytes(24 * width))
    check_file(path)
    path.write_bytes(header.encode() + bytes(24 * width - 1))
    with pytest.raises(ImageError, match=f"should hold {24 * width} bytes and holds"):
        check_file(path)


@pytest.mark.parametrize("bad", [0.0, -1.5, np.nan, np.inf])
def test_a_spacing_that_itk_would_repair_is_refused(bad, image, tmp_path):
    path = edited(image, tmp_path / "a.nii", (PIXDIM + 8, "f", bad))
    with pytest.raises(ImageError, match=r"spacing of 1 x .* x 2 mm; each must be above zero"):
        check_file(path)


@pytest.mark.parametrize("text", ["0 0 0", "1 nan 1", "1 -1 1"])
def test_a_metaimage_spacing_must_be_above_zero(text, image, tmp_path):
    path = written(image, tmp_path / "a.mha", compress=False)
    path.write_bytes(path.read_bytes().replace(b"= 1 1.5 2", b"= " + text.encode()))
    with pytest.raises(ImageError, match="spacing"):
        check_file(path)


def test_an_sform_alone_that_contradicts_pixdim_is_refused(image, tmp_path):
    doubled = (SROW, "12f", -2, 0, 0, -3, 0, -3, 0, -4, 0, 0, 4, 5)
    path = edited(image, tmp_path / "a.nii", (CODES, "2h", 0, 1), doubled)
    with pytest.raises(ImageError, match=r"1 x 1.5 x 2 mm by pixdim but 2 x 3 x 4 mm by its sform"):
        check_file(path)
    # With a qform the place is known from there, and an sform to an atlas may scale.
    check_file(edited(image, tmp_path / "b.nii", (CODES, "2h", 1, 4), doubled))


def test_a_header_that_does_not_place_the_patient_is_told_without_its_voxels(image, tmp_path):
    unplaced = edited(image, tmp_path / "a.nii", (CODES, "2h", 0, 0))
    assert "left and right may be exchanged" in header_warnings(unplaced)[0]
    assert header_warnings(written(image, tmp_path / "b.nii.gz")) == []
    assert header_warnings(written(image, tmp_path / "c.mha")) == []
    assert header_warnings(tmp_path / "absent.nii") == []
    (tmp_path / "d.nii").write_bytes(b"no header")
    assert header_warnings(tmp_path / "d.nii") == []


def test_sizes_that_cannot_be_and_colours_are_refused(image, tmp_path):
    for edit, words in (
        ((DIM, "2h", 3, 0), "impossible size"),
        ((DIM, "2h", 3, -5), "impossible size"),
        ((DIM, "2h", 9, 13), "impossible size"),
        ((OFFSET, "f", np.nan), "impossible size"),
        ((DIM + 2, "3h", 30000, 30000, 30000), "cut short"),
        ((KIND, "2h", 128, 24), "colours or complex"),
        ((KIND, "2h", 32, 64), "colours or complex"),
        ((KIND, "2h", 1, 1), "single bits"),
    ):
        with pytest.raises(ImageError, match=words):
            check_file(edited(image, tmp_path / "a.nii", edit))


def test_a_first_voxel_within_the_header_is_taken_for_its_end(image, tmp_path):
    for offset in (0, -5):
        path = edited(image, tmp_path / "a.nii", (OFFSET, "f", offset))
        check_file(path)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(ImageError, match="cut short"):
            check_file(path)


def test_big_endian_and_the_second_nifti_version_are_understood(tmp_path):
    header = bytearray(352)
    struct.pack_into(">i", header, 0, 348)
    struct.pack_into(">8h", header, DIM, 3, 4, 3, 2, 1, 1, 1, 1)
    struct.pack_into(">2h", header, KIND, 4, 16)
    struct.pack_into(">8f", header, PIXDIM, 1, 1, 1, 1, 0, 0, 0, 0)
    struct.pack_into(">f", header, OFFSET, 352)
    header[344:348] = b"n+1\0"
    second = bytearray(544)
    struct.pack_into("<i8s2h", second, 0, 540, b"n+2\0\r\n\x1a\n", 4, 16)
    struct.pack_into("<8q8d", second, 16, 3, 4, 3, 2, 1, 1, 1, 1, *[1.0] * 8)
    struct.pack_into("<q", second, 168, 544)
    for head in (header, second):
        path = tmp_path / "a.nii"
        path.write_bytes(head + bytes(4 * 3 * 2 * 2))
        check_file(path)
        path.write_bytes(head + bytes(4 * 3 * 2 * 2 - 1))
        with pytest.raises(ImageError, match="cut short"):
            check_file(path)


def test_what_is_no_image_at_all_is_refused(tmp_path):
    for name in ("a.nii", "a.mha", "a.nrrd"):
        for content in (b"", b"x", b"hello world\n" * 100, bytes(1000), bytes(range(256)) * 9):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ImageError, match=r"is not an? "):
                check_file(tmp_path / name)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"hello world\n" * 100))
    with pytest.raises(ImageError, match="is not a NIfTI file"):
        check_file(tmp_path / "a.nii.gz")


def test_a_packed_file_is_unpacked_once_while_it_is_checked(tmp_path, monkeypatch):
    path, unpacked = tmp_path / "a.nii.gz", tmp_path / "b.nii"
    image = sitk.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    sitk.WriteImage(image, str(path))
    check_file(path, unpacked=unpacked)
    assert unpacked.read_bytes() == gzip.decompress(path.read_bytes())
    plain = tmp_path / "c.nii"
    sitk.WriteImage(image, str(plain))
    check_file(plain, unpacked=tmp_path / "d.nii")
    assert not (tmp_path / "d.nii").exists()


def test_without_room_to_unpack_an_image_is_read_all_the_same(tmp_path, monkeypatch):
    path = tmp_path / "a.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.full((3, 4, 5), 7, np.int16)), str(path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    assert sitk.GetArrayFromImage(read_image(path)).sum() == 7 * 60


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha"])
def test_a_file_that_may_not_be_opened_is_named(name, tmp_path, monkeypatch):
    path, plainly = tmp_path / name, builtins.open
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5), np.int16)), str(path))

    def refusing(file, *args, **options):
        if file == path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return plainly(file, *args, **options)

    monkeypatch.setattr(builtins, "open", refusing)
    with pytest.raises(ImageError, match=r"a\.\S+' cannot be opened \(Permission denied\)"):
        read_image(path)
