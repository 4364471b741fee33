"""A narrower finest level: what weighs nothing leaves first, and the rest stays as it was."""

from __future__ import annotations

import sys
from pathlib import Path

import narrow
import pytest
import torch

from DistillSegLib.networks import NetworkConfig, build_network
from DistillSegLib.training import checkpoints


def fast(*width: int) -> torch.nn.Module:
    return build_network(NetworkConfig("fast_unet", {"width": width}), 1, 3).eval()


@pytest.fixture
def wide() -> torch.nn.Module:
    """Eight features, of which two in each place are read by nobody; others than the last ones."""
    torch.manual_seed(0)
    net = fast(8, 8, 16)
    weights = net.state_dict()
    for number, (_, _, readers) in enumerate((narrow.STEM, narrow.SKIP, narrow.LAST)):
        for name in readers:
            weights[f"{name}.weight"][:, [number, 5]] = 0
    net.load_state_dict(weights)
    return net


def test_leaving_out_what_nobody_reads_changes_no_logit(wide):
    thin = fast(6, 8, 16)
    thin.load_state_dict(narrow.narrow(wide.state_dict(), 6), strict=True)
    image = torch.randn(1, 1, 16, 8, 24)
    with torch.no_grad():
        torch.testing.assert_close(thin(image), wide(image), atol=1e-5, rtol=1e-5)


def test_leaving_out_more_changes_them(wide):
    thin = fast(5, 8, 16)
    thin.load_state_dict(narrow.narrow(wide.state_dict(), 5), strict=True)
    image = torch.randn(1, 1, 16, 8, 24)
    with torch.no_grad():
        assert not torch.allclose(thin(image), wide(image), atol=1e-3)
    assert wide.state_dict()["head.weight"].shape[1] == 8  # the given weights stay


def test_the_heaviest_features_are_kept_in_their_order(wide):
    weights = wide.state_dict()
    weights["stem.1.weight"][:] = torch.tensor([9.0, 1, 2, 8, 3, 9, 4, 7])
    weights["encoder.0.0.0.weight"][:] = 1
    assert narrow.heaviest(weights, *narrow.STEM, 4).tolist() == [0, 3, 5, 7]


def narrowed(folder: Path, monkeypatch, net: torch.nn.Module, **settings) -> Path:
    """What the command makes of a checkpoint whose optimiser remembers the wide weights."""
    network = {"network": "fast_unet", "settings": settings, "domains": []}
    moments = {"head.weight": {"exp_avg": torch.zeros(3, 8, 1, 1, 1)}}
    data = {"network": network, "weights": net.state_dict(), "channels": 1, "classes": 3}
    checkpoints.save(folder / "wide.pt", data | {"moments": moments})
    words = [str(folder / "wide.pt"), "--first", "6", "--out", str(folder / "thin.pt")]
    monkeypatch.setattr(sys, "argv", ["narrow.py", *words])
    narrow.main()
    return folder / "thin.pt"


def test_what_the_optimiser_remembers_of_the_wide_network_is_left_behind(
    wide, tmp_path, monkeypatch
):
    thin, data = checkpoints.load_network(narrowed(tmp_path, monkeypatch, wide, width=[8, 8, 16]))
    assert thin.head.weight.shape[1] == 6 and "moments" not in data


def test_a_network_that_cannot_be_narrowed_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    settings = {"width": [8, 8, 16], "convolutions": 2}
    net = build_network(NetworkConfig("fast_unet", settings), 1, 3)
    (tmp_path / "thin.pt").write_bytes(b"of before")
    with pytest.raises(SystemExit, match="one convolution per block"):
        narrowed(tmp_path, monkeypatch, net, **settings)
    assert (tmp_path / "thin.pt").read_bytes() == b"of before"
