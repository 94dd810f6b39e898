"""Meta networks: gradients against autograd, predictions against a loop, and the laws of adaptation, in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from metarl.fewshot.learned_rule import log_and_sign
from metarl.fewshot.methods.meta_networks import FastWeightAdaptation, MetaNetworkConfig
from metarl.records import Examples

SIZE, HIDDEN, WAYS = 4, 5, 3


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def adaptation() -> Any:
    generator = torch.Generator().manual_seed(0)
    nets: list[Any] = [nn.Linear(6, SIZE) for _ in range(2)]
    for net in nets:
        net.output_size = SIZE
    made = FastWeightAdaptation(*nets, hidden_size=HIDDEN, ways=WAYS, scale=0.3, generator=generator).double()
    for seed, parameter in enumerate(made.parameters()):
        parameter.data = 0.6 * random(*parameter.shape, seed=seed)
    return made


META_NET = adaptation()
SUPPORT = Examples(random(2, 4, 6, seed=1), torch.tensor([[0, 1, 2, 0], [2, 1, 0, 0]]))
QUERY = random(2, 3, 6, seed=2)


def predicted(support: Examples = SUPPORT, query: Tensor = QUERY) -> Tensor:
    return META_NET.predict(META_NET.adapt(META_NET.prior(len(query)), support), query)


def test_gradients_are_autograds():
    features = random(2, 4, SIZE, seed=3)
    found = META_NET.gradients(META_NET.hidden, features, SUPPORT.y)
    weights = [META_NET.hidden.weight, META_NET.output.weight]
    for task in range(2):
        for item in range(4):
            logits = META_NET.output(META_NET.hidden(features[task, item]).relu())
            loss = nn.functional.cross_entropy(logits, SUPPORT.y[task, item])
            expected = torch.autograd.grad(loss, weights)
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one[task, item], other)


def test_predictions_and_their_gradients_equal_a_loop_over_tasks_examples_and_queries():
    net = META_NET
    rows = []
    for task in range(2):
        keys, base = net.key_net(SUPPORT.x[task]), net.net(SUPPORT.x[task])
        of_embedding, _ = (g.detach()[0] for g in net.gradients(net.embedding, keys[None], SUPPORT.y[task][None]))
        of_layers = [g.detach()[0] for g in net.gradients(net.hidden, base[None], SUPPORT.y[task][None])]
        fast = 0.3 * torch.stack([net.of_task(log_and_sign(g))[..., 0] for g in of_embedding]).mean(0)

        def embedded(x: Tensor, fast: Tensor = fast) -> Tensor:
            return net.embedding(x).relu() + fast @ x

        written = [[0.3 * net.of_example(log_and_sign(g[item]))[..., 0] for g in of_layers] for item in range(4)]
        for query in QUERY[task]:
            key = embedded(net.key_net(query))
            similarity = [torch.cosine_similarity(key, embedded(keys[item]), 0) for item in range(4)]
            attention = (net.log_scale.exp() * torch.stack(similarity)).softmax(0)
            own = [sum(a * w[layer] for a, w in zip(attention, written, strict=True)) for layer in range(2)]
            feature = net.net(query)
            hidden = net.hidden(feature).relu() + (own[0] @ feature).relu()
            rows.append(net.output(hidden) + own[1] @ hidden)
    expected = torch.stack(rows).view(2, 3, WAYS)
    torch.testing.assert_close(predicted(), expected)
    parameters = list(net.parameters())
    gradients = [torch.autograd.grad(value.square().sum(), parameters) for value in (predicted(), expected)]
    torch.testing.assert_close(*gradients)
    assert all(bool(gradient.abs().sum() > 0) for gradient in gradients[0])


def test_the_laws_of_adaptation_hold():
    """Order means nothing, parts are the whole, padding is nothing, tasks are apart, and old states stay."""
    whole = predicted()
    turned = SUPPORT.map(lambda value: value.flip(1))
    torch.testing.assert_close(predicted(turned), whole)
    first, rest = (SUPPORT.map(lambda value: value[:, part]) for part in (slice(0, 1), slice(1, 4)))  # noqa: B023
    state = META_NET.adapt(META_NET.prior(2), first)
    before = [leaf.clone() for leaf in tree_leaves(state)]
    torch.testing.assert_close(META_NET.predict(META_NET.adapt(state, rest), QUERY), whole)
    for old, new in zip(before, tree_leaves(state), strict=True):
        assert torch.equal(old, new)
    valid = torch.tensor([[True] * 4 + [False]] * 2)
    padding = Examples(random(2, 1, 6, seed=9), torch.ones(2, 1, dtype=torch.int64))
    padded = Examples(torch.cat([SUPPORT.x, padding.x], 1), torch.cat([SUPPORT.y, padding.y], 1), valid)
    torch.testing.assert_close(predicted(padded), whole)
    torch.testing.assert_close(predicted(SUPPORT[1:], QUERY[1:]), whole[1:])


def test_before_any_example_the_slow_net_answers():
    slow = META_NET.output(META_NET.hidden(META_NET.net(QUERY)).relu())
    torch.testing.assert_close(META_NET.predict(META_NET.prior(2), QUERY), slow)


def test_classes_without_examples_are_never_predicted():
    logits = predicted(Examples(SUPPORT.x, SUPPORT.y, SUPPORT.y != 2))
    assert bool(logits[..., 2].isneginf().all())
    assert bool(logits[..., :2].isfinite().all())


def test_what_is_wrong_is_named():
    with pytest.raises(ValueError, match="ways is 4; this learner's net has outputs for 3"):
        META_NET.adapt(META_NET.prior(2), Examples(SUPPORT.x, SUPPORT.y + 1))
    with pytest.raises(ValueError, match="scale is 0; must be positive"):
        MetaNetworkConfig(scale=0)
    with pytest.raises(ValueError, match="hidden_size is 0; must be at least 1"):
        MetaNetworkConfig(hidden_size=0)
