"""The section Batch: a folder or the scene, stop, resume, and what became of each case."""

from __future__ import annotations

import shutil

import numpy as np
import SimpleITK as sitk
import slicer
from DistillSegPanel import Outputs
from DistillSegPanel.BatchTable import BEFORE, DONE, FAILED, LEFT, RUNNING, SKIPPED, WAITING
from DistillSegPanel.SceneCases import channelIn
from PanelCase import FAST, SAMPLE, PanelCase, needsEngine
from TwoChannels import TwoChannels

from DistillSegLib import Segmenter
from DistillSegLib.batch import TABLE
from DistillSegLib.segmentations import read_segmentation


class BatchCase(PanelCase):
    def setUp(self):
        super().setUp()
        self.panel.parameters.model = FAST
        self.batch, self.ui = self.panel.batch, self.panel.batch.ui
        self.ui.resumeBox.checked = True
        self.panel.ui.batchSection.collapsed = False

    def statuses(self):
        return {case.name: case.status for case in self.batch.table.cases.values()}

    def shown(self, column):
        table = self.ui.caseTable
        return [table.item(row, column).text() for row in range(table.rowCount)]

    def wait(self, seconds=120):
        self.waitUntil(lambda: self.batch.batch is None, seconds, self.panel.said)

    def run_(self):
        self.ui.batchButton.click()
        self.wait()


