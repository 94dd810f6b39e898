"""Update rules with a memory, nets made from other parameters, and a head alone: against loops, in float64."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from metarl.adaptation.gradient import GradientAdaptation, Params, parameters_of, supervised_loss
from metarl.adaptation.head import HeadAdaptation
from metarl.adaptation.step_sizes import FixedStepSizes
from metarl.adaptation.update_rules import RuleAdaptation
from metarl.fewshot.episode import FewShotEpisode
from metarl.fewshot.learned_rule import log_and_sign
from metarl.fewshot.methods.learned_optimizer import LearnedOptimizer, LearnedOptimizerConfig
from metarl.fewshot.methods.meta_learner_lstm import MetaLearnerLSTM, MetaLearnerLSTMConfig
from metarl.fewshot.methods.reptile import AdamWithoutMomentum, ReptileConfig
from metarl.fewshot.methods.reptile_lora import LowRank, ReptileLoRAConfig
from metarl.fewshot.methods.t_net import GatedDescent, TNetConfig, Transformed
from metarl.fewshot.problem import Classification, cross_entropies
from metarl.nets.conv import ConvConfig, ImageClassifier
from metarl.records import Examples
from tests.metarl.fewshot.patterns import Patterns

NUM_TASKS, CLASSES = 3, 2
CONV = ConvConfig(filters=3, num_blocks=2, downsampling="stride", output="mean")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stirred(module: nn.Module) -> Any:
    """In float64, with every parameter moved off where it begins."""
    module.double()
    generator = seeded(5)
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module


def classifier() -> ImageClassifier:
    return ImageClassifier(CONV, (1, 8, 8), CLASSES, generator=seeded())


def examples(seed: int, size: int = 4) -> Examples:
    x = torch.randn(NUM_TASKS, size, 1, 8, 8, generator=seeded(seed), dtype=torch.float64)
    return Examples(x, torch.arange(size).expand(NUM_TASKS, -1) % CLASSES)


SUPPORT, QUERY = examples(1), examples(2, 6)
RULES: dict[str, Any] = {
    "adam": lambda net: AdamWithoutMomentum(dict(net.named_parameters()), 0.05),
    "learned_optimizer": lambda net: LearnedOptimizer(4, 0.1, generator=seeded(1)),
    "meta_learner_lstm": lambda net: MetaLearnerLSTM(4, 0.2, 0.9, generator=seeded(1)),
    "gates": lambda net: GatedDescent(dict(net.named_parameters()), 0.3),
}
rules = pytest.mark.parametrize("rule", RULES)


def ruled(rule: str, net: nn.Module | None = None, **settings: Any) -> RuleAdaptation:
    net = classifier() if net is None else net
    settings = {"num_steps": 3, "first_order": True, "batching": "vmap"} | settings
    gradients = GradientAdaptation(net, supervised_loss(net, cross_entropies), FixedStepSizes(1.0), **settings)
    return stirred(RuleAdaptation(gradients, RULES[rule](net)))


def query_loss(adaptation: GradientAdaptation | RuleAdaptation, state: Any) -> Tensor:
    if isinstance(adaptation, RuleAdaptation):
        return adaptation.gradients.losses(state.params, QUERY).mean()
    return adaptation.losses(state, QUERY).mean()


def meta_gradient(adaptation: Any) -> list[Tensor]:
    """Zeros for what has no part in it, such as gates that are not tossed."""
    state = adaptation.adapt(adaptation.prior(NUM_TASKS), SUPPORT)
    loss = query_loss(adaptation, state)
    return list(torch.autograd.grad(loss, list(adaptation.parameters()), allow_unused=True, materialize_grads=True))


@rules
def test_the_laws_of_adaptation_hold(rule):
    """Old states stay as they were, tasks do not mix, and the order of the examples means nothing."""
    adaptation = ruled(rule)
    with torch.no_grad():
        state = adaptation.adapt(adaptation.prior(NUM_TASKS), SUPPORT, 1)
        before = [leaf.clone() for leaf in tree_leaves(state)]
        adapted = adaptation.adapt(state, SUPPORT, 2)
        for old, new in zip(before, tree_leaves(state), strict=True):
            assert torch.equal(old, new)
        predicted = adaptation.predict(adapted, QUERY.x)
        alone = adaptation.adapt(adaptation.prior(1), SUPPORT[1:2], 3)
        torch.testing.assert_close(adaptation.predict(alone, QUERY.x[1:2]), predicted[1:2])
        turned = adaptation.adapt(state, SUPPORT.map(lambda value: value.flip(1)), 2)
        torch.testing.assert_close(adaptation.predict(turned, QUERY.x), predicted)


def test_adam_without_momentum_is_torchs_and_hands_on_what_it_remembers():
    """One task, five steps, handed on after two: as one optimizer that goes on."""
    value = torch.randn(3, generator=seeded(), dtype=torch.float64)
    slopes = torch.randn(5, 3, generator=seeded(1), dtype=torch.float64)
    theirs = nn.Parameter(value.clone())
    adam = torch.optim.Adam([theirs], lr=0.1, betas=(0.0, 0.999))
    rule = AdamWithoutMomentum({"w": value}, 0.1)
    params, memory = {"w": value[None]}, rule.start({"w": value[None]}, None)
    for step, slope in enumerate(slopes):
        theirs.grad = slope
        adam.step()
        params, memory = rule(params, {"w": slope[None]}, None, memory)
        if step == 1:
            rule.hand_on(memory)
            memory = rule.start(params, None)
        torch.testing.assert_close(params["w"][0], theirs.detach())


def test_what_adam_hands_on_is_the_mean_over_tasks_and_is_saved():
    rule = AdamWithoutMomentum({"w": torch.zeros(2)}, 0.1)
    slopes = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    _, memory = rule({"w": torch.zeros(2, 2)}, {"w": slopes}, None, rule.start({"w": torch.zeros(2, 2)}, None))
    rule.hand_on(memory)
    again = AdamWithoutMomentum({"w": torch.zeros(2)}, 0.1)
    again.load_state_dict(rule.state_dict())
    begun = again.start({"w": torch.zeros(3, 2)}, None)
    assert begun["count"].tolist() == [1.0] * 3
    torch.testing.assert_close(begun["square"]["w"], 0.001 * torch.tensor([5.0, 2.0]).expand(3, 2))


@pytest.mark.parametrize(("rule", "first_order"), [(r, f) for r in RULES for f in (True, False) if f or r != "adam"])
def test_meta_gradients_are_the_same_however_tasks_are_batched(rule, first_order):
    by_vmap, looped = (ruled(rule, batching=batching, first_order=first_order) for batching in ("vmap", "loop"))
    for one, other in zip(meta_gradient(by_vmap), meta_gradient(looped), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("rule", ["learned_optimizer", "meta_learner_lstm", "gates"])
def test_second_order_meta_gradients_equal_finite_differences(rule):
    adaptation = ruled(rule, first_order=False, num_steps=2)
    parameters = list(adaptation.parameters())
    direction = [torch.randn(p.shape, generator=seeded(3), dtype=p.dtype) for p in parameters]
    along = sum(float((g * d).sum()) for g, d in zip(meta_gradient(adaptation), direction, strict=True))
    values = []
    for side in (1e-7, -2e-7):
        for p, d in zip(parameters, direction, strict=True):
            p.data += side * d
        state = adaptation.adapt(adaptation.prior(NUM_TASKS), SUPPORT)
        values.append(float(query_loss(adaptation, state).detach()))
    assert along == pytest.approx((values[0] - values[1]) / 2e-7, rel=1e-3)


def gradient_at(net: nn.Module, params: Params, task: int) -> tuple[Params, Tensor]:
    """Of one task, by autograd alone; as numbers, through which nothing flows."""
    own = {name: value.detach().requires_grad_() for name, value in params.items()}
    loss = cross_entropies(functional_call(net, own, (SUPPORT.x[task],)), SUPPORT.y[task]).mean()
    return dict(zip(own, torch.autograd.grad(loss, list(own.values())), strict=True)), loss.detach()


def test_adam_without_momentum_is_torchs():
    adaptation = ruled("adam")
    state = adaptation.adapt(adaptation.prior(NUM_TASKS), SUPPORT)
    for task in range(NUM_TASKS):
        own = {name: value.detach().clone().requires_grad_() for name, value in adaptation.net.named_parameters()}
        optimizer = torch.optim.Adam(own.values(), lr=0.05, betas=(0.0, 0.999))
        for _ in range(3):
            gradient, _ = gradient_at(adaptation.net, own, task)
            for name, value in own.items():
                value.grad = gradient[name]
            optimizer.step()
        torch.testing.assert_close({name: value[task].detach() for name, value in state.params.items()}, own)


def lstm(cell: Any, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One step for one number, from the equations."""
    i, f, g, o = cell.net(torch.cat([x, h])).chunk(4)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def test_learned_rules_equal_a_loop_over_tasks_and_numbers():
    """Of some numbers of the net, step after step; the meta-gradient too."""
    for name in ("learned_optimizer", "meta_learner_lstm"):
        adaptation = ruled(name)
        rule: Any = adaptation.rule
        path = adaptation.path(adaptation.prior(NUM_TASKS), SUPPORT)
        key, at = "body.blocks.0.conv.weight", (1, 0, 2, 1)
        number = adaptation.net.get_parameter(key)[at]
        memory = [torch.zeros(4, dtype=torch.float64)] * 4
        gates = list(getattr(rule, "starting", ()))
        for before, after in itertools.pairwise(path):
            gradient, loss = gradient_at(adaptation.net, {k: v[2] for k, v in before.params.items()}, 2)
            if name == "learned_optimizer":
                memory[0], memory[1] = lstm(rule.first, log_and_sign(gradient[key][at]), *memory[:2])
                memory[2], memory[3] = lstm(rule.second, memory[0], *memory[2:])
                number = number + 0.1 * rule.head(memory[2])[0]
            else:
                read = torch.cat([log_and_sign(gradient[key][at]), log_and_sign(loss)])
                memory[0], memory[1] = lstm(rule.reader, read, *memory[:2])
                for index, gate in enumerate(rule.gates):
                    last = torch.as_tensor(gates[index], dtype=torch.float64)
                    gates[index] = gate(torch.cat([memory[0], number[None], last[None]]))[0].sigmoid()
                number = gates[1] * number - gates[0] * gradient[key][at]
            torch.testing.assert_close(after.params[key][2][at], number)
        parameters = list(adaptation.parameters())
        found = [
            torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
            for value in (path[-1].params[key][2][at], number)
        ]
        torch.testing.assert_close(*found)


