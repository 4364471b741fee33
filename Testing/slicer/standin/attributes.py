"""How PythonQt reads and writes attributes of Qt objects, on top of PySide6.

Reading, in this order: attributes of Python classes that derive from a Qt class; properties (their
value, so calling them is an error); signals, slots and methods; dynamic properties; children by
object name. Writing: properties that can be written; attributes of derived Python classes; anything
else is an error, because PythonQt creates no new attributes on C++ objects.

`install()` puts these rules on every class of PySide6 that derives from QObject.
"""

from __future__ import annotations

import threading
import types

import facts

from . import calls, signals
from .binding import MODULES, QtCore, QtWidgets, shiboken6
from .violations import record

_native: set[type] = set()
_original_getters: dict[type, object] = {}
_property_indices: dict[tuple[str, str], int] = {}
_being_read: set[tuple[int, str]] = set()
_loading = False

# A slot of the same name hides the property in PythonQt.
HIDDEN_PROPERTIES = {("QTimer", "singleShot")}


def is_native(cls: type) -> bool:
    """Whether a class counts as C++: one of PySide6, or one of the stand-in's own widgets."""
    return cls in _native or "_standin_name" in cls.__dict__


def plain(self, name: str):
    """The attribute as PySide6 has it."""
    for cls in type(self).__mro__:
        if cls in _original_getters:
            return _original_getters[cls](self, name)
    return object.__getattribute__(self, name)


def class_name(self) -> str:
    """The name of the C++ class, also for a Python class that derives from it."""
    for cls in type(self).__mro__:
        if "_standin_name" in cls.__dict__:
            return cls.__dict__["_standin_name"]
        if cls in _native:
            return cls.__name__
    return type(self).__name__


def meta_property(self, name: str):
    """Qt's own description of a property, or None."""
    if any((cls.__name__, name) in HIDDEN_PROPERTIES for cls in type(self).__mro__):
        return None
    meta = _meta_object(self)
    name = "objectName" if name == "name" else name
    key = (meta.className(), name)
    if key not in _property_indices:
        _property_indices[key] = meta.indexOfProperty(name)
    index = _property_indices[key]
    return meta.property(index) if index >= 0 else None


_meta_object = QtCore.QObject.metaObject
_property = QtCore.QObject.property
_set_property = QtCore.QObject.setProperty
_dynamic_names = QtCore.QObject.dynamicPropertyNames


def _is_of_python_class(cls: type, name: str) -> bool:
    """Whether a class of the module under test defines the name itself."""
    for k in cls.__mro__:
        if is_native(k):
            return False
        if name in k.__dict__:
            return True
    return False


def _check_thread(self, name: str) -> None:
    if threading.current_thread() is not threading.main_thread():
        record("qt-in-thread", f"{class_name(self)}.{name} was used outside the main thread")


def _check_age(self, name: str) -> None:
    """Records what PySide6 has and Qt 5.15, which Slicer ships, has not."""
    for cls in type(self).__mro__:
        if cls in _native:
            known = facts.members(cls.__name__)
            if known is not None and name not in known.names:
                record("qt6-only", f"{cls.__name__}.{name} does not exist in Qt 5.15")
            return


def get(self, name: str):
    """`object.name` as PythonQt answers it."""
    if name[:1] == "_":
        return plain(self, name)
    if name == "exec_":
        name = "exec"  # PySide6 warns of the other spelling, PythonQt has both
    if name == "connect":
        return types.MethodType(signals.connect, self)
    if name == "disconnect":
        return types.MethodType(signals.disconnect, self)
    if name == "findChild":
        return types.MethodType(calls.find_child, self)
    if name == "findChildren":
        return types.MethodType(calls.find_children, self)
    cls = type(self)
    if not is_native(cls) and (name in plain(self, "__dict__") or _is_of_python_class(cls, name)):
        return plain(self, name)
    _check_thread(self, name)
    if not shiboken6.isValid(self):
        raise ValueError(f"Trying to read attribute '{name}' of a destroyed {cls.__name__} object")
    key = (id(self), name)
    if key not in _being_read and meta_property(self, name) is not None:
        _being_read.add(key)  # a virtual getter such as sizeHint asks Python for an override
        try:
            return calls.to_python(_property(self, "objectName" if name == "name" else name))
        finally:
            _being_read.discard(key)
    return _get_member(self, name)


