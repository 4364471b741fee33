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
set(Slicer_USE_FILE "${{CMAKE_CURRENT_LIST_DIR}}/use.cmake")
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR "{PLACE}")
set(Slicer_EXTENSION_GENERATE_CONFIG "${{CMAKE_CURRENT_LIST_DIR}}/empty.cmake")
set(Slicer_EXTENSION_CPACK "${{CMAKE_CURRENT_LIST_DIR}}/cpack.cmake")
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR "{PLACE}")
"""
# As Slicer's own: each file is named, must be there, and goes below the folder of all modules.
USE = """
option(BUILD_TESTING "" ON)
enable_testing()
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MODULE "WITH_GENERIC_TESTS;WITH_SUBDIR" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MODULE_UNPARSED_ARGUMENTS OR NOT MODULE_WITH_GENERIC_TESTS)
    message(FATAL_ERROR "${MODULE_NAME}: ${MODULE_UNPARSED_ARGUMENTS}")
  endif()
  foreach(file IN LISTS MODULE_SCRIPTS MODULE_RESOURCES)
    if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
      message(FATAL_ERROR "nonexistent file ${file}")
    endif()
    get_filename_component(folder "${file}" DIRECTORY)
    foreach(place IN ITEMS
        "${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}"
        "${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}")
      install(FILES "${file}" DESTINATION "${place}/${folder}")
    endforeach()
  endforeach()
endmacro()
macro(slicer_add_python_unittest)
  cmake_parse_arguments(TEST "" "SCRIPT" "" ${ARGN})
  get_filename_component(name "${TEST_SCRIPT}" NAME_WE)
  if(NOT EXISTS "${TEST_SCRIPT}")
    message(FATAL_ERROR "nonexistent test ${TEST_SCRIPT}")
  endif()
  add_test(NAME "py_${name}" COMMAND "${CMAKE_COMMAND}" -E true)
endmacro()
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
    (slicer / "use.cmake").write_text(USE)
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


def test_every_file_of_the_module_is_installed(installed):
    ours = ROOT / "DistillSeg"
    kinds = ("*.py", "*.ui", "*.png", "*.svg", "*.txt")
    found = {path.relative_to(ours) for kind in kinds for path in ours.rglob(kind)}
    found.discard(Path("CMakeLists.txt"))
    assert found, "the module has no files"
    missing = {path for path in found if not (installed / path).is_file()}
    assert not missing, f"name them in DistillSeg/CMakeLists.txt: {sorted(map(str, missing))}"


def test_the_module_finds_the_library_in_the_build_tree_and_installed(installed):
    build = installed.parents[2].with_name("build") / PLACE
    for folder in (installed, build):
        assert (folder / "DistillSeg.py").is_file(), folder
        code = (
            "import ast, pathlib\n"
            "tree = ast.parse(pathlib.Path('DistillSeg.py').read_text())\n"
            "find = next(n for n in tree.body if getattr(n, 'name', '') == 'findLibrary')\n"
            "import os, sys\n"
            "names = {'os': os, 'sys': sys, '__file__': os.path.abspath('DistillSeg.py')}\n"
            "exec(compile(ast.Module([find], []), 'DistillSeg.py', 'exec'), names)\n"
            "names['findLibrary']()\n"
            "import DistillSegLib; print(pathlib.Path(DistillSegLib.__file__).parent)\n"
        )
        shown = subprocess.run(
            [sys.executable, "-B", "-I", "-S", "-c", code],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert shown.stdout.strip() == str(folder / "DistillSegLib"), shown.stderr


def test_every_test_of_the_panel_also_runs_in_slicer(installed):
    build = installed.parents[2].with_name("build")
    listed = subprocess.run(["ctest", "-N"], cwd=build, capture_output=True, text=True).stdout
    for path in (ROOT / "Testing" / "slicer").glob("test_*.py"):
        assert f"py_{path.stem}\n" in listed
