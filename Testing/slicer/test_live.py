"""The section Live: the result follows a sequence or a stream, and nothing queues."""

from __future__ import annotations

import time

import numpy as np
import slicer
from DistillSegPanel import Outputs
from PanelCase import FAST, REFERENCE, PanelCase, needsEngine
from TwoChannels import TwoChannels

HEAD = "DistillSeg_1"


class LiveCase(PanelCase):
    def setUp(self):
        super().setUp()
        self.live, self.ui = self.panel.live, self.panel.live.ui
        self.liveRun = self.live.run
        self.panel.ui.liveSection.collapsed = False
        self.addCleanup(self.switchOff)
        self.choose(self.sample())
        self.volume = self.panel.parameters.inputVolume

    def switchOff(self):
        self.ui.liveBox.checked = False
        self.waitUntil(lambda: not self.panel.busy, 10)

    def switchOn(self):
        self.ui.liveBox.click()
        self.waitUntil(lambda: self.liveRun.done >= 1, 60, self.panel.said)

    def shift(self, node=None):
        """The next frame: everything one voxel further, as in a stream that writes in place."""
        node = node or self.volume
        voxels = slicer.util.arrayFromVolume(node)
        voxels[:] = np.roll(voxels, 1, axis=2)
        slicer.util.arrayFromVolumeModified(node)

    def head(self, volumeNode=None):
        volumeNode = volumeNode or self.volume
        node = Outputs.outputFor(volumeNode, FAST.partition("@")[0])
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, HEAD, volumeNode) > 0
        return np.argwhere(mask).mean(axis=0)[2]  # along the first image axis


@needsEngine
class LiveTest(TwoChannels, LiveCase):
    def test_the_result_follows_voxels_that_are_written_in_place(self):
        self.switchOn()
        before = self.head()
        for count in (2, 3, 4):
            self.shift()
            self.waitUntil(lambda n=count: self.liveRun.done == n, 60, self.panel.said)
        self.assertAlmostEqual(self.head() - before, 3, delta=0.7)
        self.assertEqual(self.liveRun.dropped, 0)
        self.assertGreater(self.liveRun.volumesPerSecond(), 0)
        self.assertIn("4 segmented", self.ui.rateLabel.text)
        self.assertEqual(len(self.ours()), 1)
        self.screenshot("live", self.panel.widget)

    def test_a_sequence_that_is_played_is_followed_frame_by_frame(self):
        proxy, browser = self.sequence()
        self.panel.parameters.inputVolume = proxy
        self.switchOn()
        first = self.head(proxy)
        for count, frame in ((2, 1), (3, 2)):
            browser.SetSelectedItemNumber(frame)
            self.waitUntil(lambda n=count: self.liveRun.done == n, 60, self.panel.said)
        self.assertGreater(self.head(proxy) - first, 3)

    def test_frames_that_come_too_fast_are_skipped_but_for_the_newest(self):
        self.switchOn()
        before = self.head()
        for _ in range(6):  # all while the first of them is at work
            self.shift()
            slicer.app.processEvents()
        self.waitUntil(lambda: not self.panel.busy and not self.liveRun._isPending, 60)
        self.assertAlmostEqual(self.head() - before, 6, delta=1)
        self.assertGreater(self.liveRun.dropped, 0)
        self.assertLess(self.liveRun.done, 7)

    def test_a_new_name_is_no_new_image(self):
        self.switchOn()
        self.volume.SetName("renamed")
        self.waitFor(0.5)
        self.assertEqual(self.liveRun.done, 1)

    def test_another_model_is_followed_at_once(self):
        self.switchOn()
        self.panel.parameters.model = REFERENCE
        self.panel.segment.releaseOutput()  # as the list of models does
        self.waitUntil(lambda: self.liveRun.done == 2, 60, self.panel.said)
        models = {Outputs.modelOf(node) for node in self.ours()}
        self.assertEqual(models, {FAST, REFERENCE})

    def test_another_model_in_mid_pass_leaves_the_earlier_output_alone(self):
        self.switchOn()
        self.shift()
        self.waitUntil(lambda: self.panel.busy, 10)
        self.panel.models.choose(REFERENCE)
        self.waitUntil(lambda: self.liveRun.done >= 3, 60, self.panel.said)
        self.switchOff()
        self.assertEqual({Outputs.modelOf(node) for node in self.ours()}, {FAST, REFERENCE})

    def test_every_channel_is_followed(self):
        self.panel.parameters.model = self.twoChannels()
        self.panel.parameters.forceScope = True
        t1, flair = self.shifted("p T1"), self.shifted("p FLAIR")
        self.panel.parameters.inputVolume, self.panel.parameters.inputVolume2 = t1, flair
        self.switchOn()
        self.volume = t1
        node = Outputs.outputFor(t1, "two")
        for count, volume in ((2, flair), (3, t1)):
            slicer.util.arrayFromVolume(volume)[:4] += 700  # brighter in the one, then in both
            slicer.util.arrayFromVolumeModified(volume)
            self.waitUntil(lambda n=count: self.liveRun.done == n, 60, self.panel.said)
            mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, "DistillSeg_2", t1)
            self.assertEqual(bool(mask[:4].all()), volume is flair)

    def test_the_rate_falls_when_nothing_comes(self):
        self.switchOn()
        self.liveRun._ends.clear()
        self.liveRun._ends.append(time.perf_counter() - 60)
        self.assertEqual(self.liveRun.volumesPerSecond(), 0)

    def ours(self):
        nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        return [node for node in nodes if Outputs.modelOf(node)]

    def sequence(self):
        """Three frames, each two voxels further: the volume that shows them, and its player."""
        sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "frames")
        for frame in range(3):
            sequence.SetDataNodeAtValue(self.volume, str(frame))
            self.shift(), self.shift()
        browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "player")
        browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
        return browser.GetProxyNode(sequence), browser


