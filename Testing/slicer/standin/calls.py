"""How PythonQt calls C++: arguments converted freely, no keywords, tuples back."""

from __future__ import annotations

import enum
import importlib
import re

from .violations import record

_INTEGERS = {"int", "uint", "qlonglong", "qulonglong", "short"}
_FLOATS = {"double", "float"}


def to_python(value):
    """QStringList and QVariantList come out of PythonQt as tuples."""
    return tuple(value) if isinstance(value, list) else value


def to_property(value, type_name: str):
    """A Python value as PythonQt puts it into a property of a C++ type."""
    if type_name in ("QStringList", "QVariantList"):
        return list(value) if isinstance(value, tuple) else value
    if type_name == "QString" and not isinstance(value, str):
        if value is None:
            record("none-as-string", "None written to a QString property shows the text 'None'")
        return str(value)
    if isinstance(value, str):
        return value
    if type_name in _INTEGERS and type(value) not in (int, bool) and hasattr(value, "__int__"):
        return int(value)  # truncated, not rounded; numpy's integers too
    if type_name in _FLOATS and type(value) is not float and hasattr(value, "__float__"):
        return float(value)
    return value


def _refuse(name: str, keywords: dict) -> None:
    text = f"Called {name}() with keyword arguments, but called slot does not support kwargs"
    record("kwargs", f"{text}: {sorted(keywords)}")
    raise ValueError(f"{text}.")


def without_keywords(cls: type):
    """A constructor that refuses keywords: PySide6 takes properties there, PythonQt does not."""
    original = cls.__init__

    def __init__(self, *arguments, **keywords):
        if keywords:
            _refuse(cls.__name__, keywords)
        original(self, *arguments)

    return __init__


class Method:
    """A C++ method of one object: sequences come back as tuples, keywords are refused.

    `check` runs at every call, not when the method is looked up: Qt itself looks up overrides.
    """

    __slots__ = ("__name__", "_check", "_function")

    def __init__(self, function, name: str, check=lambda: None):
        self._function, self.__name__, self._check = function, name, check

    def __call__(self, *arguments, **keywords):
        self._check()
        if keywords:
            _refuse(self.__name__, keywords)
        try:
            return to_python(self._function(*arguments))
        except TypeError as error:
            for types in _signatures(self.__name__, str(error)):
                converted = _converted(arguments, types)
                if converted is not None:
                    return to_python(self._function(*converted))
            raise

    def __eq__(self, other):
        return self._function == getattr(other, "_function", other)

    def __hash__(self):
        return hash(self._function)

    def __repr__(self):
        return f"<built-in Qt slot {self.__name__}>"


def _signatures(name: str, message: str) -> list[list[str]]:
    """Types of the arguments of every overload that PySide6 names in its error."""
    _, _, supported = message.partition("Supported signatures:")
    found = re.findall(rf"\b{name}\((.*)\)", supported)
    arguments = [[a for a in text.split(", ") if a != "/"] for text in found]
    return [[a.split(":")[-1].split("=")[0].strip() for a in one] for one in arguments]


def _converted(arguments: tuple, types: list[str]) -> list | None:
    """Arguments turned into the types of one overload, or None where that cannot be."""
    if len(types) < len(arguments):
        return None
    result = []
    for argument, name in zip(arguments, types, strict=False):
        is_number = hasattr(argument, "__int__")
        if name == "str" and is_number:
            argument = str(argument)
        elif name in ("int", "float") and is_number:
            argument = int(argument) if name == "int" else float(argument)
        elif is_number and name.startswith("PySide6."):
            cls = _class(name)
            if not (isinstance(cls, type) and issubclass(cls, enum.Enum)):
                return None
            argument = cls(argument)
        result.append(argument)
    return result


def _class(dotted: str):
    package, module, *rest = dotted.split(".")
    found = importlib.import_module(f"{package}.{module}")
    for name in rest:
        found = getattr(found, name, None)
    return found


def find_children(parent, kind, name: str = "") -> tuple:
    """All children below, of a class or of the class with that name, and with an object name."""
    found = []
    for child in parent.children():
        cls_names = {cls.__name__ for cls in type(child).__mro__}
        fits = kind in cls_names if isinstance(kind, str) else isinstance(child, kind)
        if fits and name in ("", child.objectName):
            found.append(child)
        found += find_children(child, kind, name)
    return tuple(found)


def find_child(parent, kind, name: str = ""):
    """The first child below, of a class or of the class with that name."""
    return next(iter(find_children(parent, kind, name)), None)
