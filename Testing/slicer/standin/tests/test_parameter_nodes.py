"""The typed parameter node: values in the node as Slicer writes them, checked on the way in."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import ctk
import pytest
import qt
import slicer
from slicer.parameterNodeWrapper import Choice, Default, WithinRange, parameterNodeWrapper


class Naming(enum.Enum):
    STANDARD = "standard"
    MODEL = "model"


class Fields:
    volume: slicer.vtkMRMLScalarVolumeNode
    model: str = "hippocampus-fast"
    threads: Annotated[int, WithinRange(0, 64)] = 4
    overlap: Annotated[float, Default(0.25)]
    keepLargest: bool
    naming: Naming
    region: Annotated[str, Choice(["whole", "roi"])] = "whole"
    folder: Path
    hidden: list[str]


# `get_type_hints` resolves the strings that the __future__ import leaves.
Parameters = parameterNodeWrapper(Fields)


@pytest.fixture
def parameters():
    slicer.mrmlScene.Clear()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
    return Parameters(node)


def test_defaults_are_written_into_the_node(parameters):
    assert parameters.model == "hippocampus-fast"
    assert (parameters.threads, parameters.overlap, parameters.keepLargest) == (4, 0.25, False)
    assert parameters.naming is Naming.STANDARD
    assert parameters.folder == Path()
    assert parameters.hidden == []
    node = parameters.parameterNode
    assert node.GetParameter("naming") == "STANDARD"
    assert node.GetParameter("keepLargest") == "False"


@pytest.mark.parametrize(
    ("name", "value"),
    [("threads", 65), ("threads", 1.5), ("model", 3), ("model", None), ("region", "box")],
)
def test_wrong_values_are_refused(parameters, name, value):
    with pytest.raises(ValueError, match=r".+"):
        setattr(parameters, name, value)
    assert parameters.getValue(name) == parameters.default(name).value


def test_values_come_back_from_the_node(parameters):
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    parameters.volume = volume
    parameters.naming = Naming.MODEL
    parameters.hidden = ["a", "b"]
    parameters.folder = Path("/data")
    again = Parameters(parameters.parameterNode)
    assert again.volume is volume
    assert again.naming is Naming.MODEL
    assert again.hidden == ["a", "b"]
    assert again.folder == Path("/data")


def test_widgets_and_node_follow_each_other_until_disconnected(parameters):
    class Gui:
        pass

    gui = Gui()
    gui.threads, gui.naming = qt.QSpinBox(), qt.QComboBox()
    gui.keep, gui.folder = qt.QCheckBox(), ctk.ctkPathLineEdit()
    names = {"threads": "threads", "naming": "naming", "keep": "keepLargest", "folder": "folder"}
    for widget, name in names.items():
        getattr(gui, widget).setProperty("SlicerParameterName", name)
    tag = parameters.connectGui(gui)
    assert (gui.threads.value, gui.threads.maximum) == (4, 64)
    gui.threads.value = 7
    gui.naming.currentIndex = 1
    gui.keep.checked = True
    gui.folder.currentPath = "/data"
    assert (parameters.threads, parameters.naming) == (7, Naming.MODEL)
    assert (parameters.keepLargest, parameters.folder) == (True, Path("/data"))
    parameters.threads = 9
    assert gui.threads.value == 9
    parameters.disconnectGui(tag)
    parameters.threads = 2
    assert gui.threads.value == 9


def test_an_unknown_parameter_in_the_gui_is_an_error(parameters):
    with pytest.raises(ValueError, match="Cannot find a param"):
        parameters.connectParametersToGui({"thread": qt.QSpinBox()})
