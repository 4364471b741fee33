"""The gallery chooses the right cases and slices, and its outlines lie where the voxels do."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import gallery
import gallery_picture
import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib.comparison import compare
from DistillSegLib.figures import scene_of
from DistillSegLib.labels import label_table
from DistillSegLib.package import read_package
from DistillSegLib.segmentations import Segmentation
from Testing.datasets import write_decathlon

FOLDER = Path(__file__).resolve().parents[1] / "studies"

ROOT = FOLDER.parents[1]
FAST = ROOT / "Resources" / "Models" / "hippocampus-fast-1.0.0.distillseg"
TABLE = label_table({1: "Ball"})
BLUE, RED = gallery_picture.BLUE, gallery_picture.RED


def segmentation(voxels, spacing_mm=(1.0, 1.0, 1.0)) -> Segmentation:
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(spacing_mm[::-1])
    return Segmentation(image, TABLE, "x")


def shown(a, b, spacing_mm=(1.0, 1.0, 1.0), *, picture=False) -> gallery_picture.Shown:
    """A model's voxels and the reference's."""
    model, reference = segmentation(a, spacing_mm), segmentation(b, spacing_mm)
    comparison = compare(model, reference)
    image = sitk.Cast(model.image, sitk.sitkFloat32) if picture else None
    scene = gallery.closer(scene_of(image, model, comparison))
    return gallery_picture.Shown("Worst", "case <7>", comparison, scene)


def boxes() -> tuple[np.ndarray, np.ndarray]:
    """A bar of 3 x 4 x 12 voxels, and the model that ends two early and errs at slice x = 9."""
    reference = np.zeros((20, 22, 24), np.uint8)
    reference[8:11, 9:13, 6:18] = 1
    model = reference.copy()
    model[:, :, 16:] = 0
    model[11:16, 9:13, 9] = 1
    return model, reference


def test_slices_of_cubic_voxels_are_of_three_planes():
    found = gallery_picture.tiles(shown(*boxes()).scene)
    assert [tile.plane.name for tile in found] == ["Axial", "Coronal", "Sagittal"]
    assert found[2].index == 9 and found[2].why == "largest difference"  # across the bar
    assert found[0].index in range(8, 11) and found[0].why == "largest area"


def test_slices_of_a_stack_are_the_stack_s():
    reference = np.zeros((7, 40, 42), np.uint8)
    reference[1:6, 10:20, 10:20] = 1
    reference[3, 10:24, 10:20] = 1
    model = reference.copy()
    model[5] = 0
    model[2, 10:14] = 0
    found = gallery_picture.tiles(shown(model, reference, (8.0, 1.4, 1.4)).scene)
    assert [(t.plane.name, t.index) for t in found] == [("Axial", 3), ("Axial", 5), ("Axial", 2)]
    page = gallery_picture.gallery(
        read_package(FAST).manifest, [shown(model, reference, (8.0, 1.4, 1.4))], 5
    )
    assert "Slice 5, largest difference; 196 mm² differ" in page  # 10 x 10 x 1.4 x 1.4


def test_outlines_lie_where_the_voxels_do_and_nothing_leaves_the_page():
    each = shown(*boxes())
    text = gallery_picture.gallery(read_package(FAST).manifest, [each], 40)
    page = ElementTree.fromstring(text)
    assert "<image" not in text and "No image is shown" in text
    groups = [e for e in page if e.tag.endswith("}g")]
    assert len(groups) == 3
    (axial, *_) = groups
    solid, dashed = (
        next(e for e in axial if e.get("stroke") == color).get("d") for color in (BLUE, RED)
    )
    # The shown box begins 4 mm before the structures: x 6 - 4 = 2, y 9 - 4 = 5.
    assert extent(dashed) == pytest.approx((6 - 2, 9 - 5, 18 - 2, 13 - 5))
    assert extent(solid) == pytest.approx((6 - 2, 9 - 5, 16 - 2, 13 - 5))
    assert next(e for e in axial if e.get("stroke") == RED).get("stroke-dasharray")
    scales = set()
    for group in groups:
        left, top, scale = map(float, re.findall(r"[\d.]+", group.get("transform")))
        ground = group[0]
        right = left + scale * float(ground.get("width"))
        bottom = top + scale * float(ground.get("height"))
        assert left >= 0 and right <= 760 and bottom <= float(page.get("height"))
        scales.add(scale)
    assert len(scales) == 1  # millimetres are as long in every slice
    assert "case &lt;7&gt;" in text and "Dice 0.8" in text


def extent(path: str) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of path data."""
    numbers = np.array([float(n) for n in re.findall(r"[\d.]+", path)]).reshape(-1, 2)
    return (*numbers.min(0), *numbers.max(0))


def test_the_image_is_shown_only_if_it_is_given():
    each = shown(*boxes(), picture=True)
    text = gallery_picture.gallery(read_package(FAST).manifest, [each], 40)
    assert text.count("data:image/png;base64") == 3 and "No image is shown" not in text


def test_a_second_model_is_drawn_dotted_and_scored():
    model, reference = boxes()
    each = shown(model, reference)
    each = replace(each, other=each.scene.b, other_dice=0.123)
    text = gallery_picture.gallery(read_package(FAST).manifest, [each], 40, "large")
    assert text.count(gallery_picture.GREEN) == 1 + 3 and "of large 0.123" in text


class Kept:
    """Rows as an evaluation has them."""

    def __init__(self, **dice: list[float]):
        rows = [(case, value) for case, values in dice.items() for value in values]
        self.rows = [{"case": case, "dice": value} for case, value in rows]


def test_cases_are_ranked_by_their_mean_over_structures():
    scores = Kept(a=[0.9, 0.7], b=[0.9, 0.9], c=[0.1, 0.9], d=[0.7, float("nan")], e=[0.85])
    assert gallery.ranked(scores) == {"Best": "b", "Median": "a", "Worst": "c"}
    assert gallery.ranked(Kept(a=[0.5])) == {"Best": "a"}
    with pytest.raises(ValueError, match="No held-out case could be scored"):
        gallery.ranked(Kept(a=[float("nan")]))


def test_images_of_patients_are_refused_in_the_repository(tmp_path, monkeypatch, capsys):
    data = write_decathlon(tmp_path / "data", cases=2)
    out = ROOT / "Resources" / "Studies" / "seen.svg"
    words = ["gallery.py", str(FAST), "--data", str(data), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit):
        gallery.main()
    assert "stay out of the repository" in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "Resources" / "Studies").glob("*-gallery.svg")), ids=lambda p: p.name
)
def test_a_published_gallery_shows_no_patient(path):
    text = path.read_text(encoding="utf-8")
    assert "<image" not in text and "base64" not in text
    assert "No image is shown" in text and "Trained on" in text
