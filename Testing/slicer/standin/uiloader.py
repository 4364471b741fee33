"""`qt.QUiLoader`: loads `.ui` files and checks every class, property, signal and slot in them."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import facts

from . import attributes, signals
from .binding import QtCore, QtUiTools
from .cpp import CLASSES
from .violations import record


class QUiLoader:
    """Loads widgets of Qt and of the stand-in."""

    def __init__(self, parent=None):
        self._loader = QtUiTools.QUiLoader()
        for cls in CLASSES.values():
            self._loader.registerCustomWidget(cls)

    def load(self, device, parent=None):
        root = ET.fromstring(bytes(device.readAll().data()))
        _check_widgets(root)
        connections = _take_connections(root)
        buffer = QtCore.QBuffer()
        buffer.setData(ET.tostring(root))
        buffer.open(QtCore.QIODevice.ReadOnly)
        with attributes.loading():
            top = self._loader.load(buffer, parent)
        if top is not None:
            _connect(top, connections)
        return top


def _check_widgets(root: ET.Element) -> None:
    for widget in root.iter("widget"):
        cls = widget.get("class")
        known = facts.ui_members(cls)
        if known is None:
            record("ui-class", f"The .ui file uses class {cls}, which does not exist")
            continue
        if cls not in facts.qt_classes() and cls not in CLASSES and cls != "Line":
            raise NotImplementedError(f"The stand-in has no {cls}, which the .ui file uses.")
        for entry in widget.findall("property"):
            name = entry.get("name")
            if entry.get("stdset") != "0" and not known.properties.get(name):
                where = f"{cls} '{widget.get('name')}'"
                record("ui-property", f"The .ui file sets property '{name}' on {where}")


def _take_connections(root: ET.Element) -> list[tuple[str, str, str, str]]:
    """Removes the connections, because Qt would not find the slots of Python classes."""
    found = []
    for group in root.findall("connections"):
        for entry in group.findall("connection"):
            parts = ("sender", "signal", "receiver", "slot")
            found.append(tuple(entry.findtext(part) for part in parts))
        root.remove(group)
    return found


def _connect(top, connections: list[tuple[str, str, str, str]]) -> None:
    objects = {top.objectName: top}
    waiting = list(top.children())
    while waiting:
        child = waiting.pop()
        objects.setdefault(child.objectName, child)
        waiting += child.children()
    for sender, signal, receiver, slot in connections:
        slot_name = slot.split("(")[0]
        text = f"{sender}.{signal} -> {receiver}.{slot}"
        if sender not in objects or receiver not in objects:
            record("ui-connection", f"No such object in the .ui file's connection {text}")
        elif not hasattr(objects[receiver], slot_name):
            record("ui-connection", f"No such slot in the .ui file's connection {text}")
        else:
            signals.connect(objects[sender], signal, getattr(objects[receiver], slot_name))
