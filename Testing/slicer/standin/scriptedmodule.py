"""`slicer.ScriptedLoadableModule` and `slicer.i18n`, written from their documentation."""

from __future__ import annotations

import os
import sys
import threading
import types
import unittest

import slicer

from .violations import record

__all__ = [
    "ScriptedLoadableModule",
    "ScriptedLoadableModuleLogic",
    "ScriptedLoadableModuleTest",
    "ScriptedLoadableModuleWidget",
]


class ScriptedLoadableModule:
    """What the application knows of a module: title, category, help."""

    def __init__(self, parent):
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title = ""
        parent.categories = []
        parent.dependencies = []
        parent.contributors = []
        parent.helpText = ""
        parent.acknowledgementText = ""
        if not hasattr(slicer, "selfTests"):
            slicer.selfTests = {}
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, filename):
        return os.path.join(os.path.dirname(self.parent.path), "Resources", filename)

    def getDefaultModuleDocumentationLink(self, docPage=None):
        url = slicer.app.moduleDocumentationUrl(self.moduleName)
        return f'<p>For more information see the <a href="{url}">online documentation</a>.</p>'

    def runTest(self, msec=100, **keywords):
        case = getattr(sys.modules[type(self).__module__], f"{self.moduleName}Test")()
        case.messageDelay = msec
        case.runTest(**keywords)


class ScriptedLoadableModuleWidget:
    """The panel of a module; `parent` is the widget that the application gives it."""

    def __init__(self, parent=None):
        import qt

        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        self.parent = parent or slicer.qMRMLWidget()
        if parent is None:
            self.parent.setLayout(qt.QVBoxLayout())
            self.parent.setMRMLScene(slicer.mrmlScene)
        self.layout = self.parent.layout()
        if parent is None:
            self.setup()
            self.parent.show()
        manager = slicer.app.moduleManager()
        manager.connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def resourcePath(self, filename):
        folder = os.path.dirname(slicer.util.modulePath(self.moduleName))
        return os.path.join(folder, "Resources", filename)

    def setup(self):
        """Nothing to build."""

    def cleanup(self):
        """Nothing to release."""

    def onReload(self):
        slicer.util.reloadScriptedModule(self.moduleName)

    def _onModuleAboutToBeUnloaded(self, moduleName):
        if moduleName == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect(
                "moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded
            )


class ScriptedLoadableModuleLogic:
    """Logic of a module, with a parameter node in the scene."""

    def __init__(self, parent=None):
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getAllParameterNodes(self):
        nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        return [n for n in nodes if n.GetAttribute("ModuleName") == self.moduleName]

    def getParameterNode(self):
        scene = slicer.mrmlScene
        if self.isSingletonParameterNode:
            node = scene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
            if node is not None:
                node.SetAttribute("ModuleName", self.moduleName)  # closing the scene removes it
                return node
        elif self.getAllParameterNodes():
            return self.getAllParameterNodes()[0]
        return scene.AddNode(self.createParameterNode())

    def createParameterNode(self):
        scene = slicer.mrmlScene
        node = scene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(scene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """The test that "Reload and Test" runs."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.messageDelay = 0

    def delayDisplay(self, message, requestedDelay=None, msec=None):
        slicer.util.delayDisplay(message, 0)

    def runTest(self):
        """Runs every method whose name starts with `test`."""
        for name in [n for n in dir(self) if n.startswith("test")]:
            self.setUp()
            try:
                getattr(self, name)()
            finally:
                self.tearDown()


def build_i18n() -> types.ModuleType:
    """`slicer.i18n`: the texts stay as they are, which is what a Slicer in English does.

    There `QCoreApplication.translate` is called through PythonQt, so a worker must not translate.
    """

    def translate(_context, text):
        if threading.current_thread() is not threading.main_thread():
            record("qt-in-thread", f"'{text}' was translated outside the main thread")
        return text

    module = types.ModuleType("slicer.i18n")
    module.tr = lambda text: translate("", text)
    module.translate = translate
    module.getContext = lambda path: os.path.splitext(os.path.basename(path))[0]
    return module
