"""The terms of unpaired CT and MR: numbers by hand, and what must not change them."""

from __future__ import annotations

import pytest
import torch
from torch.nn import Conv3d

from DistillSegLib.distill.distillation import Distillation, Link
from DistillSegLib.distill.ummkd import DomainAgreement, DomainLabel, class_means
from DistillSegLib.distill.views import Batch, Tapped, View

# logits, class of each voxel
A = [([2.0, 0.0], 0), ([4.0, 0.0], 0), ([0.0, 2.0], 1)]
B = [([1.0, 1.0], 0), ([0.0, 4.0], 1), ([0.0, 0.0], 1)]


def given(*domains: list) -> tuple[Batch, View]:
    """A batch of one sample for each domain, all with as many voxels."""
    logits = torch.tensor([[voxel for voxel, _ in domain] for domain in domains])
    label = torch.tensor([[of_class for _, of_class in domain] for domain in domains])
    logits = logits.transpose(1, 2)[:, :, :, None, None]  # (B, N, K) -> (B, K, N, 1, 1)
    batch = Batch(torch.zeros(1), label[:, :, None, None], torch.arange(len(domains)))
    return batch, View(logits.requires_grad_())


def random(sizes=((4, 6, 5), (4, 6, 5)), classes: int = 3, seed: int = 0) -> tuple[Batch, View]:
    torch.manual_seed(seed)
    logits = torch.randn(4, classes, *sizes[0])
    label = torch.randint(classes, (4, *sizes[0]))
    return Batch(torch.zeros(1), label, torch.tensor([0, 0, 1, 1])), View(logits)


def test_the_agreement_of_two_small_sets():
    batch, view = given(A, B)  # class 0: 0.238181, class 1: means equal
    assert DomainAgreement()(batch, view).item() == pytest.approx(0.119090, abs=1e-6)
    means, present = class_means(view.logits[:1], batch.label[:1])
    assert means.tolist() == [[3, 0], [0, 2]] and present.all()


def test_it_is_symmetric_and_zero_for_equal_sets():
    for order in ((A, B), (B, A)):
        assert DomainAgreement()(*given(*order)).item() == pytest.approx(0.119090, abs=1e-6)
    assert DomainAgreement()(*given(A, A)).item() == 0


def test_three_domains_are_the_mean_over_pairs():
    assert DomainAgreement()(*given(A, B, A)).item() == pytest.approx(2 / 3 * 0.119090, abs=1e-6)


def test_it_is_blind_to_an_offset_of_all_logits_of_a_domain():
    batch, view = random()
    shifted = View(view.logits + torch.tensor([5.0, 5, 0, 0]).reshape(4, 1, 1, 1, 1))
    expected = DomainAgreement()(batch, view).item()
    assert expected > 1e-4
    assert DomainAgreement()(batch, shifted).item() == pytest.approx(expected, rel=1e-4)


def test_it_is_blind_to_the_order_of_voxels_in_either_domain():
    batch, view = random()
    logits, label = view.logits.clone(), batch.label.clone()
    logits[:2], label[:2] = view.logits[:2].flip(2), batch.label[:2].flip(1)
    moved = DomainAgreement()(batch._replace(label=label), View(logits))
    assert moved.item() == pytest.approx(DomainAgreement()(batch, view).item(), rel=1e-4)


def test_it_is_blind_to_the_numbering_of_classes():
    batch, view = random()
    renamed = torch.tensor([2, 0, 1])  # class c is called renamed[c]
    logits = torch.empty_like(view.logits)
    logits[:, renamed] = view.logits
    other = DomainAgreement()(batch._replace(label=renamed[batch.label]), View(logits))
    assert other.item() == pytest.approx(DomainAgreement()(batch, view).item(), rel=1e-4)


def test_domains_may_have_different_shares_of_a_batch():
    batch, view = random()
    three = batch._replace(domain=torch.tensor([0, 1, 1, 1]))
    by_hand = [class_means(view.logits[p], batch.label[p])[0] for p in (slice(1), slice(1, 4))]
    p, q = (torch.softmax(mean / 2, dim=1) for mean in by_hand)
    expected = ((p - q) * (p.log() - q.log())).sum() / 2 / 3
    assert DomainAgreement()(three, view).item() == pytest.approx(expected.item(), rel=1e-4)


def test_all_voxels_of_a_class_in_a_domain_get_the_same_gradient():
    batch, view = random()
    logits = view.logits.requires_grad_()
    DomainAgreement()(batch, View(logits)).backward()
    for domain in (0, 1):
        for of_class in range(3):
            chosen = (batch.domain[:, None, None, None] == domain) & (batch.label == of_class)
            vectors = logits.grad.movedim(1, -1)[chosen]
            assert vectors.abs().max() > 0  # both domains learn
            torch.testing.assert_close(vectors, vectors[:1].expand_as(vectors))


def test_a_class_that_one_domain_lacks_is_left_out():
    lacking = [([1.0, 1.0], 0)] * 3  # no class 1, while A has it
    batch, view = given(A, lacking)
    loss = DomainAgreement()(batch, view)
    assert loss.item() == pytest.approx(0.238181, abs=1e-6)  # class 0 alone
    # The released code takes the uniform distribution for it, 0.115529 from softmax([0, 2] / 2):
    false = given([([0.0, 2.0], 0)], [([0.0, 0.0], 0)])
    assert DomainAgreement()(*false).item() == pytest.approx(0.115529, abs=1e-6)
    loss.backward()
    assert not view.logits.grad[0, :, 2].any()  # A's voxel of class 1


