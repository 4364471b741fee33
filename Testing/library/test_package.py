"""The model package: what is whole is read back, and what is not is refused in one sentence."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from DistillSegLib.errors import PackageError
from DistillSegLib.manifest import Manifest, check_shape
from DistillSegLib.package import load_package, read_package
from DistillSegLib.records import from_dict, to_dict
from Testing.models import LABELS, WINDOW, manifest, threshold_logits, write_tiny_package


@pytest.fixture
def path(tmp_path) -> Path:
    return write_tiny_package(tmp_path / "日本 @ threshold.distillseg")


def rewritten(path: Path, change) -> Path:
    """The same package zipped anew, its entries passed through `change(name, data) -> data`."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            if (changed := change(name, data)) is not None:
                archive.writestr(name, changed)
    return path


def with_manifest(path: Path, **changes) -> Path:
    """The package with other values in its manifest; None removes a field."""

    def change(name, data):
        if name != "manifest.json":
            return data
        plain = json.loads(data) | changes
        return json.dumps({key: value for key, value in plain.items() if value is not None})

    return rewritten(path, change)


def with_entry(path: Path, entry: zipfile.ZipInfo | str, data: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(entry, data)
    return path


def refused(path: Path) -> str:
    """The sentence with which reading it all is refused."""
    with pytest.raises(PackageError) as caught:
        package = read_package(path)
        package.check_digests()
        package.check_window(package.variant())
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".")
    return sentence


def test_what_is_written_is_read_back(path):
    package = read_package(path)
    package.check_digests()
    assert package.manifest.labels == LABELS
    assert package.manifest == manifest(package.model_bytes(package.variant()))
    assert package.card.startswith("# Thresholds")
    window, logits = package.check_window(package.variant())
    assert window.shape == (1, 1, *WINDOW)
    np.testing.assert_allclose(logits, threshold_logits(window), rtol=1e-6)


def test_equal_input_gives_equal_bytes(tmp_path):
    a, b = (write_tiny_package(tmp_path / name).read_bytes() for name in ("a", "b"))
    assert a == b


def test_a_package_is_an_ordinary_zip_with_digests_that_sha256sum_reads(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        lines = archive.read("SHA256SUMS").decode().splitlines()
    assert [line[64:66] for line in lines] == ["  "] * 4
    assert {line[66:] for line in lines} == {
        "manifest.json",
        "MODEL_CARD.md",
        "model.onnx",
        "check.npz",
    }


def test_any_one_changed_byte_is_refused(path):
    whole = path.read_bytes()
    chosen = random.Random(0).sample(range(len(whole)), 250)
    for position in [*chosen, *range(len(whole) - 90, len(whole))]:
        changed = bytearray(whole)
        changed[position] ^= 1 << (position % 8)
        path.write_bytes(changed)
        refused(path)


def test_a_package_zipped_by_other_means_is_read_and_its_digests_hold(path):
    package = read_package(rewritten(path, lambda name, data: data))
    package.check_digests()
    sentence = refused(rewritten(path, lambda n, d: d + b" " if n == "MODEL_CARD.md" else d))
    assert "digest of 'MODEL_CARD.md'" in sentence
    assert "digest of 'check.npz'" in refused(
        rewritten(write_tiny_package(path), lambda n, d: d[:-1] + b"\1" if n == "check.npz" else d)
    )


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_package_that_is_cut_short_is_refused(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "empty" in refused(path) if share == 0 else "copy or download" in refused(path)


def test_a_package_that_lacks_only_its_seal_is_cut_short_too(path):
    path.write_bytes(path.read_bytes()[:-64])
    assert "its digest" in refused(path)


def test_what_is_no_package_is_refused(tmp_path):
    other = tmp_path / "a.distillseg"
    assert "cannot be read" in refused(other)
    assert "cannot be read" in refused(tmp_path)
    other.write_text("not a zip")
    assert "damaged" in refused(other)
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("letter.txt", "hello")
    assert "lacks 'manifest.json'" in refused(other)


@pytest.mark.parametrize("found", [2, 0, "1", True, 1e300, [1]])
def test_an_unknown_format_version_is_named(path, found):
    sentence = refused(with_manifest(path, format=found))
    assert "format" in sentence and "reads format 1" in sentence


def test_a_missing_format_version_is_named(path):
    assert "does not state its format" in refused(with_manifest(path, format=None))


def test_a_manifest_without_a_temperature_is_of_temperature_one(path):
    plain = to_dict(read_package(path).manifest) | {"temperature": 1.8}
    assert from_dict(Manifest, plain).temperature == 1.8
    del plain["temperature"]
    assert from_dict(Manifest, plain).temperature == 1.0


@pytest.mark.parametrize("field", ["labels", "preprocessing", "window", "variants", "scope", "id"])
def test_a_missing_field_is_named(path, field):
    assert f"lacks the field '{field}'" in refused(with_manifest(path, **{field: None}))


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("titel", "x", "did you mean 'title'"),
        ("id", "../evil", "not made of lower-case words"),
        ("version", "1.0-beta", "not made of numbers"),
        ("window", [4, 6, 7], "multiples of 2"),
        ("window", [4, 6, 10**9], "multiples of 2"),
        ("multiple", 0, "multiple is 0"),
        ("multiple", [1, 0, 2], "multiple is (1, 0, 2)"),
        ("multiple", [1, 4, 2], "multiples of (1, 4, 2)"),  # of 4 x 6 x 8
        ("multiple", [1, 2], "must have 3 entries"),
        ("minimum", [1, 2, 16], "from (1, 2, 16)"),
        ("overlap", 1.0, "overlap is 1.0"),
        ("tolerance", 1e999, "Infinity is not a number"),
        ("temperature", 0.0, "temperature is 0.0; it must be a number above zero."),
        ("temperature", -2.0, "temperature is -2.0; it must be a number above zero."),
        ("temperature", 1e999, "Infinity is not a number"),
        ("temperature", "warm", "temperature"),
        ("channels", ["MRI", "CT"], "one for each channel"),
        ("variants", [], "one or more"),
    ],
)
def test_a_bad_value_in_the_manifest_is_named(path, field, value, words):
    assert words in refused(with_manifest(path, **{field: value}))


