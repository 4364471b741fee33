"""The chooser of models: search, filters, card, sample, adding and removing packages."""

from __future__ import annotations

import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import qt
import slicer
from DistillSegPanel.ModelTexts import spacingText, structuresText
from PanelCase import FAST, REFERENCE, PanelCase, needsEngine

from DistillSegLib.catalogue import list_packages
from DistillSegLib.images import read_image
from DistillSegLib.labels import label_table
from DistillSegLib.package import load_package, write_package
from DistillSegLib.places import resources
from DistillSegLib.scope import measure, scope_of

PACKAGE = resources() / "Models" / "hippocampus-fast-1.0.0.distillseg"


class ModelsCase(PanelCase):
    def setUp(self):
        super().setUp()
        self.ui = self.panel.models.ui
        self.ui.searchBox.text = ""
        self.ui.modalityBox.setCurrentIndex(0)
        self.ui.bodyPartBox.setCurrentIndex(0)
        self.ui.cardButton.checked = False
        self.panel.changed()
        self.bundled = len(self.rows())
        shown = [entry.package.manifest.modality for entry in self.panel.models.shown]
        self.ofCT = shown.count("CT")

    def rows(self):
        return [self.ui.modelsList.item(n).text() for n in range(self.ui.modelsList.count)]

    def numberOf(self, model):
        """The row of a model in the list."""
        return [entry.model for entry in self.panel.models.shown].index(model)

    def row(self, model):
        """The text of a model in the list."""
        return self.rows()[self.numberOf(model)]

    def select(self, model):
        """Click on a model in the list."""
        self.ui.modelsList.setCurrentRow(self.numberOf(model))

    def heart(self):
        """The mean short-axis stack."""
        return slicer.util.loadVolume(str(resources() / "Samples" / "left-ventricle-mean.nii.gz"))

    def addHeart(self, name="ventricle", **changes):
        """A model for short-axis stacks, which calls what it finds left ventricle."""
        images = [read_image(resources() / "Samples" / "left-ventricle-mean.nii.gz")]
        scope = scope_of(
            [measure(images, orientation="LPS")],
            description="short-axis stacks",
            body_part="left ventricle",
        )
        labels = label_table({1: "Left ventricle, cavity", 2: "Left ventricle, muscle"})
        texts = {"title": "Ventricle", "description": "Finds the left ventricle."}
        self.addFile(name, **{"scope": scope, "labels": labels, "test": None} | texts | changes)

    def added(self, *, card="A card.", model=b"", **changes):
        """A package file made of the bundled one; `model` stands for its ONNX file."""
        package = load_package(PACKAGE)
        variant = package.variant()
        window, logits = package.check_window(variant)
        model = model or package.model_bytes(variant)
        changes["variants"] = (replace(variant, size_bytes=len(model)),)
        path = self.home / "added.distillseg"
        write_package(
            path,
            replace(package.manifest, **changes),
            card=card,
            models={variant.file: model},
            window=window,
            logits={variant.name: logits},
        )
        return path

    def addFile(self, name, **changes):
        """A package that is there without a check."""
        folder = self.home / "Models"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.added(id=name, **changes), folder / f"{name}-1.0.0.distillseg")
        self.panel.changed()

    def ct(self):
        """A volume whose values are Hounsfield units."""
        values = np.linspace(-1000, 900, 36 * 50 * 35).reshape(36, 50, 35).astype(np.int16)
        node = slicer.util.addVolumeFromArray(values, name="chest")
        self.settle()
        return node

    def drop(self, *paths):
        """What a file manager does at the end of a drag; returns whether it was taken."""
        data = qt.QMimeData()
        data.setUrls([qt.QUrl.fromLocalFile(str(path)) for path in paths])
        for kind, place in (
            (qt.QDragEnterEvent, qt.QPoint(50, 50)),
            (qt.QDropEvent, qt.QPointF(50, 50)),
        ):
            with warnings.catch_warnings():  # Qt 6 wants other constructors, Slicer has Qt 5
                warnings.simplefilter("ignore", DeprecationWarning)
                event = kind(place, qt.Qt.CopyAction, data, qt.Qt.LeftButton, qt.Qt.NoModifier)
            event.ignore()
            qt.QApplication.sendEvent(self.panel.widget, event)
        self.settle()
        self.waitUntil(lambda: not self.panel.busy, 60)
        return event.isAccepted()

    def remove(self, *, agree=True):
        with mock.patch.object(slicer.util, "confirmOkCancelDisplay", lambda *_: agree):
            self.ui.removeButton.click()
        self.settle()

    def add(self, path):
        with mock.patch.object(qt.QFileDialog, "getOpenFileName", lambda *_: str(path)):
            self.ui.addButton.click()
        self.waitUntil(lambda: not self.panel.busy, 60)
        self.settle()


