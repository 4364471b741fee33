"""The panel uses only what exists in Slicer 5.8, 5.10 and 5.12; the lint finds what does not."""

from __future__ import annotations

import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULE = HERE.parents[1] / "DistillSeg"

sys.path.insert(0, str(HERE))

import apilint  # noqa: E402
import facts  # noqa: E402

UI = """<ui version="4.0"><class>Panel</class>
 <widget class="qMRMLWidget" name="Panel">
  <widget class="QPushButton" name="segmentButton">
   <property name="text"><string>Segment</string></property>
  </widget>
  <widget class="qMRMLNodeComboBox" name="inputSelector">
   <property name="noneEnabled"><bool>true</bool></property>
   <property name="SlicerParameterName" stdset="0"><string>inputVolume</string></property>
  </widget>
  <widget class="qMRMLSegmentsTableView" name="segments"/>
 </widget>
 <connections><connection>
  <sender>inputSelector</sender><signal>currentNodeChanged(vtkMRMLNode*)</signal>
  <receiver>segments</receiver><slot>setSegmentationNode(vtkMRMLNode*)</slot>
 </connection></connections>
</ui>"""

RIGHT = """
import qt, ctk, slicer, vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.util import VTKObservationMixin

class Panel:
    def setup(self):
        self.ui.segmentButton.connect("clicked(bool)", self.onSegment)
        self.ui.segmentButton.enabled = False
        self.ui.inputSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onInput)
        self.timer = qt.QTimer()
        self.timer.setInterval(50)
        self.timer.connect("timeout()", self.onPoll)
        label = qt.QLabel("Ready")
        label.text = "Done"
        label.setAlignment(qt.Qt.AlignLeft)
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        node.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        slicer.util.arrayFromVolume(self.volume)
        if hasattr(slicer, "packaging"):
            slicer.packaging.pip_ensure("onnxruntime")
        if not slicer.app.testingEnabled():
            slicer.app.layoutManager().setLayout(4)
        self.button = ctk.ctkCollapsibleButton()
        self.button.collapsed = True
"""

# (line of RIGHT, faulty line, words of the problem)
FAULTS = (
    ('connect("clicked(bool)"', 'connect("click(bool)"', "no signal click(bool)"),
    ("segmentButton.enabled", "segmentButton.enable", "no writable property"),
    ("segmentButton.enabled", "segmentButon.enabled", "no such widget"),
    ('(vtkMRMLNode*)", self.onInput', '(vtkMRMLVolumeNode*)", self.onInput', "no signal"),
    ('self.timer.connect("timeout()"', 'self.timer.connect("timedOut()"', "no signal timedOut()"),
    ("self.timer.setInterval(50)", "self.timer.setIntervall(50)", "no such member"),
    ("self.timer.setInterval(50)", "self.timer.interval()", "'interval' is a property"),
    ('label.text = "Done"', 'label.txt = "Done"', "no writable property"),
    ('label.text = "Done"', "label.text()", "'text' is a property"),
    ("qt.Qt.AlignLeft", "qt.Qt.AlignmentFlag.AlignLeft", "scoped enumerator"),
    ("qt.Qt.AlignLeft", "qt.Qt.AlignLeftish", "no such member"),
    ('qt.QLabel("Ready")', 'qt.QLabel("Ready", parent=None)', "keyword arguments"),
    ("qt.QTimer()", "qt.QChronoTimer()", "does not exist in Qt 5.15"),
    ("ctk.ctkCollapsibleButton()", "ctk.ctkFoldingButton()", "ctk.ctkFoldingButton does not"),
    ("AddNewNodeByClass", "AddNewNodeOfClass", "no class of VTK or MRML"),
    ("SetReferenceImageGeometryParameterFromVolumeNode", "SetReferenceGeometry", "no class of"),
    ("arrayFromVolume(", "arrayFromVolumeNode(", "slicer.util.arrayFromVolumeNode"),
    ("vtkMRMLScalarVolumeNode\n", "vtkMRMLScalarVolume\n", "slicer.vtkMRMLScalarVolume"),
    ("VTKObservationMixin", "VTKObservations", "slicer.util.VTKObservations"),
    ('if hasattr(slicer, "packaging"):', "for _ in range(1):", "exists from 5.12 on"),
    ("layoutManager()", "layoutsManager()", "slicer.app.layoutsManager"),
    ("self.button.collapsed", "self.button.folded", "no writable property"),
)
UI_FAULTS = (
    ("QPushButton", "QPushButon", "does not exist"),
    ("noneEnabled", "noneEnable", "no writable property 'noneEnable'"),
    ("<sender>inputSelector", "<sender>inputSelecter", "no widget 'inputSelecter'"),
    ("currentNodeChanged(vtkMRMLNode*)", "currentNodeSet(vtkMRMLNode*)", "no signal"),
    ("setSegmentationNode(", "setSegmentations(", "no slot"),
)


def lint(code: str, ui: str = UI) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        python, form = Path(folder) / "Panel.py", Path(folder) / "Panel.ui"
        python.write_text(code, encoding="utf-8")
        form.write_text(ui, encoding="utf-8")
        return [str(problem) for problem in apilint.lint([python], [form])]


class LintTest(unittest.TestCase):
    """The lint itself."""

    def test_right_code_has_no_problem(self):
        self.assertEqual(lint(RIGHT), [])

    def test_every_seeded_fault_is_found_in_every_version(self):
        for right, wrong, words in FAULTS:
            with self.subTest(wrong):
                self.assertIn(right, RIGHT)
                found = lint(RIGHT.replace(right, wrong, 1))
                self.assertTrue(found)
                self.assertTrue(all(words in problem for problem in found), found)
                old = [v for v in facts.versions() if any(f"[Slicer {v}]" in p for p in found)]
                self.assertEqual(
                    old, ["5.8", "5.10"] if "5.12 on" in words else ["5.8", "5.10", "5.12"]
                )

    def test_every_seeded_fault_in_a_ui_file_is_found(self):
        for right, wrong, words in UI_FAULTS:
            with self.subTest(wrong):
                self.assertIn(right, UI)
                found = lint("", UI.replace(right, wrong, 1))
                self.assertTrue(any(words in problem for problem in found), found)

    def test_what_only_a_newer_slicer_has_is_named_for_the_older_ones(self):
        for version in facts.versions():
            self.assertIn("SetSegmentVisibility", facts.mrml_names(version))
        newest = facts.mrml_names("5.12") - facts.mrml_names("5.8") - facts.mrml_names("5.10")
        name = sorted(n for n in newest if n.startswith("Get"))[0]
        found = lint(f"def f(node):\n    return node.{name}()\n")
        self.assertEqual(len(found), 2)
        self.assertTrue(found[0].endswith("[Slicer 5.10]"))
        self.assertTrue(found[1].endswith("[Slicer 5.8]"))


class PanelTest(unittest.TestCase):
    """The module's own files."""

    def test_the_panel_uses_only_what_exists_in_every_supported_slicer(self):
        python = sorted(MODULE.rglob("*.py"))
        self.assertTrue(python)
        problems = apilint.lint(python, sorted(MODULE.rglob("*.ui")))
        self.assertEqual([str(problem) for problem in problems], [])


if __name__ == "__main__":
    unittest.main()
