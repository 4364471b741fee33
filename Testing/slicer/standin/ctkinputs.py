"""CTK's inputs: numbers, paths, searches and choices."""

from __future__ import annotations

from .binding import QtCore, QtGui, QtWidgets
from .cpp import cpp, passed_on, stored


def row(parent, *widgets) -> None:
    """Lays widgets side by side without margins."""
    layout = QtWidgets.QHBoxLayout(parent)
    layout.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        layout.addWidget(widget)


@cpp
class ctkSliderWidget(QtWidgets.QWidget):
    """A slider and a spin box for one number."""

    valueChanged = QtCore.Signal(float)
    valueIsChanging = QtCore.Signal(float)

    def __init__(self, parent=None):
        QtWidgets.QWidget.__init__(self, parent)
        self._s_slider = QtWidgets.QSlider(QtCore.Qt.Horizontal)
        self._s_box = QtWidgets.QDoubleSpinBox()
        row(self, self._s_slider, self._s_box)
        self._s_box.setRange(0, 99)
        self._s_box.valueChanged.connect(self._s_changed)
        self._s_slider.valueChanged.connect(self._s_slid)
        self._s_follow()

    def _s_steps(self):
        span = self._s_box.maximum - self._s_box.minimum
        return max(1, min(100_000, round(span / (self._s_box.singleStep or 1))))

    def _s_follow(self):
        box, slider = self._s_box, self._s_slider
        span = (box.maximum - box.minimum) or 1
        blocked = slider.blockSignals(True)
        slider.setRange(0, self._s_steps())
        slider.value = round((box.value - box.minimum) / span * self._s_steps())
        slider.blockSignals(blocked)

    def _s_slid(self, position):
        box = self._s_box
        box.value = box.minimum + (box.maximum - box.minimum) * position / self._s_steps()

    def _s_changed(self, value):
        self._s_follow()
        self.valueIsChanging.emit(value)
        self.valueChanged.emit(value)

    def _s_limit(name):
        def put(self, value):
            setattr(self._s_box, name, value)
            self._s_follow()

        return QtCore.Property(float, lambda self: getattr(self._s_box, name), put)

    minimum, maximum, singleStep = _s_limit("minimum"), _s_limit("maximum"), _s_limit("singleStep")
    value = passed_on(float, "value", "_s_box")
    decimals = passed_on(int, "decimals", "_s_box")
    suffix = passed_on(str, "suffix", "_s_box")
    prefix = passed_on(str, "prefix", "_s_box")
    spinBoxVisible = passed_on(bool, "visible", "_s_box")
    del _s_limit

    def setValue(self, value):
        self._s_box.value = value


@cpp
class ctkDoubleSpinBox(QtWidgets.QDoubleSpinBox):
    """A spin box for floating point numbers."""


@cpp
class ctkSearchBox(QtWidgets.QLineEdit):
    """A line to search in, with a cross that empties it."""

    def __init__(self, parent=None):
        QtWidgets.QLineEdit.__init__(self, parent)
        self.clearButtonEnabled = True

    showSearchIcon = stored(bool, "showSearchIcon", False)


@cpp
class ctkPathLineEdit(QtWidgets.QWidget):
    """A file or a folder, typed or browsed for."""

    currentPathChanged = QtCore.Signal(str)
    validInputChanged = QtCore.Signal(bool)
    Dirs, Files, Readable, Writable, Executable = 0x1, 0x2, 0x10, 0x20, 0x40

    def __init__(self, parent=None):
        QtWidgets.QWidget.__init__(self, parent)
        self._s_line = QtWidgets.QLineEdit()
        self._s_button = QtWidgets.QToolButton()
        self._s_button.text = "…"
        row(self, self._s_line, self._s_button)
        self._s_line.textChanged.connect(lambda text: self.currentPathChanged.emit(text))
        self._s_button.clicked.connect(lambda: self.browse())

    currentPath = passed_on(str, "text", "_s_line")
    filters = stored(int, "filters", Files | Readable)

    def setCurrentPath(self, path):
        self._s_line.text = path

    def addCurrentPathToHistory(self):
        """There is no history to keep."""

    def browse(self):
        dialog = QtWidgets.QFileDialog
        ask = dialog.getExistingDirectory if self.filters & self.Dirs else dialog.getOpenFileName
        chosen = ask(self, self.label or "", self.currentPath)
        if chosen:
            self.currentPath = chosen


