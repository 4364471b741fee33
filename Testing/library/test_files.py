from __future__ import annotations

import errno
import os
import stat
import sys

import pytest

from DistillSegLib.errors import ImageError
from DistillSegLib.files import replacing, sha256, write_text

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def test_a_finished_block_leaves_the_file_and_nothing_else(tmp_path):
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("problem", [ValueError("x"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_the_old_file(tmp_path, problem):
    path = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(type(problem)), replacing(path) as temporary:
        temporary.write_text("ne")
        raise problem
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_old_file_is_whole_while_the_new_one_is_written(tmp_path):
    path = write_text(tmp_path / "a.txt", "old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_the_temporary_name_keeps_the_ending_and_the_folder(tmp_path):
    with replacing(tmp_path / "a.seg.nrrd") as temporary:
        assert temporary.name.endswith("a.seg.nrrd")
        assert temporary.parent == tmp_path


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    with replacing(tmp_path / "a.txt") as one, replacing(tmp_path / "a.txt") as other:
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "a.txt").read_text() == "one"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_folders_are_made(tmp_path):
    write_text(tmp_path / "b" / "c" / "a.txt", "x")
    assert (tmp_path / "b" / "c" / "a.txt").read_text() == "x"


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    with (
        pytest.raises(ImageError, match=r"could not be written \(No space left on device\)"),
        replacing(tmp_path / "a.txt"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs the file size limit of Unix")
def test_a_write_beyond_the_limit_of_the_system_is_one_sentence(tmp_path):
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(ImageError, match="could not be written"):
            write_text(tmp_path / "a.txt", "x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == []


def test_a_name_as_long_as_the_system_allows_can_be_written(tmp_path):
    name = "n" * 251 + ".txt"
    assert write_text(tmp_path / name, "x").read_text() == "x"


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file.txt").touch()
    for name in ("file.txt/a.txt", "file.txt/b/a.txt"):
        with pytest.raises(ImageError, match="exists and is no folder"):
            write_text(tmp_path / name, "x")


@pytest.mark.parametrize("name", ["file.txt/a.txt", "folder", "n" * 300 + ".txt", "."])
def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch, name):
    (tmp_path / "file.txt").write_text("a file, not a folder")
    (tmp_path / "folder").mkdir()
    before = sorted(os.listdir(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError, match="could not be written"):
        write_text(name, "x")
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.skipif(ROOT or sys.platform == "win32", reason="the superuser may write anywhere")
def test_a_folder_that_refuses_is_found_before_the_work(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ImageError), replacing(tmp_path / "a.txt"):
            pytest.fail("the block must not start")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_a_result_may_be_read_by_whom_the_user_allows(tmp_path):
    mask = os.umask(0o027)
    try:
        path = write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_text_is_written_alike_on_every_system(tmp_path):
    path = write_text(tmp_path / "a.txt", "µm\nmm\n")
    assert path.read_bytes() == b"\xc2\xb5m\nmm\n"


def test_digest_of_a_known_text(tmp_path):
    # SHA-256 of "abc": the first example of FIPS 180-2.
    path = write_text(tmp_path / "a.txt", "abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(path) == known


def test_digest_of_more_than_one_block_sees_the_last_byte(tmp_path):
    (tmp_path / "a").write_bytes(bytes(3 << 20))
    (tmp_path / "b").write_bytes(bytes((3 << 20) - 1) + b"\x01")
    assert sha256(tmp_path / "a") != sha256(tmp_path / "b")
