"""One worker beside the event loop: progress, cancel, ends, and nothing left behind."""

from __future__ import annotations

import itertools
import threading
import time
from unittest import mock

import qt
import slicer
from SlicerCase import SlicerCase

import DistillSeg

DistillSeg.findLibrary()

from DistillSegPanel.Jobs import Jobs  # noqa: E402
from DistillSegPanel.Worker import runAndWait  # noqa: E402

from DistillSegLib.errors import Cancelled, ImageError  # noqa: E402

CANCEL_SECONDS = 0.5


def workers():
    return [thread for thread in threading.enumerate() if thread.name == "DistillSeg"]


def steps(count, seconds):
    """A task of some steps that can be cancelled."""

    def task(report, cancelled):
        for step in range(count):
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                if cancelled():
                    raise Cancelled("stopped")
                time.sleep(0.002)
            report((step + 1) / count, f"step {step + 1}")
        return count

    return task


def deaf(seconds):
    """A task that does not hear a cancel, as a filter of ITK does not."""

    def task(_report, _cancelled):
        time.sleep(seconds)
        return "late"

    return task


class Told:
    """What a job told, and in which thread."""

    def __init__(self):
        self.progress, self.done, self.errors, self.cancelled = [], [], [], 0
        self.threads = set()

    def calls(self):
        return {
            "onProgress": self._here(self.progress.append),
            "onDone": self._here(self.done.append),
            "onError": self._here(self.errors.append),
            "onCancelled": self._here(self._count),
        }

    def _count(self):
        self.cancelled += 1

    def _here(self, call):
        def told(*arguments):
            self.threads.add(threading.current_thread())
            call(*arguments)

        return told


