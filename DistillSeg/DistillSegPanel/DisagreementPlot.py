"""How much A and B differ in each slice, as a chart; a click on a point leads to its slice.

Main thread only.
"""

import slicer
import vtk
from slicer.i18n import tr as _

from DistillSegPanel import CompareLayout as Layout

WHERE, AREA, INDEX = "Position (mm)", "Area (mm²)", "Slice"  # columns, never translated
ALL, WORST = "DistillSeg.AllSlices", "DistillSeg.WorstSlices"  # roles of the chart's tables


def put(worst, chart=None):
    """Draw the structure that is looked at.

    Args:
        worst: `WorstSlices`.
        chart: the chart node to change; None for a new one.

    Returns:
        The chart node.
    """
    chart = chart if chart is not None else _newChart()
    known = worst.row.disagreement
    areas = known.areas_mm2[worst.plane] if known else ()
    positions = worst.comparison.positions_mm(worst.plane)
    inside = [n for n in range(len(areas)) if areas[n] > 0]
    if inside:  # with a slice of agreement on both sides
        inside = range(max(0, inside[0] - 1), min(len(areas), inside[-1] + 2))
    for role, indices in ((ALL, inside), (WORST, sorted(worst.slices))):
        rows = sorted((float(positions[n]), float(areas[n]), n) for n in indices)
        _fill(chart.GetNodeReference(role), rows)
    chart.SetTitle(worst.row.structure)
    view = Layout.viewNode(Layout.PLOT, "vtkMRMLPlotViewNode")
    if view is not None and view.GetPlotChartNodeID() != chart.GetID():
        view.SetPlotChartNodeID(chart.GetID())
    return chart


def nodesOf(chart):
    """The chart's tables and series, which belong into its folder."""
    series = [chart.GetNthPlotSeriesNode(n) for n in range(chart.GetNumberOfPlotSeriesNodes())]
    return [chart.GetNodeReference(ALL), chart.GetNodeReference(WORST), *series]


def sliceAt(seriesIds, selections):
    """The slice of a point that was clicked on, as `qMRMLPlotView.dataSelected` tells; or None."""
    for number in range(seriesIds.GetNumberOfValues()):
        series = slicer.mrmlScene.GetNodeByID(seriesIds.GetValue(number))
        chosen = selections.GetItemAsObject(number)
        if series is None or chosen is None or chosen.GetNumberOfTuples() == 0:
            continue
        column = series.GetTableNode().GetTable().GetColumnByName(INDEX)
        row = int(chosen.GetComponent(0, 0))
        if column is not None and row < column.GetNumberOfTuples():
            return int(column.GetValue(row))
    return None


def _newChart():
    scene = slicer.mrmlScene
    chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", _("Disagreement by slice"))
    for role, name in ((ALL, _("Disagreement")), (WORST, _("Worst slices"))):
        table = scene.AddNewNodeByClass("vtkMRMLTableNode", f"{name} (table)")
        _fill(table, [])
        series = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", name)
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetXColumnName(WHERE)
        series.SetYColumnName(AREA)
        _setLook(series, isLine=role == ALL)
        chart.SetNodeReferenceID(role, table.GetID())
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
    chart.SetXAxisTitle(_("position of the slice (mm)"))
    chart.SetYAxisTitle(_("area that differs (mm²)"))
    chart.SetLegendVisibility(False)
    chart.SetTitleVisibility(True)
    return chart


def _setLook(series, isLine):
    node = slicer.vtkMRMLPlotSeriesNode
    series.SetLineStyle(node.LineStyleSolid if isLine else node.LineStyleNone)
    series.SetMarkerStyle(node.MarkerStyleNone if isLine else node.MarkerStyleCircle)
    series.SetColor(*((0.35, 0.35, 0.35) if isLine else (0.8, 0.2, 0.0)))
    series.SetLineWidth(2)
    series.SetMarkerSize(9)


def _fill(table, rows):
    """(position, area, index) of each slice into a table node."""
    with slicer.util.NodeModify(table):
        table.RemoveAllColumns()
        for number, name in enumerate((WHERE, AREA, INDEX)):
            array = vtk.vtkIntArray() if name == INDEX else vtk.vtkDoubleArray()
            array.SetName(name)
            for row in rows:
                array.InsertNextValue(row[number])
            table.AddColumn(array)
