"""The stand-in carries a whole scripted module: panel, worker, progress, scene, reload."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from SlicerCase import SlicerCase

case = SlicerCase()


def segment(panel) -> list[int]:
    """Clicks Apply and waits; the values that the progress bar showed."""
    seen = []
    panel.ui.progressBar.connect("valueChanged(int)", seen.append)
    panel.ui.applyButton.click()
    case.waitUntil(lambda: panel.ui.statusLabel.text.startswith("Done"), 10)
    return seen


@pytest.fixture
def segmented(load, volume):
    panel = load()
    panel.ui.outputSelector.addNode()
    panel.progress = segment(panel)
    return panel


def test_the_button_is_enabled_when_input_and_output_are_chosen(load, volume):
    panel = load()
    assert panel.ui.inputSelector.currentNode() is volume
    assert not panel.ui.applyButton.enabled
    assert panel.ui.applyButton.toolTip == "Choose input and output."
    output = panel.ui.outputSelector.addNode()
    assert panel._node.outputSegmentation is output
    assert panel.ui.applyButton.enabled


def test_a_click_runs_a_worker_and_moves_the_progress_bar(segmented, volume):
    assert len(segmented.progress) >= 3
    assert segmented.progress == sorted(segmented.progress)
    assert segmented.progress[-1] == 100
    output = segmented._node.outputSegmentation
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(output, "bright", volume)
    np.testing.assert_array_equal(mask, slicer.util.arrayFromVolume(volume) > 60)
    assert segmented.ui.segmentsTable.segmentCount == 1


def test_widget_and_parameter_node_follow_each_other(load, volume):
    panel = load()
    panel.ui.thresholdSlider.value = 75
    assert panel._node.threshold == 75
    panel._node.threshold = 42.5
    assert panel.ui.thresholdSlider.value == 42.5
    assert (panel.ui.thresholdSlider.minimum, panel.ui.thresholdSlider.maximum) == (-200, 300)
    with pytest.raises(ValueError, match="within"):
        panel._node.threshold = 301.0


def test_a_screenshot_shows_panel_slices_and_surface(segmented):
    import qt

    slicer.app.layoutManager().resetThreeDViews()
    file = case.screenshot("standin-demo")
    picture = qt.QImage(str(file))
    assert (picture.width(), picture.height()) == (1280, 800)
    red = picture.copy(430, 430, 280, 340)
    colors = {red.pixel(x, y) for x in range(0, 280, 4) for y in range(0, 340, 4)}
    assert len(colors) > 50  # noise and segment, not an empty view
    three_d = picture.copy(430, 25, 840, 355)
    pixels = [qt.QColor(three_d.pixel(x, y)) for x in range(0, 840, 6) for y in range(0, 355, 6)]
    orange = [p for p in pixels if p.red() > p.blue() + 40]
    assert len(orange) > 100  # the surface is bright orange on blue


def test_a_saved_scene_brings_back_nodes_and_choices(segmented, tmp_path):
    segmented._node.threshold = 33.0
    before = slicer.util.arrayFromSegmentBinaryLabelmap(
        segmented._node.outputSegmentation, "bright", segmented._node.inputVolume
    ).copy()
    file = tmp_path / "scene.mrb"
    assert slicer.util.saveScene(str(file))
    slicer.mrmlScene.Clear()
    assert segmented._node.inputVolume is None
    assert segmented._node.threshold == 60
    slicer.util.loadScene(str(file))
    segmented.useNode()
    assert segmented.ui.inputSelector.currentNode().GetName() == "CT"
    assert segmented._node.threshold == 33
    after = slicer.util.arrayFromSegmentBinaryLabelmap(
        segmented._node.outputSegmentation, "bright", segmented._node.inputVolume
    )
    np.testing.assert_array_equal(after, before)


def test_enter_exit_reload_and_cleanup_are_called(load):
    panel = load()
    assert panel.log == ["enter"]
    case.leaveModule()
    assert panel.log == ["enter", "exit"]
    panel.onReload()
    assert panel.log[-1] == "cleanup"
    new = slicer.util.getModuleWidget("StandInDemo")
    assert new is not panel
    assert new is slicer.modules.StandInDemoWidget


def test_the_self_test_runs(load):
    load()
    slicer.selfTests["StandInDemo"]()


def test_the_module_and_its_resources_are_found_by_slicers_own_functions(load):
    panel = load()
    assert slicer.util.modulePath("StandInDemo").endswith("StandInDemo.py")
    assert slicer.util.getModule("StandInDemo").title == "Demo"
    assert slicer.modules.standindemo.widgetRepresentation().self() is panel
    assert slicer.util.selectedModule() == "StandInDemo"