class ListTest(ModelsCase):
    def test_the_fast_model_is_chosen_when_the_module_opens(self):
        self.assertEqual(self.panel.parameters.model, FAST)
        self.assertEqual(self.ui.modelsList.currentRow, self.numberOf(FAST))

    def test_a_smaller_model_is_the_default_only_if_it_is_nearly_as_good(self):
        for below, expected in ((0.02, FAST), (0.0, "hippocampus-small@1.0.0")):
            self.panel.parameters.model = ""
            test = self.scoredBelow(below)
            self.addFile("hippocampus-small", model=b"few bytes", test=test)
            self.leaveModule()
            self.openModule("DistillSeg")
            self.assertEqual(self.panel.parameters.model, expected)

    def scoredBelow(self, below):
        """The fast model's test with a lower Dice."""
        test = load_package(PACKAGE).manifest.test
        scores = [replace(s, mean=s.mean - below * (s.metric == "dice")) for s in test.scores]
        return replace(test, scores=tuple(scores))

    def test_thick_slices_are_told_from_cubes(self):
        self.assertEqual(spacingText((1.0, 1.0, 1.0)), "1")
        self.assertEqual(spacingText((8.0, 1.37, 1.37)), "1.4 × 8")

    def test_a_row_says_what_is_found_and_what_it_costs(self):
        title, what, scope, cost = self.row(FAST).split("\n")
        self.assertEqual(title, "Hippocampus, fast")
        self.assertEqual(what, "Hippocampus (anterior, posterior)")
        self.assertEqual(scope, f"MR · 1 mm · {PACKAGE.stat().st_size / 1e6:.1f} MB")
        fast, large = (self.meanDice(model) for model in (FAST, REFERENCE))
        known = f" · Dice {fast:.3f} (reference's {large:.3f})"
        self.assertRegex(cost, rf"^≈ \d+\.\d s{re.escape(known)}$")
        self.assertTrue(self.row(REFERENCE).endswith(f" · Dice {large:.3f}"))
        icon = self.ui.modelsList.item(self.numberOf(FAST)).icon()
        self.assertEqual(icon.pixmap(72, 72).width(), 72)

    def meanDice(self, model):
        """Over the structures, as its package says."""
        scores = self.panel.modelList.find(model).manifest.test.scores
        means = [score.mean for score in scores if score.metric == "dice"]
        return sum(means) / len(means)

    @needsEngine
    def test_after_a_run_the_seconds_are_those_of_this_computer(self):
        self.choose()
        self.segment()
        self.assertRegex(self.row(FAST), r"\n\d+\.\d s here · ")

    def test_a_click_on_a_row_chooses(self):
        self.select(REFERENCE)
        self.assertEqual(self.panel.parameters.model, REFERENCE)

    def test_words_are_searched_everywhere(self):
        self.addHeart()
        fast, large, heart = FAST, REFERENCE, "ventricle@1.0.0"
        every = {fast, large, heart}
        for words, expected in (
            ("", every),
            ("reference hippocampus", {fast, large}),  # the fast one names its teacher
            ("posterior HIPPO", {fast, large}),
            ("mr 5366008", {fast, large}),  # SNOMED CT's code of the structure
            ("large network", {large}),
            ("liver", set()),
            ("temporal lobe", {fast, large}),  # what holds the structure
            ("brain mri", {fast, large}),
            ("kidney", set()),
            ("heart", {heart}),
            ("cardiac cine", {heart}),
        ):
            with self.subTest(words):
                self.ui.searchBox.text = words
                self.assertEqual(self.models() & every, expected, words)
        self.ui.searchBox.text = ""
        self.assertEqual(len(self.rows()), self.bundled + 1)

    def models(self):
        return {entry.model for entry in self.panel.models.shown}

    def test_filters_show_what_fits(self):
        self.assertEqual(self.ui.modalityBox.itemText(0), "Any modality")
        self.addHeart(modality="CT")
        self.ui.modalityBox.setCurrentText("MR")
        self.panel.models.onFilter()
        self.assertEqual(len(self.rows()), self.bundled - self.ofCT)
        self.ui.modalityBox.setCurrentIndex(0)
        for part, model, other in (
            ("left ventricle", "ventricle@1.0.0", FAST),
            ("hippocampus", FAST, "ventricle@1.0.0"),
        ):
            self.ui.bodyPartBox.setCurrentText(part)
            self.panel.models.onFilter()
            self.assertIn(model, self.models())
            self.assertNotIn(other, self.models())

    def test_a_filter_that_hides_models_says_so_and_is_taken_away_with_one_click(self):
        self.addFile("mine", modality="CT", title="Of the liver")
        self.assertEqual(len(self.rows()), self.bundled + 1)
        self.assertFalse(self.ui.filterLabel.isVisibleTo(self.panel.widget))
        self.panel.parameters.inputVolume = self.ct()
        self.settle()
        self.assertEqual(self.ui.modalityBox.currentText, "CT")
        self.assertEqual(len(self.rows()), 1 + self.ofCT)
        self.assertIn("Only models for CT", self.ui.filterLabel.text)
        self.screenshot("models-filtered")
        self.ui.filterLabel.linkActivated.emit("all")
        self.assertEqual(len(self.rows()), self.bundled + 1)
        self.assertFalse(self.ui.filterLabel.isVisibleTo(self.panel.widget))
        self.panel.changed()
        self.assertEqual(len(self.rows()), self.bundled + 1)  # and it does not come back

    def test_the_automatic_filter_follows_the_volume_and_the_user_s_stays(self):
        self.addFile("mine", modality="CT", title="Of the liver")
        ct, mr = self.ct(), self.sample()
        box = self.ui.modalityBox
        for volume, shown in ((ct, "CT"), (mr, "Any modality"), (ct, "CT")):
            self.panel.parameters.inputVolume = volume
            self.assertEqual(box.currentText, shown)
        box.setCurrentText("MR")
        box.activated.emit(box.currentIndex)
        self.panel.parameters.inputVolume = mr
        self.panel.parameters.inputVolume = ct
        self.assertEqual(box.currentText, "MR")

    def test_the_model_is_chosen_by_the_volume_until_the_user_does(self):
        self.addFile("mine", modality="CT", title="Of the liver")
        ct, mr = self.ct(), self.sample()
        self.panel.parameters.model = ""
        self.leaveModule()
        self.openModule("DistillSeg")
        for volume, model in ((ct, "mine@1.0.0"), (mr, FAST)):
            self.panel.parameters.inputVolume = volume
            self.settle()
            self.assertEqual(self.panel.parameters.model, model)
        self.select(REFERENCE)
        self.panel.parameters.inputVolume = ct
        self.settle()
        self.assertEqual(self.panel.parameters.model, REFERENCE)

    def test_an_experimental_model_is_not_chosen_for_an_image_unlike_its_own(self):
        """The only bundled models for CT are of sarcomas, in crops about them."""
        self.panel.parameters.inputVolume = self.ct()
        self.settle()
        self.assertEqual(self.panel.parameters.model, "")
        self.assertEqual(self.ui.descriptionLabel.text, "Choose a model.")
        self.assertFalse(self.panel.segment.ui.segmentButton.enabled)
        self.assertIn("choose one in 'Model'", self.panel.segment.ui.segmentButton.toolTip)
        self.panel.parameters.inputVolume = self.sample()
        self.settle()
        self.assertEqual(self.panel.parameters.model, FAST)

    def test_the_phantom_of_an_experimental_model_gets_it(self):
        for modality in ("ct", "mr"):
            path = resources() / "Samples" / f"soft-tissue-sarcoma-{modality}-phantom.nii.gz"
            self.panel.parameters.inputVolume = slicer.util.loadVolume(str(path))
            self.settle()
            self.assertEqual(self.panel.parameters.model, f"sarcoma-{modality}@0.1.0")
            self.panel.models.onSample()
            name = self.panel.parameters.inputVolume.GetName()
            self.assertEqual(name, f"Sarcoma phantom, {modality.upper()}")

    def test_a_stack_of_the_heart_gets_a_model_of_the_heart(self):
        self.addHeart()
        self.assertEqual(self.panel.parameters.model, FAST)
        for volume, part in ((self.heart(), "left ventricle"), (self.sample(), "hippocampus")):
            self.panel.parameters.inputVolume = volume
            self.settle()
            package = self.panel.modelList.find(self.panel.parameters.model)
            self.assertEqual(package.manifest.scope.body_part, part)
            self.assertEqual(
                self.ui.modelsList.currentRow, self.numberOf(self.panel.parameters.model)
            )
            self.assertTrue(self.panel.segment.ui.segmentButton.enabled, self.panel.said)

    def test_a_search_without_a_model_says_so(self):
        self.ui.searchBox.text = "nothing like it"
        self.assertIn("No model fits", self.ui.filterLabel.text)
        self.ui.filterLabel.linkActivated.emit("all")
        self.assertEqual((self.ui.searchBox.text, len(self.rows())), ("", self.bundled))

    def test_a_filtered_list_keeps_the_choice(self):
        self.ui.searchBox.text = "nothing like it"
        self.assertEqual(self.rows(), [])
        self.assertEqual(self.panel.parameters.model, FAST)
        self.ui.searchBox.text = ""
        self.assertEqual(self.ui.modelsList.currentRow, self.numberOf(FAST))

    def test_many_structures_are_counted(self):
        manifest = load_package(PACKAGE).manifest
        self.assertEqual(structuresText(manifest), "Hippocampus (anterior, posterior)")
        several = mock.Mock(labels=label_table({1: "liver", 2: "spleen"}))
        self.assertEqual(structuresText(several), "liver, spleen")
        many = mock.Mock(labels=label_table({n: f"rib {n}" for n in range(1, 25)}))
        self.assertEqual(structuresText(many), "24 structures")


