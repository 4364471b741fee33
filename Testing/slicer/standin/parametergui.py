"""Keeps widgets and the fields of a parameter node equal, both ways."""

from __future__ import annotations

import enum

import slicer
import vtk

NUMBERS = ("QSpinBox", "QDoubleSpinBox", "QSlider", "ctkSliderWidget", "ctkDoubleSpinBox")


class Binding:
    """How to read, write and follow one widget."""

    def __init__(self, widget, parameter):
        self.widget, self.parameter = widget, parameter
        name = self._class()
        if name == "qMRMLNodeComboBox":
            self._use(widget.currentNode, widget.setCurrentNode, "currentNodeChanged(vtkMRMLNode*)")
        elif parameter.kind is bool:
            widget.checkable = True
            self._use_property("checked", "toggled(bool)")
        elif name in NUMBERS:
            self._limit()
            kind = "int" if name in ("QSpinBox", "QSlider") else "double"
            self._use_property("value", f"valueChanged({kind})")
        elif name in ("QComboBox", "ctkComboBox"):
            self._use_choices()
        elif name in ("QLineEdit", "ctkSearchBox"):
            self._use_property("text", "textChanged(QString)")
        elif name == "ctkPathLineEdit":
            self._use_property("currentPath", "currentPathChanged(QString)")
        else:
            raise RuntimeError(f"Unable to create GUI connector from {parameter.kind} to {name}")

    def _class(self) -> str:
        return self.widget.className()

    def _use(self, read, write, signal) -> None:
        self.read, self.write, self.signal = read, write, signal

    def _use_property(self, name, signal) -> None:
        kind = self.parameter.kind
        text = name in ("text", "currentPath")

        def write(value):
            setattr(self.widget, name, str(value) if text else value)

        self._use(lambda: kind(getattr(self.widget, name)), write, signal)

    def _limit(self) -> None:
        for validator in self.parameter.validators:
            if hasattr(validator, "minimum"):
                self.widget.minimum = validator.minimum
                self.widget.maximum = validator.maximum

    def _use_choices(self) -> None:
        kind, widget = self.parameter.kind, self.widget
        is_enum = issubclass(kind, enum.Enum)
        choices = [c for v in self.parameter.validators for c in getattr(v, "choices", ())]
        choices = choices or (list(kind) if is_enum else [])
        texts = [c.value if is_enum and isinstance(c.value, str) else str(c) for c in choices]
        if is_enum:
            texts = [c.name for c in choices]
        if choices:
            widget.clear()
            widget.addItems(texts)

        def read():
            return choices[widget.currentIndex] if choices else kind(widget.currentText)

        def write(value):
            text = texts[choices.index(value)] if choices else str(value)
            widget.setCurrentIndex(widget.findText(text))

        self._use(read, write, "currentIndexChanged(int)")


class ParameterGui:
    """One call of `connectGui`, until `disconnectGui`."""

    def __init__(self, wrapper, mapping):
        self._wrapper = wrapper
        self._writing = False
        self._bindings = {
            name: Binding(widget, wrapper.allParameters[name]) for name, widget in mapping.items()
        }
        self._slots = {}
        for name, binding in self._bindings.items():
            binding.write(wrapper.getValue(name))
            self._slots[name] = lambda *_, n=name: self._to_node(n)
            binding.widget.connect(binding.signal, self._slots[name])
        event = vtk.vtkCommand.ModifiedEvent
        self._tag = wrapper.AddObserver(event, lambda *_: self._to_widgets())

    def _to_node(self, name: str) -> None:
        if not self._writing:
            with slicer.util.NodeModify(self._wrapper):
                self._wrapper.setValue(name, self._bindings[name].read())

    def _to_widgets(self) -> None:
        if self._writing:
            return
        self._writing = True
        try:
            for name, binding in self._bindings.items():
                binding.write(self._wrapper.getValue(name))
        finally:
            self._writing = False

    def close(self) -> None:
        self._wrapper.RemoveObserver(self._tag)
        for name, binding in self._bindings.items():
            binding.widget.disconnect(binding.signal, self._slots[name])
