"""Observers of VTK objects that end with the widget they belong to, as those of C++ widgets do."""

from __future__ import annotations

from .binding import shiboken6


def observe(widget, observed, event, callback) -> int:
    """Calls `callback()` on an event while the widget lives; returns the observer's tag."""

    def run(caller, name):
        if shiboken6.isValid(widget):
            callback()
        else:
            caller.RemoveObserver(tag)

    tag = observed.AddObserver(event, run)
    return tag
