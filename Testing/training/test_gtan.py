"""The GTAN reconstruction: the moving target by hand, and the growing assistant from end to end."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch

from DistillSegLib.distill.distillation import Distillation, Link
from DistillSegLib.distill.growth import widths
from DistillSegLib.distill.gtan import MovingTarget
from DistillSegLib.distill.response import PredictionMaps
from DistillSegLib.distill.supervised import LabelLoss
from DistillSegLib.distill.views import Batch, Tapped, View
from DistillSegLib.errors import RecipeError
from DistillSegLib.networks import NetworkConfig, build_network
from DistillSegLib.networks.unet import UNet
from DistillSegLib.training import checkpoints
from DistillSegLib.training.fit import make_optimizer
from DistillSegLib.training.recipe import LinkConfig, OptimConfig, Recipe, Stage, load_recipe
from DistillSegLib.training.stages import Event, run
from DistillSegLib.training.start import begin, ended, give_moments, moments_by_name
from Testing.datasets import write_decathlon
from Testing.training.small_recipes import EVERYWHERE, SMALL


def at(progress: float) -> Batch:
    image = torch.randn((2, 1, 8, 8, 8), generator=torch.Generator().manual_seed(0))
    return Batch(image, (image[:, 0] > 0.5).long(), progress=progress)


def voxel(*logits: float, gradient: bool = False) -> View:
    """(1, K, 1, 1, 1)"""
    return View(torch.tensor(logits).reshape(1, -1, 1, 1, 1).requires_grad_(gradient))


# The moving target


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.0, 0.0), (0.35, 0.220491), (0.7, 0.673378), (0.9, 0.673378)]
)
@pytest.mark.parametrize("rise", ["linear", "cosine"])
def test_the_moving_target_at_one_voxel(progress, expected, rise):
    loss = MovingTarget(2.0, 0.7, rise)(at(progress), voxel(1.0, 0.0), voxel(3.0, -1.0))
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("rise", "quarter"), [("linear", 0.25), ("cosine", 0.1464466)]
)  # (1 - cos(pi / 4)) / 2
def test_the_target_is_with_the_teacher_when_the_time_is_over(rise, quarter):
    term = MovingTarget(until=0.8, rise=rise)
    assert [term.share(p) for p in (0.0, 0.4, 0.8, 1.0)] == pytest.approx([0.0, 0.5, 1.0, 1.0])
    assert term.share(0.2) == pytest.approx(quarter)
    assert MovingTarget(until=0.0).share(0.0) == 1.0


def test_no_gradient_comes_through_the_moving_target():
    """By hand: dL/ds = T * (softmax(s / T) - softmax(a / T)), a held fixed."""
    student = voxel(1.0, 0.0, gradient=True)
    MovingTarget(2.0)(at(0.35), student, voxel(3.0, -1.0)).backward()
    ours, target = 1 / (1 + math.exp(-0.5)), 0.777300
    by_hand = 2.0 * (ours - target)
    found = student.logits.grad.flatten().tolist()
    assert found == pytest.approx([by_hand, -by_hand], abs=1e-5)


def test_the_moving_target_computes_in_32_bits_whatever_it_is_given():
    view = View(torch.randn(1, 3, 4, 4, 4).bfloat16())
    assert MovingTarget()(at(0.3), view, view).dtype == torch.float32


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("until", 1.5),
        ("until", math.nan),
        ("temperature", 0.0),
        ("temperature", math.nan),
        ("temperature", math.inf),
    ],
)
def test_a_target_that_cannot_move_is_refused(setting, value):
    with pytest.raises(ValueError, match=f"{setting} is {value}; use a"):
        MovingTarget(**{setting: value})


# Assistant and student together


def together(assistant: UNet, student: UNet, teacher: UNet) -> Distillation:
    links = {
        "assistant_label": Link(LabelLoss(), student="assistant"),
        "assistant_maps": Link(PredictionMaps(), 1.0, "assistant", "teacher"),
        "label": Link(LabelLoss()),
        "lesson": Link(PredictionMaps(), 1.0, "student", "assistant"),
    }
    trained = {"student": Tapped(student), "assistant": Tapped(assistant)}
    return Distillation(trained, {"teacher": Tapped(teacher)}, links)


def test_assistant_and_student_learn_each_from_their_own_links():
    torch.manual_seed(0)
    nets = [UNet(1, 2, width) for width in ((4, 6), (3, 4), (5, 8))]
    step = together(*nets)
    losses = step(at(0.0))
    for role, own in (("assistant", "assistant_"), ("student", "")):
        weights = list(step.trained[role].parameters())
        links = (f"{own}label", f"{own}maps" if own else "lesson")
        alone = torch.autograd.grad(sum(losses[n] for n in links), weights, retain_graph=True)
        whole = torch.autograd.grad(losses["total"], weights, retain_graph=True)
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(alone, whole, strict=True))
        others = [losses[name] for name in step.links if name not in links]
        found = torch.autograd.grad(sum(others), weights, retain_graph=True, allow_unused=True)
        assert found == (None,) * len(weights)


def test_an_assistant_that_starts_as_the_student_has_nothing_to_teach_at_first():
    torch.manual_seed(0)
    assistant, student, teacher = (UNet(1, 2, (3, 4)) for _ in range(3))
    assistant.load_state_dict(student.state_dict(), strict=True)
    step = together(assistant, student, teacher)
    for mode in (False, True):
        losses = step.train(mode)(at(0.0))
        assert losses["lesson"].item() == 0.0
        assert losses["assistant_maps"].item() > 1e-4


# From end to end


ARMS = ("none", "direct", "chain", "moving", "growing")  # of the study


class Killed(Exception):
    pass


def small(name: str, *overrides: str) -> Recipe:
    return load_recipe(name, [*EVERYWHERE, *SMALL[name].overrides, *overrides])


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_decathlon(tmp_path_factory.mktemp("data"))


def one_epoch(recipe: str) -> list[str]:
    return [f"stages.{stage.name}.epochs=1" for stage in load_recipe(recipe).stages]


GROWN = [*one_epoch("gtan"), "stages.assistant-3.epochs=2"]


@pytest.fixture(scope="module")
def grown(data, tmp_path_factory) -> tuple[Path, list[Event], str]:
    """A short run of the recipe `gtan`, and the digest of its teacher when that was written."""
    out, events, digests = tmp_path_factory.mktemp("runs") / "grown", [], []

    def watch(event: Event) -> None:
        events.append(event)
        if (event.kind, event.stage) == ("trained", "teacher"):
            content = (out / "teacher/teacher.pt").read_bytes()
            digests.append(hashlib.sha256(content).hexdigest())

    run(small("gtan", *GROWN), {"": data}, out, on_event=watch)
    return out, events, digests[0]


def test_the_recipe_s_stages_have_the_sizes_of_the_reconstruction():
    stages = load_recipe("gtan").stages
    sizes = {}
    for stage in stages:
        for role, config in stage.trained.items():
            net = UNet(1, 2, tuple(config.settings["width"]))
            sizes.setdefault(role, []).append(sum(w.numel() for w in net.parameters()))
    assert sizes["teacher"] == [1_241_372]
    assert set(sizes["student"]) == {34_772}
    assert sizes["assistant"] == [34_772, 112_160, 353_618, 794_810]
    epochs = [stage.epochs for stage in stages if "student" in stage.trained]
    assert epochs[-1] >= 0.3 * sum(epochs)


def test_the_assistant_grows_from_stage_to_stage_and_the_student_goes_on(grown):
    out, events, _ = grown
    stages = [stage for stage in small("gtan").stages if "assistant" in stage.trained]
    for stage in stages:
        net, _ = checkpoints.load_network(out / stage.name / "assistant.pt")
        assert widths(net) == stage.trained["assistant"].settings["width"]
    rehearsed = next(e.text for e in events if (e.kind, e.stage) == ("rehearsal", stages[0].name))
    lesson = next(row.split() for row in rehearsed.splitlines() if row.startswith("lesson"))
    assert float(lesson[1]) == 0.0  # both start as the student


def test_moments_are_kept_where_a_later_stage_starts_from_them_and_nowhere_else(grown):
    recipe = small("gtan")
    names = {start for stage in recipe.stages for start in stage.start.values()}
    assert len(names) == 7
    for stage in recipe.stages:
        for role in stage.trained:
            found = checkpoints.load(grown[0] / stage.name / f"{role}.pt")
            assert ("moments" in found) == (f"{stage.name}/{role}" in names)


def test_moments_go_on_through_every_stage_and_growth(grown):
    """Adam's count of steps: 3 in each epoch so far (6 cases in pairs), for both roles."""
    for stage, epochs in {"assistant-1": 2, "assistant-2": 3, "assistant-3": 5}.items():
        for role in ("student", "assistant"):
            net, moments = ended(str(grown[0] / stage / f"{role}.pt"), {})
            for name, weight in net.named_parameters():
                assert moments[name]["step"].item() == 3 * epochs
                assert moments[name]["exp_avg"].shape == weight.shape


