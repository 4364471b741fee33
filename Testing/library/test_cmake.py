"""The extension's packaging, configured against a minimal stand-in of Slicer's CMake package."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACE = "lib/Slicer-5.10/qt-scripted-modules"

# What `find_package(Slicer)` defines that the extension uses.
SLICER = f"""
set(Slicer_USE_FILE "${{CMAKE_CURRENT_LIST_DIR}}/empty.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${{CMAKE_CURRENT_LIST_DIR}}/empty.cmake")
set(Slicer_EXTENSION_CPACK "${{CMAKE_CURRENT_LIST_DIR}}/cpack.cmake")
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR "{PLACE}")
"""
REQUIRED = ("HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "DEPENDS")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("needs cmake on the PATH")
    folder = tmp_path_factory.mktemp("extension")
    slicer = folder / "slicer"
    slicer.mkdir()
    (slicer / "SlicerConfig.cmake").write_text(SLICER)
    (slicer / "empty.cmake").write_text("")
    checks = "\n".join(
        f'if(NOT EXTENSION_{name})\n  message(FATAL_ERROR "EXTENSION_{name}")\nendif()'
        for name in REQUIRED
    )
    (slicer / "cpack.cmake").write_text(checks)
    build, target = folder / "build", folder / "installed"
    for command in (
        [cmake, "-S", ROOT, "-B", build, f"-DSlicer_DIR={slicer}"],
        [cmake, "--install", build, "--prefix", target],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return target / PLACE


def test_the_installed_extension_imports_and_finds_its_resources(installed):
    code = (
        "import DistillSegLib, pathlib\n"
        "from DistillSegLib.places import resources\n"
        "assert (resources() / 'Samples' / 'hippocampus-mean.nii.gz').is_file(), resources()\n"
        "print(pathlib.Path(DistillSegLib.__file__).parent, resources())\n"
    )
    shown = subprocess.run(
        [sys.executable, "-B", "-c", code],
        cwd=installed,  # and so first on sys.path, as Slicer's folder of modules is
        capture_output=True,
        text=True,
    )
    library = installed / "DistillSegLib"
    assert shown.stdout.split() == [str(library), str(library / "Resources")], shown.stderr


def test_every_file_of_the_library_is_installed(installed):
    def files(folder: Path) -> set[Path]:
        found = (path for path in folder.rglob("*") if path.is_file())
        return {p.relative_to(folder) for p in found if "__pycache__" not in p.parts}

    library = files(installed / "DistillSegLib")
    assert files(ROOT / "DistillSegLib") <= library
    assert {Path("Resources", path) for path in files(ROOT / "Resources")} <= library