class CardTest(ModelsCase):
    def test_the_card_compares_with_the_reference_on_the_same_cases(self):
        self.ui.cardButton.click()
        text = self.ui.cardBrowser.toPlainText()
        self.assertTrue(self.ui.cardBrowser.isVisibleTo(self.panel.widget))
        for words in ("Hippocampus, reference", "40 cases", "CC-BY-SA", "SHA-256"):
            self.assertIn(words, text)
        for model in (FAST, REFERENCE):
            scores = self.panel.modelList.find(model).manifest.test.scores
            for score in scores:
                if score.metric == "dice":
                    self.assertIn(f"{score.mean:.3f}", text)
        self.screenshot("models-card", self.panel.widget)
        self.ui.citationButton.click()
        self.assertIn("Antonelli", qt.QApplication.clipboard().text())

    def test_texts_of_packages_are_no_html(self):
        from DistillSegPanel.Card import cardHtml

        path = self.added(id="odd", title="<b>Odd & bold</b>", licence="", test=None)
        html = cardHtml(load_package(path))
        self.assertIn("&lt;b&gt;Odd &amp; bold&lt;/b&gt;", html)
        self.assertIn("None is stated", html)
        self.assertIn("No test on held-out cases", html)


class SampleTest(ModelsCase):
    def test_the_sample_is_loaded_and_chosen_with_one_click(self):
        self.ui.sampleButton.click()
        self.settle()
        node = self.panel.parameters.inputVolume
        self.assertEqual(node.GetName(), "Hippocampus sample")
        self.assertTrue(self.panel.segment.ui.segmentButton.enabled, self.panel.said)

    def test_the_sample_is_that_of_the_model_s_part_of_the_body(self):
        self.addHeart()
        self.select("ventricle@1.0.0")
        self.ui.sampleButton.click()
        self.settle()
        node = self.panel.parameters.inputVolume
        self.assertEqual(node.GetName(), "Left ventricle sample")
        self.assertEqual(node.GetImageData().GetDimensions(), (208, 208, 9))
        self.assertEqual(self.panel.parameters.model, "ventricle@1.0.0")

    def test_a_model_of_another_part_has_no_sample(self):
        scope = load_package(PACKAGE).manifest.scope
        self.addHeart(scope=replace(scope, body_part="ventricle"))
        self.select("ventricle@1.0.0")
        self.assertFalse(self.ui.sampleButton.enabled)
        self.assertIn("No sample", self.ui.sampleButton.toolTip)


