"""How each bundled recipe is made small enough to learn a phantom in seconds.

A new recipe is given an entry here; `test_recipes.py` trains them all.
"""

from __future__ import annotations

from dataclasses import dataclass

EVERYWHERE = [
    'precision="32-true"',
    'accelerator="cpu"',
    "workers=0",
    "validate_every=1000",
    "plan.batch=2",
    "split.folds=4",
    "optim.learning_rate=5e-3",
]


@dataclass(frozen=True)
class Small:
    """Overrides of one recipe.

    Attributes:
        overrides: as `--set` takes them.
        data: domain -> channels of the phantoms; one data set without a domain by default.
        dice: what the last stage's roles reach on the held-out phantoms, for every structure.
    """

    overrides: tuple[str, ...]
    data: tuple[tuple[str, tuple[str, ...]], ...] = (("", ("MRI",)),)
    dice: float = 0.7


SMALL: dict[str, Small] = {
    "distil": Small(
        (
            "stages.teacher.epochs=8",
            "stages.teacher.trained.teacher.settings.width=[8, 16]",
            "stages.student.epochs=8",
            "stages.student.trained.student.settings.width=[16, 16]",
        ),
    ),
    "hippocampus": Small(
        (
            "labels=[]",
            "stages.teacher.epochs=8",
            "stages.teacher.trained.teacher.settings.width=[8, 16]",
            "stages.student.epochs=8",
            "stages.student.trained.student.settings.width=[16, 16]",
            "stages.student.optim.learning_rate=5e-3",
            "stages.polish.epochs=2",
            "stages.polish.trained.student.settings.width=[16, 16]",
        ),
    ),
    "lcov-net": Small(
        (
            "plan.spacing_mm=[0.6, 0.65, 0.5]",  # 30 x 31 x 32 voxels: LCOV-Net needs 32
            "plan.batch=1",
            "optim.optimizer=adamw",
            "optim.learning_rate=2e-2",
            "stages.teacher.epochs=3",
            "stages.teacher.trained.teacher.settings.width=[4, 4, 8, 8, 8]",
            "stages.teacher.trained.teacher.settings.dropout=0.0",
            "stages.alone.epochs=5",
            "stages.alone.trained.student.settings={width=[4, 8, 8, 8, 8], dropout=0.0}",
            "stages.student.epochs=2",
            "stages.student.optim.optimizer=adamw",
            "stages.student.optim.learning_rate=5e-3",
            "stages.student.trained.student.settings={width=[4, 8, 8, 8, 8], dropout=0.0}",
        ),
        dice=0.6,
    ),
}