@needsEngine
class FolderTest(BatchCase):
    def setUp(self):
        super().setUp()
        self.images, self.results = self.home / "images 症例", self.home / "results"
        (self.images / "below").mkdir(parents=True)
        shutil.copy(SAMPLE, self.images / "a.nii.gz")
        shutil.copy(SAMPLE, self.images / "below" / "b.nii.gz")
        (self.images / "broken.nii.gz").write_bytes(b"nothing")
        (self.images / "notes.txt").write_text("no image")
        self.ui.imagesBox.currentIndex = 0
        self.ui.imagesFolder.currentPath = str(self.images)
        self.ui.resultsFolder.currentPath = str(self.results)

    def test_every_case_has_its_row_and_its_file(self):
        self.run_()
        self.assertEqual(
            self.statuses(),
            {"a": DONE, "below/b": DONE, "broken": FAILED, "notes.txt": SKIPPED},
        )
        found = read_segmentation(self.results / "below" / "b.seg.nrrd")
        expected = Segmenter(FAST.replace("@", "-")).segment(SAMPLE)
        np.testing.assert_array_equal(
            sitk.GetArrayFromImage(found.image), sitk.GetArrayFromImage(expected.image)
        )
        self.assertTrue((self.results / TABLE).is_file())
        self.assertIn("4 cases: 2 done, 1 failed, 1 skipped.", self.panel.said)
        self.assertEqual(self.shown(0), ["a", "below/b", "broken", "notes.txt"])
        self.assertGreater(float(self.shown(2)[0]), 0)
        self.assertIn("broken.nii.gz", self.shown(3)[2])
        self.assertIn("ml", self.ui.caseTable.item(0, 0).toolTip())
        self.screenshot("batch", self.panel.widget)
        self.ui.caseTable.cellClicked(2, 0)
        self.assertIn("broken.nii.gz", self.panel.said)
        self.assertEqual(self.panel.ui.remedyButton.text, "")

    def test_a_case_that_is_clicked_can_be_loaded_with_its_result(self):
        self.run_()
        self.ui.caseTable.cellClicked(1, 0)
        self.assertIn("below/b: done", self.panel.said)
        self.assertEqual(self.panel.ui.remedyButton.text, "Load image and result")
        self.panel.ui.remedyButton.click()
        volume, result = self.panel.parameters.inputVolume, self.panel.parameters.reviewed
        self.assertEqual(result.GetSegmentation().GetNumberOfSegments(), 2)
        self.assertIs(Outputs.volumeOf(result), volume)
        (self.results / "below" / "b.seg.nrrd").unlink()
        volumes = self.nodes("vtkMRMLScalarVolumeNode")
        self.ui.caseTable.cellClicked(1, 0)
        self.panel.ui.remedyButton.click()
        self.assertIn("b.seg.nrrd' is not there any more", self.panel.said)
        self.assertEqual(self.nodes("vtkMRMLScalarVolumeNode"), volumes)

    def test_a_second_run_leaves_out_what_is_done_unless_told(self):
        self.run_()
        stamp = (self.results / "a.seg.nrrd").stat().st_mtime_ns
        self.run_()
        self.assertEqual(self.statuses()["a"], BEFORE)
        self.assertEqual((self.results / "a.seg.nrrd").stat().st_mtime_ns, stamp)
        self.ui.resumeBox.checked = False
        self.run_()
        self.assertEqual(self.statuses()["a"], DONE)
        self.assertGreater((self.results / "a.seg.nrrd").stat().st_mtime_ns, stamp)

    def test_stopping_keeps_the_present_case_and_a_later_run_goes_on(self):
        for number in range(30):
            shutil.copy(SAMPLE, self.images / f"c{number:02d}.nii.gz")
        self.ui.batchButton.click()
        self.assertEqual(self.ui.batchButton.text, "Stop after this case")
        self.waitUntil(lambda: DONE in self.statuses().values(), 60)
        self.screenshot("batch-running", self.panel.widget)
        self.ui.batchButton.click()
        self.assertEqual(self.ui.batchButton.text, "Cancel this case too")
        self.wait()
        statuses = list(self.statuses().values())
        done = statuses.count(DONE)
        self.assertGreater(statuses.count(LEFT), 0)
        self.assertEqual(statuses.count(WAITING), 0)
        self.assertEqual(len(list(self.results.rglob("*.seg.nrrd"))), done)
        self.run_()
        statuses = list(self.statuses().values())
        self.assertEqual(statuses.count(BEFORE), done)
        self.assertEqual(statuses.count(DONE) + done, 32)

    def test_cancelling_stops_at_once_and_keeps_what_is_done(self):
        for number in range(30):
            shutil.copy(SAMPLE, self.images / f"c{number:02d}.nii.gz")
        self.ui.batchButton.click()
        self.waitUntil(lambda: DONE in self.statuses().values(), 60)
        self.ui.batchButton.click()
        self.ui.batchButton.click()
        self.wait(1)
        self.waitUntil(lambda: not self.panel.busy, 1)
        statuses = set(self.statuses().values())
        self.assertIn(LEFT, statuses)
        self.assertFalse(statuses & {WAITING, RUNNING}, statuses)
        self.assertEqual(self.ui.batchButton.text, "Segment all")
        self.panel.work.close()  # waits for the worker, so that the folder can be removed

    def test_the_scene_may_be_closed_meanwhile(self):
        self.ui.batchButton.click()
        slicer.mrmlScene.Clear()
        self.wait()
        self.assertEqual(self.statuses()["a"], DONE)

    def test_wrong_folders_are_one_sentence(self):
        for source, target, sentence in (
            ("", self.results, "Choose the folder with the images."),
            (self.home / "absent", self.results, "Choose the folder with the images."),
            (self.images, self.images, "Choose another folder for the results"),
            (self.images, self.images / "a.nii.gz", "Nothing can be written to"),
            (self.results, self.home / "other", "There is no image in"),
        ):
            self.results.mkdir(exist_ok=True)
            self.ui.imagesFolder.currentPath = str(source)
            self.ui.resultsFolder.currentPath = str(target)
            self.run_()
            self.assertIn(sentence, self.panel.said)
            self.assertEqual(self.ui.batchButton.text, "Segment all")


