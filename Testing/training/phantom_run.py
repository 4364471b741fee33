"""A run as training leaves it, of a student that learnt two boxes in seconds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from DistillSegLib.labels import label_table
from DistillSegLib.networks import NetworkConfig, build_network
from DistillSegLib.preprocessing import Intensity, Preprocessing
from DistillSegLib.records import to_dict
from DistillSegLib.scope import Measured, scope_of
from DistillSegLib.training.cache import Cache, CachedCase, Source
from DistillSegLib.training.checkpoints import Origin, save_network
from DistillSegLib.training.plan import Plan

CARD = """
id = "phantom-fast"
version = "1.0.0"
title = "Phantom, fast"
description = "Two parts of a phantom."
intended_use = "Tests."
known_failures = "All patients."
licence = "CC0-1.0"
attribution = "Made by code."
"""
LABELS = label_table({1: "Front", 2: "Back"})
SHAPE = (18, 20, 24)


def phantom(seed: int, disputed: float = 0.0) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Two boxes in noise: an image (1, D, H, W) and its classes (D, H, W).

    Args:
        disputed: share of the labelled voxels that have the other box's label.
    """
    random = np.random.default_rng(seed)
    label = np.zeros(SHAPE, np.uint8)
    z, y, x = random.integers(2, 6, 3)
    label[z : z + 10, y : y + 6, x : x + 14] = 1
    label[z : z + 10, y + 6 : y + 12, x : x + 14] = 2
    image = label * 1.5 - 0.8 + random.normal(0, 0.2, label.shape)
    swapped = (label > 0) & (random.random(label.shape) < disputed)
    label[swapped] = 3 - label[swapped]
    return image[None].astype(np.float32), label


def learnt(
    config: NetworkConfig, seeds: Iterable[int], *, disputed: float = 0.0, sureness: float = 1.0
) -> torch.nn.Module:
    """A network that has learnt the phantoms of these seeds, a step each.

    Args:
        sureness: what logits are divided by in training; above 1 makes the network surer than it
            is right, as Dice losses do.
    """
    torch.manual_seed(0)
    net = build_network(config, 1, 3)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2)
    part = (slice(0, 16), slice(0, 20), slice(0, 24))
    for seed in seeds:
        image, label = phantom(seed, disputed)
        logits = net(torch.from_numpy(image[(slice(None), *part)])[None])
        target = torch.from_numpy(label[part].astype(np.int64))[None]
        loss = torch.nn.functional.cross_entropy(logits / sureness, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()


def phantom_plan(net: torch.nn.Module, window: tuple[int, int, int]) -> Plan:
    """What a network is given of the phantoms: voxels of 1 mm, in patches of a window."""
    one = Measured(tuple(map(float, SHAPE)), (1.0, 1.0, 1.0), ((0.0, 50.0, 100.0),))
    return Plan(
        preprocessing=Preprocessing((1.0, 1.0, 1.0), (Intensity("image", (0.5, 99.5)),)),
        window=window,
        batch=2,
        multiple=net.multiple,
        channels=("MRI",),
        modality="MR",
        scope=scope_of([one], description="phantoms", body_part="phantom"),
    )


def write_run(
    folder: Path,
    net: torch.nn.Module,
    config: NetworkConfig,
    *,
    window: tuple[int, int, int],
    recipe: Mapping[str, Any],
    disputed: float = 0.0,
) -> Cache:
    """A run of the stage "student" and a card; its cache holds out g and h of phantoms a to h."""
    plan = phantom_plan(net, window)
    ids = "abcdefgh"
    for seed, name in enumerate(ids):
        image, label = phantom(seed, disputed)
        (folder / "cache" / name).mkdir(parents=True)
        np.save(folder / "cache" / name / "image.npy", image)
        np.save(folder / "cache" / name / "label.npy", label)
    cases = tuple(CachedCase(name, name, "", name) for name in ids)
    cache = Cache(plan, LABELS, cases, held_out=("g", "h"), source=Source("Phantoms"))
    (folder / "cache" / "cache.json").write_text(json.dumps(to_dict(cache)))
    (folder / "student").mkdir()
    provenance = {"dataset": "Phantoms", "training_cases": list("abcdef")}
    origin = Origin(plan, LABELS, {"name": "phantom", **recipe}, provenance)
    save_network(folder / "student" / "student.pt", net, config, origin)
    stages = [{"name": "student", "trained": {"student": {}}}]
    (folder / "recipe.json").write_text(json.dumps({"name": "phantom", "stages": stages}))
    (folder / "card.toml").write_text(CARD)
    return cache
