"""`slicer.modules` and the module factory: loading, panels, enter and exit, reload, unloading."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import slicer

from . import signals
from .binding import QtCore, QtWidgets
from .cpp import cpp, stored
from .nodewidgets import qSlicerWidget


class Modules:
    """`slicer.modules`: one attribute for each module, in lower case."""

    def __repr__(self):
        return f"<slicer.modules {sorted(vars(self))}>"


@cpp
class qSlicerScriptedLoadableModuleWidget(qSlicerWidget):
    """The C++ widget around the Python class of a panel."""

    def _s_start(self, module):
        self._s_module = module
        self._s_python = None
        QtWidgets.QVBoxLayout(self)
        self.setMRMLScene(slicer.mrmlScene)
        self.reload()

    def self(self):
        return self._s_python

    moduleName = QtCore.Property(str, lambda self: self._s_module.name)

    def reload(self):
        """Makes the Python widget anew from the class that is in sys.modules."""
        name = self._s_module.name
        self._s_python = getattr(sys.modules[name], f"{name}Widget")(self)
        setattr(slicer.modules, f"{name}Widget", self._s_python)
        signals.call_slot(self._s_python.setup, ())  # an error is printed, the panel stays

    def _s_call(self, method):
        signals.call_slot(getattr(self._s_python, method, lambda: None), ())


class Module(QtCore.QObject):
    """What `slicer.modules.<name>` gives for a module in C++."""

    _standin_name = "qSlicerLoadableModule"
    name = stored(str, "name", "")
    title = stored(str, "title", "")
    path = stored(str, "path", "")
    categories = stored("QVariantList", "categories", [])
    dependencies = stored("QVariantList", "dependencies", [])
    contributors = stored("QVariantList", "contributors", [])
    associatedNodeTypes = stored("QVariantList", "associatedNodeTypes", [])
    helpText = stored(str, "helpText", "")
    acknowledgementText = stored(str, "acknowledgementText", "")
    icon = stored("QVariant", "icon", None)
    hidden = stored(bool, "hidden", False)
    index = stored(int, "index", -1)

    def _s_start(self, name, logic=None, path=""):
        self._s_logic = logic
        self._s_widget = None
        self.name, self.title, self.path = name, name, path

    def logic(self):
        return self._s_logic

    def widgetRepresentation(self):
        """The panel; it is made when it is asked for first."""
        has_class = hasattr(sys.modules.get(self.name), f"{self.name}Widget")
        if self._s_widget is None and has_class:
            self._s_widget = self.createNewWidgetRepresentation()
        return self._s_widget

    def createNewWidgetRepresentation(self):
        widget = qSlicerScriptedLoadableModuleWidget()
        self._s_widget = self._s_widget or widget
        widget._s_start(self)
        return widget


class ScriptedModule(Module):
    """What `slicer.modules.<name>` gives for a module in Python."""

    _standin_name = "qSlicerScriptedLoadableModule"


class FactoryManager(QtCore.QObject):
    """`slicer.app.moduleManager().factoryManager()`."""

    _standin_name = "qSlicerModuleFactoryManager"

    def _s_start(self, manager):
        self._s_manager = manager

    def isLoaded(self, name):
        return name in self._s_manager._s_modules

    isRegistered = isInstantiated = isLoaded

    def loadedModuleNames(self):
        return tuple(self._s_manager._s_modules)

    instantiatedModuleNames = registeredModuleNames = loadedModuleNames

    def moduleInstance(self, name):
        return self._s_manager.module(name)


class ModuleManager(QtCore.QObject):
    """`slicer.app.moduleManager()`."""

    _standin_name = "qSlicerModuleManager"
    moduleLoaded = QtCore.Signal(str)
    moduleAboutToBeUnloaded = QtCore.Signal(str)

    def _s_start(self, scene):
        self._s_modules = {}
        self._s_factory = FactoryManager()
        self._s_factory._s_start(self)
        slicer.modules = Modules()
        sys.modules["slicer.modules"] = slicer.modules
        slicer.moduleNames = Modules()
        for name, logic in scene.logics.items():
            self._s_add(name, logic)

    def _s_add(self, name, logic=None, path=""):
        module = ScriptedModule() if path else Module()
        module._s_start(name, logic, path)
        self._s_modules[name] = module
        setattr(slicer.modules, name.lower(), module)
        setattr(slicer.moduleNames, name, name)
        return module

    def _s_load(self, path):
        """Imports a scripted module's file and makes its module object, as the factory does."""
        file = Path(path).resolve()
        name = file.stem
        if str(file.parent) not in sys.path:
            sys.path.insert(0, str(file.parent))
        spec = importlib.util.spec_from_file_location(name, file)
        python = importlib.util.module_from_spec(spec)
        sys.modules[name] = python
        spec.loader.exec_module(python)
        module = self._s_add(name, path=str(file))
        instance = getattr(python, name)(module)
        setattr(slicer.modules, f"{name}Instance", instance)
        getattr(instance, "setup", lambda: None)()
        self.moduleLoaded.emit(name)
        return module

    def _s_unload(self, name):
        """Takes a scripted module away, as the application does when it ends."""
        self.moduleAboutToBeUnloaded.emit(name)
        module = self._s_modules.pop(name)
        if module._s_widget is not None:
            module._s_widget.delete()
        for attribute in (name.lower(), f"{name}Instance", f"{name}Widget"):
            vars(slicer.modules).pop(attribute, None)
        vars(slicer.moduleNames).pop(name, None)
        sys.modules.pop(name, None)

    def factoryManager(self):
        return self._s_factory

    def modulesNames(self):
        return tuple(self._s_modules)

    def module(self, name):
        return self._s_modules.get(name)
