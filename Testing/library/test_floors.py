"""Position is dependency: what a file may import follows from where it lies.

`FLOORS` is the order of the whole library, lowest first. A file imports only from rows above its
own in this list; a new file is given a row here.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import DistillSegLib

LIBRARY = Path(DistillSegLib.__file__).parent

FLOORS = [
    {"errors", "machine", "pictures", "places", "quiet"},  # floor 0: words, numbers, space
    {"boxes", "cells", "records", "labels", "files", "geometry", "regions", "headers"},
    # 1: images and masks
    {"confidence", "dicom", "metrics", "runs", "sampling", "upsampling", "windows"},
    {"preprocessing", "scope"},
    {"images", "nomenclature", "postprocessing"},
    {"segmentations", "manifest"},
    {"datasets"},
    {
        "disagreement",
        "body",
        "inputs",
        "matching",
        "package",
        "passes",
        "runtime",
    },  # 2: what is run, and on what
    {"estimates", "inference", "ranking"},  # 3
    {"batch_table"},  # 4: what is done with results
    {"batch_case"},
    {"cluster_worker"},
    {"cluster_start"},
    {"cluster"},
    {"catalogue", "comparison", "evaluation", "batch"},
    {"corrections", "exports", "figures", "findings", "thumbnails"},
    {"report"},
    {"networks"},  # 5: the torch line; below here no file knows torch
    {"distill"},  # 6
    {"training"},  # 7
    {"export"},  # 8
    {"benchmark"},  # 9
    {"commands"},
    {"cli"},
]
TORCH_FLOORS = {"networks", "distill", "training", "export"}

# Third-party packages beside numpy and SimpleITK, and the only places that may import them.
OPTIONAL = {
    "onnxruntime": {"runtime"},
    "openvino": {"runtime"},
    "distributed": {"cluster", "cluster_start", "cluster_worker"},
    "rich": {"commands", "cli"},
    "torch": TORCH_FLOORS | {"commands", "benchmark"},
    "monai": TORCH_FLOORS | {"benchmark"},
    "lightning": TORCH_FLOORS | {"commands"},
    "lightning_fabric": TORCH_FLOORS | {"commands"},
    "tensorboard": {"training"},
    "tomllib": TORCH_FLOORS | {"commands"},
    "tomli": TORCH_FLOORS | {"commands"},
    "onnx": {"export", "training"},  # training: only where a package teaches
    "onnxscript": {"export"},
    "nncf": {"export"},
    "nnunetv2": {"training", "benchmark"},
    "segmentation_models_pytorch": {"networks"},
}
# Training goes on from its cache where SimpleITK is not installed, as on many clusters.
WITHOUT_SIMPLEITK = [
    "errors",
    "records",
    "labels",
    "files",
    "preprocessing",
    "boxes",
    "windows",
    "metrics",
    "runs",
    "postprocessing",
    "datasets",
]

FILES = sorted(LIBRARY.rglob("*.py"))


def unit(file: Path) -> str:
    """What has a floor: a file directly in the library, or a sub-package."""
    return file.relative_to(LIBRARY).parts[0].removesuffix(".py")


def module(file: Path) -> str:
    parts = file.relative_to(LIBRARY.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imports(file: Path) -> set[str]:
    """Full names of all modules that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name} imports relatively; write the whole name"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            ours = {name for name in inner if name in MODULES}
            found |= ours or {node.module}
    return found


MODULES = {module(file) for file in FILES}


def floor_of(name: str) -> int:
    for height, row in enumerate(FLOORS):
        if name in row:
            return height
    pytest.fail(f"'{name}' has no floor; give it a row in FLOORS")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(LIBRARY)))
def test_imports_go_down_only(file):
    here = unit(file)
    if here == "__init__":
        assert not any(name.startswith("DistillSegLib") for name in imports(file))
        return
    for name in imports(file):
        if not name.startswith("DistillSegLib."):
            continue
        there = name.split(".")[1]
        if there != here:
            assert floor_of(there) < floor_of(here), f"{here} imports {there}, which is not below"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(LIBRARY)))
def test_every_package_is_imported_only_where_it_belongs(file):
    allowed = {*sys.stdlib_module_names, "numpy", "SimpleITK", "DistillSegLib"} - {"tomllib"}
    for name in imports(file):
        package = name.split(".")[0]
        assert package in allowed or unit(file) in OPTIONAL.get(package, set()), (
            f"{unit(file)} imports {package}"
        )


def test_no_file_imports_itself_by_a_detour():
    graph = {module(file): {name for name in imports(file) if name in MODULES} for file in FILES}
    list(TopologicalSorter(graph).static_order())  # raises CycleError


def import_without(absent: set[str], modules: list[str]) -> None:
    """Import modules in a fresh Python where some packages cannot be imported."""
    program = f"""
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
for name in {modules!r}:
    importlib.import_module(name)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=LIBRARY.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_guard_of_these_tests_guards():
    with pytest.raises(AssertionError, match="ModuleNotFoundError: numpy"):
        import_without({"numpy"}, ["numpy.linalg"])


def test_below_the_torch_line_all_is_imported_without_engines():
    ground = [module(file) for file in FILES if unit(file) not in TORCH_FLOORS]
    assert "DistillSegLib.errors" in ground
    import_without(
        {"torch", "monai", "lightning", "lightning_fabric", "onnx", "onnxruntime", "openvino"}
        | {"slicer", "vtk", "qt", "scipy", "dask", "distributed"},
        ground,
    )


def test_the_panel_s_floors_are_imported_without_rich():
    ground = [
        module(file) for file in FILES if unit(file) not in TORCH_FLOORS | {"commands", "cli"}
    ]
    import_without({"rich", "tomli"}, ground)


def test_what_training_needs_is_imported_without_simpleitk():
    import_without({"SimpleITK"}, [f"DistillSegLib.{name}" for name in sorted(WITHOUT_SIMPLEITK)])


def test_the_training_floors_are_imported_without_simpleitk():
    pytest.importorskip("torch")
    pytest.importorskip("monai")
    floors = {"networks", "distill", "training"}
    import_without({"SimpleITK"}, [module(file) for file in FILES if unit(file) in floors])
