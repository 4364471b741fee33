"""The page as a browser and a reader meet it: whole, harmless, the right way round."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import SimpleITK as sitk

from DistillSegLib.comparison import compare
from DistillSegLib.labels import Label, LabelTable, label_table
from DistillSegLib.report import write_report
from DistillSegLib.segmentations import Segmentation

HOSTILE = "\"><script>alert('1')</script><img src=http://evil.test/x onerror=y> & \udcff\x00"


def volume(array, spacing=(1.0, 1.5, 3.0), origin=(10.0, -20.0, 30.0)) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    return image


def case(names=None, source="model"):
    """An image (12, 16, 20) with two structures, and the same one with a piece cut off."""
    random = np.random.default_rng(5)
    values = np.zeros((12, 16, 20), np.uint8)
    values[3:8, 4:9, 5:12], values[5:9, 9:13, 8:14] = 1, 2
    other = values.copy()
    other[6, 4:9, 5:9] = 0
    image = volume(random.normal(100, 20, values.shape).astype(np.float32) + 50 * values)
    table = names if isinstance(names, LabelTable) else label_table(names or {1: "head", 2: "tail"})
    return image, *(Segmentation(volume(v), table, source) for v in (values, other))


def page_of(tmp_path, image, a, b=None, *, title="A report", facts=None) -> str:
    comparison = compare(a, b) if b else None
    path = write_report(tmp_path / "report.html", image, a, b, comparison, title=title, facts=facts)
    return path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Every tag with its attributes, every text; and whether tags close in their order."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def pictures(page: Page) -> list[tuple[str, str]]:
    """(the words, the view box) of each picture."""
    return [(a["aria-label"], a["viewbox"]) for tag, a in page.tags if a.get("role") == "img"]


def greys(text: str, tmp_path) -> list[np.ndarray]:
    found = []
    for data in re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", text):
        (tmp_path / "grey.png").write_bytes(base64.b64decode(data))
        found.append(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "grey.png"))))
    return found


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs(tmp_path):
    page = Page(page_of(tmp_path, *case()))
    targets = [a[key] for _, a in page.tags for key in ("href", "src", "data") if key in a]
    assert targets and all(t.startswith(("#", "data:image/png;base64,")) for t in targets)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "form"}
    assert not [key for _, a in page.tags for key in a if key.startswith("on")]


def test_every_reference_within_the_page_has_its_target(tmp_path):
    text = page_of(tmp_path, *case())
    page = Page(text)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    used = {a["href"][1:] for tag, a in page.tags if tag == "use"}
    used |= set(re.findall(r"url\(#([^)]+)\)", text))
    assert used <= set(ids)


def test_hostile_names_are_only_text(tmp_path):
    image, a, b = case({1: HOSTILE, 2: "tail"}, source=f"/data/{HOSTILE}")
    a = Segmentation(a.image, a.labels, a.source, warnings=(HOSTILE,))
    page = Page(page_of(tmp_path, image, a, b, title=HOSTILE, facts={HOSTILE: HOSTILE}))
    assert not {tag for tag, _ in page.tags} & {"script", "img"}
    assert page.text.count("<script>alert('1')</script>") >= 5
    assert "\x00" not in page.text


def test_numbers_and_facts_are_there(tmp_path):
    image, a, b = case()
    page = Page(page_of(tmp_path, image, a, b, facts={"Peak memory": "412 MB"}))
    row = compare(a, b).rows[0]
    assert f"head by name {row.dice:.3f} {row.hd95_mm:.2f} {row.nsd:.3f}" in page.text
    assert "Peak memory 412 MB" in page.text
    assert "20x16x12 voxels of 1x1.5x3 mm, LPS" in page.text
    assert "For research use" in page.text


def test_the_worst_slice_is_shown_and_says_why(tmp_path):
    # Slice 6 lies at 30 + 6 x 3 = 48 mm; 20 voxels of 1.5 mm² were cut off.
    page = Page(page_of(tmp_path, *case()))
    assert "Axial slice 6, S 48.0 mm · largest difference of head, 30 mm²" in page.text


def test_pictures_have_the_patients_proportions_and_words(tmp_path):
    found = pictures(Page(page_of(tmp_path, *case())))
    axial = next(box for words, box in found if words.startswith("Axial"))
    coronal = next(box for words, box in found if words.startswith("Coronal"))
    assert (axial, coronal) == ("0 0 20 24", "0 0 20 36")  # all of it: margins reach the borders
    assert "Axial slice 6, S 48.0 mm: A filled: head, tail" in [words for words, _ in found]


@pytest.mark.parametrize("code", ["LPS", "RAS", "PIR", "SLA"])
def test_the_page_is_the_same_however_the_file_is_stored(tmp_path, code):
    def shown(image, a, b):
        text = page_of(tmp_path, image, a, b)
        return re.findall(r'<image [^>]*|<path id[^>]*|viewBox="[^"]*"', text)

    image, a, b = case()
    turned = [Segmentation(sitk.DICOMOrient(s.image, code), s.labels, s.source) for s in (a, b)]
    assert shown(sitk.DICOMOrient(image, code), *turned) == shown(image, a, b)


def test_left_is_on_the_right_anterior_up_and_superior_up(tmp_path):
    _, a, _ = case()
    values = np.zeros((12, 16, 20), np.float32)
    values[6:, :8, 8:] = 1000  # superior, anterior, left
    axial, *_, coronal, sagittal = greys(page_of(tmp_path, volume(values), a), tmp_path)

    def bright_corner(pixels):
        rows, columns = np.nonzero(pixels > 200)
        return (
            "top" if rows.mean() < pixels.shape[0] / 2 else "bottom",
            "right" if columns.mean() > pixels.shape[1] / 2 else "left",
        )

    assert bright_corner(axial) == ("top", "right")  # the first is the most superior
    assert bright_corner(coronal) == ("top", "right")
    assert bright_corner(sagittal) == ("top", "left")


def test_an_image_on_another_grid_is_brought_onto_the_segmentations(tmp_path):
    image, a, b = case()
    fine = sitk.Expand(image, [2, 2, 2], sitk.sitkLinear)
    assert pictures(Page(page_of(tmp_path, fine, a, b))) == pictures(
        Page(page_of(tmp_path, image, a, b))
    )


def test_a_single_segmentation_and_no_image_make_a_report(tmp_path):
    image, a, b = case()
    single = Page(page_of(tmp_path, image, a))
    assert "only B" not in single.text and "Volume ml" in single.text
    assert len(pictures(single)) % 3 == 0
    assert not greys(page_of(tmp_path, None, a, b), tmp_path)


def test_empty_segmentations_make_a_report(tmp_path):
    image, a, _ = case()
    empty = Segmentation(a.image * 0, a.labels, "nothing")
    page = Page(page_of(tmp_path, image, empty, empty))
    assert "not found by A nor by B" in page.text
    assert "nothing on this slice" in pictures(page)[0][0]


def test_structures_of_one_only_and_of_equal_names_make_a_report(tmp_path):
    grey = (128, 128, 128)
    image, a, b = case(LabelTable((Label(1, "node", grey), Label(2, "node", grey))))
    b = Segmentation(b.image, label_table({1: "node", 2: "vessel"}), "other")
    page = Page(page_of(tmp_path, image, a, b))
    assert "node by value" in page.text
    single = Page(page_of(tmp_path, image, a))
    assert "0.432" in single.text  # 4 x 4 x 6 voxels of 4.5 mm³; the other node has 0.7875 ml
    assert "0.787" in single.text or "0.788" in single.text


def test_a_single_slice_makes_a_report(tmp_path):
    image, a, b = case()
    a, b = (Segmentation(s.image[:, :, 6:7], s.labels, s.source) for s in (a, b))
    found = pictures(Page(page_of(tmp_path, image[:, :, 6:7], a, b)))
    assert len(found) == 4 and all(words.startswith("Axial slice 0") for words, _ in found)


def test_equal_inputs_give_equal_bytes_below_a_size_to_send(tmp_path):
    random = np.random.default_rng(1)
    values = np.zeros((8, 256, 256), np.uint8)
    values[2:6, 20:230, 20:230] = random.integers(0, 3, (4, 6, 6)).repeat(35, 1).repeat(35, 2)
    image = volume(random.normal(size=values.shape).astype(np.float32))  # noise packs worst
    a = Segmentation(volume(values), label_table({1: "a", 2: "b"}))
    b = Segmentation(volume(np.roll(values, 3, 1)), label_table({1: "a", 2: "b"}))
    text = page_of(tmp_path, image, a, b)
    assert text == page_of(tmp_path, image, a, b)
    assert len(text) < 1.5e6


def test_half_a_comparison_is_refused(tmp_path):
    image, a, b = case()
    with pytest.raises(ValueError, match="needs both"):
        write_report(tmp_path / "report.html", image, a, b, title="A report")
    assert not list(tmp_path.iterdir())
