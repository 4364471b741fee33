"""One network for several modalities: shared convolutions, and norms of each or of all.

Dou et al., "Unpaired Multi-modal Segmentation via Knowledge Distillation", IEEE TMI 39(7), 2020,
doi:10.1109/TMI.2019.2963882. The networks themselves know nothing of it: any of them is wrapped.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Norms = Literal["own", "shared"]
NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm)


class DomainNorm(nn.Module):
    """A norm layer for each domain, of which one is active; each begins as a copy of `norm`."""

    def __init__(self, norm: nn.Module, domains: int):
        super().__init__()
        self.norms = nn.ModuleList(copy.deepcopy(norm) for _ in range(domains))
        self.active = 0

    def forward(self, features: Tensor) -> Tensor:
        return self.norms[self.active](features)


class MultiDomain(nn.Module):
    """(B, C, D, H, W), (B,) -> logits (B, K, D, H, W): each sample under the norms of its domain.

    One pass for each domain of the batch, so that no norm sees two modalities at once. Features
    seen by hooks come one part for each domain, in the batch's order. With shared norms, what the
    paper compares with, the whole batch is one pass and its statistics are of all modalities.

    Args:
        net: its norm layers are replaced in place, unless they are shared.
        domains: names; a sample's domain is the index of its name.
        norms: "own" of each domain, or "shared" by all.
    """

    def __init__(self, net: nn.Module, domains: Sequence[str], norms: Norms = "own"):
        super().__init__()
        if not domains or len(set(domains)) != len(domains) or not all(domains):
            raise ValueError(f"domains are {list(domains)}; give each modality a name of its own.")
        self.domains = tuple(domains)
        self.norms = norms
        self.net = _with_domain_norms(net, len(domains)) if norms == "own" else net
        self.taps = {name: f"net.{path}" for name, path in getattr(net, "taps", {}).items()}
        for limit in ("multiple", "minimum"):
            if hasattr(net, limit):
                setattr(self, limit, getattr(net, limit))

    def forward(self, image: Tensor, domain: Tensor | None = None) -> Tensor:
        if domain is None and len(self.domains) == 1:
            domain = torch.zeros(len(image), dtype=torch.long)
        if domain is None:
            raise ValueError(
                f"a network of the domains {', '.join(self.domains)} was given images without "
                "their domain; name it, or take the network of one domain by specialise()."
            )
        found, sizes = (t.tolist() for t in torch.unique_consecutive(domain, return_counts=True))
        if len(set(found)) != len(found) or sum(sizes) != len(image):
            raise ValueError(
                f"the domains of {len(image)} samples are {domain.tolist()}; give one for each, "
                "samples of a domain side by side."
            )
        if self.norms == "shared":
            return self.net(image)
        parts = []
        for index, part in zip(found, image.split(sizes), strict=True):
            self._activate(index)
            parts.append(self.net(part))
        return torch.cat(parts)

    def specialise(self, domain: str) -> nn.Module:
        """The plain network of one domain, as a copy: for validation, export and inference."""
        if domain not in self.domains:
            raise ValueError(
                f"the network knows no domain '{domain}'; it has {', '.join(self.domains)}."
            )
        net = _with_norms_of(copy.deepcopy(self.net), self.domains.index(domain))
        for layer in net.modules():
            layer._forward_hooks.clear()  # taps look at the whole network only
        return net

    def _activate(self, index: int) -> None:
        if not 0 <= index < len(self.domains):
            raise ValueError(
                f"a sample has the domain {index}; there are 0 to {len(self.domains) - 1} "
                f"({', '.join(self.domains)})."
            )
        for layer in self.modules():
            if isinstance(layer, DomainNorm):
                layer.active = index


def by_domain(net: nn.Module) -> dict[str, nn.Module]:
    """The plain network of each domain; the network itself, under "", where it has one only."""
    if isinstance(net, MultiDomain):
        return {domain: net.specialise(domain) for domain in net.domains}
    return {"": net}


def _with_domain_norms(net: nn.Module, domains: int) -> nn.Module:
    """The module with each norm layer in it replaced by a `DomainNorm`."""
    if isinstance(net, NORMS):
        return DomainNorm(net, domains)
    for name, child in net.named_children():
        setattr(net, name, _with_domain_norms(child, domains))
    return net


def _with_norms_of(net: nn.Module, index: int) -> nn.Module:
    """The module with each `DomainNorm` in it replaced by the norm of one domain."""
    if isinstance(net, DomainNorm):
        return net.norms[index]
    for name, child in net.named_children():
        setattr(net, name, _with_norms_of(child, index))
    return net
