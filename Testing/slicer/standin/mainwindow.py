"""The main window: the panel of the chosen module on the left, the layout on the right."""

from __future__ import annotations

import slicer

from .binding import QtCore, QtWidgets
from .cpp import cpp

PANEL_WIDTH = 420
SIZE = (1280, 800)
CAPTION = "Test stand-in, not 3D Slicer: own widgets on PySide6 over MRML of slicer-core"


@cpp
class qSlicerModuleSelectorToolBar(QtWidgets.QToolBar):
    """Chooses the module whose panel is shown."""

    SIGNALS = {"moduleSelected(QString)": "_s_selected"}
    _s_selected = QtCore.Signal(str)
    _s_name = ""
    selectedModule = QtCore.Property(str, lambda self: self._s_name)

    def selectModule(self, name):
        if slicer.app.moduleManager().module(name) is None:
            raise RuntimeError(f"There is no module '{name}'.")
        if name != self._s_name:
            self._s_selected.emit(name)
            self._s_name = name


class MainWindow(QtWidgets.QMainWindow):
    """`slicer.util.mainWindow()`, with a line that says what it is on every screenshot."""

    _standin_name = "qSlicerMainWindow"

    def _s_start(self, layout_manager):
        self.objectName = "qSlicerMainWindow"
        self.windowTitle = CAPTION
        self._s_shown = None
        self._s_selector = qSlicerModuleSelectorToolBar()
        self._s_selector.connect("moduleSelected(QString)", self._s_show)
        self._s_area = QtWidgets.QScrollArea()
        self._s_area.widgetResizable = True
        self._s_area.setFixedWidth(PANEL_WIDTH)
        self._s_area.horizontalScrollBarPolicy = QtCore.Qt.ScrollBarAlwaysOff
        content = QtWidgets.QWidget()
        row = QtWidgets.QHBoxLayout(content)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._s_area)
        row.addWidget(layout_manager, 1)
        self.setCentralWidget(content)
        self.statusBar().addWidget(QtWidgets.QLabel(CAPTION))
        self.resize(*SIZE)

    def moduleSelector(self):
        return self._s_selector

    def centralWidget(self):
        return slicer.app.layoutManager()

    def _s_leave(self):
        """Calls exit() of the panel that is shown."""
        shown, self._s_shown = self._s_shown, None
        if shown is not None:
            shown._s_call("exit")

    def _s_show(self, name):
        self._s_leave()
        if self._s_area.widget() is not None:
            self._s_area.takeWidget()
        widget = slicer.app.moduleManager().module(name).widgetRepresentation()
        if widget is not None:
            self._s_area.setWidget(widget)
            widget.show()
            widget._s_call("enter")
            self._s_shown = widget

    def _s_forget(self, name):
        """Before a module is unloaded."""
        if self._s_selector.selectedModule == name:
            self._s_leave()
            self._s_area.takeWidget()
            self._s_selector._s_name = ""
