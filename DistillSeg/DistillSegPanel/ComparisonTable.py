"""The metrics of a comparison in a table node, which is saved with the scene.

It is the truth: what the panel shows is read from it, so that a saved scene shows its numbers
without comparing anew. Main thread only.
"""

import csv
import io
import math

import slicer
import vtk
from slicer.i18n import tr as _

from DistillSegLib.comparison import COLUMNS

POSITION = "worst_mm"  # where the worst axial slice lies
PROFILE = "profile_mm2"  # area that differs in each axial slice, upwards, where any does
TEXTS = ("structure", "matched_by", "remark", PROFILE)


def put(comparison, node=None):
    """Write a comparison into a table node, a new one by default; returns it."""
    if node is None:
        name = slicer.mrmlScene.GenerateUniqueName(_("Comparison of A and B"))
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
    positions = comparison.positions_mm("axial")
    with slicer.util.NodeModify(node):
        node.SetLocked(True)
        node.RemoveAllColumns()
        for name in COLUMNS:
            values = [getattr(row, name) for row in comparison.rows]
            _addColumn(node, name, values)
        worst = [row.worst_slice for row in comparison.rows]
        _addColumn(node, POSITION, [None if i is None else positions[i] for i in worst])
        upwards = positions.argsort()
        _addColumn(node, PROFILE, [_profile(row.disagreement, upwards) for row in comparison.rows])
    return node


def rowsOf(node):
    """The rows of a table node as dictionaries, NaN where there is no number."""
    table = node.GetTable() if node is not None else None
    if table is None or table.GetColumnByName("dice") is None:
        return []
    names = [n for n in (*COLUMNS, POSITION, PROFILE) if table.GetColumnByName(n) is not None]
    return [
        {name: _value(table, row, name) for name in names} for row in range(table.GetNumberOfRows())
    ]


def profileOf(row):
    """The areas (mm²) of a row's slices, from the lowest to the highest that differs."""
    return [float(text) for text in row.get(PROFILE, "").split()]


def asCsv(rows):
    """As the library writes it: an empty cell where there is no number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        values = [row[name] for name in COLUMNS]
        whole = COLUMNS.index("worst_slice")
        if values[whole] == values[whole]:
            values[whole] = int(values[whole])
        writer.writerow("" if v != v else v for v in values)
    return text.getvalue()


def asText(rows):
    """For the clipboard: a line for each structure, tabs between the numbers."""
    lines = ["\t".join([*COLUMNS, POSITION])]
    for row in rows:
        values = [row[name] for name in [*COLUMNS, POSITION]]
        lines.append("\t".join("" if v != v else f"{v:.6g}" if _isNumber(v) else v for v in values))
    return "\n".join(lines) + "\n"


def _profile(disagreement, upwards):
    """Areas as a text, which a cell of a table node can hold."""
    if disagreement is None:
        return ""
    areas = disagreement.areas_mm2["axial"][upwards]
    differing = areas.nonzero()[0]
    inside = areas[differing[0] : differing[-1] + 1] if len(differing) else []
    return " ".join(f"{area:.4g}" for area in inside)


def _addColumn(node, name, values):
    array = vtk.vtkStringArray() if name in TEXTS else vtk.vtkDoubleArray()
    array.SetName(name)
    for value in values:
        missing = "" if name in TEXTS else math.nan
        array.InsertNextValue(missing if value is None else value)
    node.AddColumn(array)


def _value(table, row, name):
    value = table.GetColumnByName(name).GetValue(row)
    if name in TEXTS:
        return value
    try:
        return float(value)  # a table that was read from a file may hold texts
    except ValueError:
        return math.nan


def _isNumber(value):
    return isinstance(value, float)