class JobsTest(SlicerCase):
    def setUp(self):
        super().setUp()
        self.jobs, self.told = Jobs(), Told()
        self.addCleanup(self.jobs.close)

    def start(self, task, **options):
        self.jobs.start(task, **{**self.told.calls(), **options})

    def pause(self, seconds):
        """Let Qt's events run for a while."""
        until = time.perf_counter() + seconds
        self.waitUntil(lambda: time.perf_counter() > until)

    def end(self, seconds=20):
        self.waitUntil(lambda: not self.jobs.isRunning, seconds)

    def assertNothingLeft(self):
        self.waitUntil(lambda: not workers(), 5, "A worker goes on.")
        self.waitUntil(lambda: self.jobs._timer is None, 5, "The timer goes on.")

    def test_a_job_tells_progress_and_its_result_on_the_main_thread(self):
        self.start(steps(10, 0.05))
        self.assertTrue(self.jobs.isRunning)
        self.end()
        self.assertEqual(self.told.done, [10])
        self.assertEqual(self.told.threads, {threading.main_thread()})
        fractions = [progress.fraction for progress in self.told.progress]
        self.assertEqual(fractions, sorted(fractions))
        self.assertGreater(len(set(fractions)), 3)
        self.assertTrue(any(p.sentence.startswith("step") for p in self.told.progress))
        self.assertTrue(any(p.secondsLeft for p in self.told.progress))
        self.assertNothingLeft()

    def test_a_sentence_is_translated_on_the_main_thread(self):
        threads = []

        def sentence():
            threads.append(threading.current_thread())
            return "translated"

        def task(report, _cancelled):
            report(0.5, sentence)
            time.sleep(0.2)

        self.start(task)
        self.end()
        self.assertIn("translated", [progress.sentence for progress in self.told.progress])
        self.assertEqual(set(threads), {threading.main_thread()})

    def test_the_event_loop_goes_on_meanwhile(self):
        turns, timer = [], qt.QTimer()
        timer.connect("timeout()", lambda: turns.append(time.perf_counter()))
        timer.start(10)
        self.start(steps(10, 0.1))
        self.end()
        timer.stop()
        gaps = [b - a for a, b in itertools.pairwise(turns)]
        self.assertLess(max(gaps), 0.3)  # longest time that the window did not repaint

    def test_each_turn_waits_for_the_worker(self):
        self.start(deaf(0.5))
        begin = time.perf_counter()
        self.jobs.poll()
        self.assertGreaterEqual(time.perf_counter() - begin, 0.018)
        self.end()
        begin = time.perf_counter()
        self.jobs.poll()  # and no longer than there is work
        self.assertLess(time.perf_counter() - begin, 0.015)

    def test_a_cancelled_job_ends_within_half_a_second(self):
        self.start(steps(1000, 0.05))
        self.pause(0.2)
        begin = time.perf_counter()
        self.jobs.cancel()
        self.end()
        self.assertLess(time.perf_counter() - begin, CANCEL_SECONDS)
        self.assertEqual((self.told.cancelled, self.told.done, self.told.errors), (1, [], []))
        self.assertNothingLeft()

    def test_a_worker_that_does_not_hear_is_left_and_its_result_dropped(self):
        self.start(deaf(1.5))
        self.pause(0.1)
        begin = time.perf_counter()
        self.jobs.cancel()
        self.end()
        self.assertLess(time.perf_counter() - begin, CANCEL_SECONDS)
        self.assertTrue(workers())
        self.start(steps(2, 0.01))  # the next one need not wait for it
        self.end()
        self.assertEqual((self.told.cancelled, self.told.done), (1, [2]))
        self.assertNothingLeft()
        self.assertEqual(self.told.done, [2])

    def test_what_goes_wrong_is_told_once(self):
        def fails(_report, _cancelled):
            raise ImageError("It is empty.")

        self.start(fails)
        self.end()
        self.assertEqual([str(problem) for problem in self.told.errors], ["It is empty."])
        self.assertEqual((self.told.done, self.told.cancelled), ([], 0))
        self.assertNothingLeft()

    def test_an_error_while_the_result_is_shown_is_told_too(self):
        def show(_result):
            raise ValueError("no room")

        self.start(steps(1, 0.01), onDone=show)
        self.end()
        self.assertEqual([str(problem) for problem in self.told.errors], ["no room"])
        self.assertFalse(self.jobs.isRunning)

    def test_a_second_job_is_refused_while_one_runs(self):
        self.start(steps(20, 0.05))
        with self.assertRaises(RuntimeError):
            self.start(steps(1, 0.01))
        self.jobs.cancel()
        self.end()

    def test_the_next_job_may_be_started_from_the_end_of_one(self):
        results = []

        def next_(result):
            results.append(result)
            if len(results) < 3:
                self.start(steps(len(results) + 1, 0.01), onDone=next_)

        self.start(steps(1, 0.01), onDone=next_)
        self.waitUntil(lambda: len(results) == 3)
        self.assertEqual(results, [1, 2, 3])
        self.assertNothingLeft()

    def test_a_job_that_nobody_wants_any_more_is_cancelled(self):
        for close in (slicer.mrmlScene.RemoveNode, lambda _node: slicer.mrmlScene.Clear()):
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
            told = self.told = Told()
            self.start(
                steps(1000, 0.05), stillWanted=lambda n=node: n.GetScene() is slicer.mrmlScene
            )
            self.pause(0.2)
            self.assertTrue(self.jobs.isRunning)
            close(node)  # of itself up to 0.6 s, as every selector and view follows the scene
            begin = time.perf_counter()
            self.end()
            self.assertLess(time.perf_counter() - begin, CANCEL_SECONDS)
            self.assertEqual((told.cancelled, told.done), (1, []))

    def test_closing_stops_everything_and_tells_nothing(self):
        self.start(steps(1000, 0.05))
        self.pause(0.1)
        self.jobs.close()
        self.assertFalse(self.jobs.isRunning)
        self.assertFalse(workers())
        self.assertIsNone(self.jobs._timer)
        self.pause(0.2)
        self.assertEqual((self.told.done, self.told.errors, self.told.cancelled), ([], [], 0))

    def test_a_job_that_takes_much_longer_than_expected_says_so(self):
        with mock.patch("DistillSegPanel.Worker.LATE", 0.2):
            self.start(deaf(1.2), expectedSeconds=0.5)
            self.end()
        said = [progress.sentence for progress in self.told.progress]
        self.assertEqual(said[0], "")
        self.assertRegex(said[-1], r"takes 1 s instead of about 1 s; cancel it, or wait")
        self.assertEqual(self.told.done, ["late"])

    def test_where_a_task_tells_nothing_the_time_fills_in(self):
        self.start(deaf(1.0), expectedSeconds=1.0)
        self.end()
        fractions = [progress.fraction for progress in self.told.progress]
        self.assertLess(fractions[0], 0.2)
        self.assertGreater(fractions[-1], 0.5)
        self.assertLessEqual(max(fractions), 0.95)
        self.assertGreater(self.told.progress[0].secondsLeft, self.told.progress[-1].secondsLeft)


class WaitTest(SlicerCase):
    """For scripts: without an event loop."""

    def test_the_result_comes_back_and_progress_is_told_here(self):
        told = []
        self.assertEqual(runAndWait(steps(5, 0.05), onProgress=told.append), 5)
        self.assertGreater(len(told), 1)
        self.assertEqual(told[-1].fraction, max(p.fraction for p in told))

    def test_an_error_is_raised_here(self):
        def fails(_report, _cancelled):
            raise ImageError("It is empty.")

        with self.assertRaises(ImageError):
            runAndWait(fails)

    def test_cancel_is_asked_here(self):
        begin, asked = time.perf_counter(), []

        def cancelled():
            asked.append(threading.current_thread())
            return len(asked) > 3

        with self.assertRaises(Cancelled):
            runAndWait(steps(1000, 0.05), cancelled=cancelled)
        self.assertLess(time.perf_counter() - begin, 1.5)
        self.assertEqual(set(asked), {threading.main_thread()})
        self.assertFalse(workers())

    def test_a_failing_listener_stops_the_worker(self):
        def listener(_progress):
            raise KeyboardInterrupt

        with self.assertRaises(KeyboardInterrupt):
            runAndWait(steps(1000, 0.05), onProgress=listener)
        self.waitUntil(lambda: not workers(), 5)
