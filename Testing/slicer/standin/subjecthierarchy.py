"""Items of the subject hierarchy: in Slicer a Qt plugin makes one for every node that is added."""

from __future__ import annotations

import slicer
import vtk

OWNED = (
    "vtkMRMLVolumeNode",
    "vtkMRMLSegmentationNode",
    "vtkMRMLModelNode",
    "vtkMRMLTransformNode",
    "vtkMRMLMarkupsNode",
    "vtkMRMLTableNode",
    "vtkMRMLTextNode",
    "vtkMRMLPlotChartNode",
    "vtkMRMLPlotSeriesNode",
    "vtkMRMLSequenceBrowserNode",
    "vtkMRMLSequenceNode",
    "vtkMRMLScriptedModuleNode",
)


class SubjectHierarchy:
    """Keeps one item for every node of a scene that has a place in the data tree."""

    def __init__(self, scene):
        self._scene = scene
        scene.AddObserver(slicer.vtkMRMLScene.NodeAddedEvent, self._added)
        scene.AddObserver(slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, self._removed)
        scene.AddObserver(slicer.vtkMRMLScene.EndImportEvent, self._imported, -10.0)

    def _node(self):
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self._scene)

    def _add(self, node) -> None:
        tree = self._node()
        owned = any(node.IsA(name) for name in OWNED)
        if tree and owned and not node.GetHideFromEditors() and not tree.GetItemByDataNode(node):
            tree.CreateItem(tree.GetSceneItemID(), node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _added(self, caller, event, node):
        if node is not None and not self._scene.IsImporting():
            self._add(node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _removed(self, caller, event, node):
        scene = self._scene
        if node is None or scene.IsImporting() or scene.IsClosing():
            return  # asking for the tree in the middle of an import would merge half of it
        if node.IsA("vtkMRMLSubjectHierarchyNode"):
            return  # asking for the tree merges a second one into it and removes that
        tree = self._node()
        if tree is None:
            return
        item = tree.GetItemByDataNode(node)
        if item:
            tree.RemoveItem(item, False, True)

    def _imported(self, caller, event):
        for index in range(self._scene.GetNumberOfNodes()):
            self._add(self._scene.GetNthNode(index))
