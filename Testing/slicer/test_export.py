"""The section Export: files for other programs, read back by what reads them."""

from __future__ import annotations

import csv
from unittest import mock

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from DistillSegPanel import DicomExport, Outputs
from DistillSegPanel.ExportTasks import freePath
from DistillSegPanel.Segments import segmentationFromNode
from PanelCase import FAST, REFERENCE, PanelCase, needsEngine
from vtk.util.numpy_support import vtk_to_numpy

from DistillSegLib.geometry import same_grid
from DistillSegLib.segmentations import read_segmentation

PARTS = ("anterior", "posterior")


def rowsOf(path):
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


class ExportCase(PanelCase):
    """A segmented sample, and the section open with a folder that is not there yet."""

    def setUp(self):
        super().setUp()
        self.choose()
        self.segment()
        self.node = self.panel.parameters.outputSegmentation
        self.volume = self.panel.parameters.inputVolume
        self.ui = self.panel.export.ui
        self.panel.ui.exportSection.collapsed = False
        self.folder = self.home / "症例 @ export"
        self.ui.exportFolder.currentPath = str(self.folder)

    def click(self, button):
        button.click()
        self.waitUntil(lambda: not self.panel.busy, 60, self.panel.said)

    def move(self):
        """Put volume and result below a transform, as a registration does."""
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        matrix = np.eye(4)
        matrix[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
        matrix[:3, 3] = (30, -20, 10)
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
        for node in (self.volume, self.node):
            node.SetAndObserveTransformNodeID(transform.GetID())


@needsEngine
class FilesTest(ExportCase):
    def test_the_segmentation_file_is_slicer_s_own_with_names_and_terminology(self):
        self.click(self.ui.segmentationButton)
        path = self.folder / "sample hippocampus-fast.seg.nrrd"
        found, here = read_segmentation(path), segmentationFromNode(self.node)
        self.assertEqual([x.name for x in found.labels], [x.name for x in here.labels])
        self.assertEqual(
            [x.terminology for x in found.labels], [x.terminology for x in here.labels]
        )
        np.testing.assert_array_equal(
            sitk.GetArrayFromImage(found.image), sitk.GetArrayFromImage(here.image)
        )
        self.assertTrue(same_grid(found.image, here.image))
        self.assertIsNone(self.node.GetStorageNode())
        again = slicer.util.loadSegmentation(str(path))
        self.assertEqual(again.GetSegmentation().GetNumberOfSegments(), 2)
        self.assertIn(path.name, self.panel.said)
        self.screenshot("export", self.panel.widget)

    def test_status_and_origin_are_written_and_read_by_slicer(self):
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        segment = self.node.GetSegmentation().GetSegment("DistillSeg_2")
        logic.SetSegmentStatus(segment, logic.Completed)
        self.click(self.ui.segmentationButton)
        path = self.folder / "sample hippocampus-fast.seg.nrrd"
        again = slicer.util.loadSegmentation(str(path)).GetSegmentation()
        self.assertEqual(logic.GetSegmentStatus(again.GetNthSegment(1)), logic.Completed)
        self.assertEqual(logic.GetSegmentStatus(again.GetNthSegment(0)), logic.NotStarted)
        self.assertEqual(tag(again.GetNthSegment(0), Outputs.MODEL), FAST)

    def test_segments_that_overlap_are_written_in_layers(self):
        mine = self.node.GetSegmentation().AddEmptySegment("mine", "mine")
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(self.node, "DistillSeg_1", self.volume)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, self.node, mine, self.volume)
        self.click(self.ui.segmentationButton)
        path = self.folder / "sample hippocampus-fast.seg.nrrd"
        again = slicer.util.loadSegmentation(str(path))
        for segmentId in ("DistillSeg_1", "mine"):
            np.testing.assert_array_equal(
                slicer.util.arrayFromSegmentBinaryLabelmap(again, segmentId, self.volume) > 0,
                mask > 0,
            )

    def test_values_in_files_are_the_model_s_own_in_any_order(self):
        self.node.GetSegmentation().SetSegmentIndex("DistillSeg_2", 0)
        self.click(self.ui.labelMapButton)
        rows = rowsOf(self.folder / "sample hippocampus-fast-labels.csv")
        self.assertEqual([row["Name"] for row in rows][1:], [f"Hippocampus, {x}" for x in PARTS])
        found = sitk.ReadImage(str(self.folder / "sample hippocampus-fast.nii.gz"))
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(self.node, "DistillSeg_2", self.volume)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(found) == 2, mask > 0)

    def test_a_long_export_can_be_cancelled(self):
        parameters = self.panel.parameters
        parameters.compareA, parameters.compareB = self.node, self.other()
        self.ui.reportButton.click()
        self.assertTrue(self.panel.busy)
        self.assertEqual(self.panel.ui.remedyButton.text, "Cancel")
        self.panel.ui.remedyButton.click()
        self.waitUntil(lambda: not self.panel.busy, 1)
        self.assertIn("Cancelled", self.panel.said)

    def other(self):
        """A second segmentation of the same volume."""
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "other")
        node.GetSegmentation().DeepCopy(self.node.GetSegmentation())
        node.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        return node

    def test_below_a_transform_files_lie_where_the_views_show_them(self):
        self.move()
        here = segmentationFromNode(self.node)
        self.click(self.ui.segmentationButton)
        self.click(self.ui.labelMapButton)
        for name in ("sample hippocampus-fast.seg.nrrd", "sample hippocampus-fast.nii.gz"):
            found = read_segmentation(self.folder / name)
            self.assertTrue(same_grid(found.image, here.image), name)
            np.testing.assert_array_equal(
                sitk.GetArrayFromImage(found.image), sitk.GetArrayFromImage(here.image)
            )

    def test_nifti_comes_with_the_meaning_of_its_values(self):
        self.click(self.ui.labelMapButton)
        rows = rowsOf(self.folder / "sample hippocampus-fast-labels.csv")
        self.assertEqual(
            [row["Name"] for row in rows],
            ["Background", "Hippocampus, anterior", "Hippocampus, posterior"],
        )

    def test_a_file_that_is_there_is_never_overwritten(self):
        for _ in range(3):
            self.click(self.ui.tablesButton)
        names = sorted(path.name for path in self.folder.iterdir())
        stem = "sample hippocampus-fast"
        self.assertEqual(names, [f"{stem}-2.csv", f"{stem}-3.csv", f"{stem}.csv"])

    def test_names_that_no_file_can_have_are_made_fit(self):
        self.assertEqual(freePath(self.home, 'a/b\\c:d*?"<>| ', ".csv").name, "a_b_c_d______.csv")
        self.assertEqual(freePath(self.home, " . ", ".csv").name, "segmentation.csv")

    def test_volumes_are_those_of_the_result(self):
        self.click(self.ui.tablesButton)
        rows = rowsOf(self.folder / "sample hippocampus-fast.csv")
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(self.node, "DistillSeg_1", self.volume)
        expected = np.count_nonzero(mask) * np.prod(self.volume.GetSpacing()) / 1000
        self.assertAlmostEqual(float(rows[0]["volume_ml"]), expected, places=4)

    def test_a_report_shows_structures_and_model(self):
        self.click(self.ui.reportButton)
        text = (self.folder / "sample hippocampus-fast.html").read_text(encoding="utf-8")
        for part in ("Hippocampus, anterior", FAST, "<svg", "Not a medical device"):
            self.assertIn(part, text)

    def test_what_is_compared_is_part_of_tables_and_report(self):
        self.choose(self.volume, REFERENCE)
        self.panel.segment.releaseOutput()
        self.segment()
        parameters = self.panel.parameters
        parameters.compareA, parameters.compareB = self.node, parameters.outputSegmentation
        parameters.reviewed = self.node
        self.assertIn("compare it with 'sample hippocampus-reference'", self.ui.comparedLabel.text)
        self.click(self.ui.tablesButton)
        self.click(self.ui.reportButton)
        rows = rowsOf(self.folder / "sample hippocampus-fast-comparison.csv")
        dice = [
            row["dice"] for row in self.panel.logic.compare(self.node, parameters.compareB)["rows"]
        ]
        np.testing.assert_allclose([float(row["dice"]) for row in rows], dice)
        text = (self.folder / "sample hippocampus-fast.html").read_text(encoding="utf-8")
        self.assertIn("HD95", text)
        self.screenshot("export-compared", self.panel.widget)