@pytest.mark.parametrize(
    "file", ["../model.onnx", "C:\\model.onnx", "/etc/passwd", "manifest.json"]
)
def test_a_variant_whose_file_leaves_the_folder_is_refused(path, file):
    variant = json.loads(zipfile.ZipFile(path).read("manifest.json"))["variants"][0]
    sentence = refused(with_manifest(path, variants=[variant | {"file": file}]))
    assert "not a plain name" in sentence


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"format": NaN}']
)
def test_a_manifest_that_is_no_json_object_is_refused(path, text):
    refused(rewritten(path, lambda name, data: text if name == "manifest.json" else data))


@pytest.mark.parametrize(
    "name",
    ["../evil.txt", "/evil.txt", "C:/evil.txt", "C:evil", "a\\..\\b", "sub/x", "..", ".x", "é"],
)
def test_an_entry_that_could_leave_the_folder_is_refused(path, name):
    assert "could lead out" in refused(with_entry(path, name))


def test_a_link_is_refused(path):
    entry = zipfile.ZipInfo("link")
    entry.create_system, entry.external_attr = 3, 0o120777 << 16
    assert "a link" in refused(with_entry(path, entry, b"/etc/passwd"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["model.onnx", "MODEL.ONNX"])
def test_a_name_that_occurs_twice_is_refused(path, name):
    assert "more than once" in refused(with_entry(path, name))


def test_a_file_that_the_manifest_does_not_name_is_refused(path):
    assert "beside what its manifest names, 'more.onnx'" in refused(with_entry(path, "more.onnx"))


def test_a_missing_model_is_named(path):
    sentence = refused(rewritten(path, lambda n, d: None if n == "model.onnx" else d))
    assert "lacks 'model.onnx'" in sentence


def test_a_zip_bomb_is_refused_before_it_is_unpacked(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b" " * (64 << 20))
        for name in ("MODEL_CARD.md", "check.npz", "SHA256SUMS"):
            archive.writestr(name, b"")
    assert path.stat().st_size < 1 << 20
    assert "declares 64 MiB for 'manifest.json'" in refused(path)


def test_a_size_that_is_declared_too_small_is_refused(path):
    # A bomb that lies: the central directory declares 10 bytes for the manifest.
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02")
    data[place + 24 : place + 28] = struct.pack("<I", 10)
    path.write_bytes(data)
    assert "damaged" in refused(path)


@pytest.mark.parametrize(
    ("window", "minimum", "shape"),
    [
        ((32, 256, 48), 16, (32, 64, 48)),
        ((128, 128, 128), 16, (64, 64, 64)),
        ((96, 96, 96), 96, (96, 96, 96)),  # no smaller than the network takes
    ],
)
def test_a_check_does_not_grow_with_the_window(window, minimum, shape):
    assert check_shape(window, multiple=16, minimum=minimum) == shape
    assert check_shape((100, 50, 50), multiple=50, minimum=50) == (50, 50, 50)
    assert check_shape((7, 160, 30), multiple=(1, 16, 2), minimum=1) == (7, 64, 30)


@pytest.mark.parametrize("shape", [(1, 1, 4, 6, 9), (10**6, 10**6, 10**6), ()])
def test_a_check_window_of_another_shape_is_refused_without_being_allocated(path, shape):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    arrays = io.BytesIO()
    with zipfile.ZipFile(arrays, "w") as archive:
        archive.writestr("window.npy", header.getvalue())
        archive.writestr("logits-fp32.npy", header.getvalue())
    assert "check.npz" in refused(with_check(path, arrays.getvalue()))


def test_a_pickle_in_the_check_window_is_refused(path):
    arrays = io.BytesIO()
    np.savez(arrays, window=np.array([print], dtype=object))
    assert "check.npz" in refused(with_check(path, arrays.getvalue()))


def with_check(path: Path, arrays: bytes) -> Path:
    """The package with another check.npz and the right digest for it."""
    import hashlib

    def change(name, data):
        if name == "check.npz":
            return arrays
        if name != "SHA256SUMS":
            return data
        lines = [line for line in data.decode().splitlines() if not line.endswith("check.npz")]
        return "\n".join([*lines, f"{hashlib.sha256(arrays).hexdigest()}  check.npz"])

    return rewritten(path, change)


def test_a_variant_that_there_is_not_is_named_with_those_there_are(path):
    with pytest.raises(PackageError, match=r"no variant 'int8'; choose from fp32\."):
        read_package(path).variant("int8")


def test_an_id_finds_the_highest_version(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLSEG_HOME", str(tmp_path))
    for version in ("1.9.0", "1.10.0"):
        name = f"threshold-{version}.distillseg"
        write_tiny_package(tmp_path / "Models" / name, version=version)
    assert load_package("threshold").manifest.version == "1.10.0"
    assert load_package("threshold-1.9.0").manifest.version == "1.9.0"
    with pytest.raises(PackageError, match="did you mean 'threshold'"):
        load_package("treshold")


def test_a_full_disk_leaves_no_half_package(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Exception, match="No space left"):
        write_tiny_package(tmp_path / "a.distillseg")
    assert list(tmp_path.iterdir()) == []