def _get_member(self, name: str):
    """Signals, methods, dynamic properties and children."""
    attribute = signals.attribute_of_signal(self, name)
    if attribute:
        return signals.BoundSignal(self, attribute, name)
    try:
        found = plain(self, name)
    except AttributeError:
        return _get_fallback(self, name)
    if isinstance(found, QtCore.SignalInstance):
        return signals.BoundSignal(self, name, name)
    if type(found) is types.BuiltinMethodType:
        return calls.Method(found, name, lambda: _check_age(self, name))
    return found


def _get_fallback(self, name: str):
    if name == "className":
        return lambda: class_name(self)
    if name == "delete":
        return lambda: shiboken6.delete(self)
    value = _property(self, name)
    if value is not None:
        return calls.to_python(value)
    for child in QtCore.QObject.children(self):
        if QtCore.QObject.objectName(child) == name:
            return child
    raise AttributeError(f"{class_name(self)} has no attribute named '{name}'")


def put(self, name: str, value) -> None:
    """`object.name = value` as PythonQt does it."""
    cls = type(self)
    own = plain(self, "__dict__")
    if isinstance(value, QtCore.SignalInstance):  # PySide6 keeps the bound signal on the instance
        own[name] = value
        return
    if name.startswith("_s_") or (name[:1] == "_" and not is_native(cls)):
        own[name] = value
        return
    _check_thread(self, name)
    found = meta_property(self, name)
    if found is not None:
        _put_property(self, name, value, found)
    elif name in [bytes(n.data()).decode() for n in _dynamic_names(self)]:
        _set_property(self, name, value)
    elif not is_native(cls):
        _put_python(self, name, value)
    elif hasattr(cls, name):
        raise AttributeError(
            f"Slot or signal '{name}' can not be overwritten on {class_name(self)} object"
        )
    elif not _loading:
        raise AttributeError(
            f"'{name}' does not exist on {class_name(self)} and creating new attributes on C++ "
            "objects is not allowed"
        )


def _put_property(self, name: str, value, found) -> None:
    if not found.isWritable():
        raise AttributeError(f"Property '{name}' of {class_name(self)} object is not writable")
    converted = calls.to_property(value, found.typeName())
    if not _set_property(self, "objectName" if name == "name" else name, converted):
        raise AttributeError(
            f"Property '{name}' of type '{found.typeName()}' does not accept an object of type "
            f"{type(value).__name__} ({value!r})"
        )


def _put_python(self, name: str, value) -> None:
    for cls in type(self).__mro__:
        descriptor = cls.__dict__.get(name)
        if descriptor is not None and hasattr(type(descriptor), "__set__"):
            descriptor.__set__(self, value)
            return
    plain(self, "__dict__")[name] = value


class loading:
    """While PySide6's QUiLoader works: it sets children as attributes, which is ignored."""

    def __enter__(self):
        global _loading
        _loading = True

    def __exit__(self, *_):
        global _loading
        _loading = False


def install() -> None:
    """Puts the rules on PySide6, once and for the whole process."""
    if _native:
        return
    for module in MODULES:
        for name in dir(module):
            cls = getattr(module, name)
            if isinstance(cls, type) and issubclass(cls, QtCore.QObject):
                _native.add(cls)
                _original_getters[cls] = cls.__getattribute__
    for cls in _native:
        if cls is QtCore.QObject or "__init__" in cls.__dict__:
            cls.__init__ = calls.without_keywords(cls)
        cls.__getattribute__ = get
        cls.__setattr__ = put
    assert QtWidgets.QLabel in _native
