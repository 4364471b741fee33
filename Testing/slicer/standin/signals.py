"""PythonQt's signals: `x.connect('clicked(bool)', f)` and `x.clicked.connect(f)`.

A slot gets as many arguments as it names. An error in a slot is printed and the program goes on;
a signal that does not exist is printed and `connect` returns False. Both are recorded here.
"""

from __future__ import annotations

import sys
import traceback
import types

from . import attributes
from .binding import QtCore
from .violations import record

_qt_connect = QtCore.QObject.connect
_qt_disconnect = QtCore.QObject.disconnect
_meta_object = QtCore.QObject.metaObject


def normalized(signature: str) -> str:
    return bytes(QtCore.QMetaObject.normalizedSignature(signature.strip()).data()).decode()


def standin_signals(self) -> dict[str, str]:
    """Signatures that the stand-in's own widgets emit through a Python signal: its attribute."""
    table: dict[str, str] = {}
    for cls in reversed(type(self).__mro__):
        table.update(cls.__dict__.get("SIGNALS", {}))
    return table


def attribute_of_signal(self, name: str) -> str | None:
    """For `x.name`: the attribute of the first overload among the stand-in's own signals."""
    for signature, attribute in standin_signals(self).items():
        if signature.split("(")[0] == name:
            return attribute
    return None


def _overloads(self, name: str) -> list[str]:
    meta = _meta_object(self)
    methods = (meta.method(i) for i in range(meta.methodCount()))
    return [
        bytes(m.methodSignature().data()).decode()
        for m in methods
        if m.methodType() == QtCore.QMetaMethod.Signal and bytes(m.name().data()).decode() == name
    ]


def _wanted_arguments(slot) -> int | None:
    """How many arguments PythonQt passes at most; None for all."""
    bound = isinstance(slot, types.MethodType)
    function = slot.__func__ if bound else slot
    if not isinstance(function, types.FunctionType) or function.__code__.co_flags & 0x04:
        return None
    return function.__code__.co_argcount - bound


def call_slot(slot, arguments: tuple):
    """Runs a slot as PythonQt does: surplus arguments cut, errors printed and not raised."""
    count = _wanted_arguments(slot)
    try:
        return slot(*arguments[:count])
    except Exception as error:
        sys.stderr.write(traceback.format_exc())
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename}:{place.lineno}"
        record("exception-in-slot", f"{type(error).__name__}: {error} at {where}")


def _connections(self) -> list:
    return attributes.plain(self, "__dict__").setdefault("_s_connections", [])


def _resolve(self, signature: str) -> tuple[str, bool] | None:
    """(name to connect, is it a Python signal), or None for an unknown signal."""
    wanted = normalized(signature)
    table = standin_signals(self)
    if wanted in table:
        return table[wanted], True
    if _meta_object(self).indexOfSignal(wanted) >= 0:
        return wanted, False
    return None


def _unknown(self, action: str, signature: str) -> bool:
    name = attributes.class_name(self)
    record("unknown-signal", f"QObject::{action}() signal '{signature}' does not exist on {name}")
    return False


def connect(self, signal, receiver, *slot) -> bool:
    """`sender.connect('signal(type)', callable)` or `(..., receiver, 'slot(type)')`."""
    if not isinstance(signal, str):
        raise TypeError("connect(): the first argument must be a signal signature string")
    found = _resolve(self, signal)
    if found is None:
        return _unknown(self, "connect", signal)
    target = getattr(receiver, slot[0].split("(")[0]) if slot else receiver
    if not callable(target):
        record("connect", f"The slot for '{signal}' is not callable: {target!r}")
        return True

    def run(*arguments):
        return call_slot(target, arguments)

    name, of_python = found
    if of_python:
        attributes.plain(self, name).connect(run)
        handle = None
    else:
        handle = _qt_connect(self, QtCore.SIGNAL(name), run)
    _connections(self).append((name, target, run, handle))
    return True


def disconnect(self, signal, receiver=None, *slot) -> bool:
    """Removes one connection to a receiver, or all of a signal."""
    found = _resolve(self, signal)
    if found is None:
        return _unknown(self, "disconnect", signal)
    target = getattr(receiver, slot[0].split("(")[0]) if slot else receiver
    known = _connections(self)
    matching = [c for c in known if c[0] == found[0] and (target is None or c[1] == target)]
    for connection in matching[: None if target is None else 1]:
        known.remove(connection)
        name, _, run, handle = connection
        if handle is None:
            attributes.plain(self, name).disconnect(run)
        else:
            _qt_disconnect(handle)
    return bool(matching)


class BoundSignal:
    """`widget.clicked`: connects, disconnects and emits the first overload, as PythonQt does."""

    def __init__(self, owner, attribute: str, name: str):
        self._owner, self._attribute, self._name = owner, attribute, name

    def _signature(self) -> str:
        for signature in standin_signals(self._owner):
            if signature.split("(")[0] == self._name:
                return signature
        return _overloads(self._owner, self._name)[0]

    def connect(self, slot) -> bool:
        return connect(self._owner, self._signature(), slot)

    def disconnect(self, slot=None) -> bool:
        return disconnect(self._owner, self._signature(), slot)

    def emit(self, *arguments) -> None:
        attributes.plain(self._owner, self._attribute).emit(*arguments)

    __call__ = emit
