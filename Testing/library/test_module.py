"""The module for Slicer keeps to what Slicer bundles, and says what it shows through `_()`."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "DistillSeg").rglob("*.py"))
BUNDLED = {"slicer", "vtk", "qt", "ctk", "numpy", "SimpleITK", "SampleData"}
OURS = {"DistillSegLib", "DistillSegPanel", "DistillSeg"}
TORCH_FLOORS = ("networks", "distill", "training", "export", "commands", "cli")
WITHOUT_WIDGETS = {"Calls", "Logic", "Nodes", "Outputs", "Regions", "Segments", "Worker"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=name)
def test_it_imports_what_slicer_bundles_and_the_ground_floors(path):
    for module in imports(path):
        top, *rest = module.split(".")
        assert top in {*sys.stdlib_module_names, *BUNDLED, *OURS}, module
        assert not (top == "DistillSegLib" and rest and rest[0] in TORCH_FLOORS), module


@pytest.mark.parametrize("path", FILES, ids=name)
def test_importing_it_does_nothing(path):
    allowed = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef, ast.Assign)
    for node in tree(path).body:
        isText = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert isText or isinstance(node, allowed), f"line {node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_texts_are_translated_before_they_are_filled(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("_", "translate"):
            assert all(isinstance(each, ast.Constant) for each in node.args), f"line {node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_it_neither_knows_the_stand_in_nor_needs_a_main_window_for_work(path):
    text = path.read_text(encoding="utf-8")
    assert "standin" not in text and "stand-in" not in text.lower()
    if path.stem in WITHOUT_WIDGETS:
        assert "mainWindow" not in text and not {"qt", "ctk"} & imports(path)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_is_one_idea_and_a_function_fits_on_a_screen(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= 60, f"{node.name} has {lines} lines"
