"""Images are read whole and in place, or refused in a sentence; writing is whole or not at all."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib.errors import ImageError
from DistillSegLib.geometry import same_grid
from DistillSegLib.images import image_warnings, read_image, refuse_labels, write_image

OBLIQUE = (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1)
ROOT = Path(__file__).resolve().parents[2]


def noise(shape=(7, 11, 13), dtype=np.float32) -> sitk.Image:
    """An oblique, anisotropic image that looks like a scan: no two neighbours alike."""
    voxels = np.random.default_rng(0).normal(200, 40, shape).astype(dtype)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.9, 1.1, 2.5))
    image.SetOrigin((-12, 34, 5))
    image.SetDirection(OBLIQUE)
    return image


def sentence(path, **options) -> str:
    """The one sentence with which reading is refused."""
    with pytest.raises(ImageError) as refused:
        read_image(path, **options)
    assert str(refused.value).count("\n") == 0
    return str(refused.value)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_what_is_written_is_read_again_in_place(name, dtype, tmp_path):
    image = noise(dtype=dtype)
    again = read_image(write_image(image, tmp_path / name))
    assert np.array_equal(sitk.GetArrayFromImage(again), sitk.GetArrayFromImage(image))
    assert again.GetPixelID() == image.GetPixelID()
    assert same_grid(again, image, tolerance_mm=1e-4)


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
def test_headers_with_a_file_beside_them_are_read(name, tmp_path):
    sitk.WriteImage(noise(), str(tmp_path / name))
    assert same_grid(read_image(tmp_path / name), noise())


def test_names_with_spaces_and_other_alphabets_work(tmp_path):
    path = tmp_path / "Jörg @ 医院 {1}" / "bild ä.nii.gz"
    assert same_grid(read_image(write_image(noise(), path)), noise(), tolerance_mm=1e-4)


def test_a_picture_becomes_one_slice_with_a_warning(tmp_path):
    sitk.WriteImage(noise()[:, :, 2], str(tmp_path / "a.mha"))
    image = read_image(tmp_path / "a.mha")
    assert image.GetSize() == (13, 11, 1)
    assert "single slice" in image_warnings(image)[0]


def test_a_single_time_point_is_a_volume_and_several_are_refused(tmp_path):
    for name in ("a.nii.gz", "a.nrrd", "a.mha"):
        sitk.WriteImage(sitk.JoinSeries([noise()]), str(tmp_path / name))
        assert same_grid(read_image(tmp_path / name), noise(), tolerance_mm=1e-4)
        sitk.WriteImage(sitk.JoinSeries([noise()] * 3), str(tmp_path / name))
        assert "4 dimensions (13x11x7x3)" in sentence(tmp_path / name)


def test_several_numbers_per_voxel_are_refused(tmp_path):
    sitk.WriteImage(sitk.Compose([noise()] * 2), str(tmp_path / "a.mha"))
    assert "2 per voxel" in sentence(tmp_path / "a.mha")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_values_that_are_not_finite_are_counted_and_placed(bad, name, tmp_path):
    voxels = sitk.GetArrayFromImage(noise())
    voxels[4, 2, 9] = voxels[5, 0, 0] = bad
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / name))
    said = sentence(tmp_path / name)
    assert "2 of 1001 voxels" in said
    assert "x, y, z = (9, 2, 4)" in said


def test_missing_empty_unknown_and_foreign_files_are_refused(tmp_path):
    assert "does not exist" in sentence(tmp_path / "none.nii.gz")
    for name in ("a.nii.gz", "a.nrrd", "a.mha", "a.dcm"):
        (tmp_path / name).touch()
        assert "is empty" in sentence(tmp_path / name)
        (tmp_path / name).write_text("hello world\n" * 100)
        assert name in sentence(tmp_path / name)
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    assert "not of a kind that is read" in sentence(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "raw.nrrd", "a.mha", "raw.mha"])
def test_a_file_cut_short_is_refused_without_noise(name, tmp_path, capfd):
    path = tmp_path / name
    sitk.WriteImage(noise(), str(path), useCompression=not name.startswith("raw"))
    content = path.read_bytes()
    for share in (0.3, 0.98):
        path.write_bytes(content[: int(share * len(content))])
        assert str(path) in sentence(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("directions", "words"),
    [
        ("(0,0,0) (0,1,0) (0,0,1)", "above zero"),
        ("(1,0,0) (1,0,0) (0,0,1)", "do not span a volume"),
        ("(nan,0,0) (0,1,0) (0,0,1)", "cannot be read"),
    ],
)
def test_nrrd_axes_that_are_none_are_refused(directions, words, tmp_path, capfd):
    header = (
        "NRRD0004\ntype: uint8\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 3 2\n"
        f"space directions: {directions}\nencoding: raw\nspace origin: (0,0,0)\n\n"
    )
    (tmp_path / "a.nrrd").write_bytes(header.encode() + bytes(range(24)))
    assert words in sentence(tmp_path / "a.nrrd")
    assert capfd.readouterr() == ("", "")


def test_a_sheared_nifti_and_one_without_orientation_are_named(tmp_path, capfd):
    path = tmp_path / "a.nii"
    image = noise()
    image.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, 1))
    sitk.WriteImage(image, str(path))
    content = bytearray(path.read_bytes())
    struct.pack_into("<2h", content, 252, 0, 0)
    path.write_bytes(content)
    assert "left and right may be exchanged" in image_warnings(read_image(path))[0]
    shear = (-0.9, 0.01, 0, 0, 0, -1.1, 0, 0, 0, 0, 2.5, 0)
    struct.pack_into("<2h", content, 252, 0, 1)
    struct.pack_into("<12f", content, 280, *shear)
    path.write_bytes(content)
    assert "not at right angles" in sentence(path)
    assert capfd.readouterr() == ("", "")


def test_a_label_map_given_as_an_image_is_refused():
    voxels = np.zeros((8, 9, 10), np.uint8)
    voxels[2:6, 2:7, 2:8] = 1
    voxels[4:6, 2:7, 2:8] = 2
    for dtype in (np.uint8, np.int16, np.float32):
        image = sitk.GetImageFromArray(voxels.astype(dtype))
        with pytest.raises(ImageError, match=r"looks like a label map.*only the values 0, 1, 2"):
            refuse_labels(image, "a.nii.gz")


def test_images_with_few_grey_values_and_constant_ones_are_not_label_maps():
    coarse = np.random.default_rng(1).integers(0, 8, (8, 9, 10)).astype(np.uint8)
    refuse_labels(sitk.GetImageFromArray(coarse), "coarse")
    refuse_labels(sitk.GetImageFromArray(np.full((4, 4, 4), 7, np.uint8)), "constant")
    refuse_labels(sitk.GetImageFromArray(np.full((4, 4, 4), -1000, np.int16)), "air")


def test_real_images_pass_and_their_label_maps_are_refused(shared_data):
    for image in sorted(shared_data.glob("*/**/images*/*.nii.gz"))[::20]:
        refuse_labels(read_image(image), image.name)
    for label in sorted(shared_data.glob("*/**/labels*/*.nii.gz"))[::20]:
        with pytest.raises(ImageError, match="label map"):
            refuse_labels(read_image(label), label.name)


def test_warnings_name_thick_slices_constants_and_other_units():
    assert image_warnings(noise()) == ()
    thick, flat, metres = noise(), noise(dtype=np.uint8) * 0, noise()
    thick.SetSpacing((1, 1, 8))
    metres.SetSpacing((0.001, 0.001, 0.0025))
    assert "8.0 times longer" in image_warnings(thick)[0]
    assert "8.0 times longer" in image_warnings(thick, anisotropy=7.5)[0]
    assert image_warnings(thick, anisotropy=8.0) == ()  # as a model is used to
    assert image_warnings(flat) == ("Every voxel has the value 0; there is nothing to segment.",)
    assert "another unit" in image_warnings(metres)[0]


def test_an_ending_that_cannot_be_written_is_refused_before_anything_is(tmp_path):
    with pytest.raises(ImageError, match="ending must be one of"):
        write_image(noise(), tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.seg.nrrd", "a.mha"])
@pytest.mark.parametrize("limit", [100_000, 400, 0])  # bytes; ITK notices the large loss only
def test_a_full_disk_leaves_the_old_file_and_says_one_sentence(name, limit, tmp_path):
    resource = pytest.importorskip("resource")  # not on Windows
    del resource
    (tmp_path / name).write_text("the old one")
    code = (
        "import resource, signal, sys, numpy, SimpleITK as sitk\n"
        "from DistillSegLib.images import write_image\n"
        "from DistillSegLib.errors import ImageError\n"
        "noise = numpy.random.default_rng(0).integers(0, 255, (40, 100, 100), numpy.uint8)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "try: write_image(sitk.GetImageFromArray(noise), sys.argv[1])\n"
        "except ImageError as problem: print(problem)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / name)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "could not be written" in done.stdout
    assert done.stdout.count("\n") == 1 and ".partial" not in done.stdout
    assert done.stderr == ""
    assert (tmp_path / name).read_text() == "the old one"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_kill_while_writing_leaves_the_old_file(tmp_path):
    (tmp_path / "a.nii.gz").write_text("the old one")
    code = (
        "import sys, numpy, SimpleITK as sitk\n"
        "from DistillSegLib.images import write_image\n"
        "noise = numpy.random.default_rng(0).integers(0, 99, (400, 300, 300), numpy.uint8)\n"
        "write_image(sitk.GetImageFromArray(noise), sys.argv[1])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a.nii.gz")], cwd=ROOT)
    while process.poll() is None:
        partial = [path for path in tmp_path.glob(".partial-*") if path.stat().st_size > 10_000]
        if partial:
            process.kill()
            break
        time.sleep(0.005)
    process.wait()
    assert partial, "the child finished before it was killed"
    assert (tmp_path / "a.nii.gz").read_text() == "the old one"
