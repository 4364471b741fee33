"""Packages listed, installed from files and from a server, and removed."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from DistillSegLib import catalogue, install_package, list_packages, load_package, places
from DistillSegLib.catalogue import Published, published_packages, remove_package, sample_of
from DistillSegLib.errors import Cancelled, PackageError
from Testing.models import write_tiny_package


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch) -> Path:
    """A user folder and resources of their own; returns where the user's models go."""
    monkeypatch.setenv("DISTILLSEG_HOME", str(tmp_path / "家 user"))
    bundled = tmp_path / "Resources"
    (bundled / "Models").mkdir(parents=True)
    for module in (places, catalogue):
        monkeypatch.setattr(module, "resources", lambda: bundled)
    monkeypatch.setattr("DistillSegLib.package.resources", lambda: bundled)
    return tmp_path / "家 user" / "Models"


@pytest.fixture
def server(tmp_path):
    """A folder served over HTTP on this computer: (folder, address)."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def published(path: Path, address: str, **changes) -> Published:
    facts = {
        "id": "threshold",
        "version": "1.0.0",
        "title": "Thresholds",
        "url": f"{address}/{path.name}",
        "size_bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    return Published(**(facts | changes))


def ids() -> list[str]:
    return [package.id for package in list_packages()]


def test_an_installed_package_is_listed_and_loaded_by_its_id(tmp_path, folders):
    shares = []
    source = write_tiny_package(tmp_path / "a.distillseg")
    package = install_package(source, on_progress=shares.append)
    assert package.path == folders / "threshold-1.0.0.distillseg"
    assert [p.name for p in folders.iterdir()] == ["threshold-1.0.0.distillseg"]
    assert ids() == ["threshold"]
    assert load_package("threshold").manifest == package.manifest
    assert shares[-1] == 1.0


def test_installing_again_replaces_and_another_version_stays_beside(tmp_path):
    for version in ("1.0.0", "1.10.0", "1.0.0", "1.9.0"):
        install_package(write_tiny_package(tmp_path / "a.distillseg", version=version))
    versions = [package.version for package in list_packages()]
    assert versions == ["1.0.0", "1.9.0", "1.10.0"]
    assert load_package("threshold").manifest.version == "1.10.0"


def test_a_damaged_package_is_not_installed(tmp_path, folders):
    source = write_tiny_package(tmp_path / "a.distillseg")
    data = bytearray(source.read_bytes())
    data[len(data) // 2] ^= 1
    source.write_bytes(data)
    with pytest.raises(PackageError, match="damaged"):
        install_package(source)
    assert list(folders.glob("*")) == []


def test_a_package_is_refused_by_the_name_that_the_user_gave(tmp_path, folders):
    source = write_tiny_package(
        tmp_path / "a.distillseg", window=(8, 6, 8)
    )  # not that in check.npz
    with pytest.raises(PackageError, match=r"'.*a\.distillseg' is damaged: 'window' in check.npz"):
        install_package(source)
    assert list(folders.glob("*")) == []


def test_a_package_that_gives_other_numbers_here_is_not_installed(tmp_path, folders):
    source = write_tiny_package(tmp_path / "a.distillseg", error=0.01)
    with pytest.raises(PackageError, match="does not give its own numbers on this computer"):
        install_package(source)
    assert list(folders.glob("*")) == []


def test_a_missing_source_is_named(folders):
    with pytest.raises(PackageError, match="cannot be read"):
        install_package("nowhere.distillseg")


def test_a_full_disk_leaves_nothing_behind(tmp_path, folders, monkeypatch):
    def full(source, target):
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(catalogue.shutil, "copyfile", full)
    with pytest.raises(PackageError, match="No space left on device"):
        install_package(write_tiny_package(tmp_path / "a.distillseg"))
    assert list(folders.glob("*")) == []


def test_a_package_that_cannot_be_read_is_listed_with_its_reason(tmp_path, folders):
    install_package(write_tiny_package(tmp_path / "a.distillseg"))
    (folders / "broken.distillseg").write_text("no zip")
    (folders / ".partial-x.distillseg").write_text("left by a kill")
    listed = {package.id: package for package in list_packages()}
    assert listed.keys() == {"broken", "threshold"}
    assert listed["threshold"].problem == "" and listed["threshold"].title == "Thresholds"
    assert "damaged" in listed["broken"].problem and listed["broken"].version == ""
    with pytest.raises(PackageError, match="damaged"):
        load_package("broken")


def test_a_bundled_package_is_listed_and_cannot_be_removed():
    write_tiny_package(places.resources() / "Models" / "threshold-1.0.0.distillseg")
    assert [package.bundled for package in list_packages()] == [True]
    assert load_package("threshold").manifest.version == "1.0.0"
    with pytest.raises(PackageError, match="part of DistillSeg"):
        remove_package("threshold")
    assert ids() == ["threshold"]


def test_of_equal_versions_the_installed_one_is_used(tmp_path, folders):
    write_tiny_package(places.resources() / "Models" / "threshold-1.0.0.distillseg")
    install_package(write_tiny_package(tmp_path / "a.distillseg", title="Mine"))
    assert load_package("threshold").path.parent == folders


def test_remove_deletes_all_versions_or_the_one_named(tmp_path):
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        install_package(write_tiny_package(tmp_path / "a.distillseg", version=version))
    remove_package("threshold-1.1.0")
    assert [package.name for package in list_packages()] == ["threshold-1.0.0", "threshold-1.2.0"]
    assert len(remove_package("threshold")) == 2
    assert ids() == []
    with pytest.raises(PackageError, match="no installed package 'threshold'"):
        remove_package("threshold")


def test_a_published_package_is_downloaded_checked_and_installed(server, folders):
    folder, address = server
    path = write_tiny_package(folder / "a.distillseg")
    shares = []
    package = install_package(published(path, address), on_progress=shares.append)
    assert package.path.read_bytes() == path.read_bytes()
    assert shares == sorted(shares) and shares[-1] == 1.0


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"sha256": "0" * 64}, "another digest"),
        ({"size_bytes": 100}, "another digest"),
        ({"size_bytes": 10**6}, "another digest"),
        ({"version": "2.0.0"}, "holds 'threshold-1.0.0' and not 'threshold-2.0.0'"),
    ],
)
def test_a_download_that_is_not_what_was_announced_is_refused(server, folders, changes, words):
    folder, address = server
    path = write_tiny_package(folder / "a.distillseg")
    with pytest.raises(PackageError, match=words):
        install_package(published(path, address, **changes))
    assert list(folders.glob("*")) == []


def test_a_file_that_the_server_does_not_have_is_named(server, folders):
    folder, address = server
    entry = published(write_tiny_package(folder / "a.distillseg"), address)
    (folder / "a.distillseg").unlink()
    with pytest.raises(PackageError, match="could not be downloaded"):
        install_package(entry)


def test_a_server_cannot_send_us_to_a_file_of_this_computer(server, folders, monkeypatch):
    folder, address = server
    path = write_tiny_package(folder / "a.distillseg")

    def redirect(handler):
        handler.send_response(302)
        handler.send_header("Location", path.as_uri())
        handler.end_headers()

    monkeypatch.setattr(_Quiet, "do_GET", redirect)
    with pytest.raises(PackageError, match="could not be downloaded"):
        install_package(published(path, address))
    assert list(folders.glob("*")) == []


def test_a_server_that_does_not_answer_is_named(folders):
    entry = Published("a", "1", "", "http://127.0.0.1:9/a.distillseg", 10, "0" * 64)
    with pytest.raises(PackageError, match="check the network"):
        install_package(entry)


def test_a_cancelled_download_leaves_nothing_behind(server, folders):
    folder, address = server
    entry = published(write_tiny_package(folder / "a.distillseg"), address)
    with pytest.raises(Cancelled):
        install_package(entry, cancelled=lambda: True)
    assert list(folders.glob("*")) == []


def test_an_entry_must_be_a_web_address():
    with pytest.raises(ValueError, match="must begin with https"):
        Published("a", "1", "", "file:///etc/passwd", 10, "0" * 64)


def test_published_packages_are_read_from_the_catalogue():
    assert published_packages() == ()
    file = places.resources() / "catalogue.json"
    file.write_text(
        '[{"id": "a", "version": "1", "title": "A", "url": "https://example.org/a", '
        '"size_bytes": 10, "sha256": "00"}]'
    )
    assert [entry.name for entry in published_packages()] == ["a-1"]
    for bad in ("{", "3", '[{"id": "a"}]', '[{"id": "a", "urll": ""}]'):
        file.write_text(bad)
        with pytest.raises(PackageError):
            published_packages()


def test_the_sample_of_a_model_is_the_one_of_its_part_of_the_body(tmp_path):
    package = load_package(write_tiny_package(tmp_path / "a.distillseg"))

    def part(name: str, modality: str = "MR"):
        scope = replace(package.manifest.scope, body_part=name)
        manifest = replace(package.manifest, scope=scope, modality=modality)
        return replace(package, manifest=manifest)

    folder = places.resources() / "Samples"
    folder.mkdir()
    left = folder / "left-ventricle-mean.nii.gz"
    left.write_bytes(b"")
    assert sample_of(part("Left ventricle")) == left
    assert sample_of(part("ventricle")) is None
    phantom = folder / "sarcoma-ct-phantom.nii.gz"
    phantom.write_bytes(b"")
    assert sample_of(part("Sarcoma", "CT")) == phantom
    assert sample_of(part("Sarcoma", "MR")) is None
    assert sample_of(part("")) is None
