"""What exists in Slicer 5.8, 5.10 and 5.12: names of widgets, MRML, `slicer.util` and Qt 5.15.

The names come from Slicer's own headers; `make_facts.py` packs them. The lint reads them, and the
stand-in offers nothing that is not among them.
"""

from __future__ import annotations

import functools
import json
import lzma
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("slicer-api.json.xz")
NEWEST = "5.12"

# What PythonQt itself gives to every wrapped QObject.
OF_PYTHONQT = {"className", "connect", "delete", "disconnect", "exec_", "name", "help"}


@dataclass(frozen=True)
class Members:
    """What an object of one class answers to, base classes included."""

    properties: dict[str, bool]  # name -> is writable
    signals: frozenset[str]  # as `clicked(bool)`
    others: frozenset[str]  # methods, slots and enumerators

    @functools.cached_property
    def names(self) -> frozenset[str]:
        signals = {s.split("(")[0] for s in self.signals}
        return frozenset({*self.properties, *signals, *self.others, *OF_PYTHONQT})


@functools.cache
def _facts() -> dict:
    return json.loads(lzma.decompress(FILE.read_bytes()))


def versions() -> tuple[str, ...]:
    """The Slicer versions that are known, oldest first."""
    return tuple(_facts()["versions"])


def _of_version(kind: str, version: str) -> dict:
    facts = _facts()[kind]
    return {**facts["common"], **facts["own"][version]}


@functools.cache
def widgets(version: str = NEWEST) -> dict[str, dict]:
    """CTK, qMRML and qSlicer classes: base, props, signals, methods, enums."""
    return _of_version("widgets", version)


@functools.cache
def qt_classes() -> dict[str, dict]:
    """Qt 5.15's own classes: members (inherited ones too), props, signals."""
    return _facts()["qt"]


@functools.cache
def members(class_name: str, version: str = NEWEST) -> Members | None:
    """Members of a Qt, CTK, qMRML or qSlicer class; None for a class that does not exist."""
    if class_name in qt_classes():
        fact = qt_classes()[class_name]
        return Members(
            fact["props"], frozenset(fact["signals"]), frozenset([*fact["members"], "exec"])
        )
    fact = widgets(version).get(class_name)
    if fact is None:
        return None
    base = members(fact["base"], version) or Members({}, frozenset(), frozenset())
    return Members(
        {**base.properties, **{name: writable for name, (_, writable) in fact["props"].items()}},
        base.signals | set(fact["signals"]),
        base.others | set(fact["methods"]) | set(fact["enums"]),
    )


# Qt Designer writes these as properties though Qt has none of that name.
OF_DESIGNER = {"QLabel": {"buddy": True}, "Line": {"orientation": True}}


@functools.cache
def ui_members(class_name: str, version: str = NEWEST) -> Members | None:
    """`members` of a class as a `.ui` file names it, with what only Qt Designer knows."""
    found = members("QFrame" if class_name == "Line" else class_name, version)
    if found is None:
        return None
    extra = OF_DESIGNER.get(class_name, {})
    return Members({**found.properties, **extra}, found.signals, found.others)


@functools.cache
def property_types(class_name: str, version: str = NEWEST) -> dict[str, str]:
    """C++ types of the properties that a CTK, qMRML or qSlicer class itself adds."""
    fact = widgets(version).get(class_name)
    return {name: kind for name, (kind, _) in fact["props"].items()} if fact else {}


@functools.cache
def mrml_names(version: str) -> frozenset[str]:
    """Methods, enumerators and events of MRML and of module logics, whatever the class."""
    fact = _facts()["mrml"]
    return frozenset(fact["common"]) | frozenset(fact["own"][version])


@functools.cache
def util_names(version: str) -> frozenset[str]:
    """What `slicer.util` offers."""
    fact = _facts()["util"]
    return frozenset(fact["common"]) | frozenset(fact["own"][version])


@functools.cache
def wrapped_names(kind: str) -> frozenset[str]:
    """Names of which no version is known.

    All "classes" of VTK and MRML, "members" of VTK's, the module "vtk", the "itk" of SimpleITK,
    and "application": what `slicer/util.py` asks of `slicer.app`.
    """
    return frozenset(_facts()["wrapped"][kind])
