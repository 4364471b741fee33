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

SLICE_WISE = "{network='unet', settings={width=[8, 8, 16, 16], dims=2}}"


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


def _growing(*stages: str) -> tuple[str, ...]:
    """A student of two levels, and an assistant that grows from it through four stages."""
    rows = [f"stages.{name}.trained.student.settings.width=[8, 16]" for name in stages]
    rows += [f"stages.{name}.optim.learning_rate=5e-3" for name in stages]
    rows += [f"stages.{name}.epochs=2" for name in stages[:-1]] + [f"stages.{stages[-1]}.epochs=5"]
    for name, width in zip(stages, ("[8, 16]", "[9, 19]", "[12, 24]", "[16, 32]"), strict=True):
        rows.append(f"stages.{name}.trained.assistant.settings.width={width}")
    return tuple(rows)


_BEGUN = (
    "stages.teacher.epochs=6",
    "stages.teacher.trained.teacher.settings.width=[8, 16]",
    "stages.warm-up.epochs=6",
    "stages.warm-up.trained.student.settings.width=[8, 16]",
    "stages.warm-up.optim.learning_rate=5e-3",
)
_ARMS = ("none", "direct", "chain", "moving")

SMALL: dict[str, Small] = {
    "ct-mr": Small(
        (
            "optim.learning_rate=2e-2",
            "stages.student.epochs=6",
            "stages.student.trained.student.settings.width=4",
        ),
        data=(("ct", ("CT",)), ("mr", ("MRI",))),
        dice=0.55,  # one patch of each modality a step
    ),
    "distil": Small(
        (
            "stages.teacher.epochs=8",
            "stages.teacher.trained.teacher.settings.width=[8, 16]",
            "stages.student.epochs=8",
            "stages.student.trained.student.settings.width=[16, 16]",
        ),
    ),
    "distill-dsm": Small(
        (
            "stages.student.epochs=16",
            "optim.learning_rate=1e-2",
            "stages.student.trained.student.settings.width=[8, 16]",
        ),
        data=(("", ("FLAIR", "T1")),),
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
    "left-ventricle": Small(
        (
            "labels=[]",
            "plan.window=[16, 16, 16]",
            "augmentation={rotation=[15.0, 0.0, 0.0]}",
            "stages.teacher.epochs=8",
            "stages.teacher.trained.teacher.settings={width=[8, 16], in_plane=1}",
            "stages.student.epochs=8",
            "stages.student.optim.learning_rate=5e-3",
            "stages.student.trained.student.settings={width=[16, 16], dims=2, shift=true}",
            "stages.student.links.importance.settings.taps=['encoder/1']",
            "stages.student.links.affinity.settings.taps=['encoder/1']",
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
    "emkd": Small(
        (
            "augmentation.rotation=[15.0, 15.0, 15.0]",
            "augmentation.flips=[0.0, 0.0, 0.0]",
            "stages.teacher.epochs=6",  # RA-UNet and ENet learn in test_emkd.py
            f"stages.teacher.trained.teacher={SLICE_WISE}",
            "stages.student.epochs=8",
            f"stages.student.trained.student={SLICE_WISE}",
        ),
    ),
    "gtan": Small((*_BEGUN, *_growing("assistant-1", "assistant-2", "assistant-3", "assistant-4"))),
    "gtan-moving": Small(
        (
            "stages.teacher.epochs=8",
            "stages.teacher.trained.teacher.settings.width=[8, 16]",
            "stages.student.epochs=28",
            "stages.student.trained.student.settings.width=[8, 16]",
        ),
    ),
    "gtan-study": Small(
        (
            *_BEGUN,
            *(f"stages.{arm}.epochs=1" for arm in (*_ARMS, "chain-assistant")),
            *(f"stages.{arm}.trained.student.settings.width=[8, 16]" for arm in _ARMS),
            "stages.chain-assistant.trained.assistant.settings.width=[8, 16]",
            *_growing("growing-1", "growing-2", "growing-3", "growing"),
        ),
    ),
}
