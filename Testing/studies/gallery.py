"""Best, median and worst held-out case of a model, by mean Dice, as outlines on slices.

    python Testing/studies/gallery.py hippocampus-fast --data Task04_Hippocampus --out gallery.svg
    python Testing/studies/gallery.py hippocampus-fast --data Task04_Hippocampus --outlines

The first shows the images: it is for the reader's own eyes and is refused inside the repository.
The second leaves them away and writes `Resources/Studies/<model>-gallery.svg`: outlines, and
faintly the areas of the reference. All slices of a picture have one scale, in millimetres.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from examine import held_out_cases
from gallery_picture import Shown, gallery, mean_dice

from DistillSegLib import Segmenter
from DistillSegLib.boxes import bounding_box
from DistillSegLib.comparison import compare
from DistillSegLib.datasets import Case
from DistillSegLib.evaluation import Scores, evaluate
from DistillSegLib.figures import Scene, scene_of
from DistillSegLib.files import write_text
from DistillSegLib.geometry import spacing_of
from DistillSegLib.images import read_image
from DistillSegLib.labels import LabelTable
from DistillSegLib.segmentations import read_segmentation

ROOT = Path(__file__).resolve().parents[2]
MARGIN_MM = 4.0  # of ground around the structures


def ranked(scores: Scores) -> dict[str, str]:
    """Best, median and worst -> case, by mean Dice over structures; without double ones."""
    found: dict[str, list[float]] = {}
    for row in scores.rows:
        if not math.isnan(row["dice"]):
            found.setdefault(row["case"], []).append(row["dice"])
    order = sorted(found, key=lambda case: (statistics.fmean(found[case]), case))
    if not order:
        raise ValueError("No held-out case could be scored; look at its failures with `evaluate`.")
    places = {"Best": order[-1], "Median": order[(len(order) - 1) // 2], "Worst": order[0]}
    return {rank: case for n, (rank, case) in enumerate(places.items()) if n < len(order)}


def show(
    rank: str, case: Case, models: Sequence[Segmenter], labels: LabelTable, *, image: bool
) -> Shown:
    """A case as the first model sees it, and the second if there is one."""
    made = [model.segment(case.images) for model in models]
    reference = read_segmentation(case.label, labels)
    comparison = compare(made[0], reference)
    picture = read_image(case.images[0]) if image else None
    scene = closer(scene_of(picture, made[0], comparison))
    if not made[1:]:
        return Shown(rank, case.id, comparison, scene)
    second = compare(made[1], reference)
    other = scene_of(None, made[1], second).a
    return Shown(rank, case.id, comparison, scene, other, mean_dice(second))


def closer(scene: Scene) -> Scene:
    """The scene with a narrower margin around what A and B hold."""
    box = bounding_box((scene.a != 0) | (scene.b != 0))
    if box is None:
        return scene
    margins = [math.ceil(MARGIN_MM / step) for step in spacing_of(scene.grid)]
    return replace(
        scene,
        box=tuple(
            slice(max(0, part.start - margin), min(size, part.stop + margin))
            for part, margin, size in zip(box, margins, scene.a.shape)
        ),
    )


def main() -> None:
    """Segment the held-out cases, choose three, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("package", help="id, or .distillseg file")
    parser.add_argument(
        "--data", required=True, metavar="[DOMAIN=]DIR", help="the data set it was trained on"
    )
    parser.add_argument("--reference", help="a second package, drawn dotted")
    parser.add_argument("--outlines", action="store_true", help="without images, to be published")
    parser.add_argument("--out", type=Path, help="SVG file")
    options = parser.parse_args()
    models = [Segmenter(name) for name in (options.package, options.reference) if name]
    manifest = models[0].package.manifest
    out = options.out or ROOT / "Resources" / "Studies" / f"{manifest.id}-gallery.svg"
    if out.suffix != ".svg":
        parser.error(f"--out is '{out.name}'; name a file that ends in .svg.")
    if not options.outlines and out.resolve().is_relative_to(ROOT):
        parser.error("images of patients stay out of the repository; give --outlines or --out.")
    cases = {case.id: case for case in held_out_cases(manifest, options.data)}
    scores = evaluate(
        lambda case: models[0].segment(case.images), list(cases.values()), labels=manifest.labels
    )
    shown = [
        show(rank, cases[case], models, manifest.labels, image=not options.outlines)
        for rank, case in ranked(scores).items()
    ]
    other = models[1].package.manifest.id if models[1:] else ""
    print(write_text(out, gallery(manifest, shown, len(cases), other)))


if __name__ == "__main__":
    main()
