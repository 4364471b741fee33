"""`slicer.app.layoutManager()`: layouts of Slicer's own logic, built from our view widgets."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import slicer
import vtk

from .binding import QtCore, QtWidgets
from .cpp import cpp
from .viewwidgets import WIDGETS, qMRMLPlotWidget, qMRMLSliceWidget, qMRMLTableWidget
from .viewwidgets import qMRMLThreeDWidget as ThreeDWidget


@cpp
class qSlicerLayoutManager(QtWidgets.QWidget):
    """Shows the views of the layout node's current description; keeps those of other layouts."""

    SIGNALS = {"layoutChanged(int)": "_s_changed"}
    _s_changed = QtCore.Signal(int)

    def _s_start(self, scene):
        self._s_scene = scene
        self._s_widgets = {}  # node ID -> widget
        self._s_description = None
        self._s_root = None
        box = QtWidgets.QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        self._s_logic = slicer.vtkMRMLLayoutLogic()
        self._s_logic.SetMRMLScene(scene.scene)
        self._s_node = self._s_logic.GetLayoutNode()
        event = vtk.vtkCommand.ModifiedEvent
        self._s_node.AddObserver(event, lambda *_: self._s_apply())
        self.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView)

    def layoutLogic(self):
        return self._s_logic

    def mrmlScene(self):
        return self._s_scene.scene

    def setLayout(self, number):
        """Slicer's slot, which hides QWidget's method of that name."""
        self._s_node.SetViewArrangement(int(number))
        self._s_apply()

    layout = QtCore.Property(int, lambda self: self._s_node.GetViewArrangement(), setLayout)

    def _s_apply(self):
        description = self._s_node.GetCurrentLayoutDescription() or ""
        count = self._s_node.GetNumberOfMaximizedViewNodes()
        alone = [self._s_node.GetMaximizedViewNode(n).GetID() for n in range(count)]
        if (description, alone) == self._s_description or not description.strip():
            return
        isOther = self._s_description is None or description != self._s_description[0]
        self._s_description = (description, alone)
        for widget in self._s_widgets.values():
            widget.setParent(None)
            widget.mrmlAbstractViewNode().SetMappedInLayout(0)
        if self._s_root is not None:
            self._s_root.hide()
            self._s_root.setParent(None)
            self._s_root.deleteLater()
        self._s_root = self._s_build(ET.fromstring(description))
        if alone:  # the widgets of the others wait
            for key, widget in self._s_widgets.items():
                widget.setVisible(key in alone)
        QtWidgets.QWidget.layout(self).addWidget(self._s_root)
        if isOther:
            self._s_changed.emit(self._s_node.GetViewArrangement())

    def _s_build(self, element):
        if element.tag == "view":
            return self._s_view(element)
        if element.tag != "layout":
            raise ValueError(f"A layout holds 'layout' and 'view', not '{element.tag}'.")
        items = element.findall("item")
        builders = {"tab": self._s_tabs, "grid": self._s_grid}
        kind = element.get("type", "horizontal")
        return builders.get(kind, self._s_splitter)(items, kind)

    def _s_splitter(self, items, kind):
        vertical = kind == "vertical"
        splitter = QtWidgets.QSplitter(QtCore.Qt.Vertical if vertical else QtCore.Qt.Horizontal)
        for item in items:
            splitter.addWidget(self._s_build(item[0]))
        splitter.setSizes([1000] * len(items))
        return splitter

    def _s_tabs(self, items, kind):
        tabs = QtWidgets.QTabWidget()
        for item in items:
            tabs.addTab(self._s_build(item[0]), item.get("name", ""))
        return tabs

    def _s_grid(self, items, kind):
        widget = QtWidgets.QWidget()
        grid = QtWidgets.QGridLayout(widget)
        for item in items:
            place = int(item.get("row", 0)), int(item.get("column", 0))
            grid.addWidget(self._s_build(item[0]), *place)
        return widget

    def _s_view(self, element):
        kind, tag = element.get("class"), element.get("singletontag")
        values = {p.get("name"): (p.text or "").strip() for p in element.findall("property")}
        node = self._s_view_node(kind, tag, values)
        key = node.GetID()
        if key in self._s_widgets and self._s_widgets[key].mrmlAbstractViewNode() is not node:
            self._s_forget(key)  # the node was removed and came back, as when a scene is read
        if key not in self._s_widgets:
            widget = WIDGETS[kind]()
            widget._s_show(self._s_scene, node, values.get("viewlabel"), values.get("viewcolor"))
            self._s_widgets[key] = widget
        node.SetMappedInLayout(1)
        self._s_widgets[key].show()
        return self._s_widgets[key]

    def _s_forget(self, key):
        """Ends the widget of a view node that is no longer in the scene."""
        widget = self._s_widgets.pop(key)
        logics = self._s_scene.application_logic
        for collection in (logics.GetSliceLogics(), logics.GetViewLogics()):
            if hasattr(widget, "_s_view"):
                collection.RemoveItem(widget._s_view.logic)
        widget.setParent(None)
        widget.deleteLater()

    def _s_view_node(self, kind, tag, values):
        scene = self._s_scene.scene
        node = scene.GetSingletonNode(tag, kind)
        if node is None:
            node = scene.CreateNodeByClass(kind)
            node.UnRegister(None)
            node.SetSingletonTag(tag)
            node.SetName(tag)
            node.SetLayoutName(tag)
            if "viewlabel" in values:
                node.SetLayoutLabel(values["viewlabel"])
            node = scene.AddNode(node)
            if "orientation" in values:
                node.SetOrientation(values["orientation"])
            if "viewgroup" in values:
                node.SetViewGroup(int(values["viewgroup"]))
        return node

    def _s_shown(self, cls):
        widgets = self._s_widgets.values()
        return [
            w for w in widgets if isinstance(w, cls) and w.mrmlAbstractViewNode().IsMappedInLayout()
        ]

    def sliceViewNames(self):
        return tuple(w.mrmlSliceNode().GetLayoutName() for w in self._s_shown(qMRMLSliceWidget))

    def sliceWidget(self, name):
        slices = [w for w in self._s_widgets.values() if isinstance(w, qMRMLSliceWidget)]
        return next((w for w in slices if w.mrmlSliceNode().GetLayoutName() == name), None)

    def viewWidget(self, node):
        return self._s_widgets.get(node.GetID()) if node else None

    def _s_nth(self, cls, index):
        shown = self._s_shown(cls)
        if isinstance(index, str):
            return next((w for w in shown if w.mrmlAbstractViewNode().GetName() == index), None)
        return shown[index] if 0 <= index < len(shown) else None

    def threeDWidget(self, index):
        return self._s_nth(ThreeDWidget, index)

    def plotWidget(self, index):
        return self._s_nth(qMRMLPlotWidget, index)

    def tableWidget(self, index):
        return self._s_nth(qMRMLTableWidget, index)

    threeDViewCount = QtCore.Property(int, lambda self: len(self._s_shown(ThreeDWidget)))
    plotViewCount = QtCore.Property(int, lambda self: len(self._s_shown(qMRMLPlotWidget)))
    tableViewCount = QtCore.Property(int, lambda self: len(self._s_shown(qMRMLTableWidget)))

    def activeMRMLThreeDViewNode(self):
        widget = self.threeDWidget(0)
        return widget.mrmlViewNode() if widget else None

    def mrmlSliceLogics(self):
        return self._s_scene.application_logic.GetSliceLogics()

    def resetSliceViews(self):
        for widget in self._s_shown(qMRMLSliceWidget):
            widget.sliceLogic().FitSliceToAll()

    def resetThreeDViews(self):
        for widget in self._s_shown(ThreeDWidget):
            widget.threeDView().resetFocalPoint()

    def setRenderPaused(self, paused):
        """Pictures are drawn when they are asked for."""

    def pauseRender(self):
        self.setRenderPaused(True)

    def resumeRender(self):
        self.setRenderPaused(False)
