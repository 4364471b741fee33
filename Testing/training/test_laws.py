"""The laws that hold for every term.

A new term is a row below; one without a row fails. What is special to it (its numbers, its
invariances) is tested in a file of its own. The laws for networks are in `test_network_laws.py`.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from DistillSegLib.distill import TERMS
from DistillSegLib.distill.distillation import Distillation, Link
from DistillSegLib.distill.views import Batch, Tapped, Term, View
from DistillSegLib.networks import NetworkConfig, build_network
from DistillSegLib.networks.nested import REGIONS, class_scores
from DistillSegLib.records import to_dict
from DistillSegLib.training.assembly import assemble
from DistillSegLib.training.recipe import load_recipe

LEVELS = {"width": (4, 4, 4, 4, 4), "deep_supervision": True, "dropout": 0.2}
PLAIN = NetworkConfig("unet", LEVELS)  # every tap that a term may ask for
ORDER = (2, 1)
NESTED = NetworkConfig("unet", LEVELS, nested=ORDER)
PAIRED = NetworkConfig("unet", LEVELS, domains=("ct", "mr"))
CLASSES = 3


@dataclass(frozen=True)
class Row:
    """How a term is tried.

    Attributes:
        network: the student's and the teacher's; its domains are those of the batch.
        reads: taps that the term looks at without a gradient.
        logits: whether the network's output gets a gradient.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    network: NetworkConfig = PLAIN
    reads: tuple[str, ...] = ()
    logits: bool = True

    @property
    def term(self) -> Term:
        return example() if self.name == EXAMPLE else TERMS[self.name](**self.settings)


EXAMPLE = "CONTRIBUTING.md"
FEATURES = ("decoder/0", "decoder/1", "decoder/2", "decoder/3")
HEADS = ("logits/1", "logits/2", "logits/3")
ROWS = [
    Row(EXAMPLE),
    Row("label"),
    Row("label", {"taps": HEADS, "weights": (4.0, 2.0, 1.0, 1.0)}),
    Row("region_dice", {"order": ORDER}, NESTED, logits=False),
    Row("prediction_maps"),
    Row("prediction_maps", {"standardise": True}),
    Row("prediction_maps", {"direction": "reverse"}),
    Row("importance_maps", logits=False),
    Row("importance_maps", {"power": 4.0, "per": "slice"}, logits=False),
    Row("region_affinity", logits=False),
    Row("region_affinity", {"per": "slice"}, logits=False),
    Row("focal_dice"),
    Row("importance_maps", logits=False),
    Row("region_affinity", logits=False),
    Row("focal_dice"),
    Row("moving_target"),
    Row("channel_wise"),
    Row("channel_wise", {"centred": True}),
    Row("channel_wise", {"taps": ("encoder/1", "decoder/1")}, logits=False),
    Row("dist"),
    Row("class_affinity"),
    Row("multi_scale", reads=FEATURES),
    Row("multi_scale", {"detach_norm": False}),
    Row("domain_agreement", network=PAIRED),
    Row("domain_label", network=PAIRED),
]
every_term = pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r.name} {r.settings or ''}")
NOT_AT_MINIMUM = "Not at its minimum when student equals teacher"


def example() -> Term:
    """The term that CONTRIBUTING.md shows, made from its text."""
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = textwrap.dedent(text.split("   ```python\n")[1].split("   ```")[0])
    names = {"__name__": "example"}
    exec(compile(code, "CONTRIBUTING.md", "exec", dont_inherit=True), names)
    return names["PredictionGap"]()


def tapped(row: Row, seed: int) -> Tapped:
    torch.manual_seed(seed)
    return Tapped(build_network(row.network, 1, CLASSES), row.term.taps)


def batch(row: Row, *, classes: int = CLASSES, progress: float = 0.4) -> Batch:
    """Two samples of each domain, asymmetric along every axis."""
    random = torch.Generator().manual_seed(0)
    domains = torch.arange(max(len(row.network.domains), 1)).repeat_interleave(2)
    image = torch.randn(len(domains), 1, 16, 16, 32, generator=random)
    label = torch.randint(classes, (len(domains), 16, 16, 32), generator=random)
    label[::2, :, :, 9:] = 0  # one of two samples has more background
    return Batch(image, label, domains if row.network.domains else None, progress)


