"""Batches fetched ahead: the same ones, in the same order, and errors in their place."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import pytest

from DistillSegLib.training.ahead import Ahead


def test_items_come_in_order_and_an_error_in_its_place():
    def items():
        yield from range(5)
        raise ValueError("torn")

    ahead = Ahead(items())
    assert [next(ahead) for _ in range(5)] == list(range(5))
    for _ in range(2):
        with pytest.raises(ValueError, match="torn"):
            next(ahead)
    assert list(Ahead(iter("ab"))) == ["a", "b"]


def test_it_ends_with_its_owner_and_when_closed():
    before = threading.active_count()
    ahead, other = Ahead(iter(range(100))), Ahead(iter(range(100)))
    next(ahead)
    ahead.close()
    thread = other._thread
    del other
    gc.collect()
    thread.join(5)
    assert threading.active_count() == before


ENDLESS = """
import time
from DistillSegLib.training.ahead import Ahead

def items():
    try:
        while True:
            time.sleep(0.05)
            yield 1
    finally:
        print("ended", flush=True)

assert next(Ahead(items())) == 1
kept = Ahead(items())
next(kept)
"""


def test_a_program_waits_for_its_threads_and_does_not_cut_them_off():
    """One that is cut off within torch would abort the process after a finished training."""
    done = subprocess.run(
        [sys.executable, "-c", ENDLESS], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.count("ended") == 2
