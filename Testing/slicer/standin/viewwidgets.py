"""The widgets that a layout is made of: slice, 3D, plot and table views."""

from __future__ import annotations

import vtk

from .binding import QtCore, QtGui, QtWidgets
from .cpp import cpp
from .ctkinputs import row
from .nodewidgets import qMRMLWidget
from .observers import observe
from .plots import draw_chart, nearest_point
from .views import SliceView, ThreeDView

BUTTONS = {1: "LeftButton", 2: "RightButton", 4: "MiddleButton"}


class Canvas(QtWidgets.QWidget):
    """Paints the picture of a view and passes mouse and wheel to its interactor."""

    def _s_show(self, view):
        self._s_view = view
        self.setMouseTracking(True)
        self.setMinimumSize(60, 60)
        observe(self, view.managers, vtk.vtkCommand.UpdateEvent, self.update)

    def renderWindow(self):
        return self._s_view.window

    def interactor(self):
        return self._s_view.interactor

    def scheduleRender(self):
        self.update()

    def forceRender(self):
        self.repaint()

    def paintEvent(self, event):
        self._s_view.resize(self.width, self.height)
        pixels = self._s_view.image()
        height, width, _ = pixels.shape
        picture = QtGui.QImage(pixels.data, width, height, 3 * width, QtGui.QImage.Format_RGB888)
        painter = QtGui.QPainter(self)
        painter.drawImage(0, 0, picture)
        painter.end()

    def _s_send(self, name, event):
        held = event.modifiers()
        place = event.position()
        self._s_view.send(
            name,
            place.x(),
            place.y(),
            control=bool(held & QtCore.Qt.ControlModifier),
            shift=bool(held & QtCore.Qt.ShiftModifier),
        )
        self.update()

    def mousePressEvent(self, event):
        self._s_send(BUTTONS.get(int(event.button()), "LeftButton") + "PressEvent", event)

    def mouseReleaseEvent(self, event):
        self._s_send(BUTTONS.get(int(event.button()), "LeftButton") + "ReleaseEvent", event)

    def mouseMoveEvent(self, event):
        self._s_send("MouseMoveEvent", event)

    def wheelEvent(self, event):
        clicks = event.angleDelta().y() // 120
        name = "MouseWheelForwardEvent" if clicks > 0 else "MouseWheelBackwardEvent"
        for _ in range(abs(clicks)):
            self._s_send(name, event)


@cpp
class qMRMLSliceView(Canvas):
    """The picture of a slice."""

    def mrmlSliceNode(self):
        return self._s_view.node

    def sliceViewInteractorStyle(self):
        return self._s_view._style


@cpp
class qMRMLThreeDView(Canvas):
    """The picture of a 3D view."""

    def mrmlViewNode(self):
        return self._s_view.node

    def cameraNode(self):
        return self._s_view.camera_node()

    def resetFocalPoint(self):
        self._s_view.reset_focal_point()
        self.update()

    resetCamera = resetFocalPoint


def _title(node, text: str, color: str):
    label = QtWidgets.QLabel(text or node.GetLayoutLabel() or node.GetLayoutName())
    label.styleSheet = f"background: {color or '#cccccc'}; color: black; padding: 1px 6px;"
    label.setFixedHeight(18)
    return label


def _column(parent, *widgets) -> None:
    layout = QtWidgets.QVBoxLayout(parent)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(0)
    for widget in widgets:
        layout.addWidget(widget)
    layout.setStretchFactor(widgets[-1], 1)


@cpp
class qMRMLSliceWidget(qMRMLWidget):
    """Title, offset slider and picture of a slice view."""

    def _s_show(self, scene, node, label, color):
        self._s_view = SliceView(scene.scene, scene.application_logic, node)
        self._s_canvas = qMRMLSliceView()
        self._s_canvas._s_show(self._s_view)
        self._s_slider = QtWidgets.QSlider(QtCore.Qt.Horizontal)
        _column(self, _title(node, label, color), self._s_slider, self._s_canvas)
        self._s_slider.sliderMoved.connect(self._s_slid)
        observe(self, node, vtk.vtkCommand.ModifiedEvent, self._s_follow)
        self.setMRMLScene(scene.scene)

    def _s_range(self):
        bounds = [0.0] * 6
        self._s_view.logic.GetLowestVolumeSliceBounds(bounds)
        return bounds[4], bounds[5]

    def _s_follow(self):
        low, high = self._s_range()
        share = (self._s_view.logic.GetSliceOffset() - low) / ((high - low) or 1)
        self._s_slider.value = round(99 * share)
        self._s_canvas.update()

    def _s_slid(self, position):
        low, high = self._s_range()
        logic = self._s_view.logic
        logic.StartSliceOffsetInteraction()
        logic.SetSliceOffset(low + (high - low) * position / 99)
        logic.EndSliceOffsetInteraction()

    def sliceLogic(self):
        return self._s_view.logic

    def mrmlSliceNode(self):
        return self._s_view.node

    mrmlAbstractViewNode = mrmlSliceNode

    def mrmlSliceCompositeNode(self):
        return self._s_view.composite

    def sliceView(self):
        return self._s_canvas

    viewWidget = sliceView

    def sliceController(self):
        return self

    def fitSliceToBackground(self):
        self._s_view.fit()


