"""`slicer.app.ioManager()`: loading and saving of the files that the tests need."""

from __future__ import annotations

import re
from pathlib import Path

import slicer
import vtk

from .binding import QtCore

# The first pattern that matches a file name gives its type, as Slicer's readers are asked in turn.
TYPES = (
    (r"\.seg\.(nrrd|nhdr)$", "SegmentationFile"),
    (r"\.(mrml|mrb)$", "SceneFile"),
    (r"\.(nrrd|nhdr|nii|nii\.gz|mha|mhd|dcm)$", "VolumeFile"),
    (r"\.(tfm|h5)$", "TransformFile"),
    (r"\.mrk\.json$", "MarkupsFile"),
    (r"\.(vtk|vtp|stl|ply|obj)$", "ModelFile"),
    (r"\.(csv|tsv)$", "TableFile"),
    (r"\.txt$", "TextFile"),
)
LABELMAP, CENTERED, SINGLE_FILE = 1, 2, 4


class FileManager(QtCore.QObject):
    """What `slicer.util.loadVolume`, `loadScene`, `saveNode` and their like call."""

    _standin_name = "qSlicerIOManager"
    SIGNALS = {
        "newFileLoaded(qSlicerIO::IOProperties)": "_s_loaded",
        "fileSaved(qSlicerIO::IOProperties)": "_s_saved",
    }
    _s_loaded = QtCore.Signal(object)
    _s_saved = QtCore.Signal(object)

    def __init__(self, scene):
        QtCore.QObject.__init__(self)
        self._s_scene = scene
        self._s_readers = {
            "VolumeFile": self._s_volume,
            "SegmentationFile": self._s_segmentation,
            "TransformFile": lambda path, name, options: self._s_logic("Transforms").AddTransform(
                path, scene.scene
            ),
            "ModelFile": lambda path, name, options: self._s_logic("Models").AddModel(path),
            "MarkupsFile": lambda path, name, options: scene.scene.GetNodeByID(
                self._s_logic("Markups").LoadMarkups(path, name)
            ),
            "TableFile": lambda path, name, options: self._s_logic("Tables").AddTable(path, name),
        }

    def _s_logic(self, name: str):
        return self._s_scene.logics[name]

    def fileType(self, path: str) -> str:
        return next((kind for pattern, kind in TYPES if re.search(pattern, path, re.I)), "")

    def fileWriterFileType(self, node, storage=None) -> str:
        is_segmentation = node.IsA("vtkMRMLSegmentationNode")
        return "SegmentationFile" if is_segmentation else "VolumeFile"

    def loadFile(self, path: str) -> bool:
        return self.loadNodes(self.fileType(path), {"fileName": path})

    def loadScene(self, path: str, clear: bool = True) -> bool:
        return self.loadNodes("SceneFile", {"fileName": path, "clear": clear})

    def loadNodes(self, kind: str, options: dict, nodes=None, messages=None) -> bool:
        path = str(options["fileName"])
        if not Path(path).exists():
            if messages is not None:
                messages.AddMessage(vtk.vtkCommand.ErrorEvent, f"File does not exist: {path}")
            return False
        if kind == "SceneFile":
            return self._s_read_scene(path, bool(options.get("clear")))
        if kind not in self._s_readers:
            raise NotImplementedError(f"The stand-in has no reader for '{kind}'.")
        name = options.get("name") or re.sub(r"(\.seg)?\.(nii\.gz|[^.]+)$", "", Path(path).name)
        node = self._s_readers[kind](path, name, options)
        if node is not None and nodes is not None:
            nodes.AddItem(node)
        if node is not None:
            self._s_loaded.emit(options)
        return node is not None

    def _s_volume(self, path: str, name: str, options: dict):
        flags = LABELMAP * bool(options.get("labelmap")) + CENTERED * bool(options.get("center"))
        flags += SINGLE_FILE * bool(options.get("singleFile"))
        node = self._s_logic("Volumes").AddArchetypeVolume(path, name, flags)
        if node and not options.get("labelmap") and options.get("show", True):
            logic = self._s_scene.application_logic
            logic.GetSelectionNode().SetReferenceActiveVolumeID(node.GetID())
            logic.PropagateVolumeSelection()
        return node

    def _s_segmentation(self, path: str, name: str, options: dict):
        logic = self._s_logic("Segmentations")
        if re.search(r"\.seg\.(nrrd|nhdr)$", path):
            return logic.LoadSegmentationFromFile(path, True, name)
        scene = self._s_scene.scene
        labels = self._s_logic("Volumes").AddArchetypeVolume(path, name, LABELMAP)
        node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        node.CreateDefaultDisplayNodes()
        logic.ImportLabelmapToSegmentationNode(labels, node)
        scene.RemoveNode(labels)
        return node

    def _s_read_scene(self, path: str, clear: bool) -> bool:
        scene = self._s_scene.scene
        if path.lower().endswith(".mrb"):
            return bool(scene.ReadFromMRB(path, clear))
        scene.SetURL(path)
        return bool(scene.Connect() if clear else scene.Import())

    def saveNodes(self, kind: str, options: dict, messages=None) -> bool:
        path = str(options["fileName"])
        if kind == "SceneFile":
            return self.saveScene(path)
        node = self._s_scene.scene.GetNodeByID(options["nodeID"])
        node.AddDefaultStorageNode(path)
        storage = node.GetStorageNode()
        if storage is None:
            return False
        storage.SetFileName(path)
        storage.SetUseCompression(int(options.get("useCompression", 1)))
        return bool(storage.WriteData(node))

    def saveScene(self, path: str, screenshot=None, messages=None) -> bool:
        scene = self._s_scene.scene
        if str(path).lower().endswith(".mrb"):
            return bool(scene.WriteToMRB(str(path), None))
        scene.SetURL(str(path))
        return bool(scene.Commit(str(path)))

    def addDefaultStorageNodes(self) -> None:
        for node in slicer.util.getNodesByClass("vtkMRMLStorableNode"):
            node.AddDefaultStorageNode()