@needsEngine
class RefusedTest(ExportCase):
    def test_a_folder_that_refuses_is_one_sentence_for_every_kind(self):
        (self.home / "file").write_text("no folder")
        self.ui.exportFolder.currentPath = str(self.home / "file" / "below")
        buttons = (
            self.ui.segmentationButton,
            self.ui.labelMapButton,
            self.ui.tablesButton,
            self.ui.reportButton,
            self.ui.dicomButton,
        )
        for button in buttons:
            self.panel.say("")
            self.click(button)
            self.assertIn("Nothing can be written to", self.panel.said)
            self.assertIn("choose another folder", self.panel.said)

    def test_no_folder_is_asked_for(self):
        self.ui.exportFolder.currentPath = ""
        self.click(self.ui.reportButton)
        self.assertEqual(self.panel.said, "Choose a folder to write to.")

    def test_a_click_while_another_task_runs_is_answered(self):
        self.ui.reportButton.click()
        self.assertTrue(self.panel.busy)
        self.panel.export.onTables()  # as a click that came before the buttons were disabled
        self.assertIn("Another task is running", self.panel.said)
        self.waitUntil(lambda: not self.panel.busy, 60)
        self.assertEqual([path.suffix for path in self.folder.iterdir()], [".html"])

    def test_without_a_segmentation_every_button_says_what_is_missing(self):
        self.panel.parameters.reviewed = None
        self.assertFalse(self.ui.reportButton.enabled)
        self.assertIn("Segment a volume", self.ui.reportButton.toolTip)


