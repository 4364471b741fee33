"""A small scripted module, written into a folder: threshold in a worker, progress, two views.

The seeded faults of `test_faults.py` are replacements in `MODULE`.
"""

from __future__ import annotations

from pathlib import Path

NAME = "StandInDemo"

MODULE = """
import threading
import time
from typing import Annotated

import qt
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import *
from slicer.util import VTKObservationMixin


@parameterNodeWrapper
class StandInDemoParameterNode:
    inputVolume: vtkMRMLScalarVolumeNode
    outputSegmentation: vtkMRMLSegmentationNode
    threshold: Annotated[float, WithinRange(-200, 300)] = 60.0


class StandInDemo(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Demo")


class StandInDemoWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.log = []
        self.worker = None
        self._node = None

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/StandInDemo.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = StandInDemoLogic()
        self.timer = qt.QTimer()
        self.timer.setInterval(50)
        self.timer.connect("timeout()", self.onPoll)
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, lambda *_: self.setNode(None))
        self.addObserver(scene, scene.EndCloseEvent, lambda *_: self.useNode())
        self.useNode()

    def useNode(self):
        self.setNode(StandInDemoParameterNode(self.logic.getParameterNode()))
        if not self._node.inputVolume:
            first = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
            self._node.inputVolume = first

    def setNode(self, node):
        if self._node:
            self._node.disconnectGui(self._tag)
            self.removeObserver(self._node, vtk.vtkCommand.ModifiedEvent, self.onChange)
        self._node = node
        if node:
            self._tag = node.connectGui(self.ui)
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self.onChange)
            self.onChange()

    def onChange(self, caller=None, event=None):
        ready = bool(self._node and self._node.inputVolume and self._node.outputSegmentation)
        self.ui.applyButton.enabled = ready
        self.ui.applyButton.toolTip = _("Segment") if ready else _("Choose input and output.")

    def onApply(self):
        self.array = slicer.util.arrayFromVolume(self._node.inputVolume).copy()
        self.done, self.steps = threading.Event(), 0
        self.worker = threading.Thread(target=self.work, name="demo")
        self.worker.start()
        self.timer.start()

    def work(self):
        end = time.time() + 0.6
        while time.time() < end:
            self.steps = 1 - (end - time.time()) / 0.6
            time.sleep(0.01)
        self.mask = (self.array > self._node_threshold()).astype("uint8")
        self.done.set()

    def _node_threshold(self):
        return 60.0

    def onPoll(self):
        finished = self.done.wait(0.02)
        self.ui.progressBar.value = int(100 * self.steps)
        if finished:
            self.timer.stop()
            self.worker.join()
            self.logic.show(self._node.inputVolume, self._node.outputSegmentation, self.mask)
            self.ui.progressBar.value = 100
            self.ui.statusLabel.text = _("Done: {count} voxels").format(count=self.mask.sum())

    def enter(self):
        self.log.append("enter")

    def exit(self):
        self.log.append("exit")

    def cleanup(self):
        self.log.append("cleanup")
        self.setNode(None)
        self.removeObservers()


class StandInDemoLogic(ScriptedLoadableModuleLogic):
    def show(self, volume, segmentation, mask):
        segmentation.CreateDefaultDisplayNodes()
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        name = segmentation.GetSegmentation().AddEmptySegment("bright", "bright", (0.9, 0.6, 0.3))
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, name, volume)
        segmentation.CreateClosedSurfaceRepresentation()


class StandInDemoTest(ScriptedLoadableModuleTest):
    def test_nothing(self):
        self.delayDisplay("ran")
"""

UI = """<?xml version="1.0" encoding="UTF-8"?>
<ui version="4.0">
 <class>StandInDemo</class>
 <widget class="qMRMLWidget" name="StandInDemo">
  <layout class="QVBoxLayout" name="verticalLayout">
   <item>
    <widget class="ctkCollapsibleButton" name="inputs">
     <property name="text"><string>Segment</string></property>
     <layout class="QFormLayout" name="formLayout">
      <item row="0" column="0">
       <widget class="QLabel" name="inputLabel">
        <property name="text"><string>Input:</string></property>
       </widget>
      </item>
      <item row="0" column="1">
       <widget class="qMRMLNodeComboBox" name="inputSelector">
        <property name="nodeTypes">
         <stringlist><string>vtkMRMLScalarVolumeNode</string></stringlist>
        </property>
        <property name="addEnabled"><bool>false</bool></property>
        <property name="SlicerParameterName" stdset="0"><string>inputVolume</string></property>
       </widget>
      </item>
      <item row="1" column="0">
       <widget class="QLabel" name="outputLabel">
        <property name="text"><string>Output:</string></property>
       </widget>
      </item>
      <item row="1" column="1">
       <widget class="qMRMLNodeComboBox" name="outputSelector">
        <property name="nodeTypes">
         <stringlist><string>vtkMRMLSegmentationNode</string></stringlist>
        </property>
        <property name="noneEnabled"><bool>true</bool></property>
        <property name="SlicerParameterName" stdset="0">
         <string>outputSegmentation</string>
        </property>
       </widget>
      </item>
      <item row="2" column="0">
       <widget class="QLabel" name="thresholdLabel">
        <property name="text"><string>Threshold:</string></property>
       </widget>
      </item>
      <item row="2" column="1">
       <widget class="ctkSliderWidget" name="thresholdSlider">
        <property name="SlicerParameterName" stdset="0"><string>threshold</string></property>
       </widget>
      </item>
     </layout>
    </widget>
   </item>
   <item>
    <widget class="QPushButton" name="applyButton">
     <property name="text"><string>Apply</string></property>
    </widget>
   </item>
   <item>
    <widget class="QProgressBar" name="progressBar"/>
   </item>
   <item>
    <widget class="QLabel" name="statusLabel"/>
   </item>
   <item>
    <widget class="qMRMLSegmentsTableView" name="segmentsTable"/>
   </item>
  </layout>
 </widget>
 <customwidgets>
  <customwidget><class>qMRMLWidget</class><extends>QWidget</extends></customwidget>
  <customwidget><class>qMRMLNodeComboBox</class><extends>QWidget</extends></customwidget>
  <customwidget><class>qMRMLSegmentsTableView</class><extends>QWidget</extends></customwidget>
  <customwidget><class>ctkCollapsibleButton</class><extends>QWidget</extends></customwidget>
  <customwidget><class>ctkSliderWidget</class><extends>QWidget</extends></customwidget>
 </customwidgets>
 <connections>
  <connection>
   <sender>outputSelector</sender>
   <signal>currentNodeChanged(vtkMRMLNode*)</signal>
   <receiver>segmentsTable</receiver>
   <slot>setSegmentationNode(vtkMRMLNode*)</slot>
  </connection>
  <connection>
   <sender>StandInDemo</sender>
   <signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
   <receiver>inputSelector</receiver>
   <slot>setMRMLScene(vtkMRMLScene*)</slot>
  </connection>
  <connection>
   <sender>StandInDemo</sender>
   <signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
   <receiver>outputSelector</receiver>
   <slot>setMRMLScene(vtkMRMLScene*)</slot>
  </connection>
 </connections>
</ui>
"""


def write(folder: Path, module: str = MODULE, ui: str = UI) -> Path:
    """The module's file in a folder of its own."""
    (folder / "Resources" / "UI").mkdir(parents=True)
    (folder / "Resources" / "UI" / f"{NAME}.ui").write_text(ui, encoding="utf-8")
    file = folder / f"{NAME}.py"
    file.write_text(module, encoding="utf-8")
    return file