def starting(name: str, config: NetworkConfig) -> Stage:
    links = {"label": LinkConfig("label")}
    return Stage("next", 1, {"student": config}, links, start={"student": name})


def test_an_optimiser_remembers_each_role_s_weights_by_name():
    torch.manual_seed(0)
    step = together(*(UNet(1, 2, (3, 4)) for _ in range(3)))
    optimizer = make_optimizer(step, OptimConfig())
    step(at(0.0))["total"].backward()
    optimizer.step()
    student, assistant = (step.trained[role].net for role in ("student", "assistant"))
    known = moments_by_name(optimizer, student)
    other = UNet(1, 2, (3, 4))
    again = torch.optim.AdamW(list(other.parameters())[::-1])  # in another order
    assert moments_by_name(again, other) == {}
    give_moments(again, other, known)
    for name, weight in student.named_parameters():
        kept = again.state[other.get_parameter(name)]
        assert torch.allclose(kept["exp_avg"], weight.grad * 0.1)  # after one step, by hand
        assert kept["exp_avg"] is not known[name]["exp_avg"]
    assert moments_by_name(optimizer, assistant).keys() == known.keys()


def test_another_kind_of_optimiser_begins_without_memory():
    net = UNet(1, 2, (3, 4))
    moments = {name: {"momentum_buffer": torch.ones_like(w)} for name, w in net.named_parameters()}
    adam, sgd = torch.optim.AdamW(net.parameters()), torch.optim.SGD(net.parameters(), momentum=0.9)
    for optimizer in (adam, sgd):
        give_moments(optimizer, net, moments)
    assert not adam.state
    assert all(torch.equal(sgd.state[w]["momentum_buffer"], torch.ones_like(w)) for w in sgd.state)
    assert len(sgd.state) == len(moments)


