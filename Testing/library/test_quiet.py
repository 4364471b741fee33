"""What C++ libraries print on the error stream does not reach the user."""

from __future__ import annotations

import os
import threading

import pytest

from DistillSegLib.quiet import quiet


def test_the_error_stream_is_silent_inside_and_back_after(capfd):
    with quiet():
        os.write(2, b"from a library")
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


def test_it_is_back_after_an_error_too(capfd):
    with pytest.raises(RuntimeError), quiet():
        raise RuntimeError
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


def test_blocks_that_overlap_in_threads_give_the_stream_back(capfd):
    first_left, second_in = threading.Event(), threading.Event()

    def second() -> None:
        with quiet():
            second_in.set()
            first_left.wait(10)

    thread = threading.Thread(target=second)
    with quiet():
        thread.start()
        assert second_in.wait(10)
    os.write(2, b"still inside the other")
    first_left.set()
    thread.join()
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"
