"""What the student adopts from a teacher that decides the grid: an nnU-Net, or a package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import nn

from DistillSegLib.datasets import Dataset
from DistillSegLib.errors import RecipeError
from DistillSegLib.preprocessing import Preprocessing
from DistillSegLib.training.foreign import Foreign
from DistillSegLib.training.nnunet import Results, read_results
from DistillSegLib.training.packaged import open_package
from DistillSegLib.training.recipe import PlanConfig, Recipe, teachers
from DistillSegLib.training.stored import Maps
from DistillSegLib.training.teachers import TeacherConfig, maps_of
from DistillSegLib.windows import per_axis


def adopt(recipe: Recipe, dataset: Dataset) -> tuple[PlanConfig, dict[str, str], list[nn.Module]]:
    """The recipe's plan with the spacing, intensities and orientation of such teachers.

    Returns:
        The plan's values; the reason of each that was adopted; modules without weights that know
        what the teachers' sizes must divide by.

    Raises:
        RecipeError: the recipe, or another such teacher, asks for something else, or the images
            are stored along different axes.
    """
    config, reasons, limits = recipe.plan, {}, []
    for teacher in teachers(recipe):
        if teacher.nnunet:
            seen = _of_nnunet(teacher, dataset)
        elif teacher.package:
            seen = _of_package(teacher)
        else:
            continue
        for key, value in seen.images.items():
            given = getattr(config, key)
            if given not in (None, value):
                by = "another teacher" if key in reasons else "the recipe"
                raise RecipeError(
                    f"{seen.name} was trained with the {key} {value}, {by} gives {given}; leave "
                    f"plan.{key} out, and the student adopts the teacher's."
                )
            reasons[key] = f"as {seen.short} was trained, which teaches"
        config = replace(config, **seen.images)
        limits.append(Foreign(seen.name, nn.Identity(), steps=seen.steps, minimum=seen.minimum))
    return config, reasons, limits


@dataclass(frozen=True)
class _Seen:
    """What a teacher sees.

    Attributes:
        name: how messages call it; short: how the plan's reasons do.
        images: keys of the plan -> their values.
        steps: what a patch's voxels along z, y and x must divide by.
        minimum: the fewest voxels along these; None: `steps`.
    """

    name: str
    short: str
    images: Mapping[str, Any]
    steps: tuple[int, int, int]
    minimum: tuple[int, int, int] | None = None


def _of_nnunet(teacher: TeacherConfig, dataset: Dataset) -> _Seen:
    results = read_results(teacher.nnunet, teacher.folds, teacher.checkpoint)
    orientation = results.orientation or stored_orientation(dataset, results)
    images = {"spacing_mm": results.spacing_mm, "intensity": results.intensity}
    images["orientation"] = orientation
    return _Seen(results.name, "the nnU-Net", images, results.steps)


def _of_package(teacher: TeacherConfig) -> _Seen:
    manifest = open_package(teacher.package).manifest
    images = {
        each.name: getattr(manifest.preprocessing, each.name) for each in fields(Preprocessing)
    }
    steps, minimum = per_axis(manifest.multiple), per_axis(manifest.minimum)
    return _Seen(f"The package '{manifest.name}'", manifest.name, images, steps, minimum)


def stored_maps(recipe: Recipe) -> list[Maps]:
    """The folders of stored maps that any stage names, each once."""
    found = {maps.key: maps for stage in recipe.stages for maps in maps_of(stage.frozen).values()}
    return list(found.values())


def stored_orientation(dataset: Dataset, results: Results) -> str:
    """Along which axes all images of the data set are stored, as nnU-Net takes them.

    Raises:
        RecipeError: they are stored along different axes.
    """
    import SimpleITK as sitk

    from DistillSegLib.images import read_image
    from DistillSegLib.quiet import quiet

    def direction(path: Path) -> tuple[float, ...]:
        reader = sitk.ImageFileReader()  # the header alone, of a volume
        reader.SetFileName(str(path))
        with quiet():
            reader.ReadImageInformation()
        flat = reader.GetDimension() != 3
        return (read_image(path) if flat else reader).GetDirection()

    found: dict[str, str] = {}
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines
    for case in dataset.cases:
        found.setdefault(code(direction(case.images[0])), case.id)
    if len(found) > 1:
        (one, first), (other, second), *_ = found.items()
        raise RecipeError(
            f"{results.name} sees images as they are stored, and those of '{dataset.name}' are "
            f"stored along different axes ('{first}' {one}, '{second}' {other}); store them all "
            "along the same, or let the nnU-Net predict and give the folder as stored."
        )
    return next(iter(found))
