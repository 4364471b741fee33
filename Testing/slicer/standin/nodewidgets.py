"""qMRML's base widget and its choosers of nodes."""

from __future__ import annotations

import slicer
import vtk

from .binding import QtCore, QtWidgets
from .cpp import cpp, stored
from .ctkinputs import row
from .observers import observe

SCENE_EVENTS = ("NodeAddedEvent", "NodeRemovedEvent", "EndCloseEvent", "EndImportEvent")


class SceneObserver:
    """Follows a scene: `_s_scene_changed()` runs after every change of its nodes."""

    _s_scene = None
    _s_tags = ()

    def _s_observe(self, scene) -> bool:
        """Follows another scene; False if it is the same one."""
        if self._s_scene is scene:
            return False
        for tag in self._s_tags:
            self._s_scene.RemoveObserver(tag)
        events = [getattr(slicer.vtkMRMLScene, e) for e in SCENE_EVENTS] if scene else []
        self._s_scene = scene
        self._s_tags = [observe(self, scene, e, self._s_scene_changed) for e in events]
        self._s_scene_changed()
        return True

    def setMRMLScene(self, scene):
        self._s_observe(scene)

    def _s_scene_changed(self):
        """Nothing depends on the nodes."""


@cpp
class qMRMLWidget(QtWidgets.QWidget, SceneObserver):
    """A widget that knows the scene."""

    SIGNALS = {"mrmlSceneChanged(vtkMRMLScene*)": "_s_sceneSet"}
    _s_sceneSet = QtCore.Signal(object)

    def mrmlScene(self):
        return self._s_scene

    def setMRMLScene(self, scene):
        if self._s_observe(scene):
            self._s_sceneSet.emit(scene)


@cpp
class qSlicerWidget(QtWidgets.QWidget, SceneObserver):
    """The base of widgets of modules; it takes a scene and does not tell which."""

    SIGNALS = {"mrmlSceneChanged(vtkMRMLScene*)": "_s_sceneSet"}
    _s_sceneSet = QtCore.Signal(object)

    def setMRMLScene(self, scene):
        if self._s_observe(scene):
            self._s_sceneSet.emit(scene)


