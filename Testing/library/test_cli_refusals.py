"""The command line says one sentence for every error, and leaves nothing."""

from __future__ import annotations

import _thread
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import SimpleITK as sitk

from DistillSegLib.commands import demo
from DistillSegLib.errors import Cancelled
from DistillSegLib.inference import Segmenter
from Testing.commands import SEGMENT, refused, run
from Testing.models import phantom


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["segment", "no.nii", *SEGMENT[2:], "--out", "a.nii.gz"], "no file or folder 'no.nii'"),
        ([*SEGMENT[:3], "nobody", "--out", "a.nii.gz"], "nobody"),
        ([*SEGMENT, "--out", "scan.nii.gz"], "would overwrite the input"),
        ([*SEGMENT, "--out", "a.nii.gz", "--roi", "1", "2"], "--roi takes six numbers"),
        ([*SEGMENT, "--out", "a.nii.gz", "--roi", "no.mrk.json"], "no.mrk.json"),
        ([*SEGMENT, "--out", "a.nii.gz", "--roi", *"999999"], "outside the image"),
        ([*SEGMENT, "--out", "a.nii.gz", "--variant", "int8"], "no variant 'int8'"),
        (["segment", "scan.nii.gz", *SEGMENT[1:], "--out", "a.nii.gz"], "give a folder"),
        ([*SEGMENT[:1], *SEGMENT[2:], "--out", "a.nii.gz"], "There is no INPUT"),
        (["compare", "scan.nii.gz", "no.nii.gz"], "'"),
        ([*SEGMENT, "--out", ""], "arguments is empty"),
        (["packages", "show", "nobody"], "'nobody'; none is installed."),
        (["packages", "install", "scan.nii.gz"], "scan.nii.gz"),
        (["packages", "install", "https://example.org/a.distillseg"], "download the file first"),
        (["packages", "show"], "needs a package"),
        (["evaluate", "threshold.distillseg", "--data", "."], "holds no dataset.json"),
        (["train", "x", "--data", "a", "b", "--out", "run"], "need a domain each"),
    ],
)
def test_every_error_is_one_sentence_and_leaves_nothing(
    folder, capsys, monkeypatch, arguments, sentence
):
    monkeypatch.setattr("DistillSegLib.package.resources", lambda: folder)  # nothing is bundled
    before = sorted(os.listdir("."))
    assert sentence in refused(capsys, *arguments)
    assert sorted(os.listdir(".")) == before


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="there names are always text")
def test_names_that_are_no_text_and_links_in_a_circle_are_one_sentence(folder, capsys):
    strange = Path("cases/M\udcfcller.nii")  # written by a Latin-1 system
    strange.parent.mkdir()
    strange.write_bytes(Path("scan.nii.gz").read_bytes())
    Path("loop").symlink_to("loop")
    assert "rename it" in refused(capsys, "segment", str(strange), *SEGMENT[2:], "--out", "a.nii")
    assert "rename it" in refused(capsys, *SEGMENT, "--out", str(strange))
    assert "no folder" in refused(capsys, *SEGMENT, "--out", "loop/a.nii")
    sitk.WriteImage(phantom(), "cases/b.nii.gz")
    assert run("segment", "cases", *SEGMENT[2:], "--out", "results", "--json", "r.json") == 0
    rows = {row["status"]: row for row in json.loads(Path("r.json").read_text())["cases"]}
    assert rows["done"]["case"] == "b" and "rename it" in rows["skipped"]["reason"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["segmnet"], "invalid choice: 'segmnet'"),
        (["segment", "scan.nii.gz", "--out", "a"], "required: --package"),
        ([*SEGMENT, "--out", "a", "--threads", "many"], "invalid int value"),
        ([*SEGMENT, "--out", "a", "--memory", "0"], "not a number of gigabytes"),
        ([*SEGMENT, "--out", "a", "--memory", "lots"], "not a number of gigabytes"),
    ],
)
def test_a_command_written_wrongly_is_one_sentence_too(capsys, arguments, sentence):
    assert sentence in refused(capsys, *arguments, code=2)


def test_an_unforeseen_error_shows_its_place_only_when_asked(folder, capsys, monkeypatch):
    def fail(*arguments, **settings):
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr(Segmenter, "segment", fail)
    sentence = refused(capsys, *SEGMENT, "--out", "a.nii.gz")
    assert "unforeseen" in sentence and "by zero" in sentence
    assert run(*SEGMENT, "--out", "a.nii.gz", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err
    assert not Path("a.nii.gz").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="uses a Unix shell")
@pytest.mark.parametrize("end", ["| true", ">&-", ">&- 2>&-", "<&- 2>&-"])
def test_a_reader_that_leaves_or_never_was_is_no_error(folder, end):
    command = f"{sys.executable} -m DistillSegLib.cli packages show ./threshold.distillseg {end}"
    command = f"set -o pipefail; {command}"
    root = Path(demo.__file__).parents[2]
    ended = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_full_disk_is_one_sentence_and_leaves_nothing(folder, capsys, monkeypatch):
    def full(*arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    assert "No space left" in refused(capsys, *SEGMENT, "--out", "a.nii.gz")
    assert sorted(os.listdir(".")) == ["scan.nii.gz", "threshold.distillseg"]


@pytest.fixture
def hearing_ctrl_c():
    """A shell that runs the tests in the background has them ignore it, and would wait for ever."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_stops_the_network_and_leaves_nothing(folder, capsys, monkeypatch, hearing_ctrl_c):
    def segment_for_ever(self, images, *, cancelled, **settings):
        _thread.interrupt_main()  # what Ctrl-C does
        while not cancelled():
            time.sleep(0.01)
        raise Cancelled("Stopped.")

    monkeypatch.setattr(Segmenter, "segment", segment_for_ever)
    assert "Stopped" in refused(capsys, *SEGMENT, "--out", "a.nii.gz", code=130)
    assert not Path("a.nii.gz").exists()
