"""Batches fetched ahead: the same ones, in the same order, and errors in their place."""

from __future__ import annotations

import gc
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
