"""Reads the panel's code and `.ui` files and names what does not exist in Slicer.

    python Testing/slicer/apilint.py FILE.py ... FILE.ui ...

Python has no types to rely on, so only what is certain is reported: `self.ui.<widget>` with its
class from the `.ui` file, variables to which a Qt, CTK or qMRML widget is assigned, `qt.X`,
`ctk.X`, `slicer.X`, `slicer.util.x`, `slicer.app.x`, and methods in VTK's spelling of any object.
"""

from __future__ import annotations

import ast
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import facts

# What Slicer's Python files put into `slicer`, beside classes and `slicer.util`.
OF_SLICER = {
    "app",
    "cli",
    "i18n",
    "modules",
    "moduleNames",
    "mrmlScene",
    "packaging",
    "parameterNodeWrapper",
    "ScriptedLoadableModule",
    "selfTests",
    "testing",
    "util",
}
NEWER = {"packaging": "5.12"}  # allowed inside `try` or behind a test for the attribute
METHOD = re.compile(
    r"^(Get|Set|Add|Remove|Has|Is|Create|Update|Import|Export|Copy|Convert|Find)[A-Z]"
)
SCOPES = re.compile(
    r"^[A-Z]\w+(Flag|Policy|Mode|Behavior|Format|Role|Style|Button|Orientation|State)$"
)


@dataclass(frozen=True, order=True)
class Problem:
    """What is wrong in which line, for some versions of Slicer."""

    file: str
    line: int
    text: str
    version: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text} [Slicer {self.version}]"


def normal(signature: str) -> str:
    """A signature without what Qt ignores: spaces, const, references."""
    return re.sub(r"\bconst\b|&|\s", "", signature)


def has_signal(members: facts.Members, signature: str) -> bool:
    """Whether a signal exists; Qt's lists leave out default arguments, so `clicked()` counts."""
    wanted = normal(signature)
    name = wanted.split("(")[0]
    known = {normal(s) for s in members.signals}
    return wanted in known or any(
        s.split("(")[0] == name and (wanted.endswith("()") or s.startswith(wanted[:-1] + ","))
        for s in known
    )


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute chain; "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


def widget_class(call: ast.AST) -> str | None:
    """`QLabel` of `qt.QLabel(...)`."""
    parts = dotted(call.func).split(".") if isinstance(call, ast.Call) else []
    if len(parts) == 2 and parts[0] in ("qt", "ctk", "slicer") and facts.members(parts[1]):
        return parts[1]
    return None


class UiFile:
    """The widgets of a `.ui` file and what is wrong in it."""

    def __init__(self, path: Path):
        self.path = path
        self.root = ET.parse(path).getroot()
        self.classes = {w.get("name"): w.get("class") for w in self.root.iter("widget")}
        others = ("layout", "action", "spacer", "addaction")
        self.others = {e.get("name") for tag in others for e in self.root.iter(tag)}

    def problems(self, version: str) -> Iterator[Problem]:
        for text in (*self._widgets(version), *self._connections(version)):
            yield Problem(self.path.name, 0, text, version)

    def _widgets(self, version: str) -> Iterator[str]:
        for widget in self.root.iter("widget"):
            name, cls = widget.get("name"), widget.get("class")
            members = facts.ui_members(cls, version)
            if members is None:
                yield f"class {cls} of '{name}' does not exist"
                continue
            for entry in widget.findall("property"):
                given = entry.get("name")
                if entry.get("stdset") != "0" and not members.properties.get(given):
                    yield f"{cls} '{name}' has no writable property '{given}'"

    def _connections(self, version: str) -> Iterator[str]:
        for entry in self.root.iter("connection"):
            for end, what in (("sender", "signal"), ("receiver", "slot")):
                name, signature = entry.findtext(end), entry.findtext(what)
                members = facts.members(self.classes.get(name, ""), version)
                if members is None:
                    yield f"connection: there is no widget '{name}'"
                elif what == "signal" and not has_signal(members, signature):
                    yield f"connection: {self.classes[name]} has no signal {signature}"
                elif what == "slot" and signature.split("(")[0] not in members.names:
                    yield f"connection: {self.classes[name]} has no slot {signature}"


