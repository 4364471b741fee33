"""Parameters and multiply-adds of the papers' networks, by one counter, beside what is stated.

    python Testing/studies/network_table.py

writes Testing/studies/networks.md. Multiply-adds (MAC) are those of convolutions and matrix
products, half of what torch's FlopCounterMode counts; networks are built on the "meta" device, so
nothing is computed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from DistillSegLib.networks import NetworkConfig, build_network, count_parameters

OUT = Path(__file__).with_name("networks.md")
NOTES = """
*Stated*: for Distill-DSM the paper's table (multiply-adds: its "FLOPs per voxel" times the voxels);
for the others the sizes of their released networks, and for GTAN, whose code is not public, what
the widths of our reconstruction come to by hand.

* Distill-DSM's paper prints the 1 → 2 network with α 1/2 among 4 → 3 networks, and with fewer
  multiply-adds than its weights make (34.71 here). Its figure for the 3-D U-Net is near twice the
  multiply-adds, those of the 2-D networks are not: by one counter its 3-D baseline is the cheapest.
* ENet's released forward pass skips a block that it holds (17,795 weights); here it is used, hence
  the 0.04 more.
"""


@dataclass(frozen=True)
class Row:
    """A network as a paper has it.

    Attributes:
        size: (d, h, w) for which multiply-adds are counted.
        stated: parameters.
        stated_macs: in 10^9 for the whole input.
    """

    method: str
    what: str
    network: str
    channels: int
    classes: int
    size: tuple[int, int, int]
    stated: int | None
    stated_macs: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    domains: tuple[str, ...] = ()


def _growing(width: tuple[int, ...], stated: int, per_voxel: int) -> Row:
    return Row(
        "GTAN (reconstruction)",
        f"3-D U-Net {', '.join(map(str, width))}",
        "unet",
        1,
        2,
        (64, 128, 128),
        stated,
        per_voxel * 64 * 128 * 128 / 1e9,
        {"width": width},
    )


def _shifting(what: str, channels: int, outputs: int, stated: int, macs: float, **settings):
    """Cost over 32 slices of 160 x 160; the paper prints it per voxel."""
    return Row(
        "Distill-DSM",
        what,
        "depth_shift_unet",
        channels,
        outputs,
        (32, 160, 160),
        stated,
        macs * 32 * 160 * 160 / 1e9,
        settings,
    )


ROWS = [
    _shifting("2-D U-Net, 4 → 3", 4, 3, 1_082_211, 38_662, shift="none"),
    _shifting("plain shift, 4 → 3", 4, 3, 1_082_211, 38_735, shift="plain"),
    _shifting("Distill-DSM α 1/2, 1 → 2", 1, 2, 1_216_266, 39_456, shift="learnable", alpha=0.5),
    _shifting("Distill-DSM α 1, 4 → 3", 4, 3, 1_619_635, 55_344, shift="learnable", alpha=1.0),
    Row(
        "Distill-DSM",
        "3-D U-Net, 4 → 3",
        "residual_unet",
        4,
        3,
        (32, 160, 160),
        4_288_208,
        58_709 * 32 * 160 * 160 / 1e9,
    ),
    Row("EMKD", "teacher RA-UNet", "raunet", 3, 2, (1, 384, 384), 22_143_394, 13.23),
    Row("EMKD", "student ENet", "enet", 3, 2, (1, 384, 384), 353_761, 1.024),
    _growing((5, 10, 20), 34_772, 5_629),
    _growing((9, 18, 36), 112_160, 18_030),
    _growing((16, 32, 64), 353_618, 56_624),
    _growing((24, 48, 96), 794_810, 127_056),
    _growing((30, 60, 120), 1_241_372, 198_308),
    Row("LCOV-Net", "full", "lcovnet", 1, 17, (64, 128, 128), 2_785_764, 51.6),
    Row(
        "LCOV-Net",
        "small",
        "lcovnet",
        1,
        2,
        (64, 128, 128),
        815_560,
        None,
        {"width": (16, 32, 64, 128, 256)},
    ),
    Row(
        "LCOV-Net",
        "teacher",
        "lcovnet",
        1,
        17,
        (64, 128, 128),
        14_986_660,
        236.6,
        {"block": "dense"},
    ),
    Row("unpaired CT/MR", "2-D, one norm", "dilated_net", 1, 5, (1, 256, 256), 39_322_648, 41.50),
    Row(
        "unpaired CT/MR",
        "2-D, CT and MR",
        "dilated_net",
        1,
        5,
        (1, 256, 256),
        39_342_840,
        41.50,
        {},
        ("ct", "mr"),
    ),
    Row(
        "unpaired CT/MR",
        "3-D U-Net, CT and MR",
        "ummkd_unet",
        1,
        5,
        (8, 256, 256),
        2_204_565,
        113.7,
        {},
        ("ct", "mr"),
    ),
]


def measure(row: Row) -> tuple[int, float]:
    """(parameters, 10^9 multiply-adds for one input of the row's size)."""
    config = NetworkConfig(row.network, row.settings, domains=row.domains)
    with torch.device("meta"):
        net = build_network(config, row.channels, row.classes).eval()
        inputs = [torch.empty(1, row.channels, *row.size)]
    if row.domains:
        inputs.append(torch.zeros(1, dtype=torch.int64))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(*inputs)
    return count_parameters(net), counter.get_total_flops() / 2 / 1e9


def table() -> str:
    lines = [
        "| method | network | parameters | stated | GMAC | stated | input (z, y, x) |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        parameters, macs = measure(row)
        stated = f"{row.stated:,}" if row.stated else "-"
        same = " ✓" if parameters == row.stated else " differs"
        macs_stated = f"{row.stated_macs:.2f}" if row.stated_macs else "-"
        size = " x ".join(map(str, row.size))
        lines.append(
            f"| {row.method} | {row.what} | {parameters:,} | {stated}{same} | {macs:.2f} | "
            f"{macs_stated} | {size} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    OUT.write_text(f"<!-- made by network_table.py -->\n{table()}\n{NOTES}", encoding="utf-8")
    print(table())
