"""Properties, attributes and arguments: questions to a Qt binding, one function each.

They need only the module `qt`, so they run under real PythonQt too; `pythonqt_answers.json` has
what it answered.
"""

from __future__ import annotations

import numpy as np
import qt

kept = []  # widgets that must outlive their question


def keep(widget):
    kept.append(widget)
    return widget


def prop_read_text():
    return keep(qt.QPushButton("a")).text


def prop_call_text():
    return keep(qt.QPushButton("a")).text()


def prop_set():
    b = keep(qt.QPushButton("a"))
    b.text = "z"
    b.enabled = False
    b.toolTip = "t"
    return [b.text, b.enabled, b.toolTip]


def getter_isEnabled():
    return keep(qt.QPushButton("a")).isEnabled()


def getter_isChecked():
    c = keep(qt.QCheckBox("a"))
    c.checked = True
    return c.isChecked()


def getter_isVisible():
    return keep(qt.QWidget()).isVisible()


def setter_setText_slot_or_not():
    b = keep(qt.QPushButton("a"))
    b.setText("q")
    b.setToolTip("tt")
    b.setEnabled(False)
    return [b.text, b.toolTip, b.enabled]


def new_attr_on_cpp():
    b = keep(qt.QPushButton("a"))
    b.foo = 1
    return b.foo


def overwrite_slot():
    b = keep(qt.QPushButton("a"))
    b.click = 1


def overwrite_signal():
    b = keep(qt.QPushButton("a"))
    b.clicked = 1


def readonly_prop():
    w = keep(qt.QWidget())
    w.width = 3


def wrong_type_prop():
    b = keep(qt.QPushButton("a"))
    b.iconSize = "abc"


def wrong_type_enabled():
    b = keep(qt.QPushButton("a"))
    b.enabled = "no"
    return b.enabled


def text_none():
    b = keep(qt.QLabel("a"))
    b.text = None
    return b.text


def text_int():
    b = keep(qt.QLabel("a"))
    b.text = 5
    return b.text


def settext_int():
    b = keep(qt.QLabel("a"))
    b.setText(5)
    return b.text


def spin_float():
    s = keep(qt.QSpinBox())
    s.value = 3.7
    return s.value


def spin_setvalue_float():
    s = keep(qt.QSpinBox())
    s.setValue(3.7)
    return s.value


def progress_float():
    s = keep(qt.QProgressBar())
    s.value = 33.4
    return s.value


def progress_setvalue_float():
    s = keep(qt.QProgressBar())
    s.setValue(33.4)
    return s.value


def progress_numpy():
    s = keep(qt.QProgressBar())
    s.value = np.int64(12)
    return s.value


def kwargs_ctor():
    return keep(qt.QPushButton("a", enabled=False)).enabled


def kwargs_method():
    b = keep(qt.QPushButton("a"))
    b.setText(text="q")
    return b.text