class PythonFile:
    """One Python file, checked against one version of Slicer."""

    def __init__(self, path: Path, ui: dict[str, str], own: frozenset[str], version: str):
        self.path, self.ui, self.own, self.version = path, ui, own, version
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.parents = {c: p for p in ast.walk(self.tree) for c in ast.iter_child_nodes(p)}
        self.widgets = self._assigned_widgets()
        self.found: list[Problem] = []

    def _assigned_widgets(self) -> dict[str, set[str | None]]:
        """Classes that each variable or attribute is given; None where it is something else."""
        result: dict[str, set[str | None]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    result.setdefault(dotted(target), set()).add(widget_class(node.value))
            elif isinstance(node, ast.arg):
                result.setdefault(node.arg, set()).add(None)
        return result

    def add(self, node: ast.AST, text: str) -> None:
        self.found.append(Problem(self.path.name, node.lineno, text, self.version))

    def problems(self) -> list[Problem]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute):
                self._check_attribute(node)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("slicer"):
                self._check_import(node)
            if isinstance(node, ast.Call):
                self._check_call(node)
        return self.found

    def _class_of(self, name: str) -> str | None:
        """The class of a widget that a dotted name surely is."""
        if name.startswith("self.ui."):
            return self.ui.get(name.removeprefix("self.ui."))
        classes = self.widgets.get(name, set())
        return next(iter(classes)) if len(classes) == 1 else None

    def _check_attribute(self, node: ast.Attribute) -> None:
        owner = dotted(node.value)
        checks = {
            "qt": self._check_qt,
            "ctk": self._check_ctk,
            "slicer": self._check_slicer,
            "slicer.util": self._check_util,
            "slicer.app": self._check_app,
            "vtk": self._check_vtk,
            "self.ui": self._check_ui,
        }
        if owner in checks:
            checks[owner](node)
            return
        scope = owner.split(".")
        if len(scope) == 3 and scope[0] == "qt" and SCOPES.match(scope[2]):
            self.add(
                node,
                f"scoped enumerator {owner}.{node.attr}: PythonQt has qt.{scope[1]}.{node.attr}",
            )
        elif len(scope) == 2 and scope[0] in ("qt", "ctk"):
            self._check_member(node, scope[1], owner)
        elif self._class_of(owner):
            self._check_widget(node, self._class_of(owner), owner)
        else:
            self._check_method(node)

    def _check_member(self, node, cls: str, owner: str) -> None:
        members = facts.members(cls, self.version)
        if members is not None and node.attr not in members.names:
            self.add(node, f"{owner}.{node.attr}: {cls} has no such member")

    def _check_widget(self, node, cls: str, owner: str) -> None:
        members = facts.members(cls, self.version)
        if members is None:
            return
        if isinstance(node.ctx, ast.Store):
            if not members.properties.get(node.attr) and node.attr != "name":
                self.add(
                    node, f"{owner}.{node.attr} = …: {cls} has no writable property of that name"
                )
        elif node.attr not in members.names:
            self.add(node, f"{owner}.{node.attr}: {cls} has no such member")

    def _check_qt(self, node) -> None:
        if node.attr not in facts.qt_classes() and node.attr not in ("BoolResult", "QUiLoader"):
            self.add(node, f"qt.{node.attr} does not exist in Qt 5.15")

    def _check_ctk(self, node) -> None:
        if node.attr not in facts.widgets(self.version):
            self.add(node, f"ctk.{node.attr} does not exist")

    def _check_vtk(self, node) -> None:
        if node.attr not in facts.wrapped_names("vtk"):
            self.add(node, f"vtk.{node.attr} does not exist")

    def _check_slicer(self, node) -> None:
        name = node.attr
        known = facts.versions()
        is_newer = name in NEWER and known.index(self.version) < known.index(NEWER[name])
        if is_newer and not self._is_guarded(node):
            self.add(node, f"slicer.{name} exists from {NEWER[name]} on: test for it first")
        elif not self._exists_in_slicer(name):
            self.add(node, f"slicer.{name} does not exist")

    def _exists_in_slicer(self, name: str) -> bool:
        classes = facts.wrapped_names("classes")
        return name in OF_SLICER or name in classes or name in facts.widgets(self.version)

    def _is_guarded(self, node: ast.AST) -> bool:
        while node in self.parents:
            node = self.parents[node]
            if isinstance(node, ast.Try | ast.If | ast.IfExp):
                return True
        return False

    def _check_util(self, node) -> None:
        if node.attr not in facts.util_names(self.version):
            self.add(node, f"slicer.util.{node.attr} does not exist")

    def _check_app(self, node) -> None:
        members = facts.members("qSlicerApplication", self.version)
        if node.attr not in members.names | facts.wrapped_names("application"):
            self.add(node, f"slicer.app.{node.attr} does not exist")

    def _check_ui(self, node) -> None:
        if self.ui and node.attr not in self.ui:
            self.add(node, f"self.ui.{node.attr}: no such widget in the .ui files")

    def _check_method(self, node) -> None:
        """A method in VTK's spelling must exist in some class of VTK or MRML."""
        places = (
            facts.mrml_names(self.version),
            facts.wrapped_names("members"),
            facts.wrapped_names("itk"),
            self.own,
        )
        if METHOD.match(node.attr) and not any(node.attr in names for names in places):
            self.add(node, f".{node.attr}: no class of VTK or MRML has such a method")

    def _check_import(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            missing = (node.module == "slicer" and not self._exists_in_slicer(alias.name)) or (
                node.module == "slicer.util" and alias.name not in facts.util_names(self.version)
            )
            if missing and alias.name != "*":
                self.add(node, f"{node.module}.{alias.name} does not exist")

    def _check_call(self, node: ast.Call) -> None:
        name = dotted(node.func)
        owner, _, method = name.rpartition(".")
        if owner in ("qt", "ctk") and node.keywords:
            self.add(node, f"{name}() with keyword arguments, which PythonQt refuses")
        cls = self._class_of(owner) if owner else None
        members = facts.members(cls, self.version) if cls else None
        if members is None:
            return
        if method in members.properties:
            self.add(node, f"{name}(): '{method}' is a property of {cls}; PythonQt gives its value")
        elif method in ("connect", "disconnect") and node.args:
            self._check_signal(node, cls, members)

    def _check_signal(self, node: ast.Call, cls: str, members: facts.Members) -> None:
        first = node.args[0]
        given = first.value if isinstance(first, ast.Constant) else None
        if isinstance(given, str) and not has_signal(members, given):
            self.add(node, f"{cls} has no signal {given}")


def own_names(files: list[Path]) -> frozenset[str]:
    """Names that the code under test defines itself."""
    names = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
    return frozenset(names)


def lint(python: list[Path], ui: list[Path]) -> list[Problem]:
    """All problems of a module's files, for every known version of Slicer."""
    uis = [UiFile(path) for path in ui]
    classes = {
        k: v for file in uis for k, v in {**dict.fromkeys(file.others), **file.classes}.items()
    }
    own = own_names(python)
    problems: list[Problem] = []
    for version in facts.versions():
        for file in uis:
            problems += file.problems(version)
        for path in python:
            problems += PythonFile(path, classes, own, version).problems()
    return sorted(set(problems))


if __name__ == "__main__":
    given = [Path(name) for name in sys.argv[1:]]
    result = lint([p for p in given if p.suffix == ".py"], [p for p in given if p.suffix == ".ui"])
    print(*result, f"{len(result)} problems", sep="\n")
    sys.exit(bool(result))
