"""`slicer.parameterNodeWrapper`: typed access to a parameter node, written from its documentation.

Types: node classes, str, int, float, bool, Enum, Path, list and tuple of these, and `| None`.
Values lie in the node as Slicer writes them, so a saved scene can be read by either.
"""

from __future__ import annotations

import ast
import enum
import types
import typing

import slicer

from .parametergui import ParameterGui


class Default:
    """`Annotated[..., Default(value)]`."""

    def __init__(self, value):
        self.value = value


class WithinRange:
    """`Annotated[float, WithinRange(low, high)]`."""

    def __init__(self, minimum, maximum):
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value):
        if value is not None and not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within [{self.minimum}, {self.maximum}], is {value}")


class Minimum(WithinRange):
    """`Annotated[int, Minimum(low)]`."""

    def __init__(self, minimum):
        super().__init__(minimum, float("inf"))


class Maximum(WithinRange):
    """`Annotated[int, Maximum(high)]`."""

    def __init__(self, maximum):
        super().__init__(float("-inf"), maximum)


class Choice:
    """`Annotated[str, Choice(["a", "b"])]`."""

    def __init__(self, choices):
        self.choices = list(choices)

    def validate(self, value):
        if value not in self.choices:
            raise ValueError(f"Value {value!r} is none of {self.choices}")


def is_node(kind) -> bool:
    return isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)


def _is_enum(kind) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


class Parameter:
    """One field of a wrapper: how it is checked, written and read."""

    def __init__(self, name: str, annotated, has_default: bool, default):
        self.name, self.annotated = name, annotated
        annotations = list(getattr(annotated, "__metadata__", ()))
        self.kind = annotated.__origin__ if annotations else annotated
        self.validators = [a for a in annotations if hasattr(a, "validate")]
        given = [a.value for a in annotations if isinstance(a, Default)]
        if has_default:
            given = [default]
        self.optional = type(None) in typing.get_args(self.kind)
        if self.optional:
            self.kind = next(k for k in typing.get_args(self.kind) if k is not type(None))
        self.default = given[0] if given else self._natural_default()

    def _natural_default(self):
        if is_node(self.kind) or self.optional:
            return None
        return next(iter(self.kind)) if _is_enum(self.kind) else self._origin()()

    def _origin(self):
        return typing.get_origin(self.kind) or self.kind

    def check(self, value) -> None:
        """Raises as the validators of Slicer do."""
        allowed = (int, float) if self.kind is float else self._origin()
        if value is None:
            if not (is_node(self.kind) or self.optional):
                raise ValueError(f"{self.name}: value must not be None")
        elif not isinstance(value, allowed):
            name = type(value).__name__
            raise ValueError(f"{self.name}: {name} is not of type {self._origin().__name__}")
        for validator in self.validators:
            validator.validate(value)

    def write(self, node, value) -> None:
        self.check(value)
        if is_node(self.kind):
            node.SetParameter(self.name, "")  # marks that it was set, for None is a value
            node.SetNodeReferenceID(self.name, value.GetID() if value else None)
        elif self._origin() in (list, tuple):
            plain = [v.name if isinstance(v, enum.Enum) else v for v in value]
            node.SetParameter(self.name, repr(plain))
        else:
            node.SetParameter(self.name, value.name if _is_enum(self.kind) else str(value))

    def read(self, node):
        if is_node(self.kind):
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if self.optional and text == "None":
            return None
        if self._origin() in (list, tuple):
            inner = (typing.get_args(self.kind) or (str,))[0]
            values = ast.literal_eval(text)
            return self._origin()(inner[v] if _is_enum(inner) else inner(v) for v in values)
        if self.kind is bool:
            return text == "True"
        return self.kind[text] if _is_enum(self.kind) else self.kind(text)


def _property(parameter: Parameter) -> property:
    return property(
        lambda self: parameter.read(self.parameterNode),
        lambda self, value: self.setValue(parameter.name, value),
    )


class Wrapper:
    """What the decorator adds to a class of annotated fields."""

    allParameters: dict[str, Parameter] = {}

    def __init__(self, parameterNode, prefix=None):
        self.parameterNode = parameterNode
        self._guis: dict[int, ParameterGui] = {}
        for parameter in self.allParameters.values():
            if not parameterNode.HasParameter(parameter.name):
                parameter.write(parameterNode, parameter.default)

    def _parameter(self, name: str) -> Parameter:
        if name not in self.allParameters:
            raise ValueError(f"Cannot find a param with the given name: {name}")
        return self.allParameters[name]

    def getValue(self, name):
        return self._parameter(name).read(self.parameterNode)

    def setValue(self, name, value):
        with slicer.util.NodeModify(self.parameterNode):
            self._parameter(name).write(self.parameterNode, value)

    def default(self, name):
        return Default(self._parameter(name).default)

    def dataType(self, name):
        return self._parameter(name).annotated

    def connectGui(self, gui):
        """Binds every widget with the dynamic property SlicerParameterName; returns a tag."""
        inside = hasattr(gui, "isWidgetType")
        widgets = gui.findChildren("QWidget") if inside else vars(gui).values()
        named = {w.property("SlicerParameterName"): w for w in widgets}
        return self.connectParametersToGui({k: w for k, w in named.items() if k})

    def connectParametersToGui(self, mapping):
        for name in mapping:
            self._parameter(name)
        tag = max(self._guis, default=-1) + 1
        self._guis[tag] = ParameterGui(self, mapping)
        return tag

    def disconnectGui(self, tag):
        if tag in self._guis:
            self._guis.pop(tag).close()

    def AddObserver(self, event, callback, priority=0.0):
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag):
        self.parameterNode.RemoveObserver(tag)

    def StartModify(self):
        return self.parameterNode.StartModify()

    def EndModify(self, wasModified):
        return self.parameterNode.EndModify(wasModified)

    def Modified(self):
        self.parameterNode.Modified()


def parameterNodeWrapper(cls=None):
    """The class decorator, with or without parentheses."""
    if cls is None:
        return parameterNodeWrapper
    hints = typing.get_type_hints(cls, include_extras=True)
    parameters = {
        name: Parameter(name, kind, hasattr(cls, name), getattr(cls, name, None))
        for name, kind in hints.items()
    }
    for name, value in vars(Wrapper).items():
        if name in ("__init__", *parameters) or not name.startswith("__"):
            setattr(cls, name, value)
    cls.allParameters = parameters
    for name, parameter in parameters.items():
        setattr(cls, name, _property(parameter))
    cls._is_parameter_node_wrapper = True
    return cls


def build() -> types.ModuleType:
    module = types.ModuleType("slicer.parameterNodeWrapper")
    for thing in (parameterNodeWrapper, Default, WithinRange, Minimum, Maximum, Choice):
        setattr(module, thing.__name__, thing)
    module.isParameterNodeWrapper = lambda x: getattr(x, "_is_parameter_node_wrapper", False)
    return module