@needsEngine
class PackagesTest(ModelsCase):
    def test_a_package_is_checked_added_chosen_and_removed(self):
        self.add(self.added(id="hippocampus-mine", title="Mine"))
        self.assertEqual(self.panel.parameters.model, "hippocampus-mine@1.0.0")
        self.assertIn("'Mine' was added", self.panel.said)
        self.assertEqual(len(self.rows()), self.bundled + 1)
        self.assertTrue(self.ui.removeButton.enabled)
        self.screenshot("models-added")
        self.remove(agree=False)
        self.assertEqual(len(self.rows()), self.bundled + 1)
        self.remove()
        self.assertEqual(len(self.rows()), self.bundled)
        self.assertNotIn("hippocampus-mine", [each.id for each in list_packages()])
        self.assertFalse(self.panel.segment.ui.segmentButton.enabled)

    def test_a_package_dropped_onto_the_panel_is_added(self):
        self.assertTrue(self.drop(self.added(id="hippocampus-mine", title="Mine")))
        self.assertIn("'Mine' was added", self.panel.said)
        self.assertEqual(self.panel.parameters.model, "hippocampus-mine@1.0.0")

    def test_other_drops_are_left_to_slicer(self):
        package = self.added()
        image = self.home / "image.nrrd"
        for paths in ((image,), (package, image), ()):
            self.assertFalse(self.drop(*paths))
        self.assertEqual(len(self.rows()), self.bundled)

    def test_bundled_models_cannot_be_removed(self):
        self.assertFalse(self.ui.removeButton.enabled)
        self.assertIn("part of DistillSeg", self.ui.removeButton.toolTip)

    def test_a_damaged_file_is_refused_with_its_sentence(self):
        path = self.home / "damaged.distillseg"
        data = bytearray(PACKAGE.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        self.add(path)
        self.assertIn("damaged", self.panel.said)
        self.assertEqual(len(self.rows()), self.bundled)

    def test_any_other_file_is_refused_with_its_sentence(self):
        path = self.home / "notes.distillseg"
        path.write_text("nothing")
        self.add(path)
        self.assertIn("notes.distillseg", self.panel.said)
        self.assertEqual(self.panel.parameters.model, FAST)

    def test_a_damaged_installed_package_is_shown_with_its_reason_and_can_be_removed(self):
        folder = self.home / "Models"
        folder.mkdir(parents=True)
        Path(folder, "broken-1.0.0.distillseg").write_bytes(PACKAGE.read_bytes()[:5000])
        self.panel.changed()
        self.assertEqual(len(self.rows()), self.bundled + 1)
        self.assertIn("cannot be used", self.rows()[-1])
        self.ui.modelsList.setCurrentRow(self.bundled)
        self.assertIn("broken-1.0.0", self.panel.said)
        self.assertEqual(self.panel.parameters.model, FAST)
        self.settle()
        self.screenshot("models-broken")
        self.remove()
        self.assertEqual(len(self.rows()), self.bundled)

    def test_a_model_without_a_licence_says_so(self):
        self.add(self.added(id="free", title="Free", licence=""))
        self.assertIn("states no licence", self.ui.descriptionLabel.text)

    def test_a_model_without_a_card_says_so(self):
        self.addFile("plain", card="")
        self.panel.models.choose("plain@1.0.0")
        self.assertIn("It has no card", self.ui.descriptionLabel.text)

    def test_a_model_that_vanishes_is_named(self):
        folder = self.home / "Models"
        folder.mkdir(parents=True)
        shutil.copy(self.added(id="gone"), folder / "gone-1.0.0.distillseg")
        self.panel.models.choose("gone@1.0.0")
        self.choose(self.sample(), "gone@1.0.0")
        self.assertTrue(self.panel.segment.ui.segmentButton.enabled, self.panel.said)
        Path(folder, "gone-1.0.0.distillseg").unlink()
        self.panel.changed()
        self.assertIn("'gone@1.0.0' is not on this computer", self.panel.said)

    def test_two_channels_have_two_rows_filled_by_name(self):
        manifest = load_package(PACKAGE).manifest
        preprocessing, scope = manifest.preprocessing, manifest.scope
        self.addFile(
            "two",
            channels=("T1", "FLAIR"),
            preprocessing=replace(preprocessing, intensity=preprocessing.intensity * 2),
            scope=replace(scope, intensity=scope.intensity * 2),
        )
        ui, parameters = self.panel.segment.ui, self.panel.parameters
        flair, t1 = self.sample("p1 flair"), self.sample("p1 T1")
        parameters.inputVolume = t1
        self.panel.models.choose("two@1.0.0")
        self.settle()
        self.assertTrue(ui.inputSelector2.isVisibleTo(self.panel.widget))
        self.assertEqual((ui.inputLabel1.text, ui.inputLabel2.text), ("T1:", "FLAIR:"))
        self.assertIs(parameters.inputVolume2, flair)
        self.assertIs(ui.inputSelector2.currentNode(), flair)
        self.assertTrue(ui.segmentButton.enabled, self.panel.said)
        self.screenshot("segment-two-channels")
        ui.inputSelector2.setCurrentNode(None)
        self.settle()
        self.assertFalse(ui.segmentButton.enabled)
        self.assertIn("takes 2 volumes of a patient (T1, FLAIR)", self.panel.said)
