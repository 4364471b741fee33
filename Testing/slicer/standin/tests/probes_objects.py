"""Enumerators, settings, timers and other objects: questions to a Qt binding, one function each.

They need only the module `qt`, so they run under real PythonQt too; `pythonqt_answers.json` has
what it answered.
"""

from __future__ import annotations

import os
import tempfile

import qt

kept = []  # widgets that must outlive their question


def keep(widget):
    kept.append(widget)
    return widget


def enum_int():
    return [int(qt.Qt.AlignLeft), int(qt.Qt.Checked), qt.Qt.Checked == 2, int(qt.QMessageBox.Ok)]


def enum_scoped():
    return int(qt.Qt.AlignmentFlag.AlignLeft)


def enum_or():
    return int(qt.Qt.AlignLeft | qt.Qt.AlignTop)


def enum_in_setter():
    s = keep(qt.QSlider(qt.Qt.Horizontal))
    return int(s.orientation)


def enum_isinstance_int():
    return isinstance(qt.Qt.Checked, int)


def sizepolicy():
    w = keep(qt.QWidget())
    w.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
    return int(w.sizePolicy.horizontalPolicy())


def checkstate_int():
    c = keep(qt.QCheckBox())
    c.setCheckState(2)
    return c.checked


def size_prop():
    w = keep(qt.QWidget())
    w.resize(50, 60)
    return w.size


def size_call():
    w = keep(qt.QWidget())
    return w.size()


def width_call():
    w = keep(qt.QWidget())
    return w.width()


def sizeHint_native():
    return type(keep(qt.QLabel("x")).sizeHint).__name__


def exec_underscore():
    d = keep(qt.QDialog())
    qt.QTimer.singleShot(0, d.accept)
    return d.exec_()


def exec_plain():
    d = keep(qt.QDialog())
    qt.QTimer.singleShot(0, d.accept)
    return d.exec()


def qsettings_value():
    file = os.path.join(tempfile.mkdtemp(), "probe.ini")
    s = keep(qt.QSettings(file, qt.QSettings.IniFormat))
    s.setValue("b", True)
    s.setValue("i", 3)
    s.setValue("l", ["a", "b"])
    s.sync()
    s2 = keep(qt.QSettings(file, qt.QSettings.IniFormat))
    return [s2.value("b"), s2.value("i"), s2.value("l"), s2.value("none"), s2.value("none", "d")]


def timer_prop():
    t = keep(qt.QTimer())
    t.interval = 5
    t.singleShot = True
    return [t.interval, t.singleShot, t.active]


def timer_isActive():
    return keep(qt.QTimer()).isActive()


def subclass_attr():

    class W(qt.QWidget):
        def __init__(self, p=None):
            qt.QWidget.__init__(self, p)
            self.foo = 3

    w = keep(W())
    w.bar = 4
    return [w.foo, w.bar, w.enabled]


def subclass_override_sizeHint():

    class W(qt.QWidget):
        def sizeHint(self):
            return qt.QSize(77, 66)

    w = keep(qt.QWidget())
    inner = qt.QVBoxLayout(w)
    inner.setContentsMargins(0, 0, 0, 0)
    x = keep(W())
    inner.addWidget(x)
    w.adjustSize()
    return w.size


def event_filter():

    class F(qt.QObject):
        n = 0

        def eventFilter(self, o, e):
            F.n += 1
            return False

    w = keep(qt.QWidget())
    f = keep(F())
    w.installEventFilter(f)
    w.resize(30, 30)
    w.show()
    w.hide()
    return F.n > 0


def action():
    a = keep(qt.QAction("x", None))
    got = []
    a.connect("triggered()", lambda: got.append(1))
    a.trigger()
    a.checkable = True
    return [got, a.checkable, a.text]


def action_triggered_bool():
    a = keep(qt.QAction("x", None))
    got = []
    a.triggered.connect(lambda v: got.append(v))
    a.trigger()
    return got


def msgbox_static():
    return callable(qt.QMessageBox.question)


def label_pixmap():
    inner = keep(qt.QLabel("x"))
    p = qt.QPixmap(4, 4)
    inner.setPixmap(p)
    return inner.pixmap.width()


def icon_prop():
    b = keep(qt.QPushButton("x"))
    b.icon = qt.QIcon()
    return type(b.icon).__name__


def stylesheet():
    b = keep(qt.QPushButton("x"))
    b.styleSheet = "color: red"
    return b.styleSheet


def qcolor_name():
    return qt.QColor(255, 0, 0).name()


def qbrush_table():
    t = keep(qt.QTableWidget(1, 1))
    i = qt.QTableWidgetItem("a")
    i.setBackground(qt.QBrush(qt.QColor(255, 0, 0)))
    t.setItem(0, 0, i)
    return t.item(0, 0).background().color().name()


def truthiness():
    return bool(keep(qt.QWidget()))


def equality():
    w = keep(qt.QWidget())
    inner = qt.QVBoxLayout(w)
    x = qt.QLabel("q")
    inner.addWidget(x)
    return [inner.itemAt(0).widget() == x, inner.itemAt(0).widget() is x]


def deleted_access():
    w = qt.QWidget()
    w.delete()
    return w.enabled


def blockSignals():
    got = []
    c = keep(qt.QCheckBox())
    c.connect("toggled(bool)", lambda v: got.append(v))
    o = c.blockSignals(True)
    c.checked = True
    c.blockSignals(o)
    return [o, got]


def tabs():
    t = keep(qt.QTabWidget())
    t.addTab(qt.QWidget(), "a")
    return [t.count, t.currentIndex]


def groupbox():
    g = keep(qt.QGroupBox("t"))
    g.checkable = True
    g.checked = False
    return [g.title, g.checked]


def formlayout_addRow():
    f = keep(qt.QFormLayout())
    f.addRow("a:", qt.QLabel("b"))
    return f.rowCount()


def lineedit():
    e = keep(qt.QLineEdit())
    got = []
    e.connect("textChanged(QString)", lambda s: got.append(s))
    e.text = "ab"
    return [e.text, got]


def combo_index_changed_str():
    c = keep(qt.QComboBox())
    c.addItems(["a", "b"])
    return bool(c.connect("currentIndexChanged(QString)", lambda s: 0))


def snake_case():
    b = keep(qt.QPushButton("a"))
    b.set_text("q")


def palette_call():
    w = keep(qt.QWidget())
    return type(w.palette).__name__


def qtimer_single_lambda():
    got = []
    qt.QTimer.singleShot(0, lambda: got.append(1))
    qt.QApplication.processEvents()
    return got


def processEvents_static():
    return qt.QApplication.processEvents()


def QVariantlist_tuple():
    w = keep(qt.QWidget())
    w.setProperty("x", ["a", "b"])
    return w.property("x")


def itemview_selection():
    t = keep(qt.QListWidget())
    t.addItems(["a", "b"])
    t.setCurrentRow(1)
    return [t.currentRow, t.currentItem().text()]


def margins():
    inner = keep(qt.QVBoxLayout())
    inner.setMargin(3)


def contentsMargins():
    inner = keep(qt.QVBoxLayout())
    inner.setContentsMargins(1, 2, 3, 4)
    return (
        inner.contentsMargins().left()
        if callable(inner.contentsMargins)
        else inner.contentsMargins.left()
    )


def doublespin():
    s = keep(qt.QDoubleSpinBox())
    s.maximum = 5
    s.value = 9
    return s.value