class Database:
    """The part of Slicer's DICOM database that an exporter asks."""

    isOpen = True

    def __init__(self, *known):
        self.known = known

    def fileForInstance(self, uid):
        return f"/dicom/{uid}.dcm" if uid in self.known else ""

    def instanceValue(self, uid, tagName):
        return {"0008,0060": "MR"}.get(tagName, "") if uid in self.known else ""


class Exportable:
    """What a DICOM plugin gives for a node that it can export."""

    def __init__(self, item):
        self.subjectHierarchyItemID, self.directory = item, ""


class Exporter:
    """An exporter for places without one, as particular as that of Slicer 5.12 about its input.

    Like that one it wants every file of the series in the database, label maps, an algorithm's name
    unless the type is MANUAL, and terminology; and asks with a dialog box about empty segments.
    """

    answer = ""
    folder, name, segments, asked = "", "", {}, False

    def examineForExport(self, item):
        uids = hierarchy().GetItemAttribute(item, "DICOM.ReferencedInstanceUIDs").split()
        known = all(slicer.dicomDatabase.fileForInstance(uid) for uid in uids)
        return [Exportable(item)] if known else []

    def export(self, exportables):
        cls = Exporter
        for exportable in exportables:
            node = hierarchy().GetItemDataNode(exportable.subjectHierarchyItemID)
            cls.folder, cls.name, cls.segments = exportable.directory, node.GetName(), {}
            volume = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
            for uid in volume.GetAttribute("DICOM.instanceUIDs").split():
                assert slicer.dicomDatabase.fileForInstance(uid)
            for segmentId in node.GetSegmentation().GetSegmentIDs():
                cls.segments[segmentId] = self.read(node, segmentId, volume)
        return cls.answer

    def read(self, node, segmentId, volume):
        segment = node.GetSegmentation().GetSegment(segmentId)
        stored = segment.GetRepresentation("Binary labelmap").GetPointData()
        scalars = stored.GetArray("ImageScalars")
        if scalars is None or scalars.GetValueRange() == (0, 0):
            Exporter.asked = True
        kind = tag(segment, "DICOM.SegmentAlgorithmType") or "MANUAL"
        assert kind in ("MANUAL", "SEMIAUTOMATIC", "AUTOMATIC")
        name = tag(segment, "DICOM.SegmentAlgorithmName")
        assert name or kind == "MANUAL"
        assert tag(segment, segment.GetTerminologyEntryTagName()).count("~") >= 5
        ids, merged = vtk.vtkStringArray(), slicer.vtkOrientedImageData()
        ids.InsertNextValue(segmentId)
        node.GenerateMergedLabelmapForAllSegments(merged, 0, None, ids)
        voxels = vtk_to_numpy(merged.GetPointData().GetScalars())
        return kind, name, voxels.reshape(merged.GetDimensions()[::-1])


def hierarchy():
    return slicer.mrmlScene.GetSubjectHierarchyNode()


