"""Makes Python classes that look like Slicer's C++ widgets from outside.

A class marked with `@cpp` obeys PythonQt's rules (no new attributes; only `_s_...` names, which are
the stand-in's own, may be set). Properties that the real class has and the stand-in does not act on
are added from the facts and only keep their value; methods that are missing are recorded as a gap,
so that a test never passes on something that was silently ignored.
"""

from __future__ import annotations

import facts

from .binding import QtCore
from .violations import record

CLASSES: dict[str, type] = {}

# Public names that Python or Qt gives every class, and overrides that Qt itself calls.
NO_FACTS = {"SIGNALS", "staticMetaObject", "sizeHint", "minimumSizeHint", "hitButton"}
DEFAULTS = {
    "bool": (bool, False),
    "int": (int, 0),
    "double": (float, 0.0),
    "QString": (str, ""),
    "QStringList": ("QStringList", []),
}


def stored(kind, name: str, default, changed=None):
    """A property that keeps a value; `changed(self)` runs when it becomes another one."""
    key = f"_s_value_{name}"

    def get(self):
        return self.__dict__.get(key, default)

    def put(self, value):
        if get(self) != value:
            self.__dict__[key] = value
            if changed:
                changed(self)

    return QtCore.Property(kind, get, put)


def passed_on(kind, name: str, target: str):
    """A property of an inner widget shown as one's own: `target` is the attribute that holds it."""
    return QtCore.Property(
        kind,
        lambda self: getattr(self.__dict__[target], name),
        lambda self, value: setattr(self.__dict__[target], name, value),
    )


def _gap(class_name: str, method: str):
    def missing(self, *arguments):
        record("stand-in-gap", f"{class_name}.{method}() exists in Slicer, not in the stand-in")

    return missing


def cpp(cls: type) -> type:
    """Class decorator: a class of Slicer or CTK with that very name.

    Properties and methods of the real class that are left out are added. The result is a subclass,
    because Qt reads properties only when a class is made.
    """
    name = cls.__name__
    extra: dict = {"_standin_name": name, "__doc__": cls.__doc__, "__module__": cls.__module__}
    for attribute, kind in _inherited(name, "props"):
        if not hasattr(cls, attribute):
            qt_kind, default = DEFAULTS.get(kind[0], ("QVariant", None))
            extra[attribute] = stored(qt_kind, attribute, default)
    for attribute in _inherited(name, "methods"):
        if not hasattr(cls, attribute) and attribute not in extra:
            extra[attribute] = _setter(attribute, cls, extra) or _gap(name, attribute)
    cls._standin_name = name
    CLASSES[name] = type(cls)(name, (cls,), extra)
    return CLASSES[name]


def _inherited(class_name: str, kind: str) -> list:
    """Facts of one kind of a class and of its bases below Qt: names, or (name, fact) pairs."""
    found: dict = {}
    fact = facts.widgets()[class_name]
    while fact:
        entries = fact[kind]
        found = {**(entries if isinstance(entries, dict) else dict.fromkeys(entries)), **found}
        fact = facts.widgets().get(fact["base"])
    return list(found.items()) if kind == "props" else list(found)


def _setter(name: str, cls: type, extra: dict):
    """`setX` of a property `x` that only keeps its value."""
    wanted = name[3:4].lower() + name[4:]
    is_property = wanted in extra or isinstance(getattr(cls, wanted, None), QtCore.Property)
    if not name.startswith("set") or not is_property:
        return None
    return lambda self, value: setattr(self, wanted, value)
