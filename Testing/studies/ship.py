"""From a finished run to a package with its scores and its analysis: what is done for each model.

    python Testing/studies/ship.py tiny --stage student --card hippocampus-tiny --data Task04_…
    python Testing/studies/ship.py run --stage teacher --card left-ventricle-reference \\
        --data LeftVentricle --groups "end diastole=_ED$" "end systole=_ES$"
    python Testing/studies/ship.py sarcoma --stage student --card sarcoma-ct --data ct=Sarcoma/CT

The network is exported without scores, evaluated on its held-out cases and examined as its user
will run it, then exported with both. `cards/<card>.toml` is what a person wrote; `<card>.json` and
`<card>.md` beside it are made here, and take their places together with the package in
`Resources/Models`. Cost, thumbnails, table and plots come after:

    python Testing/studies/measure_cost.py hippocampus-tiny hippocampus-fast \\
        hippocampus-reference --out Resources/Studies/hippocampus-cost.json
    python Testing/studies/make_thumbnails.py
    python Testing/studies/model_table.py
    python Testing/studies/accuracy_plots.py
    python Testing/studies/structure_plots.py
    python Testing/studies/gallery.py hippocampus-fast --data Task04_… --outlines
    python Testing/studies/evidence.py
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from examine import write_report
from study_commands import command

from DistillSegLib.commands.train import read_domains
from DistillSegLib.export.card import read_card
from DistillSegLib.files import replacing, write_text

CARDS = Path(__file__).resolve().parent / "cards"
MODELS = Path(__file__).resolve().parents[2] / "Resources" / "Models"
MEASURED = re.compile(r"^(scores|analysis)\s*=.*\n", re.MULTILINE)


def ship(
    run: Path, stage: str, card: Path, data: str, groups: Sequence[str], out: Path = MODELS
) -> Path:
    """The package, in `out`, and the card's measured files, beside the card: all, or none of them.

    Args:
        data: folder of the data set, or DOMAIN=DIR, of a run on several modalities.
    """
    config = read_card(card)
    name = f"{config.id}-{config.version}.distillseg"
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain" / name  # the final name: what is drawn and told has it
        full = Path(folder) / name
        bare, copy = plain.parent / card.name, full.parent / card.name
        text = card.read_text(encoding="utf-8")
        write_text(bare, MEASURED.sub("", text))
        write_text(copy, text)
        export(run, stage, bare, plain, data)
        scores, analysis = copy.with_suffix(".json"), copy.with_suffix(".md")
        command("evaluate", plain, "--data", data, "--json", scores)
        name_model(scores, name)
        print(write_report(plain, data, groups, analysis))
        export(run, stage, copy, full, data)
        moved = {made: card.with_name(made.name) for made in (scores, analysis)}
        move_all(moved | {full: out / name})
    return out / name


def name_model(scores: Path, name: str) -> None:
    """Let scores name a file that they are of, not a place on this computer."""
    told = json.loads(scores.read_text(encoding="utf-8"))
    told["model"] = name
    write_text(scores, json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def move_all(places: Mapping[Path, Path]) -> None:
    """Each file to its place; none takes its name before all are copied."""
    with ExitStack() as stack:
        for file, place in places.items():
            shutil.copyfile(file, stack.enter_context(replacing(place)))


def export(run: Path, stage: str, card: Path, out: Path, data: str) -> None:
    """The package, its probabilities calibrated on the run's training cases."""
    options = ["--stage", stage, "--card", card, "--out", out]
    ((domain, folder),) = read_domains([data]).items()
    if domain:
        options += ["--domain", domain]
    command("export", run, *options, "--data", folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder that `distillseg train` wrote")
    parser.add_argument("--stage", required=True)
    parser.add_argument("--card", required=True, help="name of a card in cards/")
    parser.add_argument("--data", required=True, metavar="[DOMAIN=]DIR")
    parser.add_argument("--groups", nargs="*", default=[], metavar="TITLE=PATTERN")
    options = parser.parse_args()
    card = CARDS / f"{options.card}.toml"
    print(ship(options.run, options.stage, card, options.data, options.groups))


if __name__ == "__main__":
    main()