@needsEngine
class StopTest(LiveCase):
    def isStill(self):
        """Whether nothing runs and another image changes nothing."""
        done = self.liveRun.done
        self.waitUntil(lambda: not self.panel.busy, 10)
        if self.volume.GetScene() is not None:
            self.shift()
        self.waitFor(0.5)
        return not self.liveRun.isOn and not self.panel.busy and self.liveRun.done == done

    def test_the_switch_stops_it(self):
        self.switchOn()
        self.ui.liveBox.click()
        self.assertTrue(self.isStill())
        self.assertIn("Live is off", self.panel.said)

    def test_leaving_the_module_stops_it(self):
        self.switchOn()
        self.shift()
        self.leaveModule()
        self.assertFalse(self.ui.liveBox.checked)
        self.assertTrue(self.isStill())

    def test_closing_the_scene_stops_it_also_in_mid_run(self):
        self.switchOn()
        self.shift()
        slicer.app.processEvents()
        slicer.mrmlScene.Clear()
        self.assertFalse(self.ui.liveBox.checked)
        self.assertTrue(self.isStill())

    def test_removing_the_volume_stops_it(self):
        self.switchOn()
        slicer.mrmlScene.RemoveNode(self.volume)
        self.waitUntil(lambda: not self.liveRun.isOn, 10)
        self.assertTrue(self.isStill())

    def test_what_stands_in_the_way_is_said_and_the_switch_goes_back(self):
        self.panel.parameters.model = ""
        self.ui.liveBox.click()
        self.assertFalse(self.ui.liveBox.checked)
        self.assertIn("No model is chosen", self.panel.said)

    def test_a_frame_that_cannot_be_segmented_stops_it_with_a_sentence(self):
        self.switchOn()
        self.volume.SetSpacing(8, 8, 8)
        self.waitUntil(lambda: not self.liveRun.isOn, 30)
        self.assertIn("knows", self.panel.said)