def test_without_a_class_in_both_there_is_no_loss_and_a_gradient_of_zero():
    batch, view = given([([1.0, 0.0], 0)], [([3.0, 0.0], 1)])
    loss = DomainAgreement()(batch, view)
    loss.backward()
    assert loss.item() == 0 and not view.logits.grad.any()


def test_one_domain_or_none_is_refused_in_words():
    batch, view = given(A, B)
    for domain in (None, torch.tensor([1, 1])):
        with pytest.raises(ValueError, match=r"samples of two in every batch.*a second --data"):
            DomainAgreement()(batch._replace(domain=domain), view)
    with pytest.raises(ValueError, match="use a positive number"):
        DomainAgreement(temperature=0.0)


@pytest.mark.parametrize("term", [DomainAgreement(), DomainLabel()])
def test_terms_compute_in_32_bits_inside_autocast(term):
    batch, view = random(((8, 40, 40),) * 2)
    halved = View(view.logits.bfloat16())
    expected = term(batch, View(halved.logits.float()))
    with torch.autocast("cpu", torch.bfloat16):
        found = term(batch, halved)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


# Labels


def two_voxels() -> tuple[Batch, View]:
    """p = [0.8, 0.2] and [0.4, 0.6], of the classes 0 and 1."""
    batch, view = given([([0.8, 0.2], 0), ([0.4, 0.6], 1)])
    return batch, View(view.logits.log())


def test_dice_and_weighted_cross_entropy_of_two_voxels():
    batch, view = two_voxels()
    dice = DomainLabel(cross_entropy=0.0)(batch, view).item()
    assert dice == pytest.approx(1 - (0.888889 + 0.857143) / 2, abs=1e-6)
    assert dice - 1 == pytest.approx(-0.873016, abs=1e-6)  # as the released code writes it
    assert DomainLabel(dice=0.0)(batch, view).item() == pytest.approx(0.183492, abs=1e-6)
    assert DomainLabel()(batch, view).item() == pytest.approx(0.126984 + 0.183492, abs=1e-6)


def test_labels_are_learnt_in_each_domain_by_itself_and_the_losses_added():
    batch, view = random()
    parts = [
        DomainLabel()(Batch(torch.zeros(1), batch.label[part]), View(view.logits[part]))
        for part in (slice(2), slice(2, 4))
    ]
    assert DomainLabel()(batch, view).item() == pytest.approx(sum(parts).item(), rel=1e-5)
    mixed = DomainLabel()(batch._replace(domain=None), view)
    assert abs(2 * mixed.item() - sum(parts).item()) > 1e-5


def test_a_perfect_answer_costs_nothing_and_a_hopeless_voxel_at_most_log_200():
    batch, _ = given(A)
    sure = torch.nn.functional.one_hot(batch.label, 2).movedim(-1, 1) * 100.0
    assert DomainLabel()(batch, View(sure)).item() == pytest.approx(0, abs=1e-5)
    wrong = DomainLabel(dice=0.0)(batch, View(-sure)).item()
    weights = (1 / 3 + 1 / 3 + 2 / 3) / 3  # classes 0, 0, 1: the share of the other class
    assert wrong == pytest.approx(weights * 5.298317, abs=1e-5)


def agreement(domain: torch.Tensor | None, labelled: list[bool]) -> tuple[Distillation, Batch]:
    """A step of the agreement alone, on a sample for each of `labelled`."""
    torch.manual_seed(0)
    net = Distillation({"student": Tapped(Conv3d(1, 3, 1))}, {}, {"a": Link(DomainAgreement())})
    image, label = torch.randn(len(labelled), 1, 2, 3, 4), torch.arange(3).repeat(len(labelled), 8)
    label = label.reshape(-1, 2, 3, 4)
    return net, Batch(image, label, domain, labelled=torch.tensor(labelled))


def test_where_one_domain_only_is_labelled_the_agreement_is_zero_not_refused():
    for labelled in ([True, False], [False, True], [False, False]):
        net, batch = agreement(torch.tensor([0, 1]), labelled)
        losses = net(batch)
        losses["total"].backward()
        assert losses["a"].item() == 0
        assert all(w.grad is not None and not w.grad.any() for w in net.parameters())
    net, batch = agreement(torch.tensor([0, 0, 1, 1]), [True, False, False, True])
    alone = net(
        batch._replace(
            image=batch.image[[0, 3]],
            label=batch.label[[0, 3]],
            domain=torch.tensor([0, 1]),
            labelled=None,
        )
    )
    assert net(batch)["a"].item() == pytest.approx(alone["a"].item()) != 0


def test_no_loss_is_zero_even_where_the_sum_of_half_precision_logits_is_not_finite():
    net, batch = agreement(torch.tensor([0, 1]), [True, False])
    logits = torch.full((2, 3, 2, 3, 4), 6e4, dtype=torch.float16, requires_grad=True)
    loss = net.losses(batch, {"student": View(logits)})["a"]
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


@pytest.mark.parametrize("domain", [None, torch.tensor([1, 1])])
def test_a_batch_of_one_domain_is_refused_whatever_is_labelled(domain):
    net, batch = agreement(domain, [True, False])
    with pytest.raises(ValueError, match="needs samples of two in every batch"):
        net(batch)
