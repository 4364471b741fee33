"""Signals and slots: questions to a Qt binding, one function each.

They need only the module `qt`, so they run under real PythonQt too; `pythonqt_answers.json` has
what it answered.
"""

from __future__ import annotations

import functools

import qt

kept = []  # widgets that must outlive their question


def keep(widget):
    kept.append(widget)
    return widget


def connect_ok():
    got = []
    b = keep(qt.QPushButton("a"))
    r = b.connect("clicked(bool)", lambda v: got.append(v))
    b.click()
    return [bool(r), got]


def connect_space():
    got = []
    b = keep(qt.QPushButton("a"))
    r = b.connect("clicked( bool )", lambda v: got.append(v))
    b.click()
    return [bool(r), got]


def connect_truncate():
    got = []
    b = keep(qt.QPushButton("a"))
    b.connect("clicked(bool)", lambda: got.append("x"))
    b.click()
    return got


def connect_default_arg():
    got = []
    b = keep(qt.QPushButton("a"))
    b.connect("clicked(bool)", lambda x="dflt": got.append(x))
    b.click()
    return got


def connect_noarg_sig():
    got = []
    b = keep(qt.QPushButton("a"))
    b.connect("clicked()", lambda: got.append("x"))
    b.click()
    return got


def connect_noarg_sig_default():
    got = []
    b = keep(qt.QPushButton("a"))
    b.connect("clicked()", lambda x="dflt": got.append(x))
    b.click()
    return got


def connect_partial():
    got = []
    b = keep(qt.QPushButton("a"))
    b.connect("clicked(bool)", functools.partial(lambda *a: got.append(list(a)), 7))
    b.click()
    return got


def connect_unknown():
    b = keep(qt.QPushButton("a"))
    return b.connect("nosuch(bool)", lambda: 0)


def connect_wrong_sig():
    b = keep(qt.QPushButton("a"))
    return b.connect("clicked(int)", lambda: 0)


def connect_not_callable():
    b = keep(qt.QPushButton("a"))
    return b.connect("clicked(bool)", 5)


def disconnect_ok():
    got = []

    def f():
        got.append(1)

    b = keep(qt.QPushButton("a"))
    b.connect("clicked()", f)
    b.click()
    r = b.disconnect("clicked()", f)
    b.click()
    return [bool(r), got]


def disconnect_not_connected():
    b = keep(qt.QPushButton("a"))
    return b.disconnect("clicked()", lambda: 0)


def connect_twice():
    got = []

    def f():
        got.append(1)

    b = keep(qt.QPushButton("a"))
    b.connect("clicked()", f)
    b.connect("clicked()", f)
    b.click()
    return got


def new_style_connect():
    got = []
    b = keep(qt.QPushButton("a"))
    b.clicked.connect(lambda: got.append(1))
    b.click()
    return got


def new_style_connect_arg():
    got = []
    b = keep(qt.QPushButton("a"))
    b.clicked.connect(lambda v: got.append(v))
    b.click()
    return got


def signal_attr_unknown():
    b = keep(qt.QPushButton("a"))
    b.clickd.connect(lambda: 0)


def bound_method_slot_lifetime():

    class H:
        n = 0

        def f(self):
            H.n += 1

    b = keep(qt.QPushButton("a"))
    b.connect("clicked()", H().f)
    b.click()
    return H.n


def slot_exception_continues():
    got = []

    def bad():
        raise RuntimeError("boom")

    b = keep(qt.QPushButton("a"))
    b.connect("clicked()", bad)
    b.connect("clicked()", lambda: got.append(1))
    b.click()
    return got
