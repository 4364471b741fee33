"""The chooser of models: search, filters, card, sample, adding and removing packages."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import qt
import slicer
from DistillSegPanel.ModelTexts import structuresText
from PanelCase import FAST, REFERENCE, PanelCase, needsEngine

from DistillSegLib.catalogue import list_packages
from DistillSegLib.labels import label_table
from DistillSegLib.package import load_package, write_package
from DistillSegLib.places import resources

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

    def rows(self):
        return [self.ui.modelsList.item(n).text() for n in range(self.ui.modelsList.count)]

    def added(self, *, card="A card.", **changes):
        """A package file made of the bundled one."""
        package = load_package(PACKAGE)
        variant = package.variant()
        window, logits = package.check_window(variant)
        path = self.home / "added.distillseg"
        write_package(
            path,
            replace(package.manifest, **changes),
            card=card,
            models={variant.file: package.model_bytes(variant)},
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
    def test_the_smallest_model_is_chosen_when_the_module_opens(self):
        self.assertEqual(self.panel.parameters.model, FAST)
        self.assertEqual(self.ui.modelsList.currentRow, 0)

    def test_a_row_says_what_is_found_and_what_it_costs(self):
        title, what, cost = self.rows()[0].split("\n")
        self.assertEqual(title, "Hippocampus, fast")
        self.assertEqual(what, "Hippocampus (anterior, posterior) · MR · 1 mm")
        self.assertRegex(cost, r"^≈ \d+\.\d s · 1\.2 MB · Dice 0\.88 \(reference 0\.89\)$")
        self.assertTrue(self.rows()[1].endswith("Dice 0.89"))
        icon = self.ui.modelsList.item(0).icon()
        self.assertEqual(icon.pixmap(72, 72).width(), 72)

    @needsEngine
    def test_after_a_run_the_seconds_are_those_of_this_computer(self):
        self.choose()
        self.segment()
        self.assertRegex(self.rows()[0], r"\n\d+\.\d s here · ")

    def test_a_click_on_a_row_chooses(self):
        self.ui.modelsList.setCurrentRow(1)
        self.assertEqual(self.panel.parameters.model, REFERENCE)

    def test_words_are_searched_everywhere(self):
        for words, count in (
            ("", 2),
            ("reference", 2),  # the fast one names what it was distilled from
            ("posterior HIPPO", 2),
            ("mr 5366008", 2),  # SNOMED CT's code of the structure
            ("large network", 1),
            ("liver", 0),
            ("temporal lobe", 2),  # what holds the structure
            ("brain mri", 2),
            ("kidney", 0),
        ):
            with self.subTest(words):
                self.ui.searchBox.text = words
                self.assertEqual(len(self.rows()), count, words)
        self.ui.searchBox.text = ""
        self.assertEqual(len(self.rows()), 2)

    def test_filters_show_what_fits(self):
        self.assertEqual(self.ui.modalityBox.itemText(0), "Any modality")
        self.ui.modalityBox.setCurrentIndex(1)
        self.panel.models.onFilter()
        self.assertEqual(len(self.rows()), 2)
        self.assertEqual(self.ui.bodyPartBox.itemText(1), "hippocampus")

    def test_a_filter_that_hides_models_says_so_and_is_taken_away_with_one_click(self):
        self.addFile("mine", modality="CT", title="Of the liver")
        self.assertEqual(len(self.rows()), 3)
        self.assertFalse(self.ui.filterLabel.isVisibleTo(self.panel.widget))
        self.panel.parameters.inputVolume = self.ct()
        self.settle()
        self.assertEqual(self.ui.modalityBox.currentText, "CT")
        self.assertEqual(len(self.rows()), 1)
        self.assertIn("Only models for CT", self.ui.filterLabel.text)
        self.screenshot("models-filtered")
        self.ui.filterLabel.linkActivated.emit("all")
        self.assertEqual(len(self.rows()), 3)
        self.assertFalse(self.ui.filterLabel.isVisibleTo(self.panel.widget))
        self.panel.changed()
        self.assertEqual(len(self.rows()), 3)  # and it does not come back

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
        self.ui.modelsList.setCurrentRow(1)
        self.panel.parameters.inputVolume = ct
        self.settle()
        self.assertEqual(self.panel.parameters.model, REFERENCE)

    def test_a_search_without_a_model_says_so(self):
        self.ui.searchBox.text = "nothing like it"
        self.assertIn("No model fits", self.ui.filterLabel.text)
        self.ui.filterLabel.linkActivated.emit("all")
        self.assertEqual((self.ui.searchBox.text, len(self.rows())), ("", 2))

    def test_a_filtered_list_keeps_the_choice(self):
        self.ui.searchBox.text = "nothing like it"
        self.assertEqual(self.rows(), [])
        self.assertEqual(self.panel.parameters.model, FAST)
        self.ui.searchBox.text = ""
        self.assertEqual(self.ui.modelsList.currentRow, 0)

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
        for words in (
            "0.891",
            "0.895",
            "Hippocampus, reference",
            "40 cases",
            "CC-BY-SA",
            "SHA-256",
        ):
            self.assertIn(words, text)
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


@needsEngine
class PackagesTest(ModelsCase):
    def test_a_package_is_checked_added_chosen_and_removed(self):
        self.add(self.added(id="hippocampus-mine", title="Mine"))
        self.assertEqual(self.panel.parameters.model, "hippocampus-mine@1.0.0")
        self.assertIn("'Mine' was added", self.panel.said)
        self.assertEqual(len(self.rows()), 3)
        self.assertTrue(self.ui.removeButton.enabled)
        self.screenshot("models-added")
        self.remove(agree=False)
        self.assertEqual(len(self.rows()), 3)
        self.remove()
        self.assertEqual(len(self.rows()), 2)
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
        self.assertEqual(len(self.rows()), 2)

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
        self.assertEqual(len(self.rows()), 2)

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
        self.assertEqual(len(self.rows()), 3)
        self.assertIn("cannot be used", self.rows()[2])
        self.ui.modelsList.setCurrentRow(2)
        self.assertIn("broken-1.0.0", self.panel.said)
        self.assertEqual(self.panel.parameters.model, FAST)
        self.settle()
        self.screenshot("models-broken")
        self.remove()
        self.assertEqual(len(self.rows()), 2)

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
