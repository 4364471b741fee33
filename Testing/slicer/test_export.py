"""The section Export: files for other programs, read back by what reads them."""

from __future__ import annotations

import csv

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from DistillSegPanel import DicomExport, Outputs
from DistillSegPanel.ExportTasks import freePath
from DistillSegPanel.Segments import segmentationFromNode
from PanelCase import FAST, REFERENCE, PanelCase, needsEngine

from DistillSegLib.geometry import same_grid
from DistillSegLib.segmentations import read_segmentation


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


class Exportable:
    """What a DICOM plugin gives for a node that it can export."""

    directory = ""


class Recorder:
    """An exporter for places without one: keeps what it is asked for, and answers as told."""

    answer = ""
    exported = ()

    def examineForExport(self, item):
        Recorder.item = item
        return [Exportable()]

    def export(self, exportables):
        Recorder.exported = tuple(exportables)
        return Recorder.answer


@needsEngine
class DicomTest(ExportCase):
    def setUp(self):
        super().setUp()
        Recorder.answer, Recorder.exported = "", ()
        plugins = getattr(slicer.modules, "dicomPlugins", None)
        if plugins is None:
            slicer.modules.dicomPlugins = plugins = {}
            self.addCleanup(delattr, slicer.modules, "dicomPlugins")
        self.plugins, known = plugins, plugins.get(DicomExport.PLUGIN)
        plugins.pop(DicomExport.PLUGIN, None)
        if known is not None:
            self.addCleanup(plugins.__setitem__, DicomExport.PLUGIN, known)
        else:
            self.addCleanup(plugins.pop, DicomExport.PLUGIN, None)

    def test_without_an_exporter_one_sentence_says_what_to_install(self):
        self.click(self.ui.dicomButton)
        self.assertIn("install the extension QuantitativeReporting", self.panel.said)

    def test_an_image_that_is_not_from_dicom_cannot_be_referred_to(self):
        self.plugins[DicomExport.PLUGIN] = Recorder
        self.click(self.ui.dicomButton)
        self.assertIn("was not loaded from DICOM", self.panel.said)
        self.assertEqual(Recorder.exported, ())

    def test_the_exporter_is_given_reference_and_who_made_it(self):
        self.plugins[DicomExport.PLUGIN] = Recorder
        self.volume.SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4")
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(self.node, "DistillSeg_2", self.volume)
        mask[:, :, : mask.shape[2] // 2] = 0
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            mask, self.node, "DistillSeg_2", self.volume
        )
        self.assertEqual(Outputs.editedSegments(self.node), ["DistillSeg_2"])
        self.click(self.ui.dicomButton)
        (exportable,) = Recorder.exported
        self.assertEqual(exportable.directory, str(self.folder))
        hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
        self.assertIs(hierarchy.GetItemDataNode(Recorder.item), self.node)
        self.assertEqual(
            hierarchy.GetItemAttribute(Recorder.item, "DICOM.ReferencedInstanceUIDs"),
            "1.2.3 1.2.4",
        )
        tags = [self.tag(n, "DICOM.SegmentAlgorithmType") for n in (1, 2)]
        self.assertEqual(tags, ["AUTOMATIC", "SEMIAUTOMATIC"])
        self.assertEqual(self.tag(1, "DICOM.SegmentAlgorithmName"), f"DistillSeg {FAST}")

    def test_what_the_exporter_refuses_is_told(self):
        self.plugins[DicomExport.PLUGIN] = Recorder
        Recorder.answer = "No non empty segments found."
        self.volume.SetAttribute("DICOM.instanceUIDs", "1.2.3")
        self.click(self.ui.dicomButton)
        self.assertIn("No non empty segments found.", self.panel.said)

    def tag(self, number, name):
        value = vtk.reference("")
        self.node.GetSegmentation().GetSegment(f"DistillSeg_{number}").GetTag(name, value)
        return str(value)
