"""Make a trained fast_unet narrower at its finest level, where it spends most of its time.

    python Testing/studies/narrow.py run/polish/student.pt --first 28 --out narrow.pt

leaves out the features that weigh least and writes a checkpoint from which training goes on
(`start`). Structured pruning: a feature weighs what its norm scales it by times the size of the
weights that read it (after Liu et al., ICCV 2017, arXiv:1708.06519). Features that are added to
each other leave together.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from DistillSegLib.networks import NetworkConfig, build_network, count_parameters
from DistillSegLib.records import from_dict
from DistillSegLib.training import checkpoints

# What is left out together: the weights that write the features, their norm, those that read them.
STEM = (["stem.0"], "stem.1", ["encoder.0.0.0"])
SKIP = (["encoder.0.0.0", "reduce.0"], "encoder.0.0.1", ["decoder.0.0.0", "down.0.0"])
LAST = (["decoder.0.0.0"], "decoder.0.0.1", ["head"])


def narrow(weights: dict[str, Tensor], first: int) -> dict[str, Tensor]:
    """The weights of a fast_unet of one convolution per block, with `first` features at its finest
    level."""
    for writers, norm, readers in (STEM, SKIP, LAST):
        kept = heaviest(weights, writers, norm, readers, first)
        for name in writers:
            weights = weights | {f"{name}.weight": weights[f"{name}.weight"][kept]}
        for key in ("weight", "bias", "running_mean", "running_var"):
            weights = weights | {f"{norm}.{key}": weights[f"{norm}.{key}"][kept]}
        for name in readers:
            weights = weights | {f"{name}.weight": weights[f"{name}.weight"][:, kept]}
    return weights


def heaviest(
    weights: dict[str, Tensor],
    writers: Sequence[str],
    norm: str,
    readers: Sequence[str],
    count: int,
) -> Tensor:
    """Indices of the `count` features that weigh most, in their order."""
    scale = weights[f"{norm}.weight"].abs()
    for name in writers[1:]:  # added without a norm
        scale = scale + weights[f"{name}.weight"].flatten(1).norm(dim=1)
    read = sum(weights[f"{name}.weight"].transpose(0, 1).flatten(1).norm(dim=1) for name in readers)
    return (scale * read).topk(count).indices.sort().values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="a fast_unet that `distillseg train` wrote")
    parser.add_argument("--first", type=int, required=True, help="features of the finest level")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    _, data = checkpoints.load_network(options.checkpoint)
    width = list(data["network"]["settings"].get("width", ()))
    if data["network"]["network"] != "fast_unet" or not width or options.first >= width[0]:
        raise SystemExit(
            f"'{options.checkpoint}' is a {data['network']['network']} of width {width}; give a "
            f"fast_unet, and fewer features than its first level has."
        )
    settings = data["network"]["settings"] | {"width": [options.first, *width[1:]]}
    network = data["network"] | {"settings": settings}
    net = build_network(from_dict(NetworkConfig, network), data["channels"], data["classes"])
    try:
        weights = narrow(data["weights"], options.first)
        net.load_state_dict(weights, strict=True)
    except RuntimeError as problem:
        raise SystemExit(
            f"'{options.checkpoint}' has {data['network']['settings']}; only networks of one "
            "convolution per block can be made narrower here."
        ) from problem
    # What the optimiser remembers is of the wide weights, and stays behind.
    data = {key: value for key, value in data.items() if key != "moments"}
    checkpoints.save(options.out, data | {"network": network, "weights": weights})
    print(f"{options.out}: {count_parameters(net):,} parameters")


if __name__ == "__main__":
    main()