def test_numbers_are_told_as_a_logarithm_and_a_sign():
    value = torch.tensor([1.0, -(torch.e**-5), torch.e**-11, 0.0])
    expected = torch.tensor([[0.0, 1.0], [-0.5, -1.0], [-1.0, torch.e**-1], [-1.0, 0.0]])
    torch.testing.assert_close(log_and_sign(value), expected)


def test_a_shut_gate_keeps_its_unit_and_an_open_one_is_gradient_descent():
    adaptation = ruled("gates", num_steps=1)
    rule: Any = adaptation.rule
    for logits in rule.logits.values():
        logits.data[:] = torch.where(torch.arange(len(logits)) == 0, -1.0, 1.0)
    start = adaptation.prior(NUM_TASKS)
    reached = adaptation.adapt(start, SUPPORT)
    gradient = adaptation.gradients.gradient(start.params, SUPPORT)
    for name, value in reached.params.items():
        assert torch.equal(value[:, 0], start.params[name][:, 0])
        torch.testing.assert_close(value[:, 1:], start.params[name][:, 1:] - 0.3 * gradient[name][:, 1:])


def test_gates_are_tossed_for_each_task_and_learned():
    adaptation = ruled("gates", num_steps=1)
    states = [adaptation.prior(400, seeded(seed)) for seed in (0, 0, 1)]
    tossed = [state.memory["gates"]["head.weight"].flatten(1) for state in states]
    assert torch.equal(tossed[0], tossed[1])
    assert not torch.equal(tossed[0], tossed[2])
    assert set(tossed[0].unique().tolist()) == {0.0, 1.0}
    rule: Any = adaptation.rule
    share = rule.logits["head/weight"].sigmoid()
    torch.testing.assert_close(tossed[0].mean(0), share, atol=0.06, rtol=0)
    state = adaptation.adapt(adaptation.prior(NUM_TASKS, seeded()), SUPPORT)
    loss = query_loss(adaptation, state)
    slopes = torch.autograd.grad(loss, list(rule.logits.values()))
    assert all(bool(slope.abs().sum() > 0) for slope in slopes)