@cpp
class ctkDirectoryButton(QtWidgets.QWidget):
    """A button that shows a folder and asks for another one."""

    directoryChanged = QtCore.Signal(str)
    directorySelected = QtCore.Signal(str)

    def __init__(self, parent=None):
        QtWidgets.QWidget.__init__(self, parent)
        self._s_button = QtWidgets.QPushButton()
        row(self, self._s_button)
        self._s_button.clicked.connect(lambda: self.browse())

    def _s_set(self, folder):
        changed = folder != self._s_button.text
        self._s_button.text = folder
        if changed:
            self.directoryChanged.emit(folder)

    directory = QtCore.Property(str, lambda self: self._s_button.text, _s_set)

    def browse(self):
        chosen = QtWidgets.QFileDialog.getExistingDirectory(self, "", self.directory)
        if chosen:
            self.directory = chosen
            self.directorySelected.emit(chosen)


@cpp
class ctkComboBox(QtWidgets.QComboBox):
    """A combo box with a text for "nothing chosen"."""


@cpp
class ctkCheckBox(QtWidgets.QCheckBox):
    """A check box with icons of its own."""


@cpp
class ctkCheckableComboBox(QtWidgets.QComboBox):
    """A combo box whose entries are ticked, several at once; it lists what is ticked."""

    checkedIndexesChanged = QtCore.Signal()

    def __init__(self, parent=None):
        QtWidgets.QComboBox.__init__(self, parent)
        self._s_model = QtGui.QStandardItemModel(self)
        self.setModel(self._s_model)
        self._s_model.rowsInserted.connect(self._s_inserted)
        self._s_model.dataChanged.connect(lambda *_: self._s_announce())
        self._s_checked = ()

    def _s_inserted(self, parent, first, last):
        for index in range(first, last + 1):
            self._s_model.item(index).setCheckable(True)

    def _s_announce(self):
        checked = tuple(i.row() for i in self.checkedIndexes())
        if checked != self._s_checked:
            self._s_checked = checked
            self.update()
            self.checkedIndexesChanged.emit()

    def checkableModel(self):
        return self._s_model

    def checkedIndexes(self):
        rows = range(self._s_model.rowCount())
        ticked = [i for i in rows if self._s_model.item(i).checkState() == QtCore.Qt.Checked]
        return tuple(self._s_model.index(i, 0) for i in ticked)

    def allChecked(self):
        return len(self.checkedIndexes()) == self.count

    def noneChecked(self):
        return not self.checkedIndexes()

    def checkState(self, index):
        return self._s_model.itemFromIndex(index).checkState()

    def setCheckState(self, index, state):
        self._s_model.itemFromIndex(index).setCheckState(QtCore.Qt.CheckState(state))

    def paintEvent(self, event):
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionComboBox()
        self.initStyleOption(option)
        names = [self.itemText(i.row()) for i in self.checkedIndexes()]
        option.currentText = ", ".join(names) if names else "None"
        painter.drawComplexControl(QtWidgets.QStyle.CC_ComboBox, option)
        painter.drawControl(QtWidgets.QStyle.CE_ComboBoxLabel, option)


@cpp
class ctkRangeWidget(QtWidgets.QWidget):
    """A lower and an upper number."""

    valuesChanged = QtCore.Signal(float, float)

    def _s_announce(self):
        self.valuesChanged.emit(self.minimumValue, self.maximumValue)

    minimum = stored(float, "minimum", 0.0)
    maximum = stored(float, "maximum", 99.0)
    minimumValue = stored(float, "minimumValue", 0.0, _s_announce)
    maximumValue = stored(float, "maximumValue", 99.0, _s_announce)
