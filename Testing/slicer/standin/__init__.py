"""A stand-in for the Slicer application, so that the panel is tested where Slicer is not installed.

Below Qt everything is Slicer's own C++ from the package `slicer-core`: scene, nodes, logics, module
events, displayable managers, `slicer/util.py`. Above it this package puts PySide6 under the rules
of PythonQt, and own widgets with the names of CTK's and qMRML's. It is test equipment, never
shipped, and product code never asks for it.

Tests do not import it either. They are `unittest.TestCase` classes that use what Slicer has, so the
same files run in the application; `Testing/slicer/conftest.py` starts the stand-in for pytest:

    from SlicerCase import SlicerCase          # works in both worlds

    class SegmentTest(SlicerCase):
        def test_a_click_segments(self):
            panel = self.openModule("DistillSeg")              # the Python widget
            panel.ui.segmentButton.click()                     # a real click
            self.waitUntil(lambda: not panel.busy, seconds=60)  # Qt's events run meanwhile
            self.screenshot("segmented")                       # the main window, as a PNG

After every test the fixture in conftest demands that nothing was recorded in `violations`:

    unknown-signal, exception-in-slot, kwargs, none-as-string, connect, qt6-only   PythonQt's rules
    ui-class, ui-property, ui-connection     a `.ui` file names what does not exist
    qt-in-thread, mrml-in-thread, pip-in-thread     a worker touched what belongs to the main thread
    starved-worker       the poll handler did not wait, so in Slicer the worker would hardly advance
    worker-left-running  a thread outlived its test
    dialog-left-open     a modal dialog waited for an answer that nobody gives
    stand-in-gap         Slicer has this method, the stand-in has not: extend it

A wrong attribute, a call of a property, a new attribute on a C++ object raise as in PythonQt. A
test that provokes a fault on purpose takes it out of the list with `violations.expected(kind)`.

| file | what |
|---|---|
| `binding` `attributes` `calls` `signals` `qtmodule` | PySide6 as PythonQt; the module `qt` |
| `violations` `threads` | what went wrong; what workers may do |
| `cpp` `ctk` `ctkinputs` `nodewidgets` `segmentwidgets` `segmenteditor` `uiloader` | widgets |
| `scene` `subjecthierarchy` `files` | MRML and its logics, wired as at start-up; loading, saving |
| `views` `viewwidgets` `plots` `layouts` | views that draw off screen, and the layout manager |
| `scriptedmodule` `parameternode` `parametergui` `packaging` | Slicer's Python modules |
| `modules` `mainwindow` `application` | `slicer.modules`, main window, `slicer.app`, `start()` |
| `tests/` | tests of the stand-in itself, with answers of two real PythonQt builds |

Switches that the application does not have: `packaging.absent()` (as in Slicer 5.10),
`packaging.failing(output)` (pip fails), `packaging.requests` (what was asked for).

What it cannot show: the true look of Slicer's widgets, effects of the Segment Editor, DICOM,
packaging by CMake. Every screenshot carries a line that says it is not 3D Slicer.
"""

from __future__ import annotations

import importlib

NEEDED = ("slicer", "vtk", "standin.binding", "packaging")


def missing() -> str | None:
    """Why the stand-in cannot run here, as a sentence; None where it can."""
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            return f"needs slicer-core and PySide6-Essentials: {error}"
    return None
