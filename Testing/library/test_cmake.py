"""The extension's packaging, built against a minimal stand-in of Slicer's CMake package."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACE = "lib/Slicer-5.10/qt-scripted-modules"
LISTS = ("MODULE_PYTHON_SCRIPTS", "MODULE_PYTHON_RESOURCES")
NOT_INSTALLED = {"Screenshots"}  # of Resources/: for readers of the repository

# What `find_package(Slicer)` defines that the extension uses.
SLICER = f"""
set(Slicer_USE_FILE "${{CMAKE_CURRENT_LIST_DIR}}/use.cmake")
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR "{PLACE}")
set(Slicer_EXTENSION_GENERATE_CONFIG "${{CMAKE_CURRENT_LIST_DIR}}/empty.cmake")
set(Slicer_EXTENSION_CPACK "${{CMAKE_CURRENT_LIST_DIR}}/cpack.cmake")
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR "{PLACE}")
"""
# As Slicer's own and CTK's below it: each file is named and must be there, is copied to the build
# tree when it is built, and the folder of the build tree is installed as a whole.
USE = """
option(BUILD_TESTING "" ON)
enable_testing()
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MODULE "WITH_GENERIC_TESTS;WITH_SUBDIR" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MODULE_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "${MODULE_NAME}: ${MODULE_UNPARSED_ARGUMENTS}")
  endif()
  set(place "${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}")
  set(installed "${place}/")
  if(MODULE_WITH_SUBDIR)
    get_filename_component(folder "${CMAKE_CURRENT_SOURCE_DIR}" NAME)
    set(place "${place}/${folder}")
    set(installed "${place}")
  endif()
  set(copies)
  foreach(file IN LISTS MODULE_SCRIPTS MODULE_RESOURCES)
    if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
      message(FATAL_ERROR "nonexistent file ${file}")
    endif()
    add_custom_command(
      OUTPUT "${place}/${file}"
      COMMAND ${CMAKE_COMMAND} -E copy "${CMAKE_CURRENT_SOURCE_DIR}/${file}" "${place}/${file}"
      DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/${file}"
      )
    list(APPEND copies "${place}/${file}")
  endforeach()
  add_custom_target(Copy${MODULE_NAME}PythonScriptFiles ALL DEPENDS ${copies})
  install(
    DIRECTORY "${installed}"
    DESTINATION "${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}"
    COMPONENT RuntimeLibraries
    )
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
REQUIRED = (
    *("HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "DEPENDS"),
    *("ICONURL", "SCREENSHOTURLS", "KEYWORDS", "TIER"),
)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Configures, builds and installs; returns the folder with `build/` and `installed/`."""
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("needs cmake on the PATH")
    folder = tmp_path_factory.mktemp("the extension")
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
    build = folder / "build"
    for command in (
        [cmake, "-S", ROOT, "-B", build, f"-DSlicer_DIR={slicer}"],
        [cmake, "--build", build],
        [cmake, "--install", build, "--prefix", folder / "installed"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(params=["build", "installed"])
def place(built, request) -> Path:
    """Slicer's folder of scripted modules: of the build tree, and of the installed extension."""
    return built / request.param / PLACE


def files(folder: Path) -> set[str]:
    """All files below a folder that are under version control or could be."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(folder).as_posix() for p in found if "__pycache__" not in p.parts}


def listed(folder: Path) -> list[str]:
    """What a CMakeLists.txt names as scripts and resources."""
    text = (folder / "CMakeLists.txt").read_text(encoding="utf-8")
    text = text.replace("${MODULE_NAME}", re.search(r"set\(MODULE_NAME (\w+)\)", text)[1])
    parts = (re.search(rf"set\({name}\n(.*?)\)", text, re.DOTALL)[1] for name in LISTS)
    return [name for part in parts for name in part.split()]


def run(folder: Path, code: str, *options: str) -> str:
    """What a fresh Python says that finds a folder of modules as Slicer does: on its path."""
    command = [sys.executable, "-B", *options, "-c", f"import sys; sys.path.insert(0, '.')\n{code}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["DistillSeg", "DistillSegLib"])
def test_the_lists_are_the_folder(name):
    found, named = files(ROOT / name) - {"CMakeLists.txt"}, listed(ROOT / name)
    assert len(named) == len(set(named)), "named twice"
    missing, extra = sorted(found - set(named)), sorted(set(named) - found)
    assert not missing and not extra, f"{name}/CMakeLists.txt lacks {missing}, has {extra}"


def test_every_folder_of_resources_is_installed_or_said_not_to_be():
    text = (ROOT / "DistillSegLib" / "CMakeLists.txt").read_text(encoding="utf-8")
    named = set(re.search(r"foreach\(_folder IN ITEMS ([\w ]+)\)", text)[1].split())
    folders = {path.name for path in (ROOT / "Resources").iterdir() if path.is_dir()}
    assert folders == named | NOT_INSTALLED


def test_what_is_built_and_installed_is_what_the_lists_and_resources_hold(place):
    expected = {*listed(ROOT / "DistillSeg")}
    expected |= {f"DistillSegLib/{name}" for name in listed(ROOT / "DistillSegLib")}
    for folder in (ROOT / "Resources").iterdir():
        if folder.is_dir() and folder.name not in NOT_INSTALLED:
            expected |= {f"DistillSegLib/Resources/{folder.name}/{n}" for n in files(folder)}
    assert files(place) == expected


def test_the_library_works_from_there(place):
    code = (
        "import DistillSegLib, pathlib\n"
        "from DistillSegLib import Segmenter, list_packages\n"
        "from DistillSegLib.places import recipes, resources\n"
        "print(pathlib.Path(DistillSegLib.__file__).resolve().parent)\n"
        "print(*sorted(package.id for package in list_packages()))\n"
        "print('student' in recipes()['distil'].read_text(encoding='utf-8'))\n"
        "sample = resources() / 'Samples' / 'hippocampus-mean.nii.gz'\n"
        "found = Segmenter('hippocampus-fast').segment(sample)\n"
        "from DistillSegLib.segmentations import volumes_ml\n"
        "print(all(1 < volume < 3 for volume in volumes_ml(found).values()))\n"
        "print('torch' in sys.modules)\n"
    )
    lines = run(place, code).splitlines()
    bundled = (ROOT / "Resources" / "Models").glob("*.distillseg")
    names = sorted(path.stem.rpartition("-")[0] for path in bundled)
    assert {"hippocampus-fast", "hippocampus-reference"} <= set(names)
    assert lines == [str(place / "DistillSegLib"), " ".join(names), "True", "True", "False"]


def test_the_module_finds_the_library_there(place):
    code = (
        "import ast, pathlib, os\n"
        "tree = ast.parse(pathlib.Path('DistillSeg.py').read_text(encoding='utf-8'))\n"
        "find = next(n for n in tree.body if getattr(n, 'name', '') == 'findLibrary')\n"
        "names = {'os': os, 'sys': sys, '__file__': os.path.abspath('DistillSeg.py')}\n"
        "exec(compile(ast.Module([find], []), 'DistillSeg.py', 'exec'), names)\n"
        "sys.path.remove('.')\n"
        "names['findLibrary']()\n"
        "import DistillSegLib; print(pathlib.Path(DistillSegLib.__file__).parent)\n"
    )
    assert run(place, code, "-I", "-S").strip() == str(place / "DistillSegLib")


def test_every_test_of_the_panel_also_runs_in_slicer(built):
    shown = subprocess.run(["ctest", "-N"], cwd=built / "build", capture_output=True, text=True)
    for path in (ROOT / "Testing" / "slicer").glob("test_*.py"):
        assert f"py_{path.stem}\n" in shown.stdout
