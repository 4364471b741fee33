"""The dialect answers as two real PythonQt builds did, but for a few known differences."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import probes_objects
import probes_properties
import probes_signals
import probes_widgets
import pytest
import qt
from standin.violations import violations

ANSWERS = json.loads(Path(__file__).with_name("pythonqt_answers.json").read_text(encoding="utf-8"))[
    "answers"
]
MODULES = (probes_properties, probes_signals, probes_widgets, probes_objects)
PROBES = {
    name: function
    for module in MODULES
    for name, function in vars(module).items()
    if callable(function) and name in ANSWERS
}

# What the stand-in answers otherwise, and why that is accepted.
DIFFERENT = {
    "combo_index_changed_str": "Qt 6 has no currentIndexChanged(QString); stricter than Slicer",
    "margins": "setMargin is obsolete and gone from Qt 6; stricter than Slicer",
    "enum_scoped": "Qt 6 knows scoped enumerators; the lint refuses them",
    "subclass_override_sizeHint": "PythonQt ignores the override; kept, for Qt calls it",
}


def plain(value):
    """A value as the recorded answers hold it."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, str):
        return value
    if isinstance(value, tuple | list):
        return [type(value).__name__, *map(plain, value)]
    if isinstance(value, qt.QSize):
        return ["QSize", value.width(), value.height()]
    return f"<{'callable' if callable(value) else type(value).__name__}>"


def ask(function) -> dict:
    try:
        return {"ok": plain(function())}
    except Exception as error:
        return {"error": type(error).__name__}
    finally:
        violations.clear()


def test_every_recorded_answer_has_its_question():
    assert set(PROBES) == set(ANSWERS)
    assert len(PROBES) == 105


@pytest.mark.parametrize("name", sorted(set(ANSWERS) - set(DIFFERENT)))
def test_the_stand_in_answers_as_a_real_pythonqt(name):
    answer, real = ask(PROBES[name]), ANSWERS[name]
    assert answer in real


@pytest.mark.parametrize("name", sorted(DIFFERENT))
def test_known_differences_are_still_there(name):
    assert ask(PROBES[name]) not in ANSWERS[name] or name == "enum_scoped"


def test_none_survives_a_binding_that_gives_it_away():
    label = qt.QLabel("x")
    before = sys.getrefcount(None)
    for _ in range(1000):
        assert label.layout() is None
    assert before > 1 << 28
    assert sys.getrefcount(None) > 1 << 28