def test_a_unet_grows_from_what_it_starts_from_and_other_networks_do_not():
    source = UNet(1, 2, (3, 4)).eval()
    config = NetworkConfig("unet", {"width": [5, 9]})
    target = Tapped(build_network(config, 1, 2).eval())
    begin(starting("a/b", config), {"student": target}, lambda _name: (source, {}), seed=0)
    image = at(0.0).image
    assert torch.allclose(target.net(image), source(image), atol=1e-6)
    others = {}
    for seed in (0, 0, 1):  # growth follows the recipe's seed
        other = Tapped(build_network(config, 1, 2))
        begin(starting("a/b", config), {"student": other}, lambda _name: (source, {}), seed)
        others.setdefault(seed, []).append(other.net.encoder[1][0][0].weight)
    assert torch.equal(*others[0]) and not torch.equal(others[0][0], others[1][0])
    config = NetworkConfig("unet", {"width": [5, 9]}, nested="by value")
    target = Tapped(build_network(config, 1, 3))
    with pytest.raises(RecipeError, match="may grow, without domains or nested regions"):
        begin(starting("a/b", config), {"student": target}, lambda _name: (source, {}), seed=0)
    config = NetworkConfig("fast_unet", {"width": [4, 4]})
    target = Tapped(build_network(config, 1, 2))
    with pytest.raises(
        RecipeError, match="'student' cannot start from 'a/b': its weights are those"
    ):
        begin(starting("a/b", config), {"student": target}, lambda _name: (source, {}), seed=0)


def test_a_growing_run_that_is_killed_goes_on_to_the_same_weights(grown, tmp_path):
    recipe, out = small("gtan", *GROWN), tmp_path / "run"

    def watch(event: Event) -> None:
        if (event.kind, event.stage) == ("epoch", "assistant-3"):  # grown, half-way through
            raise Killed

    with pytest.raises(Killed):
        run(recipe, {"": grown[0] / "cache"}, out, on_event=watch)
    run(recipe, {"": grown[0] / "cache"}, out, resume=True)
    for role in ("student", "assistant"):
        ours, theirs = (
            checkpoints.load(folder / recipe.stages[-1].name / f"{role}.pt")["weights"]
            for folder in (out, grown[0])
        )
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_teacher_is_bitwise_the_same_after_every_step_and_after_the_run(grown):
    out, _, digest = grown
    teacher = out / "teacher/teacher.pt"
    assert hashlib.sha256(teacher.read_bytes()).hexdigest() == digest  # as its own stage left it
    weights = checkpoints.load(teacher)["weights"]
    torch.manual_seed(0)
    student, assistant = UNet(1, 3, (3, 4)), UNet(1, 3, (3, 4))
    step = together(assistant, student, checkpoints.load_network(teacher)[0])
    step.rehearse(at(0.0))
    optimizer = make_optimizer(step, OptimConfig(learning_rate=1e-2, weight_decay=0.1))
    step.train()
    for progress in (0.0, 0.5, 1.0):
        optimizer.zero_grad()
        step(at(progress))["total"].backward()
        optimizer.step()
    after = step.frozen["teacher"].net.state_dict()
    assert all(torch.equal(weights[name], after[name]) for name in weights)
    assert not any(weight.requires_grad for weight in step.frozen.parameters())


def test_all_arms_of_the_study_have_the_same_budget():
    stages = {stage.name: stage for stage in load_recipe("gtan-study").stages}

    def epochs(name: str) -> int:
        """Of a stage's student and all that it goes on from."""
        before = stages[name].start.get("student")
        return stages[name].epochs + (epochs(before.partition("/")[0]) if before else 0)

    budgets = {arm: epochs(arm) for arm in ARMS}
    budgets["chain"] += stages["chain-assistant"].epochs
    assert set(budgets.values()) == {500}
    assert all(stages[arm].trained["student"].settings["width"] == [5, 10, 20] for arm in ARMS)
    weights = {link.weight for stage in stages.values() for link in stage.links.values()}
    assert weights == {1.0}


def test_a_study_compares_all_arms_in_one_run(data, tmp_path):
    recipe = small("gtan-study", *one_epoch("gtan-study"))
    run(recipe, {"": data}, tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())["stages"]
    assert len({summary[arm]["parameters"]["student"] for arm in ARMS}) == 1
    for arm in ARMS:
        assert set(summary[arm]["held_out_dice"]["student"]) == {"Ball", "Tail"}
