"""Widgets and their items: questions to a Qt binding, one function each.

They need only the module `qt`, so they run under real PythonQt too; `pythonqt_answers.json` has
what it answered.
"""

from __future__ import annotations

import qt

kept = []  # widgets that must outlive their question


def keep(widget):
    kept.append(widget)
    return widget


def combo():
    c = keep(qt.QComboBox())
    c.addItems(["a", "b"])
    return [c.count, c.currentText, c.currentIndex]


def combo_count_call():
    c = keep(qt.QComboBox())
    return c.count()


def combo_findText():
    c = keep(qt.QComboBox())
    c.addItems(["a", "b"])
    return c.findText("b")


def combo_currentText_set():
    c = keep(qt.QComboBox())
    c.addItems(["a", "b"])
    c.currentText = "b"
    return [c.currentText, c.currentIndex]


def combo_itemData():
    c = keep(qt.QComboBox())
    c.addItem("a", "data")
    return [c.itemData(0), c.currentData]


def combo_itemData_obj():
    c = keep(qt.QComboBox())
    c.addItem("a", {"k": 1})
    return str(c.itemData(0))


def list_count():
    inner = keep(qt.QListWidget())
    inner.addItem("q")
    return inner.count


def table():
    t = keep(qt.QTableWidget(2, 3))
    return [t.rowCount, t.columnCount]


def table_item():
    t = keep(qt.QTableWidget(2, 3))
    t.setItem(0, 0, qt.QTableWidgetItem("z"))
    return t.item(0, 0).text()


def layout_count_method():
    w = keep(qt.QWidget())
    inner = qt.QVBoxLayout(w)
    inner.addWidget(qt.QLabel("x"))
    return [inner.count(), w.layout().count()]


def children_type():
    w = keep(qt.QWidget())
    qt.QVBoxLayout(w)
    return type(w.children()).__name__


def child_by_name():
    w = keep(qt.QWidget())
    inner = qt.QLabel("x", w)
    inner.objectName = "lbl"
    return w.lbl.text


def name_alias():
    b = keep(qt.QPushButton("a"))
    b.name = "nn"
    return [b.objectName, b.name]


def dyn_prop():
    b = keep(qt.QPushButton("a"))
    b.setProperty("dyn", 5)
    x = b.dyn
    b.dyn = 6
    return [x, b.property("dyn")]


def className():
    return keep(qt.QPushButton("a")).className()


def inherits():
    return keep(qt.QPushButton("a")).inherits("QAbstractButton")


def findChild():
    w = keep(qt.QWidget())
    inner = qt.QLabel("x", w)
    inner.objectName = "lbl"
    return w.findChild("QLabel", "lbl").text


def findChild_type():
    w = keep(qt.QWidget())
    inner = qt.QLabel("x", w)
    inner.objectName = "lbl"
    return w.findChild(qt.QLabel, "lbl").text


def findChildren_type():
    w = keep(qt.QWidget())
    qt.QLabel("x", w)
    return len(w.findChildren(qt.QLabel))
