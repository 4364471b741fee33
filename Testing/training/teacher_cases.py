"""What tests of teachers from elsewhere share: structures, and a recipe for such a teacher."""

from __future__ import annotations

import torch
from torch import nn

from DistillSegLib.labels import label_table
from DistillSegLib.records import from_dict
from DistillSegLib.training.recipe import Recipe

LABELS = label_table({3: "Ball", 7: "Tail"})
SIZE = (8, 12, 16)


def logits(net: nn.Module, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return net.eval()(image)


def recipe(teacher: object, **plan) -> Recipe:
    return from_dict(
        Recipe,
        {
            "name": "foreign",
            "precision": "32-true",
            "accelerator": "cpu",
            "workers": 0,
            "split": {"folds": 4},
            "plan": {"batch": 3, "window": [8, 8, 8], **plan},
            "stages": [
                {
                    "name": "student",
                    "epochs": 1,
                    "trained": {"student": {"network": "fast_unet", "settings": {"width": [4, 4]}}},
                    "frozen": {"teacher": teacher},
                    "links": {"label": {"term": "label"}, "maps": {"term": "prediction_maps"}},
                }
            ],
        },
    )