@cpp
class qMRMLThreeDWidget(qMRMLWidget):
    """Title and picture of a 3D view."""

    def _s_show(self, scene, node, label, color):
        self._s_view = ThreeDView(scene.scene, scene.application_logic, node)
        self._s_canvas = qMRMLThreeDView()
        self._s_canvas._s_show(self._s_view)
        _column(self, _title(node, label, color), self._s_canvas)
        self.setMRMLScene(scene.scene)

    def mrmlViewNode(self):
        return self._s_view.node

    mrmlAbstractViewNode = mrmlViewNode

    def threeDView(self):
        return self._s_canvas

    viewWidget = threeDView


@cpp
class qMRMLPlotView(QtWidgets.QWidget):
    """The series of a chart as lines; a click on a point selects it."""

    SIGNALS = {"dataSelected(vtkStringArray*,vtkCollection*)": "_s_selected"}
    _s_selected = QtCore.Signal(object, object)
    _s_node = None

    def _s_show(self, node):
        self._s_node = node
        self.setMinimumSize(80, 60)
        observe(self, node, vtk.vtkCommand.ModifiedEvent, self.update)

    def _s_chart(self):
        return self._s_node.GetPlotChartNode() if self._s_node else None

    def paintEvent(self, event):
        draw_chart(self, self._s_chart())

    def mousePressEvent(self, event):
        found = nearest_point(self, self._s_chart(), event.position())
        if found is None:
            return
        series, index = found
        names = vtk.vtkStringArray()
        names.InsertNextValue(series.GetID())
        chosen = vtk.vtkIdTypeArray()
        chosen.InsertNextValue(index)
        selections = vtk.vtkCollection()
        selections.AddItem(chosen)
        self._s_selected.emit(names, selections)

    def fitToContent(self):
        self.update()


@cpp
class qMRMLPlotWidget(qMRMLWidget):
    """A plot view with its title."""

    def _s_show(self, scene, node, label, color):
        self._s_canvas = qMRMLPlotView()
        self._s_canvas._s_show(node)
        _column(self, _title(node, label, color), self._s_canvas)
        self.setMRMLScene(scene.scene)

    def mrmlPlotViewNode(self):
        return self._s_canvas._s_node

    mrmlAbstractViewNode = mrmlPlotViewNode

    def plotView(self):
        return self._s_canvas

    viewWidget = plotView


@cpp
class qMRMLTableView(QtWidgets.QTableWidget):
    """The table that a table view node shows."""

    def _s_show(self, node):
        self._s_node = node
        observe(self, node, vtk.vtkCommand.ModifiedEvent, self._s_fill)
        self._s_fill()

    def _s_fill(self):
        table = self._s_node.GetTableNode()
        data = table.GetTable() if table else None
        self.rowCount = data.GetNumberOfRows() if data else 0
        self.columnCount = data.GetNumberOfColumns() if data else 0
        for column in range(self.columnCount):
            for index in range(self.rowCount):
                text = data.GetValue(index, column).ToString()
                self.setItem(index, column, QtWidgets.QTableWidgetItem(text))

    def mrmlTableViewNode(self):
        return self._s_node


@cpp
class qMRMLTableWidget(qMRMLWidget):
    """A table view."""

    def _s_show(self, scene, node, label, color):
        self._s_canvas = qMRMLTableView()
        self._s_canvas._s_show(node)
        row(self, self._s_canvas)
        self.setMRMLScene(scene.scene)

    def mrmlTableViewNode(self):
        return self._s_canvas._s_node

    mrmlAbstractViewNode = mrmlTableViewNode

    def tableView(self):
        return self._s_canvas

    viewWidget = tableView


WIDGETS = {
    "vtkMRMLSliceNode": qMRMLSliceWidget,
    "vtkMRMLViewNode": qMRMLThreeDWidget,
    "vtkMRMLPlotViewNode": qMRMLPlotWidget,
    "vtkMRMLTableViewNode": qMRMLTableWidget,
}