@needsEngine
class SceneTest(TwoChannels, BatchCase):
    def setUp(self):
        super().setUp()
        self.ui.imagesBox.currentIndex = 1

    def test_all_volumes_get_a_segmentation_beside_them(self):
        first, second = self.sample("first"), self.sample("second")
        large = self.sample("large")
        large.SetSpacing(5, 5, 5)
        self.assertFalse(self.ui.imagesFolder.visible)
        self.run_()
        self.assertEqual(self.statuses(), {"first": DONE, "second": DONE, "large": FAILED})
        self.assertIn("knows", self.batch.table.cases["large"].note)
        outputs = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        made = {Outputs.volumeOf(node) for node in outputs if Outputs.modelOf(node)}
        self.assertLessEqual({first, second}, made)
        self.assertIn("3 cases: 2 done, 1 failed.", self.panel.said)
        self.assertEqual(self.ui.batchModelLabel.text, "Hippocampus, fast")
        self.ui.caseTable.cellClicked(1, 0)
        self.assertIs(self.panel.parameters.inputVolume, second)
        self.assertIs(Outputs.volumeOf(self.panel.parameters.reviewed), second)
        self.screenshot("batch-scene", self.panel.widget)

    def test_what_has_a_result_is_left_out_also_when_it_was_edited(self):
        self.sample("first")
        self.run_()
        self.sample("second")
        self.run_()
        self.assertEqual(self.statuses(), {"first": BEFORE, "second": DONE})

    def test_volumes_of_one_name_are_told_apart(self):
        self.sample("same"), self.sample("same")
        self.run_()
        self.assertEqual(list(self.statuses().values()), [DONE, DONE])

    def test_a_volume_that_is_removed_meanwhile_is_said_and_the_rest_goes_on(self):
        first = self.sample("first")
        self.sample("second")
        self.ui.batchButton.click()
        slicer.mrmlScene.RemoveNode(first)
        self.wait()
        self.assertEqual(self.statuses(), {"first": FAILED, "second": DONE})

    def test_closing_the_scene_ends_the_batch(self):
        self.sample("first"), self.sample("second")
        self.ui.batchButton.click()
        slicer.mrmlScene.Clear()
        self.wait(10)
        self.assertEqual(set(self.statuses().values()), {FAILED})
        self.assertEqual([n for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")], [])

    def test_stopping_leaves_the_rest(self):
        for name in ("first", "second", "third"):
            self.sample(name)
        self.ui.batchButton.click()
        self.ui.batchButton.click()
        self.wait()
        self.assertEqual(self.statuses(), {"first": DONE, "second": LEFT, "third": LEFT})

    def test_the_volumes_of_a_patient_are_segmented_together(self):
        self.panel.parameters.model = self.twoChannels()
        self.panel.parameters.forceScope = True
        for name in ("anna FLAIR", "anna_t1", "bert T1", "bert FLAIR", "carl T1"):
            self.shifted(name)
        hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
        study = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "dora")
        for name in ("t1 mprage", "space flair"):
            hierarchy.SetItemParent(hierarchy.GetItemByDataNode(self.shifted(name)), study)
        self.run_()
        statuses = {"anna": DONE, "bert": DONE, "carl": SKIPPED, "dora": DONE}
        self.assertEqual(self.statuses(), statuses, self.batch.table.cases)
        self.assertIn("T1: 1, FLAIR: 0", self.batch.table.cases["carl"].note)
        for name in ("anna_t1", "bert T1", "t1 mprage"):
            volume = slicer.util.getNode(name)
            node = Outputs.outputFor(volume, "two")
            masks = [
                slicer.util.arrayFromSegmentBinaryLabelmap(node, f"DistillSeg_{number}", volume)
                for number in (1, 2)
            ]
            difference = slicer.util.arrayFromVolume(volume) > 500  # where T1 is brighter
            np.testing.assert_array_equal(masks[0] > 0, difference)
            self.assertTrue((masks[1] > 0).any())

    def test_the_longest_channel_in_a_name_is_meant(self):
        channels = ("T1", "T1c", "FLAIR")
        self.assertEqual(channelIn("anna_T1C.x", channels), ("T1c", "anna x"))
        self.assertEqual(channelIn("T1", channels), ("T1", ""))
        self.assertEqual(channelIn("anna", channels), (None, "anna"))

    def test_an_empty_scene_is_one_sentence(self):
        self.run_()
        self.assertEqual(self.panel.said, "There is no volume in the scene; load some.")
