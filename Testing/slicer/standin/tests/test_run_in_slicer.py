"""The tests run under plain unittest, as in the application, and without the stand-in's help."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import standin

FOLDER = Path(__file__).resolve().parents[2]
FILES = sorted(FOLDER.glob("test_*.py"))
START = """
import sys
sys.path.insert(0, {folder!r})
from standin import application
application.start()
import run_in_slicer
code = run_in_slicer.main(["test_api_lint.LintTest.test_right_code_has_no_problem"])
application.stop()
sys.exit(code)
"""


@pytest.mark.skipif(standin.missing() is not None, reason="needs slicer-core and PySide6")
def test_a_test_file_runs_under_unittest():
    code = START.format(folder=str(FOLDER))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ran 1 test" in done.stdout


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_test_of_the_panel_knows_neither_pytest_nor_the_stand_in(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    names |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not {n for n in names if n.split(".")[0] in ("pytest", "standin", "PySide6")}
