"""What is promised about the repository as a whole: its layout, its texts and its wheel."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import DistillSegLib
from DistillSegLib.cli import _parser, main

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
TOP = {
    *("README.md", "LICENSE.txt", "CHANGELOG.md", "CONTRIBUTING.md", "CMakeLists.txt"),
    *("pyproject.toml", ".gitignore", ".gitattributes", ".ci"),
    *("DistillSeg", "DistillSegLib", "Resources", "Testing"),
}
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Every file under version control, relative to the top."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout; this is a copy without one")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [Path(name) for name in listed.stdout.split("\0") if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> list[str]:
    """The names in the wheel, built offline."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        return archive.namelist()


def test_nothing_else_lies_at_the_top(tracked):
    assert {path.parts[0] for path in tracked} <= TOP


def test_no_file_is_large_unless_it_is_a_package(tracked):
    large = [
        str(path)
        for path in tracked
        if path.suffix != ".distillseg" and (ROOT / path).stat().st_size > 1_000_000
    ]
    assert large == []


def test_no_weights_or_images_but_the_bundled_ones(tracked):
    weights = (".pt", ".pth", ".ckpt", ".onnx", ".npz", ".ipynb")
    endings = (*weights, ".nii", ".nii.gz", ".nrrd", ".mha", ".dcm")
    found = [path for path in tracked if path.name.endswith(endings)]
    assert all(path.parts[:2] == ("Resources", "Samples") for path in found), found


def test_files_have_unix_line_ends(tracked):
    texts = {".py", ".md", ".toml", ".txt", ".json", ".html", ".css", ".svg", ""}
    bad = [
        str(path)
        for path in tracked
        if path.suffix in texts and b"\r" in (ROOT / path).read_bytes()
    ]
    assert bad == []


def test_the_change_log_begins_with_this_version():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", changes, re.MULTILINE)[1] == DistillSegLib.__version__


def test_the_build_takes_its_version_from_the_library():
    assert SETTINGS["project"]["dynamic"] == ["version"]
    assert SETTINGS["tool"]["hatch"]["version"]["path"] == "DistillSegLib/__init__.py"


def test_the_base_install_brings_no_torch():
    names = {name_of(requirement) for requirement in SETTINGS["project"]["dependencies"]}
    assert names == {"numpy", "SimpleITK", "onnxruntime", "rich", "tomli"}


def test_bounds_are_lower_ones():
    project = SETTINGS["project"]
    extras = project["optional-dependencies"].values()
    for requirement in [*project["dependencies"], *(r for extra in extras for r in extra)]:
        bound = requirement.split(";")[0].removeprefix(name_of(requirement))
        assert re.fullmatch(r">=[\d.]+", bound.strip()), requirement


def test_the_test_requirements_are_the_extras_that_tests_need():
    extras = SETTINGS["project"]["optional-dependencies"]
    listed = (ROOT / "Testing" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    bounds = {name_of(line): line for line in listed if line and not line.startswith("#")}
    assert bounds.pop("torch").startswith("torch==")
    for requirement in [*extras["train"], *extras["test"]]:
        if name_of(requirement) != "torch":
            assert bounds[name_of(requirement)] == requirement


def test_every_dependency_is_explained():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.split("## Dependencies")[1]
    explained = set(re.findall(r"^\| ([\w-]+) \| ", table, re.MULTILINE)) - {"package"}
    project = SETTINGS["project"]
    extras = project["optional-dependencies"].values()
    required = [*project["dependencies"], *(r for extra in extras for r in extra)]
    panel = (ROOT / "Testing/slicer/requirements.txt").read_text(encoding="utf-8").splitlines()
    required += [line for line in panel if not line.startswith("#")]
    assert {name_of(requirement) for requirement in required} == explained


def test_the_wheel_holds_recipes_models_and_samples_and_no_tests(wheel):
    for kind, folder in {".toml": "recipes", ".nii.gz": "Resources/Samples"}.items():
        assert any(n.startswith(f"DistillSegLib/{folder}/") and n.endswith(kind) for n in wheel)
    bundled = {f"DistillSegLib/{p.relative_to(ROOT).as_posix()}" for p in resources()}
    recipes = {p.relative_to(ROOT).as_posix() for p in ROOT.glob("DistillSegLib/recipes/*.toml")}
    assert bundled | recipes <= set(wheel)
    assert not any(name.startswith("Testing") for name in wheel)


def test_every_file_of_the_library_is_in_the_wheel(wheel):
    files = (ROOT / "DistillSegLib").rglob("*.py")
    assert {file.relative_to(ROOT).as_posix() for file in files} <= set(wheel)


@pytest.mark.parametrize(
    "line", sorted({line for line in re.findall(r"^ *(?:.*&& )?(distillseg .*)$", README, re.M)})
)
def test_commands_of_the_readme_exist(line, capsys):
    words = shlex.split(line, comments=True)[1:]
    with pytest.raises(SystemExit) as ended:
        main([words[0], "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    options = {word for word in words if word.startswith("--")}
    assert options <= set(re.findall(r"--[a-z-]+", said)), said
    if words[-1] != "\\":  # a line that goes on
        assert _parser().parse_args(words), "an option that is required is missing"


def test_the_readme_tells_how_to_run_the_tests():
    halves = ("Testing/library Testing/slicer", "Testing/training")
    tests = " && ".join(f"python -m pytest -n 2 {half}" for half in halves)
    assert f"pip install -r Testing/requirements.txt && {tests}\n" in README
    ours = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert all(f'"$python" -m pytest -q -n 2 {half}\n' in ours for half in halves)
    assert "pip install . && distillseg demo\n" in README


def test_links_within_the_texts_lead_somewhere():
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8")):
            assert target.startswith("https://") or (ROOT / target).exists(), (name, target)


def test_the_public_names_are_there():
    for name in DistillSegLib.__all__:
        assert callable(getattr(DistillSegLib, name))
    with pytest.raises(AttributeError, match="has no attribute 'segment_all'"):
        _ = DistillSegLib.segment_all


def name_of(requirement: str) -> str:
    return re.match(r"[\w-]+", requirement)[0]


def resources() -> list[Path]:
    return [path for path in (ROOT / "Resources").rglob("*") if path.is_file()]
