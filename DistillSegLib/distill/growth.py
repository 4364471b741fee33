"""Growing networks: a wider one takes over what a narrower one has learnt, function and all.

The growing assistant of GTAN (Xu et al., Physics in Medicine & Biology 66(23):235005, 2021) as a
reconstruction: the paper's abstract says that one assistant grows, its text and code are not
public. The operator is Net2WiderNet (Chen, Goodfellow, Shlens, ICLR 2016, arXiv:1511.05641,
section 2.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from DistillSegLib.networks.unet import UNet

Moments = Mapping[str, Mapping[str, Tensor]]  # parameter -> what the optimiser remembers of it


class Copies(NamedTuple):
    """The units of a widened layer as copies of the narrow one's.

    Attributes:
        of: (m,) int64, the unit that each is a copy of.
        among: (m,) how many copies that unit has.
    """

    of: Tensor
    among: Tensor


Plan = Mapping[str, tuple[Copies, Copies | None]]  # layer -> its outputs, its inputs if any


def widen(
    target: UNet,
    source: UNet,
    moments: Moments | None = None,
    *,
    noise: float = 1e-2,
    seed: int = 0,
) -> dict[str, dict[str, Tensor]]:
    """Fill the wider `target` with the function of `source`: the same logits in evaluation mode.

    A layer's new units are copies of old ones, incoming weights, norm and running statistics
    included. What reads a unit with c copies reads each of them by a share of the old weight:

        W'[o, i] = W[of(o), of(i)] / c(i) + e[o, i],    sum of e over the copies of a unit = 0

    e is normal noise of `noise` times the layer's standard deviation. Its sum is zero, so the
    function is kept exactly; since the copies are read differently, their gradients differ and
    they separate. With `noise` 0 they stay equal for ever. Where features are concatenated (the
    deeper level first, then the skip), each part has its own copies.

    Moments become what they would be had the wide network (without noise) seen the last batches.
    A unit's c(o) copies share its gradient, and a copied input has the old one's activation:

        dL/dW'[o, i] = dL/dW[of(o), of(i)] / c(o)

    so Adam's first moment and the momentum of SGD are divided by c(o), Adam's second moment by
    c(o)^2, and none by c(i). (SGD's momentum also holds weight decay, which scales otherwise; it is
    treated alike.)

    **Differs from the paper** (Net2Net): units are copied as equally often as possible, not drawn
    with replacement, so that none falls into many small ones; its noise changes the function a
    little, this one does not.

    Args:
        target: freshly built; its weights are replaced.
        source: the same network but for its widths, which are nowhere larger.
        moments: of the source, by parameter; empty if there are none.
        seed: of the copies and the noise.

    Returns:
        The target's moments.

    Raises:
        ValueError: the target is not the same network, or narrower somewhere.
    """
    _check(target, source)
    random = torch.Generator().manual_seed(seed)
    plan = dict(_plan(target, source, random))
    layer = {name: name.rpartition(".")[0] for name in target.state_dict()}
    weights = {
        name: _weight(w, *plan[layer[name]], noise, random)
        for name, w in source.state_dict().items()
    }
    target.load_state_dict(weights, strict=True)
    return {
        name: {key: _moment(key, m, *plan[layer[name]]) for key, m in moment.items()}
        for name, moment in (moments or {}).items()
    }


def inherit(target: nn.Module, source: nn.Module) -> list[str]:
    """Copy the weights that have the same name in both, as far as their shapes overlap.

    The overlap is the first units of each axis; the rest of the target stays as it is. No function
    is kept: for a start from a related network, where `widen` does not apply.

    Returns:
        Names of what was copied, whole or in part.
    """
    ours, theirs = target.state_dict(), source.state_dict()
    copied = [name for name in ours if name in theirs and ours[name].ndim == theirs[name].ndim]
    with torch.no_grad():
        for name in copied:
            shapes = zip(ours[name].shape, theirs[name].shape, strict=True)
            overlap = tuple(slice(min(sizes)) for sizes in shapes)
            ours[name][overlap] = theirs[name][overlap]
    return copied


def widths(net: UNet) -> list[int]:
    """Features per level, finest first."""
    return [block[0][0].out_channels for block in net.encoder]


def _check(target: UNet, source: UNet) -> None:
    ours, theirs = widths(target), widths(source)
    if len(ours) != len(theirs) or any(o < t for o, t in zip(ours, theirs, strict=True)):
        raise ValueError(
            f"a network of width {theirs} cannot grow to {ours}; give as many levels, each at "
            "least as wide"
        )
    if _form(target) != _form(source):
        raise ValueError(
            "the two differ in more than their widths; use the same settings and the same number "
            "of channels and classes in both"
        )


def _form(net: UNet) -> list[tuple]:
    """All that must agree between two networks that differ in their widths."""
    layers = [(name, type(layer)) for name, layer in net.named_modules()]
    return [*layers, net.in_plane, net.encoder[0][0][0].in_channels, net.heads[0].out_channels]


def _plan(target: UNet, source: UNet, random: torch.Generator) -> Iterator[tuple[str, tuple]]:
    """Each layer with its outputs' and inputs' copies, along the way of `UNet.forward`."""

    def block(name: str, inputs: Copies) -> Iterator[tuple[str, tuple]]:
        new, old = target.get_submodule(name), source.get_submodule(name)
        for i, (wide, narrow) in enumerate(zip(new, old, strict=True)):
            if isinstance(wide, nn.Dropout):
                continue
            outputs = _copies(narrow[0].out_channels, wide[0].out_channels, random)
            yield f"{name}.{i}.0", (outputs, inputs)  # convolution
            yield f"{name}.{i}.1", (outputs, None)  # norm
            inputs = outputs
        ends.append(inputs)

    ends: list[Copies] = []  # the copies of each block's features, in order
    channels, classes = source.encoder[0][0][0].in_channels, source.heads[0].out_channels
    for i in range(len(source.encoder)):
        yield from block(f"encoder.{i}", ends[-1] if ends else _copies(channels, channels, random))
    skips = list(ends)
    for i in reversed(range(len(source.decoder))):
        yield from block(f"decoder.{i}", _joined(ends[-1], skips[i], widths(source)[i + 1]))
        if i < len(source.heads):
            yield f"heads.{i}", (_copies(classes, classes, random), ends[-1])


def _copies(old: int, new: int, random: torch.Generator) -> Copies:
    """The old units, then copies in random order: each as often as the others, or once more."""
    orders = [torch.arange(old, device="cpu")]
    while len(orders) * old < new:
        orders.append(torch.randperm(old, generator=random, device="cpu"))
    of = torch.cat(orders)[:new]
    return Copies(of, torch.bincount(of)[of])


def _joined(deep: Copies, skip: Copies, units: int) -> Copies:
    """Of concatenated features: the skip's units are counted on from the deep part's `units`."""
    return Copies(torch.cat((deep.of, skip.of + units)), torch.cat((deep.among, skip.among)))


def _weight(
    old: Tensor, outputs: Copies, inputs: Copies | None, noise: float, random: torch.Generator
) -> Tensor:
    """A widened layer's weight (O, I, ...), or what it has of each unit (O,)."""
    if old.ndim == 0:  # the norm's count of batches
        return old
    new = old[outputs.of]
    if old.ndim == 1 or inputs is None:
        return new
    extra = torch.randn((len(new), len(inputs.of), *new.shape[2:]), generator=random, device="cpu")
    extra = (noise * extra).to(old) * old.std()
    extra = extra - _split(_summed(extra, inputs), inputs)  # exactly 0 where there is one copy
    return _split(new, inputs) + extra


def _split(weight: Tensor, inputs: Copies) -> Tensor:
    """(O, i, ...) -> (O, I, ...): each copy of an input is read by its share."""
    among = inputs.among.to(weight).reshape(-1, *[1] * (weight.ndim - 2))
    return weight[:, inputs.of] / among


def _summed(weight: Tensor, inputs: Copies) -> Tensor:
    """(O, I, ...) -> (O, i, ...): the sum over the copies of each input."""
    units = weight.new_zeros((len(weight), int(inputs.of.max()) + 1, *weight.shape[2:]))
    return units.index_add(1, inputs.of.to(weight.device), weight)


def _moment(key: str, old: Tensor, outputs: Copies, inputs: Copies | None) -> Tensor:
    """What the optimiser would remember of a widened weight; see `widen`."""
    if old.ndim == 0:  # Adam's count of steps
        return old.clone()
    new = old[outputs.of] if old.ndim == 1 or inputs is None else old[outputs.of][:, inputs.of]
    shares = outputs.among.to(old).reshape(-1, *[1] * (old.ndim - 1))
    return new / shares ** (2 if key == "exp_avg_sq" else 1)