def test_a_transformed_net_is_the_net_and_then_a_map_after_each_layer():
    inner = classifier().double()
    net: Any = Transformed(inner)
    torch.testing.assert_close(net(SUPPORT.x[0]), inner(SUPPORT.x[0]))
    after: Tensor = net.maps["head/weight"]
    after.data = torch.randn(CLASSES, CLASSES, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(net(SUPPORT.x[0]), inner(SUPPORT.x[0]) @ after.mT)
    first: Any = inner.body.blocks[0]
    maps = net.maps["body/blocks/0/conv/weight"]
    maps.data += 0.3 * torch.randn(3, 3, generator=seeded(2), dtype=torch.float64)
    effective = net.effective()
    expected = torch.einsum("oi,kihw->kohw", maps, first.conv(SUPPORT.x[0]))
    weight, bias = (effective[f"body.blocks.0.conv.{part}"] for part in ("weight", "bias"))
    torch.testing.assert_close(nn.functional.conv2d(SUPPORT.x[0], weight, bias, stride=2, padding=1), expected)


@pytest.mark.parametrize("kind", ["transformed", "low_rank"])
def test_meta_gradients_through_made_parameters_equal_finite_differences(kind):
    net: Any = Transformed(classifier()) if kind == "transformed" else LowRank(classifier(), 2, generator=seeded(4))
    adapted = net.plain if kind == "transformed" else net.small
    stirred(net)
    settings: dict[str, Any] = {"num_steps": 2, "adapted": adapted, "batching": "vmap"}
    adaptation = GradientAdaptation(net, supervised_loss(net, cross_entropies), FixedStepSizes(0.3), **settings)
    start = adaptation.prior(NUM_TASKS)
    reached = adaptation.adapt(start, SUPPORT)
    for name, value in reached.items():
        assert torch.equal(value, start[name]) == (name not in adapted), name
    parameters = list(net.parameters())
    direction = [torch.randn(p.shape, generator=seeded(3), dtype=p.dtype) for p in parameters]
    along = sum(float((g * d).sum()) for g, d in zip(meta_gradient(adaptation), direction, strict=True))
    values = []
    for side in (1e-7, -2e-7):
        for p, d in zip(parameters, direction, strict=True):
            p.data += side * d
        state = adaptation.adapt(adaptation.prior(NUM_TASKS), SUPPORT)
        values.append(float(query_loss(adaptation, state).detach()))
    assert along == pytest.approx((values[0] - values[1]) / 2e-7, rel=1e-3)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_a_head_on_features_adapts_as_the_head_of_the_whole_net(first_order, batching):
    net = stirred(classifier())
    settings: dict[str, Any] = {"num_steps": 3, "first_order": first_order, "batching": batching}
    head = HeadAdaptation(net, cross_entropies, FixedStepSizes(0.4), **settings)
    whole = GradientAdaptation(
        net, supervised_loss(net, cross_entropies), FixedStepSizes(0.4), adapted=parameters_of(net, "head"), **settings
    )
    paths = [a.path(a.prior(NUM_TASKS), SUPPORT) for a in (head, whole)]
    torch.testing.assert_close(paths[0], paths[1])
    torch.testing.assert_close(meta_gradient(head), meta_gradient(whole))
    assert [name for name, _ in head.named_parameters()] == [name for name, _ in whole.named_parameters()]


def episode(queries: int = 5) -> FewShotEpisode:
    return Patterns(queries=queries).episode(NUM_TASKS, "train", generator=seeded())


PROBLEM = Classification((1, 8, 8), 3)


def test_adapters_and_matrices_together_move_by_a_share_of_the_mean_way():
    """What the net multiplies with goes half of the mean way, whatever part of it the adapters and matrices take."""
    config = ReptileLoRAConfig(conv=CONV, inner_optimizer="adam", inner_lr=0.02, inner_batch=9, outer_lr=0.5)
    learner = config.make_learner(PROBLEM, num_iterations=100, generator=seeded())
    learner.update(episode(), seeded())  # so that neither adapter is zero
    net: Any = learner.adaptation.net
    share = 0.5 * (1 - 1 / 100)
    start = {name: value.clone() for name, value in net.effective().items()}
    state = learner.adaptation.prior(NUM_TASKS)
    data = [Examples(x, y) for x, y in zip(*(both(part) for part in ("x", "y")), strict=True)]
    with torch.no_grad():
        for batch in data:
            state = learner.adaptation.adapt(state, batch, 1)
        reached = {
            name: start[name]
            - net.product(dict(net.named_parameters()), name)
            + net.product(state.params, name).mean(0)
            for name in net.matrices
        }
    learner.update(episode(), seeded())
    for name in net.matrices:
        torch.testing.assert_close(net.effective()[name], torch.lerp(start[name], reached[name], share))


def both(part: str) -> tuple[Tensor, ...]:
    data = episode()
    return torch.cat([getattr(data.support, part), getattr(data.query, part)], 1).split(9, 1)


def test_without_transduction_each_query_is_answered_beside_the_support_alone():
    config = ReptileConfig(conv=CONV, inner_batch=6, transduction=False)
    learner = config.make_learner(PROBLEM, num_iterations=2, generator=seeded())
    asked = episode()
    answers = learner.predictions(asked, 2)
    few = replace(asked, query=asked.query.map(lambda value: value[:, 4:7]))
    torch.testing.assert_close(learner.predictions(few, 2), answers[:, :, 4:7])
    assert learner.facts["normalised"] == "each query with the support"
    together = replace(config, transduction=True).make_learner(PROBLEM, num_iterations=2, generator=seeded())
    assert not torch.allclose(together.predictions(few, 2), together.predictions(asked, 2)[:, :, 4:7])
    beside = together.adaptation.predict(
        together.adaptation.prior(NUM_TASKS), torch.cat([asked.support.x, asked.query.x[:, :1]], 1)
    )
    torch.testing.assert_close(answers[0][:, :1], beside[:, -1:])
    assert "normalised" not in together.facts
    apart = replace(config, conv=replace(CONV, normalisation="tasknorm"))
    assert "normalised" not in apart.make_learner(PROBLEM, num_iterations=2, generator=seeded()).facts


def test_mini_batches_of_meta_test_take_turns():
    two_shots = Patterns(shots=2).episode(NUM_TASKS, "test", generator=seeded())
    config = ReptileConfig(conv=CONV, inner_optimizer="adam", test_batch=3)
    learner = config.make_learner(PROBLEM, num_iterations=2, generator=seeded())
    curve = learner.predictions(two_shots, 3)
    with torch.no_grad():
        state = learner.adaptation.prior(NUM_TASKS)
        for part in (slice(0, 3), slice(3, 6), slice(0, 3)):
            state = learner.adaptation.adapt(state, two_shots.support.map(lambda value: value[:, part]), 1)  # noqa: B023
        torch.testing.assert_close(curve[3], learner.adaptation.predict(state, two_shots.query.x))
    with pytest.raises(ValueError, match="test_batch is 4; must divide the 6 examples of a support set"):
        replace(config, test_batch=4).make_learner(PROBLEM, num_iterations=2, generator=seeded()).predictions(
            two_shots, 1
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ReptileConfig(test_batch=0), "test_batch is 0; must be at least 1"),
        (lambda: ReptileConfig(outer_lr=-1), "outer_lr is -1; must be positive"),
        (lambda: ReptileLoRAConfig(rank=0), "rank is 0; must be at least 1"),
        (lambda: ReptileLoRAConfig(batching="batched"), "batching is 'batched'; must be 'vmap', 'chunks' or 'loop'"),
        (lambda: TNetConfig(num_inner_steps=0), "num_inner_steps is 0; must be at least 1"),
        (lambda: LearnedOptimizerConfig(scale=0), "scale is 0; must be positive"),
        (lambda: LearnedOptimizerConfig(hidden_size=0), "hidden_size is 0; must be at least 1"),
        (
            lambda: MetaLearnerLSTMConfig(keep=1).make_learner(PROBLEM, num_iterations=1, generator=seeded()),
            "keep is 1; must be between 0 and 1",
        ),
    ],
)
def test_a_wrong_setting_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
