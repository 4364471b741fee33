"""Cards written again: the words change, the network and its scores do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from examine import CARDS
from recard import WORDS, recarded

from DistillSegLib.export.card import read_analysis, read_card
from DistillSegLib.package import load_package, read_package

NAMES = sorted(path.stem for path in CARDS.glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_package_says_what_its_card_does(name):
    package, card = load_package(name), read_card(CARDS / f"{name}.toml")
    for word in WORDS:
        assert getattr(package.manifest, word) == getattr(card, word)
    assert read_analysis(CARDS / card.analysis).strip() in package.card
    scope = package.manifest.scope
    assert f"Trained on {scope.noun} ({scope.body_part})." in package.card
    assert not scope.noun.endswith(",") and scope.description.startswith(scope.noun)


def test_new_words_leave_the_weights_as_they_are(tmp_path):
    package = load_package("hippocampus-tiny")
    card = replace(read_card(CARDS / "hippocampus-tiny.toml"), known_failures="It fails at noon.")
    path = tmp_path / "tiny.distillseg"
    recarded(package, card, "**Noon**: not measured.", path)
    found = read_package(path)
    assert found.manifest == replace(package.manifest, known_failures="It fails at noon.")
    assert "It fails at noon." in found.card and "**Noon**" in found.card
    for variant in found.manifest.variants:
        assert found.model_bytes(variant) == package.model_bytes(variant)