def view(row: Row, seed: int) -> View:
    """What a network in evaluation mode says about the batch, as plain numbers."""
    return said(ROWS.index(row), seed)


@cache
def said(index: int, seed: int) -> View:
    row = ROWS[index]
    given, net = batch(row), tapped(row, seed)
    with torch.no_grad():
        settled(net)(given)
        return net.eval()(given)


def settled(net: nn.Module) -> nn.Module:
    """In training mode, where one pass makes the running statistics those of its batch."""
    for layer in net.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = 1.0
    return net.train()


def mapped(given: View, change) -> View:
    """Each tensor changed; the logits of a nested network follow from its regions."""
    taps = {name: change(tap) for name, tap in given.taps.items()}
    if REGIONS in taps:
        return View(class_scores(taps[REGIONS].detach(), ORDER), taps)
    return View(change(given.logits), taps)


def leaves(given: View) -> View:
    return mapped(given, lambda t: t.detach().clone().requires_grad_())


def gradients(given: View) -> dict[str, torch.Tensor | None]:
    return {"": given.logits.grad} | {name: tap.grad for name, tap in given.taps.items()}


def test_every_term_has_a_row():
    assert {row.name for row in ROWS} == {*TERMS, EXAMPLE}


@every_term
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_number_among_a_term_s_settings_is_refused_unless_it_is_one_to_work_with(row, value):
    term = row.term
    numbers = [each.name for each in fields(term) if isinstance(getattr(term, each.name), float)]
    for name in numbers:
        with pytest.raises(ValueError, match=f"{name}.* is {value}; use"):
            replace(term, **{name: value})


@every_term
def test_a_term_sends_a_gradient_to_the_student_and_none_to_its_teacher(row):
    roles = {"student": tapped(row, 1), "teacher": tapped(row, 2)}
    Distillation(roles, {}, {"link": Link(row.term)})(batch(row))["total"].backward()
    reached = [w.grad for w in roles["student"].parameters() if w.grad is not None]
    assert max(grad.abs().max() for grad in reached) > 0
    assert all(weight.grad is None for weight in roles["teacher"].parameters())


@every_term
def test_every_tap_that_a_term_asks_for_learns_or_is_only_read(row):
    student = leaves(view(row, 1))
    row.term(batch(row), student, view(row, 2)).backward()
    reached = {name for name, g in gradients(student).items() if g is not None and g.abs().max()}
    assert reached == {"", *row.term.taps} - set(row.reads) - (set() if row.logits else {""})


@every_term
def test_a_step_leaves_the_frozen_network_bit_for_bit_the_same(row):
    student, frozen = tapped(row, 1), tapped(row, 2)
    before, begun = ([w.clone() for w in n.state_dict().values()] for n in (frozen, student))
    distillation = Distillation({"student": student}, {"teacher": frozen}, {"l": Link(row.term)})
    optimizer = torch.optim.SGD(distillation.parameters(), lr=0.1)
    distillation.train()
    assert not any(layer.training for layer in frozen.modules())
    distillation(batch(row))["total"].backward()
    optimizer.step()
    after, moved = frozen.state_dict().values(), student.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(begun, moved, strict=True))


def perturbed(given: View, size: float, seed: int) -> View:
    random = torch.Generator().manual_seed(seed)
    return mapped(given, lambda t: t + size * torch.randn(t.shape, generator=random))


@every_term
def test_a_term_is_at_its_minimum_when_student_equals_teacher_or_says_that_it_is_not(row):
    term, given = row.term, batch(row)
    if NOT_AT_MINIMUM in " ".join(type(term).__doc__.split()):
        return
    assert term.guided, f"{type(term).__name__} has no teacher to equal, and does not say so"
    teacher = view(row, 2)
    equal, away = leaves(teacher), leaves(perturbed(teacher, 1.0, 0))
    values = [term(given, student, teacher) for student in (equal, away)]
    sum(values).backward()
    others = [
        term(given, perturbed(teacher, size, seed), teacher).item()
        for size in (0.01, 1.0)
        for seed in range(5)
    ]
    assert min(others) > values[0].item() - 1e-6
    assert max(others) > values[0].item() + 1e-5
    largest = [
        max(g.abs().max().item() for g in gradients(student).values() if g is not None)
        for student in (equal, away)
    ]
    assert largest[0] < 1e-3 * largest[1]


