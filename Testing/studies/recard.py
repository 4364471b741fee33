"""Write the bundled packages' cards again, from `cards/`; weights and scores stay as they are.

    python Testing/studies/recard.py

For words that changed after the export, such as a limitation that was found since.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from examine import CARDS

from DistillSegLib.export.card import CardConfig, card_text, read_analysis, read_card
from DistillSegLib.files import replacing
from DistillSegLib.package import ModelPackage, read_package, write_package
from DistillSegLib.places import resources

WORDS = (
    *("title", "description", "intended_use", "not_for", "known_failures"),
    *("licence", "attribution", "citation"),
)


def recarded(package: ModelPackage, card: CardConfig, analysis: str, path: Path) -> None:
    """Write a package with the words of a card, whole or not at all."""
    words = {name: getattr(card, name) for name in WORDS}
    manifest = replace(package.manifest, **words)
    windows = [package.check_window(variant) for variant in manifest.variants]
    logits = {v.name: expected for v, (_, expected) in zip(manifest.variants, windows)}
    models = {v.file: package.model_bytes(v) for v in manifest.variants}
    text = card_text(manifest, analysis)
    with replacing(path) as temporary:
        write_package(
            temporary, manifest, card=text, models=models, window=windows[0][0], logits=logits
        )


def main() -> None:
    for path in sorted((resources() / "Models").glob("*.distillseg")):
        package = read_package(path)
        card = read_card(CARDS / f"{package.manifest.id}.toml")
        recarded(package, card, read_analysis(CARDS / card.analysis), path)
        print(path.name)


if __name__ == "__main__":
    main()
