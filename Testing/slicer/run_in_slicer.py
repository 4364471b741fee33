"""Runs the tests of this folder in the Slicer application.

    Slicer --testing --no-splash --additional-module-paths DistillSeg \\
        --python-script Testing/slicer/run_in_slicer.py [test_nodes ...]

Without names all `test_*.py` files run. The application ends with 0 only if every test passed.
"""

from __future__ import annotations

import sys
import unittest
from pathlib import Path


def load(names: list[str]) -> unittest.TestSuite:
    """The tests of some files of this folder, or of all; never those of the stand-in."""
    folder = Path(__file__).resolve().parent
    repository = folder.parents[1]
    for place in (repository / "DistillSeg", repository, folder):
        if str(place) not in sys.path:
            sys.path.insert(0, str(place))
    names = names or sorted(file.stem for file in folder.glob("test_*.py"))
    return unittest.defaultTestLoader.loadTestsFromNames(names)


def main(names: list[str]) -> int:
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(load(names))
    return 0 if result.wasSuccessful() and result.testsRun else 1


if __name__ == "__main__":
    import slicer

    slicer.util.exit(main([name for name in sys.argv[1:] if name.startswith("test_")]))
