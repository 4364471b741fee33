"""Every seeded fault in the demo module is noticed: by an error, or in the list of violations."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import slicer
from slicer.i18n import tr
from SlicerCase import SlicerCase
from standin import threads
from standin.violations import expected, violations

case = SlicerCase()
POLL = "finished = self.done.wait(0.02)"

# what, code of the demo module, what stands there instead, kind of violation
RECORDED = [
    (
        "unknown signal",
        '"clicked(bool)", self.onApply',
        '"click(bool)", self.onApply',
        "unknown-signal",
    ),
    ("signal with a wrong type", '"clicked(bool)"', '"clicked(int)"', "unknown-signal"),
    (
        "slot with too many arguments",
        "def onApply(self):",
        "def onApply(self, a, b):",
        "exception-in-slot",
    ),
    (
        "error in a slot",
        "self.done, self.steps =",
        "self.gone.x, self.steps =",
        "exception-in-slot",
    ),
    (
        "call of a property",
        "self.array = ",
        "self.ui.statusLabel.text(); self.array = ",
        "exception-in-slot",
    ),
    (
        "new attribute",
        "self.ui.statusLabel.text = _",
        "self.ui.statusLabel.txt = _",
        "exception-in-slot",
    ),
    (
        "None as a text",
        "self.array = ",
        "self.ui.statusLabel.text = None; self.array = ",
        "none-as-string",
    ),
    ("keyword argument", "self.array = ", "qt.QLabel('x', parent=None); self.array = ", "kwargs"),
    (
        "method of Qt 6",
        "self.array = ",
        "self.timer.remainingTimeAsDuration(); self.array = ",
        "qt6-only",
    ),
    (
        "MRML in the worker",
        "end = time.time() + 0.6",
        "end = time.time() + 0.6; self._node.parameterNode.GetName()",
        "mrml-in-thread",
    ),
    (
        "Qt in the worker",
        "end = time.time() + 0.6",
        "end = time.time() + 0.6; self.ui.applyButton.text",
        "qt-in-thread",
    ),
]


def run(panel) -> None:
    panel.ui.outputSelector.addNode()
    panel.ui.applyButton.click()
    if panel.worker is not None:
        case.waitUntil(lambda: not panel.worker.is_alive(), 10)
        case.waitFor(0.1)
        panel.timer.stop()


@pytest.mark.parametrize(
    ("old", "new", "kind"), [fault[1:] for fault in RECORDED], ids=[fault[0] for fault in RECORDED]
)
def test_a_seeded_fault_is_recorded(load, volume, old, new, kind):
    run(load(old, new))
    found = {v.kind for v in violations}
    violations.clear()
    assert kind in found


def test_a_poll_that_returns_at_once_starves_the_worker(load, volume):
    run(load(POLL, "finished = self.done.is_set()"))
    threads.check()
    assert [v.kind for v in violations] == ["starved-worker"]
    violations.clear()


def test_a_poll_that_waits_does_not(load, volume):
    run(load())
    (worker,) = threads.report()
    assert worker.name == "demo"
    assert worker.waits > 3
    assert not worker.starved
    assert not violations


def test_a_worker_that_outlives_its_test_is_named(load, volume):
    panel = load("end = time.time() + 0.6", "end = time.time() + 1.5")
    panel.ui.outputSelector.addNode()
    panel.ui.applyButton.click()
    threads.check()
    assert [v.kind for v in violations] == ["worker-left-running"]
    panel.worker.join()
    panel.timer.stop()
    violations.clear()


def test_swapped_axes_are_seen_by_the_geometry(load, volume):
    panel = load("(self.array > self._node_threshold())", "(self.array > 60).transpose(2, 1, 0)")
    run(panel)
    output = panel._node.outputSegmentation
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(output, "bright", volume)
    assert not np.array_equal(mask, slicer.util.arrayFromVolume(volume) > 60)
    violations.clear()


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ('name="addEnabled"', 'name="addEnable"', "ui-property"),
        ("<sender>outputSelector", "<sender>outputSelecter", "ui-connection"),
        ("setSegmentationNode(", "setSegmentationNodes(", "ui-connection"),
        (
            "currentNodeChanged(vtkMRMLNode*)",
            "currentNodeChanged(vtkMRMLVolumeNode*)",
            "unknown-signal",
        ),
    ],
)
def test_a_fault_in_the_ui_file_is_recorded(load, old, new, kind):
    import demo

    assert old in demo.UI
    load(ui=demo.UI.replace(old, new, 1))
    assert kind in {v.kind for v in violations}
    violations.clear()


def test_a_misspelt_widget_is_recorded(load):
    load("self.ui.applyButton.connect", "self.ui.aplyButton.connect")
    assert "no attribute 'aplyButton'" in violations[0].text
    violations.clear()


def test_a_translation_in_a_worker_is_recorded():
    thread = threading.Thread(target=lambda: tr("Loading"))
    with expected("qt-in-thread"):
        thread.start()
        thread.join()
    assert tr("Loading") == "Loading"
