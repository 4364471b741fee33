"""The layout of the comparison: own view group, linked slices, 3D, plot; nothing else moves."""

from __future__ import annotations

import numpy as np
import pytest
import qt
import slicer
import vtk
from SlicerCase import SlicerCase

LAYOUT = 4711
SLICE = """<item><view class="vtkMRMLSliceNode" singletontag="{tag}">
 <property name="orientation" action="default">Axial</property>
 <property name="viewlabel" action="default">{label}</property>
 <property name="viewcolor" action="default">{color}</property>
 <property name="viewgroup" action="default">54</property></view></item>"""
XML = f"""<layout type="vertical" split="true">
 <item><layout type="horizontal" split="true">
  {SLICE.format(tag="StandInA", label="A", color="#0072B2")}
  {SLICE.format(tag="StandInB", label="B", color="#E69F00")}
  {SLICE.format(tag="StandInDiff", label="D", color="#999999")}
 </layout></item>
 <item><layout type="horizontal" split="true">
  <item><view class="vtkMRMLViewNode" singletontag="StandIn3D">
   <property name="viewlabel" action="default">3D</property>
   <property name="viewgroup" action="default">54</property></view></item>
  <item><view class="vtkMRMLPlotViewNode" singletontag="StandInProfile">
   <property name="viewlabel" action="default">P</property></view></item>
 </layout></item>
</layout>"""

case = SlicerCase()


@pytest.fixture
def manager(volume):
    layouts = slicer.app.layoutManager()
    before = layouts.layout
    node = layouts.layoutLogic().GetLayoutNode()
    if not node.IsLayoutDescription(LAYOUT):
        node.AddLayoutDescription(LAYOUT, XML)
    layouts.setLayout(LAYOUT)
    for name in layouts.sliceViewNames():
        composite = layouts.sliceWidget(name).mrmlSliceCompositeNode()
        composite.SetBackgroundVolumeID(volume.GetID())
        composite.SetLinkedControl(True)
        composite.SetHotLinkedControl(True)
        layouts.sliceWidget(name).fitSliceToBackground()
    yield layouts
    layouts.setLayout(before)


def chart():
    """One series with its greatest value in row 7."""
    values = np.array([0, 1, 2, 3, 5, 8, 13, 34, 21, 3], float)
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "profile")
    slicer.util.updateTableFromArray(table, [np.arange(10.0), values], ["slice", "mm2"])
    series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", "series")
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName("slice")
    series.SetYColumnName("mm2")
    series.SetColor(0.0, 0.45, 0.7)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", "chart")
    node.SetTitle("Disagreement")
    node.SetXAxisTitle("Slice")
    node.SetYAxisTitle("mm²")
    node.AddAndObservePlotSeriesNodeID(series.GetID())
    return node


def wheel(widget, clicks: int) -> None:
    center = qt.QPointF(widget.width / 2, widget.height / 2)
    none = qt.QPoint(0, 0)
    event = qt.QWheelEvent(
        center,
        center,
        none,
        qt.QPoint(0, 120 * clicks),
        qt.Qt.NoButton,
        qt.Qt.NoModifier,
        qt.Qt.NoScrollPhase,
        False,
    )
    qt.QApplication.sendEvent(widget, event)


def test_the_layout_has_its_views_in_their_group(manager):
    assert manager.layout == LAYOUT
    assert manager.sliceViewNames() == ("StandInA", "StandInB", "StandInDiff")
    assert (manager.threeDViewCount, manager.plotViewCount) == (1, 1)
    node = manager.sliceWidget("StandInA").mrmlSliceNode()
    assert (node.GetViewGroup(), node.GetOrientation()) == (54, "Axial")
    assert node.IsMappedInLayout()
    assert not manager.sliceWidget("Red").mrmlSliceNode().IsMappedInLayout()


