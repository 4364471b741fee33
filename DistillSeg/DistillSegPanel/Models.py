"""The section Model: search, choose, look at the card, load the sample, add and remove."""

from html import escape

import qt
import slicer
from slicer.i18n import tr as _

from DistillSegLib.catalogue import sample_of
from DistillSegLib.places import sample_facts
from DistillSegLib.ranking import recommended
from DistillSegPanel.Card import cardHtml
from DistillSegPanel.Doubts import likelyModality, measuredOf
from DistillSegPanel.ModelIcon import iconOf
from DistillSegPanel.ModelList import modelOf
from DistillSegPanel.ModelTexts import rowText, searchText
from DistillSegPanel.PackageDrop import PackageDrop
from DistillSegPanel.Packages import Packages

ROW_PIXELS = 78
MOST_ROWS = 3.5  # that are seen at once; half a row says that there are more


class Models:
    """Shows the packages at hand and writes the chosen one into the parameters.

    Attributes:
        shown: the entries in the list, row by row.
        lastChosen: the model that the user chose last, in whatever scene; empty before.
    """

    def __init__(self, panel, parent):
        self.panel = panel
        self.ui = panel.loadUi("Models", parent)
        self.packages = Packages(panel)
        self.shown = []
        self.lastChosen = ""
        self._seen = None  # the parameters for which a model was chosen
        self._rows = None  # what the list shows, to fill it only when that changes
        self._broken = None  # the selected entry that cannot be used
        self._card = ""  # what the browser shows
        self._filterOf = None  # the volume whose modality was looked at, and that
        self._isAutomatic = False  # whether the filter was set by it
        self._default = ""  # the model that was chosen for the user
        self._drop = PackageDrop(panel.widget, self.onDropped)
        ui = self.ui
        ui.cardBrowser.hide()
        ui.citationButton.hide()
        ui.searchBox.connect("textChanged(QString)", self.onFilter)
        ui.modalityBox.connect("activated(int)", self.onModality)
        ui.bodyPartBox.connect("activated(int)", self.onFilter)
        ui.filterLabel.connect("linkActivated(QString)", self.onShowAll)
        ui.modelsList.connect("currentRowChanged(int)", self.onRow)
        ui.cardButton.connect("toggled(bool)", self.onCard)
        ui.citationButton.connect("clicked(bool)", self.onCitation)
        ui.sampleButton.connect("clicked(bool)", self.onSample)
        ui.addButton.connect("clicked(bool)", self.onAdd)
        ui.removeButton.connect("clicked(bool)", self.onRemove)

    def enter(self):
        """The module is shown: choose a model if none is."""
        self._chooseFor(self.panel.parameters)

    def sceneChanged(self):
        """A scene that was closed has taken the choice with it; the next patient gets it again."""
        if self.panel.parameters is not self._seen:
            self._chooseFor(self.panel.parameters)

    def exit(self):
        """Another module is shown."""

    def cleanup(self):
        """Take drops no more."""
        self._drop.cleanup()

    def update(self):
        """Show the packages that pass the filters, and the chosen one's card."""
        entries = self.panel.modelList.entries()
        self._fillFilters(entries)
        self.shown = [entry for entry in entries if self._passes(entry)]
        self._fillList()
        self._tellFilter(len(entries) - len(self.shown))
        entry = self.selected()
        self._select(entry)
        self._showEntry(entry)
        isBusy = self.panel.busy
        self.ui.modelsList.enabled = not isBusy
        self.ui.addButton.enabled = not isBusy
        self.ui.removeButton.enabled = bool(entry and not entry.isBundled and not isBusy)
        self.ui.removeButton.toolTip = (
            _("This model is part of DistillSeg and cannot be removed.")
            if entry and entry.isBundled
            else _("Deletes the chosen model from this computer.")
        )

    def selected(self):
        """The entry that is chosen, or the selected one that cannot be used; None without any."""
        entries = self.panel.modelList.entries()
        if self._broken in entries:
            return self._broken
        model = self.panel.parameters.model
        return next((entry for entry in entries if model and entry.model == model), None)

    def choose(self, model):
        """Choose a package, "id@version"."""
        self._broken, self._default = None, ""
        self.lastChosen = self.panel.parameters.model = model
        self.panel.segment.releaseOutput()
        self.panel.segment.inputs.chooseDefaults()
        self.panel.changed()

    def onRow(self, row):
        """A row was selected."""
        if self.panel.updating or self.panel.parameters is None or not 0 <= row < len(self.shown):
            return
        entry = self.shown[row]
        if entry.package is None:
            self._broken = entry
            self.panel.changed()
            self.panel.say(entry.problem, "error")
        else:
            self.choose(entry.model)

    def onFilter(self, _what=None):
        """Words or filters were changed."""
        self.panel.changed()

    def onModality(self, _index):
        """The user filters by modality, and no volume changes that."""
        self._isAutomatic = False
        self.panel.changed()

    def onShowAll(self, _link=""):
        """Take all filters away."""
        self._isAutomatic = False
        self.ui.modalityBox.setCurrentIndex(0)
        self.ui.bodyPartBox.setCurrentIndex(0)
        self.ui.searchBox.text = ""
        self.panel.changed()

    def onDropped(self, path):
        """A package was dropped onto the panel."""
        if self.panel.busy:
            self.panel.say(_("Another task is running; drop the model again after its end."))
        else:
            self.packages.add(path)

    def onCard(self, isShown):
        """Show or hide the card."""
        self.ui.cardBrowser.setVisible(isShown)
        self.panel.changed()

    def onCitation(self, _checked=False):
        """How to cite the model, into the clipboard."""
        qt.QApplication.clipboard().setText(self.selected().package.manifest.citation)
        self.panel.say(_("The citation is in the clipboard."))

    def onSample(self, _checked=False):
        """Load the sample and choose it."""
        path = sample_of(self.selected().package)
        node = slicer.util.loadVolume(str(path))
        node.SetName(slicer.mrmlScene.GenerateUniqueName(sample_facts(path)["name"]))
        self.panel.segment.inputs.choose(node)

    def onAdd(self, _checked=False):
        """Add a package from a file."""
        self.packages.askAndAdd(self.ui.addButton)

    def onRemove(self, _checked=False):
        """Remove the selected package."""
        self.packages.remove(self.selected())

    def _passes(self, entry):
        words = self.ui.searchBox.text.casefold().split()
        found = searchText(entry)
        if not all(word in found for word in words):
            return False
        if entry.package is None:
            return True
        manifest = entry.package.manifest
        return _allows(self.ui.modalityBox, manifest.modality) and _allows(
            self.ui.bodyPartBox, manifest.scope.body_part
        )

    def _fillFilters(self, entries):
        manifests = [entry.package.manifest for entry in entries if entry.package is not None]
        _fill(self.ui.modalityBox, _("Any modality"), {m.modality for m in manifests})
        _fill(self.ui.bodyPartBox, _("Any region"), {m.scope.body_part for m in manifests})
        self._followVolume(manifests)

    def _followVolume(self, manifests):
        """Filter by the modality of another volume once; the user may take the filter away."""
        volume = self.panel.parameters.inputVolume
        modality = likelyModality(volume)
        now = (volume.GetID() if volume is not None else "", modality)
        if now == self._filterOf:
            return
        self._filterOf = now
        box, known = self.ui.modalityBox, {m.modality[:2]: m.modality for m in manifests}
        if self._isAutomatic or box.currentIndex <= 0:
            self._isAutomatic = modality in known
            box.setCurrentText(known.get(modality, box.itemText(0)))
        if self._default == self.panel.parameters.model:
            self._chooseDefault()

    def _chooseFor(self, parameters):
        """Choose a model where none is: the one before, otherwise one for the volume."""
        self._seen = parameters
        if parameters is None or parameters.model:
            return
        if self.panel.modelList.find(self.lastChosen) is not None:
            parameters.model = self.lastChosen
        else:
            self._chooseDefault()

    def _chooseDefault(self):
        """Choose a model for the volume, as long as the user has not."""
        parameters = self.panel.parameters
        self._default = defaultModel(self.panel.modelList.packages(), parameters.inputVolume)
        if parameters.model != self._default:
            parameters.model = self._default
            self.panel.changedSoon()

    def _tellFilter(self, hidden):
        """Say why models are missing from the list, and offer them."""
        label, link = self.ui.filterLabel, f'<a href="all">{escape(_("Show all"))}</a>'
        label.setVisible(hidden > 0)
        if not self.shown:
            text = _("No model fits the search.")
        elif self._isAutomatic and not self._isSearching():
            text = _("Only models for {modality}, as the input volume is.").format(
                modality=self.ui.modalityBox.currentText
            )
        else:
            text = _("{count} more do not fit the search.").format(count=hidden)
        label.text = f"{escape(text)} {link}"

    def _isSearching(self):
        return bool(self.ui.searchBox.text) or self.ui.bodyPartBox.currentIndex > 0

    def _fillList(self):
        others = list(self.panel.modelList.packages().values())
        rows = [(str(entry.path), rowText(entry, others)) for entry in self.shown]
        if rows == self._rows:
            return
        self._rows, ui = rows, self.ui
        ui.modelsList.clear()
        for entry, (_path, text) in zip(self.shown, rows):
            item = qt.QListWidgetItem(iconOf(entry), text)
            item.setToolTip(entry.problem or entry.package.manifest.description)
            ui.modelsList.addItem(item)
        ui.modelsList.setFixedHeight(int(ROW_PIXELS * min(max(len(rows), 1), MOST_ROWS)) + 6)

    def _select(self, entry):
        row = self.shown.index(entry) if entry in self.shown else -1
        if self.ui.modelsList.currentRow != row:
            self.ui.modelsList.setCurrentRow(row)

    def _showEntry(self, entry):
        ui = self.ui
        package = entry.package if entry is not None else None
        ui.descriptionLabel.text = self._description(entry)
        ui.cardButton.enabled = package is not None
        isShown = package is not None and ui.cardButton.checked
        ui.cardBrowser.setVisible(isShown)
        ui.citationButton.setVisible(isShown and bool(package.manifest.citation))
        if isShown:
            html = cardHtml(package, self.panel.modelList.packages().values())
            if html != self._card:
                self._card = html
                ui.cardBrowser.setHtml(html)
        sample = sample_of(package) if package is not None else None
        ui.sampleButton.enabled = sample is not None and not self.panel.busy
        if sample is None:
            ui.sampleButton.toolTip = _("No sample comes with DistillSeg for this model.")
        elif self.panel.busy:
            ui.sampleButton.toolTip = _("Another task is running; wait for it.")
        else:
            ui.sampleButton.toolTip = _(
                "Loads a small image that comes with DistillSeg, and chooses it."
            )

    def _description(self, entry):
        if entry is None:
            model = self.panel.parameters.model
            if not model:
                return _("Choose a model.")
            return _("'{model}' is not on this computer; add it.").format(model=model)
        if entry.package is None:
            return entry.problem
        manifest = entry.package.manifest
        text = manifest.description
        if not manifest.licence:
            text += " " + _("It states no licence; ask its author before using it.")
        if not entry.package.card.strip():
            text += " " + _("It has no card; judge its results yourself.")
        return text


def defaultModel(packages, volumeNode):
    """The model that the library recommends for a volume, "id@version"; empty where none is."""
    modality = likelyModality(volumeNode)
    fitting = [p for p in packages.values() if p.manifest.modality[:2] == modality]
    package = recommended(fitting or packages.values(), measuredOf(volumeNode))
    return modelOf(package) if package is not None else ""


def _allows(box, value):
    return box.currentIndex <= 0 or box.currentText == value


def _fill(box, anything, values):
    """Fill a filter, keeping what is chosen."""
    texts = [anything, *sorted(values)]
    if texts == [box.itemText(n) for n in range(box.count)]:
        return
    chosen = box.currentText
    box.clear()
    for text in texts:
        box.addItem(text)
    box.setCurrentIndex(max(0, texts.index(chosen) if chosen in texts else 0))