def tag(segment, name):
    value = vtk.reference("")
    return str(value) if segment.GetTag(name, value) else ""


@needsEngine
class DicomTest(ExportCase):
    def setUp(self):
        super().setUp()
        Exporter.answer, Exporter.segments, Exporter.asked = "", {}, False
        plugins = getattr(slicer.modules, "dicomPlugins", None)
        if plugins is None:
            slicer.modules.dicomPlugins = plugins = {}
            self.addCleanup(delattr, slicer.modules, "dicomPlugins")
        self.plugins = plugins
        kept = mock.patch.dict(plugins, {DicomExport.PLUGIN: Exporter})
        kept.start()
        self.addCleanup(kept.stop)
        database = mock.patch.object(
            slicer, "dicomDatabase", Database("1.2.3", "1.2.4"), create=True
        )
        database.start()
        self.addCleanup(database.stop)
        self.volume.SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4")

    def mask(self, number):
        return slicer.util.arrayFromSegmentBinaryLabelmap(
            self.node, f"DistillSeg_{number}", self.volume
        )

    def setMask(self, number, mask):
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            mask, self.node, f"DistillSeg_{number}", self.volume
        )

    def assertRefused(self, *parts):
        before = self.nodes("vtkMRMLSegmentationNode")
        self.click(self.ui.dicomButton)
        for part in parts:
            self.assertIn(part, self.panel.said)
        self.assertEqual(Exporter.segments, {})
        self.assertEqual(self.nodes("vtkMRMLSegmentationNode"), before)

    def test_without_an_exporter_one_sentence_says_what_to_install(self):
        self.plugins.pop(DicomExport.PLUGIN)
        self.assertRefused("install the extension QuantitativeReporting")

    def test_an_image_that_is_not_from_dicom_cannot_be_referred_to(self):
        self.volume.RemoveAttribute("DICOM.instanceUIDs")
        self.assertRefused("was not loaded from DICOM")

    def test_a_series_that_is_not_in_the_database_is_named(self):
        self.volume.SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.5 1.2.6")
        self.assertRefused("2 of the 3 DICOM files of 'sample'", "import the series")

    def test_another_transform_than_the_image_s_would_move_it(self):
        self.move()
        self.volume.SetAndObserveTransformNodeID(None)
        self.assertRefused("different transforms", "harden")

    def test_the_exporter_is_given_voxels_reference_and_who_made_them(self):
        mask = self.mask(2)
        mask[:, :, : mask.shape[2] // 2] = 0
        self.setMask(2, mask)
        self.assertEqual(Outputs.editedSegments(self.node), ["DistillSeg_2"])
        before = self.nodes("vtkMRMLSegmentationNode")
        self.click(self.ui.dicomButton)
        self.assertIn("DICOM SEG was written", self.panel.said)
        self.assertEqual(Exporter.folder, str(self.folder))
        self.assertEqual(Exporter.name, self.node.GetName())
        for number, kind in ((1, "AUTOMATIC"), (2, "SEMIAUTOMATIC")):
            found, name, voxels = Exporter.segments[f"DistillSeg_{number}"]
            self.assertEqual((found, name), (kind, f"DistillSeg {FAST}"))
            np.testing.assert_array_equal(voxels > 0, self.mask(number) > 0)
        self.assertEqual(self.nodes("vtkMRMLSegmentationNode"), before)
        segment = self.node.GetSegmentation().GetSegment("DistillSeg_1")
        self.assertEqual(tag(segment, "DICOM.SegmentAlgorithmName"), "")  # only in the copy

    def test_an_empty_structure_is_left_out_and_named_without_a_dialog(self):
        self.setMask(1, np.zeros_like(self.mask(1)))
        self.click(self.ui.dicomButton)
        self.assertEqual(list(Exporter.segments), ["DistillSeg_2"])
        self.assertFalse(Exporter.asked)
        self.assertIn("Left out, being empty: Hippocampus, anterior.", self.panel.said)

    def test_where_all_is_empty_nothing_is_exported(self):
        for number in (1, 2):
            self.setMask(number, np.zeros_like(self.mask(number)))
        self.assertRefused("has a voxel")

    def test_what_the_exporter_refuses_is_told(self):
        Exporter.answer = "itkimage2segimage failed"
        self.click(self.ui.dicomButton)
        self.assertIn("itkimage2segimage failed", self.panel.said)
