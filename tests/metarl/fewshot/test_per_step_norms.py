"""MAML++'s normalisation by steps: against a loop with autograd alone, in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from metarl.adaptation.gradient import Params, parameters_of, supervised_loss
from metarl.adaptation.step_sizes import FixedStepSizes
from metarl.fewshot.methods.maml_plus_plus import MAMLPlusPlusConfig, PerStepNormAdaptation, per_step_names
from metarl.fewshot.normalising import in_evaluation
from metarl.fewshot.problem import Classification, cross_entropies
from metarl.nets.conv import ConvConfig, ImageClassifier
from metarl.records import Examples
from tests.metarl.fewshot.patterns import Patterns

NUM_TASKS = 3


def examples(seed: int) -> Examples:
    x = torch.randn(NUM_TASKS, 4, 1, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Examples(x, torch.arange(4).expand(NUM_TASKS, -1) % 2)


SUPPORT, QUERY = examples(1), examples(2)


def adaptation(mode: Any = "transductive", **settings: Any) -> PerStepNormAdaptation:
    generator = torch.Generator().manual_seed(0)
    conv = ConvConfig(filters=3, num_blocks=2, downsampling="stride", output="mean", normalisation=mode)
    net = ImageClassifier(conv, (1, 8, 8), 2, generator=generator)
    adapted = [name for name in parameters_of(net, "all") if name not in per_step_names(net)]
    settings = {"num_steps": 2, "batching": "vmap"} | settings
    made = PerStepNormAdaptation(
        net, supervised_loss(net, cross_entropies), FixedStepSizes(0.4), adapted=adapted, **settings
    ).double()
    for parameter in made.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return made


def looped(learner: PerStepNormAdaptation, task: int, num_steps: int) -> Params:
    params: Params = dict(learner.net.named_parameters())
    names = per_step_names(learner.net)
    own = params
    for step in range(num_steps):
        index = min(step, learner.num_steps - 1)
        chosen = {n: learner.later[n.replace(".", "/")][index - 1] if index else params[n] for n in names}
        own = own | chosen
        loss = cross_entropies(functional_call(learner.net, own, (SUPPORT.x[task],)), SUPPORT.y[task]).mean()
        slopes = torch.autograd.grad(loss, [own[name] for name in learner.adapted], create_graph=True)
        own = own | {n: own[n] - 0.4 * slope for n, slope in zip(learner.adapted, slopes, strict=True)}
    return own


@pytest.mark.parametrize("batching", ["vmap", "loop"])
@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_states_and_meta_gradients_equal_a_loop_over_tasks(batching, num_steps):
    learner = adaptation(batching=batching)
    state = learner.adapt(learner.prior(NUM_TASKS), SUPPORT, num_steps)
    total = torch.zeros((), dtype=torch.float64)
    for task in range(NUM_TASKS):
        own = looped(learner, task, num_steps)
        total = total + cross_entropies(functional_call(learner.net, own, (QUERY.x[task],)), QUERY.y[task]).mean()
    losses = (learner.losses(state, QUERY).mean(), total / NUM_TASKS)
    torch.testing.assert_close(*losses)
    parameters = list(learner.parameters())
    grads = [torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True) for loss in losses]
    torch.testing.assert_close(*grads)


def first_moments(learner: PerStepNormAdaptation, states: list[Params], step: int) -> Tensor:
    """Of the first convolution's outputs, over the tasks' supports and queries: the running mean that is to be."""
    mean = torch.zeros(3, dtype=torch.float64)
    for state, data in ((states[step], SUPPORT), (states[step + 1], QUERY)):
        for task in range(NUM_TASKS):
            weight, bias = (state[f"body.blocks.0.conv.{part}"][task] for part in ("weight", "bias"))
            maps = nn.functional.conv2d(data.x[task], weight, bias, stride=2, padding=1)
            mean = 0.9 * mean + 0.1 * maps.mean((0, 2, 3))
    return mean


def test_each_step_keeps_the_statistics_of_its_own_parameters():
    learner = adaptation("running")
    with torch.no_grad():
        states = learner.path(learner.prior(NUM_TASKS), SUPPORT)
        learner.record(states, SUPPORT, QUERY)
        kept = learner.get_buffer("body/blocks/0/norm/running_mean")
        for step in range(2):
            torch.testing.assert_close(kept[step], first_moments(learner, states, step))
        assert not torch.allclose(kept[0], kept[1])
        with in_evaluation(learner.net):
            path = learner.path(learner.prior(NUM_TASKS), SUPPORT, 3)
            together = learner.predict(path[1], QUERY.x)
            torch.testing.assert_close(learner.predict(path[1], QUERY.x[:, :1]), together[:, :1])  # no transduction
            chosen = [state["body.blocks.0.norm.running_mean"] for state in path]
        for value, step in zip(chosen, (0, 0, 1, 1), strict=True):
            assert torch.equal(value, kept[step])


def test_running_statistics_are_saved_and_decide_predictions():
    conv = ConvConfig(filters=3, num_blocks=2, downsampling="stride", normalisation="running")
    config = MAMLPlusPlusConfig(conv=conv, batching="vmap", num_inner_steps=2)
    makers = [torch.Generator().manual_seed(0) for _ in range(2)]
    one, other = (config.make_learner(Classification((1, 8, 8), 3), num_iterations=9, generator=g) for g in makers)
    episode = Patterns().episode(NUM_TASKS, "train", generator=torch.Generator().manual_seed(1))
    one.update(episode, torch.Generator())
    other.load_state_dict(one.state_dict())
    after = one.predictions(episode, 2)
    assert torch.equal(other.predictions(episode, 2), after)
    adaptation: Any = other.adaptation
    statistics = {name: value for name, value in adaptation.named_buffers() if "running_mean" in name}
    assert statistics
    for value in statistics.values():
        value.add_(0.1)
    assert not torch.allclose(other.predictions(episode, 2), after)


def test_what_each_step_has_of_its_own_does_not_adapt():
    learner = adaptation()
    with pytest.raises(ValueError, match=r"adapted has 'body.blocks.0.norm.weight'; must not include per-step"):
        PerStepNormAdaptation(
            learner.net, learner.loss, learner.step_sizes, num_steps=2, adapted=per_step_names(learner.net)
        )
