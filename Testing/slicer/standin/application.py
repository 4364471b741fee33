"""`slicer.app`, and the start of the whole stand-in."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import types
from pathlib import Path

import slicer

from . import ctk, ctkinputs, packaging, parameternode, qtmodule, scriptedmodule
from .binding import QtCore, QtGui, QtWidgets
from .cpp import CLASSES
from .files import FileManager
from .layouts import qSlicerLayoutManager
from .mainwindow import MainWindow
from .modules import Module, ModuleManager, ScriptedModule
from .scene import Scene
from .segmenteditor import qMRMLSegmentEditorWidget
from .uiloader import QUiLoader

VERSION = (5, 12)
assert ctk and ctkinputs and qMRMLSegmentEditorWidget  # imported for the classes they register


def constant(kind, value):
    return QtCore.Property(kind, lambda self: value)


class Application(QtCore.QObject):
    """The part of `qSlicerApplication` that modules use."""

    _standin_name = "qSlicerApplication"
    startupCompleted = QtCore.Signal()
    aboutToQuit = QtCore.Signal()
    applicationName = constant(str, "Slicer")
    mainApplicationName = constant(str, "Slicer")
    applicationVersion = constant(str, "{}.{}.0-stand-in".format(*VERSION))
    majorVersion = constant(int, VERSION[0])
    minorVersion = constant(int, VERSION[1])
    revision = constant(str, "0")
    documentationBaseUrl = constant(str, "https://slicer.readthedocs.io/en/latest/")
    os = constant(str, "linux")
    arch = constant(str, "amd64")
    temporaryPath = QtCore.Property(str, lambda self: self._s_scene.folder)
    slicerHome = QtCore.Property(str, lambda self: self._s_scene.folder)
    extensionsInstallPath = QtCore.Property(str, lambda self: self._s_scene.folder)

    def _s_start(self, scene, qt_application):
        self._s_scene, self._s_qt = scene, qt_application
        self._s_testing = True
        self._s_files = FileManager(scene)
        self._s_manager = ModuleManager()
        self._s_manager._s_start(scene)
        self._s_layouts = None
        self._s_window = None
        self._s_settings = QtCore.QSettings()

    def _s_show_window(self):
        self._s_layouts = qSlicerLayoutManager()
        self._s_layouts._s_start(self._s_scene)
        self._s_window = MainWindow()
        self._s_window._s_start(self._s_layouts)
        self._s_window.show()

    def testingEnabled(self):
        return self._s_testing

    def processEvents(self, *arguments):
        self._s_qt.processEvents(*arguments)

    def topLevelWidgets(self):
        return tuple(self._s_qt.topLevelWidgets())

    def layoutManager(self):
        return self._s_layouts

    def moduleManager(self):
        return self._s_manager

    def moduleLogic(self, name):
        module = self._s_manager.module(name)
        return module.logic() if module else None

    def ioManager(self):
        return self._s_files

    coreIOManager = ioManager

    def applicationLogic(self):
        return self._s_scene.application_logic

    def mrmlScene(self):
        return self._s_scene.scene

    def settings(self):
        return self._s_settings

    userSettings = revisionUserSettings = settings

    def setOverrideCursor(self, cursor):
        self._s_qt.setOverrideCursor(QtGui.QCursor(cursor))

    def restoreOverrideCursor(self):
        self._s_qt.restoreOverrideCursor()

    def overrideCursor(self):
        return self._s_qt.overrideCursor()

    def clipboard(self):
        return self._s_qt.clipboard()

    def palette(self):
        return self._s_qt.palette()

    def style(self):
        return self._s_qt.style()

    def setRenderPaused(self, paused):
        """Pictures are drawn when they are asked for."""

    def pauseRender(self):
        self.setRenderPaused(True)

    def resumeRender(self):
        self.setRenderPaused(False)

    def translate(self, context, text):
        return text

    def moduleDocumentationUrl(self, name):
        return f"{self.documentationBaseUrl}user_guide/modules/{name.lower()}.html"

    def startupEnvironment(self):
        return dict(os.environ)

    def dicomDatabase(self):
        return None


def _tidy_namespace() -> None:
    """The wheel spreads `slicer.util` over `slicer` itself, which the application does not."""
    util = vars(importlib.import_module("slicer.util"))
    for name, value in util.items():
        is_own = getattr(value, "__module__", "") == "slicer.util"
        if is_own and not name.startswith("_") and vars(slicer).get(name) is value:
            delattr(slicer, name)


def _add_classes() -> None:
    ctk_module = types.ModuleType("ctk")
    sys.modules["ctk"] = ctk_module
    for name, cls in CLASSES.items():
        setattr(ctk_module if name.startswith("ctk") else slicer, name, cls)
    slicer.qSlicerScriptedLoadableModule = ScriptedModule


def _add_python_files() -> None:
    base = types.ModuleType("slicer.ScriptedLoadableModule")
    for name in scriptedmodule.__all__:
        setattr(base, name, getattr(scriptedmodule, name))
    base.__all__ = scriptedmodule.__all__
    for module in (base, scriptedmodule.build_i18n(), parameternode.build()):
        sys.modules[module.__name__] = module
        setattr(slicer, module.__name__.split(".")[1], module)
    packaging.install()


def start() -> Application:
    """Makes `qt`, `ctk`, `slicer.app` and everything else of the application importable, once."""
    if hasattr(slicer, "app"):
        return slicer.app
    qt = qtmodule.build()
    qt.QUiLoader = QUiLoader
    sys.modules["qt"] = qt
    qt_application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["Slicer"])
    scene = Scene()
    settings = QtCore.QSettings
    settings.setDefaultFormat(settings.IniFormat)
    settings.setPath(settings.IniFormat, settings.UserScope, scene.folder)
    qt_application.setOrganizationName("stand-in")
    qt_application.setApplicationName("Slicer")
    _tidy_namespace()
    slicer.mrmlScene = scene.scene
    slicer.app = Application()
    slicer.app._s_start(scene, qt_application)
    _add_classes()
    _add_python_files()
    slicer.app._s_show_window()
    return slicer.app


def load_module(path: str | Path) -> Module:
    """Loads a scripted module's file into the running stand-in."""
    return slicer.app.moduleManager()._s_load(path)


def unload_module(name: str) -> None:
    """Takes a scripted module away again, with its panel."""
    slicer.app._s_window._s_forget(name)
    slicer.app.moduleManager()._s_unload(name)


def stop() -> None:
    """Tells everybody that the application ends, and removes its folder."""
    application = slicer.app
    for name, module in list(application._s_manager._s_modules.items()):
        if module.path:
            unload_module(name)
    application.aboutToQuit.emit()
    shutil.rmtree(application._s_scene.folder, ignore_errors=True)
