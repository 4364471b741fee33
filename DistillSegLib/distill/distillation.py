"""The training step: networks in roles, and the weighted links between them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from DistillSegLib.distill.views import Batch, Tapped, Term, View, reads_label
from DistillSegLib.errors import RecipeError
from DistillSegLib.records import nearest

TOTAL = "total"  # among the losses: the weighted sum of all links


@dataclass(frozen=True)
class Link:
    """One weighted term between a student and its guide.

    Attributes:
        student: role that receives the gradient.
        teacher: role that guides, or None for a term without a guide.
    """

    term: Term
    weight: float = 1.0
    student: str = "student"
    teacher: str | None = "teacher"


class Distillation(nn.Module):
    """One whole step as one module, so that precision, processes and compilation wrap one object.

    Trained roles are optimised. Frozen roles run in evaluation mode without gradients. A view used
    as guide is detached, also when its role is itself being trained: an assistant that learns
    together with its student is two links.

    Args:
        trained: role -> network that learns.
        frozen: role -> network that only guides.
        links: name -> link; the names are the columns of the log.
    """

    def __init__(
        self,
        trained: Mapping[str, Tapped],
        frozen: Mapping[str, Tapped],
        links: Mapping[str, Link],
    ):
        super().__init__()
        self.trained = nn.ModuleDict(trained)
        self.frozen = nn.ModuleDict(frozen)
        self.links = dict(links)
        self.frozen.eval().requires_grad_(False)
        roles = [*trained, *frozen]
        if both := sorted(set(trained) & set(frozen)):
            raise RecipeError(f"'{both[0]}' is both trained and frozen; give the two roles names.")
        for name, link in self.links.items():
            if name == TOTAL:
                raise RecipeError(f"A link is called '{TOTAL}', as the sum of all is; rename it.")
            if link.student not in trained:
                raise RecipeError(
                    f"Link '{name}' trains '{link.student}', which is no trained role; "
                    f"{nearest(link.student, trained)}"
                )
            if link.term.guided and link.teacher == link.student:
                raise RecipeError(
                    f"Link '{name}' names '{link.student}' as student and as teacher, which are "
                    "always of one mind; name another teacher."
                )
            if link.term.guided and link.teacher not in roles:
                raise RecipeError(
                    f"Link '{name}' needs a guide, found '{link.teacher}'; "
                    f"{nearest(str(link.teacher), roles)}"
                )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of each link, unweighted, and their weighted sum as `total`."""
        return self.losses(batch, self.views(batch))

    def views(self, batch: Batch) -> dict[str, View]:
        """What each role says about the batch."""
        views = {role: net(batch) for role, net in self.trained.items()}
        with torch.no_grad():
            views |= {role: net(batch) for role, net in self.frozen.items()}
        return views

    def losses(self, batch: Batch, views: Mapping[str, View]) -> dict[str, Tensor]:
        """The links' terms on given views."""
        losses = {}
        for name, link in self.links.items():
            losses[name] = self._value(link, batch, views)
        losses[TOTAL] = sum(link.weight * losses[name] for name, link in self.links.items())
        return losses

    def _value(self, link: Link, batch: Batch, views: Mapping[str, View]) -> Tensor:
        """A link's loss, of the labelled samples if its term looks at the label; 0 of none.

        A term that compares domains has nothing to say either where of several only one is
        labelled.
        """
        student = views[link.student]
        guide = views[link.teacher].detached() if link.term.guided else None
        if batch.labelled is not None and reads_label(link.term):
            known = batch.labelled
            alone = _several(batch.domain) and not _several(batch.domain[known])
            if not known.any() or (alone and getattr(link.term, "compares_domains", False)):
                return student.logits[:0].float().sum()  # with a gradient of zero for all weights
            student, guide = student.of(known), guide.of(known) if guide else None
            batch = batch._replace(
                image=batch.image[known],
                label=batch.label[known],
                domain=None if batch.domain is None else batch.domain[known],
                stored={role: maps[known] for role, maps in batch.stored.items()},
                labelled=None,
            )
        return link.term(batch, student, guide)

    def train(self, mode: bool = True) -> Distillation:
        super().train(mode)
        self.frozen.eval()
        return self

    def rehearse(self, batch: Batch) -> str:
        """One forward and backward pass without an update, before the first epoch.

        Returns:
            A table: role, parameters, what it sees and says; each loss.

        Raises:
            RecipeError: logits of different classes or grids across a link, a term that refuses
                what it is given, a loss that is not finite, trained weights that no loss reaches.
                Each in one sentence, with the table of roles, taps and shapes as its note.
        """
        self.train()
        try:
            views = self.views(batch)
        except ValueError as problem:  # BatchNorm without a second value to compare with
            raise RecipeError(
                f"The networks cannot take the batch {tuple(batch.image.shape)} ({problem}); give "
                "a larger plan.window or plan.batch."
            ) from problem
        roles = roles_table({**self.trained, **self.frozen}, views, self.frozen)
        losses = {}
        try:
            for name, link in self.links.items():
                self._check_link(name, link, views)
                losses[name] = self._loss(name, link, batch, views)
            losses[TOTAL] = sum(link.weight * losses[name] for name, link in self.links.items())
            losses[TOTAL].backward()
            self._check_reached()
        except RecipeError as problem:
            problem.__notes__ = [roles]  # add_note, which Python 3.10 lacks
            raise
        finally:
            self.zero_grad(set_to_none=True)
        return f"{roles}\n{self._losses(losses)}"

    def _check_link(self, name: str, link: Link, views: Mapping[str, View]) -> None:
        if not link.term.guided:
            return
        student, teacher = views[link.student].logits, views[link.teacher].logits
        if student.shape[1] != teacher.shape[1]:
            raise RecipeError(
                f"Link '{name}': '{link.student}' has {student.shape[1]} classes, "
                f"'{link.teacher}' has {teacher.shape[1]}; both must be trained on the same labels."
            )
        if student.shape[2:] != teacher.shape[2:]:
            raise RecipeError(
                f"Link '{name}': '{link.student}' answers on {tuple(student.shape[2:])} voxels, "
                f"'{link.teacher}' on {tuple(teacher.shape[2:])}; both must keep the image's grid."
            )

    def _loss(self, name: str, link: Link, batch: Batch, views: Mapping[str, View]) -> Tensor:
        """A link's loss, once the term has accepted what it is given."""
        try:
            loss = self._value(link, batch, views)
        except ValueError as problem:
            raise RecipeError(f"Link '{name}': {problem}") from problem
        if not torch.isfinite(loss):
            raise RecipeError(
                f"Link '{name}' gives {loss.item()} on the first batch; check the data for "
                "values that are not finite and the link's settings."
            )
        return loss

    def _check_reached(self) -> None:
        unreached = [
            name for name, weight in self.trained.named_parameters() if weight.grad is None
        ]
        if unreached:
            raise RecipeError(
                f"No loss reaches {len(unreached)} trained weights ({', '.join(unreached[:3])} …); "
                "link a term to them, or build the network without them."
            )

    def _losses(self, losses: Mapping[str, Tensor]) -> str:
        rows = [f"{'loss':<12}{'now':>12}  weight and term"]
        for name, loss in losses.items():
            link = self.links.get(name)
            what = f"  {link.weight:g} x {link.term}" if link else ""
            rows.append(f"{name:<12}{loss.item():>12.4f}{what}")
        return "\n".join(rows)


def _several(domain: Tensor | None) -> bool:
    """Whether samples are of more than one domain."""
    return domain is not None and len(domain.unique()) > 1


def roles_table(
    networks: Mapping[str, nn.Module], views: Mapping[str, View], frozen: Collection[str] = ()
) -> str:
    """Who there is, what each sees and says: roles, parameters, logits and taps with shapes."""
    rows = [f"{'role':<12}{'parameters':>12}  logits and taps (B, K or C, D, H, W)"]
    for role, net in networks.items():
        size = sum(weight.numel() for weight in net.parameters())
        state = "  frozen" if role in frozen else ""
        rows.append(f"{role:<12}{size:>12,}  {tuple(views[role].logits.shape)}{state}")
        rows += [f"  {tap:<22}  {tuple(t.shape)}" for tap, t in views[role].taps.items()]
    return "\n".join(rows)