@every_term
def test_a_term_computes_in_32_bits_inside_autocast(row):
    term, given = row.term, batch(row)
    short = [mapped(view(row, seed), lambda t: t.bfloat16()) for seed in (1, 2)]
    long = [mapped(each, lambda t: t.float()) for each in short]
    expected = term(given, *long)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = term(given, *short), term(given, *long)
    assert all(value.dtype == torch.float32 for value in values)
    assert torch.equal(torch.stack(values), torch.stack([expected] * 2))


@every_term
@pytest.mark.parametrize(
    "classes", [CLASSES, 2, 1], ids=["all classes", "one absent", "no classes"]
)
def test_a_term_stays_finite_at_extreme_logits_and_where_classes_are_absent(row, classes):
    def extreme(seed: int) -> View:
        random = torch.Generator().manual_seed(seed)

        def signs(t):
            signs = 1 - 2 * torch.randint(2, t.shape, generator=random).float()
            return t * signs if t.shape[1] == LEVELS["width"][0] else 1e4 * signs

        return mapped(view(row, seed), signs)

    plain, sure = [view(row, seed) for seed in (1, 2)], [extreme(seed) for seed in (3, 4)]
    for student, teacher in ((plain[0], sure[1]), (sure[0], plain[1]), (sure[0], sure[1])):
        student = leaves(student)
        value = row.term(batch(row, classes=classes), student, teacher)
        value.backward()
        assert torch.isfinite(value)
        assert all(g.isfinite().all() for g in gradients(student).values() if g is not None)


@every_term
def test_a_batch_is_the_mean_of_its_samples_or_the_term_says_that_it_couples_them(row):
    term, given = row.term, batch(row)
    factors = torch.tensor([1.0, 5.0] * (len(given.image) // 2)).reshape(-1, 1, 1, 1, 1)
    student, teacher = (  # the second sample is surer than the first
        mapped(perturbed(view(row, seed), 1.0, seed), lambda t: t * factors) for seed in (1, 2)
    )
    coupled = getattr(term, "couples_batch", False)
    assert not coupled or re.search("batch|samples", type(term).__doc__)
    if given.domain is not None:  # one sample alone is of one domain
        assert coupled
        return

    def one(i: int) -> float:
        alone = given._replace(image=given.image[i : i + 1], label=given.label[i : i + 1])
        return term(alone, *(mapped(v, lambda t: t[i : i + 1]) for v in (student, teacher))).item()

    mean = (one(0) + one(1)) / 2
    same = term(given, student, teacher).item() == pytest.approx(mean, rel=1e-5, abs=1e-7)
    assert same is not coupled


def toml(value: Any) -> str:
    """A value as `--set` takes it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)


@pytest.mark.parametrize("row", ROWS[1:], ids=lambda r: f"{r.name} {r.settings or ''}")
def test_any_term_joins_a_recipe_as_a_further_link(row):
    heads = any(tap.startswith("logits/") for tap in row.term.taps)
    settings = LEVELS | {"deep_supervision": heads}
    network = to_dict(replace(row.network, settings=settings))
    recipe = load_recipe(
        "distil",
        [
            *(f"stages.{role}.trained.{role}={toml(network)}" for role in ("teacher", "student")),
            f"stages.student.links.label.settings.taps={toml(HEADS if heads else ())}",
            f"stages.student.links.further.term={row.name}",
            f"stages.student.links.further.settings={toml(row.settings)}",
        ],
    )
    distillation = assemble(
        recipe.stages[1], 1, CLASSES, lambda _: build_network(row.network, 1, CLASSES)
    )
    table = " ".join(distillation.rehearse(batch(row)).split())
    losses = distillation(batch(row))
    assert f"1 x {row.term}" in table
    assert set(losses) == {"label", "maps", "further", "total"}
    total = losses["label"] + losses["maps"] + losses["further"]
    assert losses["total"].item() == pytest.approx(total.item(), rel=1e-5)