def test_a_wheel_over_one_slice_moves_its_group_only(manager):
    offsets = {}
    for name in ("StandInA", "StandInB", "StandInDiff", "Red"):
        offsets[name] = manager.sliceWidget(name).mrmlSliceNode().GetSliceOffset()
    wheel(manager.sliceWidget("StandInA").sliceView(), 2)
    moved = {
        name: manager.sliceWidget(name).mrmlSliceNode().GetSliceOffset() - offset
        for name, offset in offsets.items()
    }
    assert moved["StandInA"] == pytest.approx(6)  # two slices of 3 mm
    assert moved["StandInB"] == moved["StandInDiff"] == moved["StandInA"]
    assert moved["Red"] == 0


def test_leaving_the_layout_brings_the_old_views_back(manager):
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView)
    assert set(manager.sliceViewNames()) == {"Red", "Green", "Yellow"}
    assert manager.plotViewCount == 0


def test_a_click_on_the_plot_names_series_and_row(manager):
    node = chart()
    widget = manager.plotWidget(0)
    widget.mrmlPlotViewNode().SetPlotChartNodeID(node.GetID())
    view = widget.plotView()
    view.resize(400, 300)
    seen = []
    view.connect(
        "dataSelected(vtkStringArray*,vtkCollection*)",
        lambda names, rows: seen.append((names.GetValue(0), rows.GetItemAsObject(0).GetValue(0))),
    )
    place = qt.QPointF(34 + (view.width - 68) * 7 / 9, 34)
    event = qt.QMouseEvent(
        qt.QEvent.MouseButtonPress,
        place,
        place,
        qt.Qt.LeftButton,
        qt.Qt.LeftButton,
        qt.Qt.NoModifier,
    )
    qt.QApplication.sendEvent(view, event)
    assert seen == [(node.GetNthPlotSeriesNode(0).GetID(), 7)]


def test_the_layout_is_drawn(manager):
    manager.plotWidget(0).mrmlPlotViewNode().SetPlotChartNodeID(chart().GetID())
    manager.resetThreeDViews()
    file = case.screenshot("standin-compare")
    picture = qt.QImage(str(file))
    assert len({picture.pixel(x, 200) for x in range(430, 1270, 5)}) > 20


def test_segments_are_shown_only_in_the_views_they_are_for(manager, volume):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "A")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.GetSegmentation().AddEmptySegment("x", "x", (0, 1, 0))
    mask = (slicer.util.arrayFromVolume(volume) > 60).astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, "x", volume)
    first = manager.sliceWidget("StandInA")
    node.GetDisplayNode().AddViewNodeID(first.mrmlSliceNode().GetID())

    def green(name):
        pixels = manager.sliceWidget(name).sliceView()._s_view.image().astype(int)
        return int(((pixels[..., 1] - pixels[..., 0]) > 30).sum())

    slicer.app.processEvents()
    assert green("StandInA") > 200
    assert green("StandInB") == 0


def test_a_table_view_shows_its_table():
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "metrics")
    column = vtk.vtkStringArray()
    column.SetName("Structure")
    column.InsertNextValue("Hippocampus")
    table.AddColumn(column)
    layouts = slicer.app.layoutManager()
    before = layouts.layout
    layouts.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpTableView)
    view = layouts.tableWidget(0).tableView()
    view.mrmlTableViewNode().SetTableNodeID(table.GetID())
    layouts.setLayout(before)
    assert view.item(0, 0).text() == "Hippocampus"


def test_a_view_whose_node_was_removed_is_made_anew(manager):
    old = manager.sliceWidget("StandInA")
    count = manager.mrmlSliceLogics().GetNumberOfItems()
    slicer.mrmlScene.RemoveNode(old.mrmlSliceNode())
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView)
    manager.setLayout(LAYOUT)
    new = manager.sliceWidget("StandInA")
    assert new is not old
    assert new.mrmlSliceNode().GetScene() is slicer.mrmlScene
    assert manager.mrmlSliceLogics().GetNumberOfItems() == count
