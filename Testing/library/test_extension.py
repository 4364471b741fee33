"""What the Extensions Index of 3D Slicer asks: the catalogue entry, the metadata, the addresses."""

from __future__ import annotations

import json
import re
import shutil
import struct
from pathlib import Path

import pytest
import set_repository

from DistillSegLib.package import load_package
from DistillSegLib.places import resources

ROOT = Path(__file__).resolve().parents[2]
ENTRY = ROOT / "Resources" / "DistillSeg.json"
CMAKE = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
SCHEMA = (
    "https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas/"
    "slicer-extension-catalog-entry-schema-v1.0.2.json"
)
# Of the schema 1.0.2, which allows no other key: name -> what it holds.
TYPES = {
    "$schema": str,
    "category": str,
    "scm_url": str,
    "scm_revision": str,
    "scm_type": str,
    "build_dependencies": list,
    "build_subdirectory": str,
    "dicom_support_rule": str,
    "enabled": bool,
    "tier": int,
}
MOST_BYTES = 200_000  # of a screenshot


@pytest.fixture(scope="module")
def entry() -> dict:
    return json.loads(ENTRY.read_text(encoding="utf-8"))


def metadata(name: str) -> str:
    """As the Index's own check reads it: one quoted text in one line, no variables in it."""
    found = re.search(rf'^set\(EXTENSION_{name} "([^"]+)"\)$', CMAKE, re.MULTILINE)
    assert found and "${" not in found[1], name
    return found[1]


def size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n", path
    return struct.unpack(">II", head[16:])


def test_the_entry_keeps_the_rules_of_its_schema(entry):
    assert entry["$schema"].rstrip("#") == SCHEMA
    assert {"$schema", "category", "scm_url"} <= set(entry) <= set(TYPES)
    for name, value in entry.items():
        assert type(value) is TYPES[name], name
    assert entry["scm_type"] in ("git", "local")
    assert 1 <= entry["tier"] <= 5
    assert all(isinstance(each, str) for each in entry["build_dependencies"])


def test_the_entry_is_what_we_hand_in(entry):
    assert entry["tier"] == 3
    assert entry["build_dependencies"] == []  # so that the Index builds it in the pull request
    assert (entry["scm_type"], entry["scm_revision"]) == ("git", "main")
    assert ENTRY.stem == re.search(r"project\((\w+)\)", CMAKE)[1] == "DistillSeg"
    assert b"\r" not in ENTRY.read_bytes()


def test_the_rule_for_dicom_names_what_the_bundled_models_take(entry):
    """An experimental model is no reason to propose the extension to whoever loads a CT."""
    paths = (resources() / "Models").glob("*.distillseg")
    bundled = [load_package(path).manifest for path in paths]
    expected = {m.modality for m in bundled if m.version_key >= (1,)}
    assert set(re.findall(r"Modality == '(\w+)'", entry["dicom_support_rule"])) == expected


def test_the_entry_agrees_with_cmake(entry):
    assert entry["category"] == metadata("CATEGORY") == "Segmentation"
    assert entry["scm_url"] == metadata("HOMEPAGE")
    assert f"set(EXTENSION_TIER {entry['tier']})" in CMAKE
    assert metadata("DEPENDS") == "NA"
    assert metadata("CONTRIBUTORS") == "DistillSeg contributors"


def test_the_description_is_two_sentences_that_cmake_can_carry():
    text = metadata("DESCRIPTION")
    assert text.count(". ") + text.endswith(".") == 2
    assert ";" not in text and len(text) < 350


def test_all_addresses_come_from_one_constant(entry):
    repository = set_repository.repository()
    assert repository.split("/")[1].startswith("Slicer")  # asked of repositories, not of extensions
    assert entry["scm_url"] == f"https://github.com/{repository}"
    raw = f"https://raw.githubusercontent.com/{repository}/main/"
    images = [metadata("ICONURL"), *metadata("SCREENSHOTURLS").split(" ")]
    assert all(image.startswith(raw) for image in images)
    for name in set_repository.FILES:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert repository in text, name
        ours = re.findall(r"github(?:usercontent)?\.com/([\w.-]+/SlicerDistillSeg)\b", text)
        assert set(ours) == {repository}, name


def test_the_images_that_addresses_lead_to_are_in_the_repository():
    raw = f"https://raw.githubusercontent.com/{set_repository.repository()}/main/"
    assert size(ROOT / metadata("ICONURL").removeprefix(raw)) == (128, 128)
    for image in metadata("SCREENSHOTURLS").split(" "):
        path = ROOT / image.removeprefix(raw)
        assert min(size(path)) > 300
        assert path.stat().st_size < MOST_BYTES


def test_the_owner_changes_the_address_with_one_command(tmp_path):
    (tmp_path / "Resources").mkdir()
    for name in set_repository.FILES:
        shutil.copy(ROOT / name, tmp_path / name)
    old, new = set_repository.repository(), "somebody-else/SlicerDistillSeg-2"
    assert set_repository.set_repository(new, tmp_path) == list(set_repository.FILES)
    assert set_repository.repository(tmp_path) == new
    assert not any(old in (tmp_path / n).read_text(encoding="utf-8") for n in set_repository.FILES)
    for wrong in ("SlicerDistillSeg", "somebody/DistillSeg", "a/b/SlicerC", ""):
        with pytest.raises(ValueError, match="begins with 'Slicer'"):
            set_repository.set_repository(wrong, tmp_path)


def test_the_licence_lies_where_the_index_looks():
    text = (ROOT / "LICENSE.txt").read_text(encoding="utf-8")
    assert "Apache License" in text and "Version 2.0" in text
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_readme_has_what_the_index_asks_of_a_homepage():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for heading in ("## How to cite", "## Privacy", "## Licences"):
        assert heading in text
    assert re.search(r"!\[[^\]]+\]\(Resources/Screenshots/\w[\w-]*\.png\)", text)
