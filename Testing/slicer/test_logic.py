"""Segment and compare with the bundled models on the bundled sample, from the console."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from unittest import mock, skipUnless

import numpy as np
import SimpleITK as sitk
import slicer
from SlicerCase import SlicerCase

import DistillSeg

DistillSeg.findLibrary()

from DistillSegPanel import Nodes, Outputs, Regions, Segments  # noqa: E402
from DistillSegPanel.Calls import MODEL_BOX, Call  # noqa: E402
from DistillSegPanel.Logic import Logic  # noqa: E402
from DistillSegPanel.Parameters import Parameters, RegionKind  # noqa: E402

from DistillSegLib import Segmenter  # noqa: E402
from DistillSegLib.errors import Cancelled, DistillSegError, PackageError  # noqa: E402
from DistillSegLib.geometry import on_grid_of, same_grid  # noqa: E402
from DistillSegLib.metrics import dice  # noqa: E402
from DistillSegLib.places import resources  # noqa: E402

SAMPLE = resources() / "Samples" / "hippocampus-mean.nii.gz"
FAST, REFERENCE = "hippocampus-fast", "hippocampus-reference"
needsEngine = skipUnless(find_spec("onnxruntime"), "needs onnxruntime, which is not installed here")


class LogicCase(SlicerCase):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = Path(folder.name)
        kept = mock.patch.dict(os.environ, {"DISTILLSEG_HOME": folder.name})
        kept.start()
        self.addCleanup(kept.stop)
        self.logic = Logic()
        self.addCleanup(self.logic.close)

    def sample(self, name="sample"):
        node = slicer.util.loadVolume(str(SAMPLE))
        node.SetName(name)
        return node

    def volumeFrom(self, image, name="volume"):
        """A volume node of the same voxels at the same place; a file could turn them round."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        matrix[:3, 3] = image.GetOrigin()
        return slicer.util.addVolumeFromArray(
            sitk.GetArrayFromImage(image),
            ijkToRAS=np.diag([-1.0, -1, 1, 1]) @ matrix,
            name=name,
            nodeClassName="vtkMRMLScalarVolumeNode",
        )

    def large(self, shape=(120, 140, 130)):
        """A volume much larger than the model's field of view, with the sample in its middle."""
        image = sitk.ReadImage(str(SAMPLE))
        lower = [(n - s) // 2 for n, s in zip(shape, image.GetSize())]
        upper = [n - s - low for n, s, low in zip(shape, image.GetSize(), lower)]
        return sitk.ConstantPad(image, lower, upper, 0)

    def labels(self, node, volumeNode):
        """The label map of an output on its volume, by Slicer's own export."""
        found = np.zeros(slicer.util.arrayFromVolume(volumeNode).shape, np.uint8)
        for number in (1, 2):
            mask = slicer.util.arrayFromSegmentBinaryLabelmap(
                node, f"DistillSeg_{number}", volumeNode
            )
            found[mask > 0] = number
        return found

    def nodes(self):
        return [node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLNode")]


@needsEngine
class SegmentTest(LogicCase):
    def test_the_console_s_three_lines_give_the_library_s_result(self):
        volumeNode = self.sample()
        node = DistillSeg.DistillSegLogic().segment(volumeNode, FAST)
        expected = Segmenter(FAST).segment(SAMPLE)
        np.testing.assert_array_equal(
            self.labels(node, volumeNode), sitk.GetArrayFromImage(expected.image)
        )
        self.assertEqual(Outputs.modelOf(node), f"{FAST}@1.0.0")
        self.assertTrue(node.GetName().startswith("sample"))

    def test_an_oblique_left_handed_or_moved_volume_is_segmented_where_the_structure_is(self):
        image = sitk.ReadImage(str(SAMPLE))
        straight = Segmenter(FAST).segment(image)
        for name in ("oblique", "left-handed", "moved"):
            with self.subTest(name):
                slicer.mrmlScene.Clear()
                other = sitk.Image(image)
                if name == "oblique":
                    turned = sitk.Euler3DTransform((0, 0, 0), 0.15, -0.2, 0.1)
                    other.SetDirection(turned.GetMatrix())
                elif name == "left-handed":
                    other = self.mirrored(other)
                volumeNode = self.volumeFrom(other)
                if name == "moved":
                    self.turn(volumeNode, (0.1, 0.05, -0.15))
                found = Segments.segmentationFromNode(self.logic.segment(volumeNode, FAST))
                here = Nodes.imageFromVolume(volumeNode)
                expected = Segmenter(FAST).segment(here)
                handed = np.linalg.det(np.reshape(here.GetDirection(), (3, 3)))
                self.assertAlmostEqual(handed, -1 if name == "left-handed" else 1, places=6)
                self.assertTrue(same_grid(found.image, here))
                np.testing.assert_array_equal(
                    sitk.GetArrayFromImage(found.image), sitk.GetArrayFromImage(expected.image)
                )
                if name == "left-handed":
                    back = on_grid_of(found.image, straight.image, linear=False)
                    for value in (1, 2):
                        a, b = (sitk.GetArrayFromImage(x) == value for x in (back, straight.image))
                        self.assertGreater(dice(a, b), 0.99)

    def mirrored(self, image):
        """The same patient at the same place, stored with x from the other side: left-handed."""
        other = sitk.GetImageFromArray(sitk.GetArrayFromImage(image)[:, :, ::-1])
        other.SetSpacing(image.GetSpacing())
        other.SetDirection((np.reshape(image.GetDirection(), (3, 3)) * [-1, 1, 1]).ravel().tolist())
        last = (image.GetSize()[0] - 1, 0, 0)
        other.SetOrigin(image.TransformIndexToPhysicalPoint(last))
        return other

    def turn(self, node, angles):
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        matrix = np.eye(4)
        euler = sitk.Euler3DTransform((0, 0, 0), *angles)
        matrix[:3, :3] = np.reshape(euler.GetMatrix(), (3, 3))
        matrix[:3, 3] = 20, -10, 5
        slicer.util.updateTransformMatrixFromArray(transform, matrix)
        node.SetAndObserveTransformNodeID(transform.GetID())

    def test_the_outline_lies_on_the_structure_whatever_transform_is_above(self):
        volumeNode = self.sample()
        straight = self.logic.segment(volumeNode, FAST)
        center = self.centerOf(straight)
        self.turn(volumeNode, (0, 0, 0.1))
        node = self.logic.segment(volumeNode, FAST)
        self.assertIs(node, straight)
        matrix = Nodes.worldMatrix(volumeNode)
        np.testing.assert_allclose(self.centerOf(node), (matrix @ [*center, 1])[:3], atol=0.5)

    def centerOf(self, node):
        """The middle of the first structure in the world, by Slicer."""
        return np.array(node.GetSegmentCenterRAS("DistillSeg_1"))

    def test_a_region_confines_the_model(self):
        volumeNode = self.volumeFrom(self.large())
        with self.assertRaises(Nodes.NodeError) as caught:
            self.logic.segment(volumeNode, FAST)
        self.assertEqual(caught.exception.remedy, MODEL_BOX)
        scope = Segmenter(FAST).package.manifest.scope
        box = Regions.modelBox(volumeNode, scope, Regions.centerOf(volumeNode))
        roi = Regions.roiFromRegion(box, "box")
        node = self.logic.segment(volumeNode, FAST, roiNode=roi)
        found = Segments.segmentationFromNode(node).image
        straight = Segmenter(FAST).segment(SAMPLE).image
        for value in (1, 2):
            a, b = (
                sitk.GetArrayFromImage(x) == value
                for x in (on_grid_of(found, straight, linear=False), straight)
            )
            self.assertGreater(dice(a, b), 0.9)
        forced = self.logic.segment(volumeNode, FAST, forceScope=True)
        self.assertEqual(forced.GetSegmentation().GetNumberOfSegments(), 2)

    def test_the_model_stays_loaded_and_a_second_run_updates_the_output(self):
        volumeNode = self.sample()
        node = self.logic.segment(volumeNode, FAST)
        before = self.nodes()
        with mock.patch("DistillSegPanel.Calls.Segmenter", side_effect=AssertionError):
            self.assertIs(self.logic.segment(volumeNode, f"{FAST}@1.0.0"), node)
        self.assertEqual(self.nodes(), before)

    def test_progress_and_cancel_are_asked_on_the_calling_thread(self):
        volumeNode, told, threads = self.sample(), [], set()

        def onProgress(progress):
            told.append(progress)
            threads.add(threading.current_thread())

        self.logic.segment(volumeNode, FAST, onProgress=onProgress)
        self.assertEqual(threads, {threading.main_thread()})
        self.assertTrue(told[-1].sentence)
        before = self.nodes()
        with self.assertRaises(Cancelled):
            self.logic.segment(
                self.volumeFrom(self.large()), FAST, forceScope=True, cancelled=lambda: True
            )
        self.assertEqual(len(self.nodes()) - len(before), 2)  # the volume and its display

    def test_a_single_slice_gives_a_warning_and_an_empty_image_too(self):
        image = sitk.ReadImage(str(SAMPLE))
        self.logic.segment(self.volumeFrom(image[:, :, 18:19], "slice"), FAST)
        self.assertIn("single slice", " ".join(self.logic.lastSegmentation.warnings))
        self.logic.segment(self.volumeFrom(image * 0, "black"), FAST)
        warnings = " ".join(self.logic.lastSegmentation.warnings)
        self.assertIn("Nothing was found", warnings)

    def test_what_stands_in_the_way_is_one_sentence_and_leaves_no_node(self):
        volumeNode = self.sample()
        foreign = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
        foreign.GetSegmentation().AddEmptySegment("drawn")
        before = self.nodes()
        for arguments, kind, words in (
            ((None, FAST), Nodes.NodeError, "No volume"),
            ((volumeNode, "hippocampus-fats"), PackageError, "hippocampus-fast"),
            ((volumeNode, f"{FAST}@9.9.9"), PackageError, "9.9.9"),
            (([volumeNode, volumeNode], FAST), Nodes.NodeError, "takes 1 volumes"),
            ((volumeNode, FAST, None, foreign), Nodes.NodeError, "did not make"),
            ((volumeNode, FAST, volumeNode), Nodes.NodeError, "No region"),
        ):
            with self.subTest(words), self.assertRaises(kind) as caught:
                self.logic.segment(*arguments)
            self.assertIn(words, str(caught.exception))
            self.assertIsInstance(caught.exception, DistillSegError)
        self.assertEqual(self.nodes(), before)

    def test_a_declined_installation_stops_before_anything_is_done(self):
        def declined():
            raise DistillSegError("Without it no model can run.")

        logic = Logic(install=declined)
        with self.assertRaises(DistillSegError):
            logic.segment(self.sample(), FAST)
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"), [])

    def test_copy_python_makes_the_same_call(self):
        self.assertEqual(self.logic.copyPython(), "")
        volumeNode = self.sample("plain name")
        roi = Regions.roiFromRegion(
            Regions.modelBox(volumeNode, Segmenter(FAST).package.manifest.scope), "box"
        )
        first = self.logic.segment(volumeNode, FAST, roiNode=roi, threads=1)
        labels = self.labels(first, volumeNode)
        text = self.logic.copyPython()
        self.assertIn('getNode("plain name")', text)
        slicer.mrmlScene.RemoveNode(first)
        console = {"slicer": slicer}
        exec(text, console)
        node = console["segmentationNode"]
        np.testing.assert_array_equal(self.labels(node, volumeNode), labels)
        self.sample("plain name")  # the name now means two
        again = self.logic.copyPython()
        self.assertIn(f'getNode("{volumeNode.GetID()}")', again)

    def test_the_estimate_is_that_of_the_last_run_here(self):
        volumeNode = self.sample()
        guess = self.logic.estimate(volumeNode, FAST)
        self.assertFalse(guess.measured)
        self.logic.segment(volumeNode, FAST)
        seconds = sum(self.logic.lastSegmentation.seconds.values())
        told = self.logic.estimate(volumeNode, FAST)
        self.assertTrue(told.measured)
        self.assertAlmostEqual(told.seconds, seconds, delta=seconds * 0.01)
        self.assertTrue((self.home / "speed.json").is_file())
        begin = time.perf_counter()
        self.logic.estimate(volumeNode, FAST)
        self.assertLess(time.perf_counter() - begin, 0.2)


@needsEngine
class BackgroundTest(LogicCase):
    def setUp(self):
        super().setUp()
        self.done, self.errors, self.cancelled = [], [], []

    def start(self, volumeNode, **options):
        call = Call((volumeNode,), FAST, threads=1, **options)
        self.logic.segmentInBackground(
            call,
            onDone=self.done.append,
            onError=self.errors.append,
            onCancelled=lambda: self.cancelled.append(True),
        )

    def slow(self):
        """A volume that takes seconds in one single pass."""
        return self.volumeFrom(self.large((240, 240, 240)), "slow")

    def end(self, seconds=60):
        self.waitUntil(lambda: not self.logic.jobs.isRunning, seconds)
        self.waitUntil(
            lambda: not [t for t in threading.enumerate() if t.name == "DistillSeg"], seconds
        )

    def test_the_result_is_that_of_the_console(self):
        volumeNode = self.sample()
        expected = self.labels(self.logic.segment(volumeNode, FAST), volumeNode)
        slicer.mrmlScene.Clear()
        volumeNode = self.sample()
        self.start(volumeNode)
        self.end()
        self.assertEqual((self.errors, len(self.done)), ([], 1))
        np.testing.assert_array_equal(self.labels(self.done[0], volumeNode), expected)

    def test_cancel_ends_a_single_pass_within_half_a_second(self):
        volumeNode = self.slow()
        before = self.nodes()
        self.start(volumeNode, forceScope=True)
        shown = []
        self.waitUntil(
            lambda: (
                shown.append(self.logic.jobs._worker.progress()) or "network" in shown[-1].sentence
            )
        )
        begin = time.perf_counter()
        self.logic.jobs.cancel()
        self.waitUntil(lambda: not self.logic.jobs.isRunning)
        self.assertLess(time.perf_counter() - begin, 0.5)
        self.end()
        self.assertEqual((self.done, self.errors, self.cancelled), ([], [], [True]))
        self.assertEqual(self.nodes(), before)

    def test_deleting_the_volume_or_closing_the_scene_cancels_and_leaves_nothing(self):
        for remove in (slicer.mrmlScene.RemoveNode, lambda _node: slicer.mrmlScene.Clear()):
            slicer.mrmlScene.Clear()
            self.cancelled.clear()
            volumeNode = self.slow()
            self.start(volumeNode, forceScope=True)
            self.waitUntil(lambda: self.logic.jobs._worker.progress().fraction > 0.01)
            remove(volumeNode)
            self.end()
            self.assertEqual((self.done, self.errors, self.cancelled), ([], [], [True]))
            self.assertEqual(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"), [])

    def test_closing_the_logic_in_mid_run_leaves_no_thread(self):
        self.start(self.slow(), forceScope=True)
        self.logic.close()
        self.assertFalse([t for t in threading.enumerate() if t.name == "DistillSeg"])
        self.assertEqual((self.done, self.errors, self.cancelled), ([], [], []))


@needsEngine
class CompareTest(LogicCase):
    def test_fast_and_reference_model_are_compared_as_plain_dictionaries(self):
        volumeNode = self.sample()
        a, b = (self.logic.segment(volumeNode, model) for model in (FAST, REFERENCE))
        self.assertIsNot(a, b)
        found = DistillSeg.DistillSegLogic().compare(a, b)
        images = [Segmenter(model).segment(SAMPLE).image for model in (FAST, REFERENCE)]
        for value, row in enumerate(found["rows"], start=1):
            masks = [sitk.GetArrayFromImage(image) == value for image in images]
            self.assertAlmostEqual(row["dice"], dice(*masks), places=9)
            self.assertEqual(row["matched_by"], "terminology")
            self.assertAlmostEqual(row["volume_a_ml"], masks[0].sum() / 1000, places=6)
            # The slice with most voxels that only one of both holds.
            areas = (masks[0] ^ masks[1]).sum(axis=(1, 2))
            self.assertEqual(areas[row["worst_slice"]], areas.max())
        self.assertIs(type(found), dict)
        self.assertEqual(found["notes"], [])

    def test_the_comparison_beside_the_event_loop_is_the_same(self):
        volumeNode = self.sample()
        a, b = (self.logic.segment(volumeNode, model) for model in (FAST, REFERENCE))
        done, problems = [], []
        self.logic.compareInBackground(a, b, 2.0, onDone=done.append, onError=problems.append)
        self.waitUntil(lambda: not self.logic.jobs.isRunning)
        self.assertEqual(problems, [])
        self.assertEqual(done[0].to_dict(), self.logic.compare(a, b, 2.0))

    def test_a_segmentation_drawn_elsewhere_is_refused(self):
        a = self.logic.segment(self.sample(), FAST)
        far = sitk.ReadImage(str(SAMPLE))
        far.SetOrigin((900, 900, 900))
        b = self.logic.segment(self.volumeFrom(far, "far"), FAST)
        with self.assertRaises(DistillSegError) as caught:
            self.logic.compare(a, b)
        self.assertIn("different places", str(caught.exception))


class SavedSceneTest(LogicCase):
    @needsEngine
    def test_a_scene_saved_and_opened_again_has_output_raw_and_choices(self):
        volumeNode = self.sample()
        node = self.logic.segment(volumeNode, FAST)
        labels = self.labels(node, volumeNode)
        parameters = DistillSeg.DistillSegLogic().getParameterNode()
        self.assertIsInstance(parameters, Parameters)
        parameters.model = f"{FAST}@1.0.0"
        parameters.inputVolume = volumeNode
        parameters.compareA = node
        parameters.regionKind = RegionKind.ROI
        parameters.toleranceMm = 2.5
        edited = np.zeros_like(labels)
        edited[3:5, 3:5, 3:5] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(edited, node, "DistillSeg_2", volumeNode)
        path = str(self.home / "scène.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear()
        slicer.util.loadScene(path)
        parameters = DistillSeg.DistillSegLogic().getParameterNode()
        self.assertEqual(parameters.model, f"{FAST}@1.0.0")
        self.assertEqual(parameters.inputVolume.GetName(), "sample")
        self.assertEqual(parameters.regionKind, RegionKind.ROI)
        self.assertEqual(parameters.toleranceMm, 2.5)
        node, volumeNode = parameters.compareA, parameters.inputVolume
        self.assertEqual(Outputs.modelOf(node), f"{FAST}@1.0.0")
        self.assertIs(Outputs.volumeOf(node), volumeNode)
        self.assertEqual(Outputs.editedSegments(node), ["DistillSeg_2"])
        Outputs.reset(node)
        np.testing.assert_array_equal(self.labels(node, volumeNode), labels)
        self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")), 2)


class ModuleTest(LogicCase):
    @needsEngine
    def test_the_module_s_own_test_segments_the_sample(self):
        test = DistillSeg.DistillSegTest()
        test.setUp()
        test.test_the_sample_is_segmented()

    def test_the_sample_is_registered_with_its_checksum(self):
        try:
            import SampleData
        except ImportError:
            self.skipTest("the module Sample Data is not here")
        DistillSeg.registerSampleData()
        for name, shown, shape in (
            ("DistillSegHippocampus", "Hippocampus sample", (36, 50, 35)),
            ("DistillSegLeftVentricle", "Left ventricle sample", (9, 208, 208)),
            ("DistillSegSoftTissueSarcomaCtPhantom", "Sarcoma phantom, CT", (68, 90, 96)),
        ):
            node = SampleData.SampleDataLogic().downloadSample(name)
            self.assertEqual(node.GetName(), shown)
            self.assertEqual(slicer.util.arrayFromVolume(node).shape, shape)
