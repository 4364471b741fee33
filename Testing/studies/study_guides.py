"""The guides of a study: trained once for each fold, or bundled models.

They are checked before anything learns from them: one of another fold has seen the answers that its
students are scored by.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from study_commands import Data, command, script, words_of
from study_design import Guide, Run, Study, guides_of, recipe_path

from DistillSegLib.errors import RecipeError
from DistillSegLib.package import load_package
from DistillSegLib.training.folder import check_recipe
from DistillSegLib.training.recipe import load_recipe


def folder_of(study: Study, name: str, fold: int, work: Path) -> Path:
    """The run of a guide; guides that are stages of one recipe share it."""
    guide = study.guides[name]
    if guide.package:  # by id and version, lest another model's maps are taken for its
        return work / f"{load_package(guide.package).manifest.name}-f{fold}"
    form = (guide.recipe, guide.set)
    first = next(n for n, other in study.guides.items() if (other.recipe, other.set) == form)
    return work / f"{first}-f{fold}"


def settings_of(guide: Guide, fold: int, extra: Sequence[str]) -> list[str]:
    """What `--set` says when a guide is trained."""
    return [f"split.fold={fold}", *extra, *guide.set]


def check_guide(study: Study, name: str, fold: int, folder: Path, extra: Sequence[str]) -> None:
    """RecipeError if a guide's folder holds a run of another recipe, or one that saw other cases.

    Studies that share a `--work` may call different guides alike, and one of another fold has seen
    the answers.
    """
    guide = study.guides[name]
    if guide.package:
        check_package(study, guide.package, fold)
        return
    recipe = load_recipe(recipe_path(guide.recipe), settings_of(guide, fold, extra))
    try:
        check_recipe(recipe, folder, resume=True)
    except RecipeError as problem:
        raise RecipeError(
            f"{problem} It is the folder of the guide '{name}' of the study '{study.name}', "
            f"fold {fold}; --work gives another."
        ) from problem


def check_package(study: Study, name: str, fold: int) -> None:
    """RecipeError unless a package was trained on the fold: otherwise it has seen the answers."""
    recipe = load_recipe(recipe_path(study.recipe), [f"split.fold={fold}"])
    provenance = load_package(name).manifest.provenance
    wanted = {key: getattr(recipe.split, key) for key in ("folds", "fold", "seed")}
    found = {key: provenance.get("split", {}).get(key) for key in wanted}
    if found != wanted:
        raise RecipeError(
            f"the package '{name}' was trained on the split {found}, and the study '{study.name}' "
            f"asks it to teach {wanted}, of which it may have seen the answers; take another guide."
        )


def train_guides(
    study: Study, run: Run, data: Data, work: Path, extra: Sequence[str]
) -> dict[str, Path]:
    """The folders of all guides; those that the run learns from are trained now unless they are."""
    folders, needed = {}, guides_of(study, run.arm)
    for name, guide in study.guides.items():
        folder = folders[name] = folder_of(study, name, run.fold, work)
        if name not in needed:
            continue
        check_guide(study, name, run.fold, folder, extra)
        if guide.recipe and not (folder / guide.stage / f"{guide.role}.pt").is_file():
            sets = settings_of(guide, run.fold, extra)
            options = ["--data", *words_of(data), "--out", folder, "--resume", "--set", *sets]
            command("train", recipe_path(guide.recipe), *options)
        if guide.stored:
            store_maps(guide, folder, data)
    return folders


def store_maps(guide: Guide, folder: Path, data: Data) -> None:
    """What a guide says of the cases it was trained on; those that are there already stay."""
    (word,) = words_of(data)
    source = [folder, "--stage", guide.stage, "--role", guide.role]
    words = [guide.package] if guide.package else source
    script("store_maps.py", *words, "--data", word, "--out", folder / "maps")


def teacher_of(study: Study, name: str, folder: Path) -> str:
    """A guide as a recipe names it: its checkpoint, a package, or the folder of its stored maps."""
    guide = study.guides[name]
    if guide.stored:
        return f"{{stored='{folder / 'maps'}'}}"
    if guide.package:
        return f"{{package='{guide.package}'}}"
    return str(folder / guide.stage / f"{guide.role}.pt")