@cpp
class qMRMLNodeComboBox(QtWidgets.QWidget, SceneObserver):
    """Chooses one node of some classes; may add, rename and remove nodes."""

    SIGNALS = {
        "currentNodeChanged(vtkMRMLNode*)": "_s_nodeChanged",
        "currentNodeChanged(bool)": "_s_nodeValid",
        "currentNodeIDChanged(QString)": "_s_idChanged",
        "nodeActivated(vtkMRMLNode*)": "_s_activated",
        "nodeAdded(vtkMRMLNode*)": "_s_added",
        "nodeAddedByUser(vtkMRMLNode*)": "_s_addedByUser",
    }
    _s_nodeChanged = QtCore.Signal(object)
    _s_nodeValid = QtCore.Signal(bool)
    _s_idChanged = QtCore.Signal(str)
    _s_activated = QtCore.Signal(object)
    _s_added = QtCore.Signal(object)
    _s_addedByUser = QtCore.Signal(object)

    def __init__(self, parent=None):
        QtWidgets.QWidget.__init__(self, parent)
        self._s_box = QtWidgets.QComboBox()
        self._s_box.setSizeAdjustPolicy(QtWidgets.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        row(self, self._s_box)
        self._s_entries = []  # node ID, None for "none", or ("add", class)
        self._s_current = None
        self._s_attributes = {}
        self._s_labels = {}
        self._s_observed = {}
        self._s_box.activated.connect(self._s_picked)

    def _s_scene_changed(self):
        if "_s_box" not in self.__dict__:
            return
        nodes = self._s_nodes()
        self._s_follow(nodes)
        self._s_fill(nodes)
        ids = [node.GetID() for node in nodes]
        current = self._s_current
        if current not in ids:
            current = ids[0] if ids and not self.noneEnabled else None
        self._s_select(current)

    nodeTypes = stored("QStringList", "nodeTypes", [], _s_scene_changed)
    hideChildNodeTypes = stored("QStringList", "hideChildNodeTypes", [], _s_scene_changed)
    showHidden = stored(bool, "showHidden", False, _s_scene_changed)
    showChildNodeTypes = stored(bool, "showChildNodeTypes", True, _s_scene_changed)
    noneEnabled = stored(bool, "noneEnabled", False, _s_scene_changed)
    noneDisplay = stored(str, "noneDisplay", "None", _s_scene_changed)
    addEnabled = stored(bool, "addEnabled", True, _s_scene_changed)
    removeEnabled = stored(bool, "removeEnabled", True)
    selectNodeUponCreation = stored(bool, "selectNodeUponCreation", True)
    baseName = stored(str, "baseName", "")

    def _s_accepts(self, node):
        if node.GetHideFromEditors() and not self.showHidden:
            return False
        if any(node.IsA(kind) for kind in self.hideChildNodeTypes):
            return False
        for kind in self.nodeTypes:
            fits = node.IsA(kind) if self.showChildNodeTypes else node.GetClassName() == kind
            wanted = self._s_attributes.get(kind, {}).items()
            if fits and all(self._s_has(node, name, value) for name, value in wanted):
                return True
        return False

    def _s_has(self, node, name, value):
        found = node.GetAttribute(name)
        return found is not None and value in (None, found)

    def _s_nodes(self):
        scene = self._s_scene
        nodes = [scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())] if scene else []
        return [node for node in nodes if self._s_accepts(node)]

    def _s_follow(self, nodes):
        """Observes the names of the nodes that are listed, and of no others."""
        wanted = {node.GetID(): node for node in nodes}
        for key in set(self._s_observed) - set(wanted):
            node, tag = self._s_observed.pop(key)
            node.RemoveObserver(tag)
        for key in set(wanted) - set(self._s_observed):
            tag = observe(self, wanted[key], vtk.vtkCommand.ModifiedEvent, self._s_rename)
            self._s_observed[key] = (wanted[key], tag)

    def _s_fill(self, nodes):
        entries = [(self.noneDisplay, None)] if self.noneEnabled else []
        entries += [(node.GetName() or "", node.GetID()) for node in nodes]
        if self.addEnabled and self._s_scene:
            entries += [(f"Create new {self._s_kind(t)}", ("add", t)) for t in self.nodeTypes]
        self._s_box.clear()
        self._s_box.addItems([text for text, _ in entries])
        self._s_entries = [entry for _, entry in entries]

    def _s_kind(self, kind):
        if kind in self._s_labels:
            return self._s_labels[kind]
        return self._s_scene.GetTagByClassName(kind) or kind.removeprefix("vtkMRML")[:-4]

    def _s_rename(self):
        for index, entry in enumerate(self._s_entries):
            node = self._s_scene.GetNodeByID(entry) if isinstance(entry, str) else None
            if node is not None:
                self._s_box.setItemText(index, node.GetName())

    def _s_select(self, node_id):
        changed = node_id != self._s_current
        self._s_current = node_id
        known = node_id in self._s_entries
        self._s_box.currentIndex = self._s_entries.index(node_id) if known else -1
        if changed:
            node = self.currentNode()
            self._s_nodeChanged.emit(node)
            self._s_nodeValid.emit(node is not None)
            self._s_idChanged.emit(node_id or "")

    def _s_picked(self, index):
        """What the user chose in the list."""
        entry = self._s_entries[index]
        if isinstance(entry, tuple):
            self._s_addedByUser.emit(self.addNode(entry[1]))
        else:
            self._s_select(entry)
            self._s_activated.emit(self.currentNode())

    def mrmlScene(self):
        return self._s_scene

    def currentNode(self):
        known = self._s_scene and self._s_current
        return self._s_scene.GetNodeByID(self._s_current) if known else None

    def setCurrentNode(self, node):
        self.setCurrentNodeID(node.GetID() if hasattr(node, "GetID") else node)

    def setCurrentNodeID(self, node_id):
        wanted = node_id or None
        if wanted is None or wanted in self._s_entries:
            self._s_select(wanted)

    currentNodeID = QtCore.Property(str, lambda self: self._s_current or "", setCurrentNodeID)

    def setCurrentNodeIndex(self, index):
        self._s_select(self._s_entries[index + self.noneEnabled])

    def nodeCount(self):
        return len(self._s_nodes())

    def nodeFromIndex(self, index):
        return self._s_nodes()[index]

    def addAttribute(self, kind, name, value=None):
        self._s_attributes.setdefault(kind, {})[name] = None if value is None else str(value)
        self._s_scene_changed()

    def removeAttribute(self, kind, name):
        self._s_attributes.get(kind, {}).pop(name, None)
        self._s_scene_changed()

    def setNodeTypeLabel(self, label, kind):
        self._s_labels[kind] = label
        self._s_scene_changed()

    def nodeTypeLabel(self, kind):
        return self._s_kind(kind)

    def addNode(self, kind=None):
        kind = kind or self.nodeTypes[0]
        name = self.baseName or kind.removeprefix("vtkMRML").removesuffix("Node")
        node = self._s_scene.AddNewNodeByClass(kind, self._s_scene.GenerateUniqueName(name))
        if self.selectNodeUponCreation:
            self._s_select(node.GetID())
        self._s_added.emit(node)
        return node

    def removeCurrentNode(self):
        if self.currentNode() is not None:
            self._s_scene.RemoveNode(self.currentNode())
