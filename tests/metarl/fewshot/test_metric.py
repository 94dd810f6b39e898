"""Learners that absorb labelled images: the laws of adaptation on Examples for each, and their heads by hand."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from metarl.fewshot.methods.film import FilmConfig
from metarl.fewshot.methods.gaussian_prototypes import GaussianPrototypesConfig
from metarl.fewshot.methods.hypernetwork import HypernetworkConfig
from metarl.fewshot.methods.laplace import LaplaceConfig
from metarl.fewshot.methods.matching import FullContexts, MatchingAdaptation, MatchingConfig
from metarl.fewshot.methods.meta_opt_net import MetaOptNetConfig
from metarl.fewshot.methods.prototypical import PrototypeAdaptation, PrototypicalConfig
from metarl.fewshot.methods.relation import Relation, RelationAdaptation, RelationConfig
from metarl.fewshot.methods.siamese import SiameseAdaptation, SiameseConfig
from metarl.fewshot.methods.versa import VersaConfig
from metarl.fewshot.problem import Classification
from metarl.nets.conv import ConvConfig, ConvNet
from metarl.records import Examples
from tests.metarl.fewshot.patterns import identity

FLAT = ConvConfig(filters=4, num_blocks=1, normalisation="running")
MAPS = replace(FLAT, output="maps")
PROBLEM = Classification((1, 8, 8), ways=3)

CONFIGS: dict[str, Any] = {
    "prototypical": PrototypicalConfig(conv=FLAT),
    "prototypical_cosine": PrototypicalConfig(conv=FLAT, distance="cosine"),
    "matching": MatchingConfig(conv=FLAT),
    "matching_in_context": MatchingConfig(conv=FLAT, context_steps=3),
    "relation": RelationConfig(conv=MAPS),
    "relation_of_means": RelationConfig(conv=MAPS, pooling="mean"),
    "siamese": SiameseConfig(conv=FLAT, feature_size=8),
    "siamese_of_means": SiameseConfig(conv=FLAT, feature_size=8, similarity="mean"),
    "ridge": MetaOptNetConfig(conv=FLAT, head="ridge"),
    "svm": MetaOptNetConfig(conv=FLAT, head="svm", num_steps=500),
    "film": FilmConfig(conv=FLAT, code_size=3, encoder_blocks=1, hidden_size=5),
    "hypernetwork": HypernetworkConfig(conv=FLAT, code_size=3, hidden_size=5),
    "versa": VersaConfig(conv=FLAT, hidden_size=5),
    "versa_of_means": VersaConfig(conv=FLAT, hidden_size=5, num_points=0),
    "gaussian_prototypes": GaussianPrototypesConfig(conv=FLAT),
    "laplace": LaplaceConfig(conv=FLAT, num_steps=15),
    "laplace_of_means": LaplaceConfig(conv=FLAT, num_steps=15, num_points=0),
}
ORDERED = ("matching_in_context",)  # whose state is a sequence
everything = pytest.mark.parametrize("name", CONFIGS)
unordered = pytest.mark.parametrize("name", [name for name in CONFIGS if name not in ORDERED])


@cache
def learned(name: str) -> Any:
    """An adaptation in float64 as it is at meta-test, a little away from where it starts."""
    generator = torch.Generator().manual_seed(0)
    adaptation = CONFIGS[name].make_learner(PROBLEM, num_iterations=1, generator=generator).adaptation.double().eval()
    for parameter in adaptation.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return adaptation


def images(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, 1, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def support() -> Examples:
    """Two shots of three classes in four tasks."""
    return Examples(images(4, 6), torch.tensor([0, 2, 1, 1, 0, 2]).expand(4, -1))


QUERY = images(4, 5, seed=2)


def of_items(data: Examples, index: Any) -> Examples:
    return data.map(lambda value: value[:, index])


def absorbed(adaptation: Any, data: Iterable[Examples]) -> Any:
    parts = list(data)
    state = adaptation.prior(len(parts[0]))
    for part in parts:
        state = adaptation.adapt(state, part)
    return state


def predicted(adaptation: Any, *parts: Examples, x: Tensor = QUERY) -> Tensor:
    """Log-probabilities of the classes."""
    return adaptation.predict(absorbed(adaptation, parts), x).log_softmax(-1)


@everything
def test_tasks_do_not_leak_into_each_other(name):
    together = predicted(learned(name), support())
    for task in range(4):
        alone = predicted(learned(name), support()[task : task + 1], x=QUERY[task : task + 1])
        torch.testing.assert_close(alone[0], together[task])


@everything
def test_the_old_state_is_left_as_it_was(name):
    adaptation = learned(name)
    state = absorbed(adaptation, [of_items(support(), slice(3))])
    before = state.map(torch.clone)
    adaptation.predict(adaptation.adapt(state, of_items(support(), slice(3, 6))), QUERY)
    for ours, theirs in zip(tree_leaves(state), tree_leaves(before), strict=True):
        assert torch.equal(ours, theirs)


@everything
def test_absorbing_in_two_parts_is_absorbing_once(name):
    parts = [of_items(support(), slice(2)), of_items(support(), slice(2, 6))]
    torch.testing.assert_close(predicted(learned(name), *parts), predicted(learned(name), support()))


@everything
def test_queries_do_not_see_each_other(name):
    each = [predicted(learned(name), support(), x=query) for query in QUERY.split(1, 1)]
    torch.testing.assert_close(torch.cat(each, 1), predicted(learned(name), support()))


@unordered
def test_the_order_of_the_examples_is_irrelevant(name):
    backwards = of_items(support(), torch.arange(5, -1, -1))
    torch.testing.assert_close(predicted(learned(name), backwards), predicted(learned(name), support()))


@everything
def test_the_numbers_of_classes_are_only_names(name):
    rename = torch.tensor([2, 0, 1])
    renamed = predicted(learned(name), replace(support(), y=rename[support().y]))
    torch.testing.assert_close(renamed[..., rename], predicted(learned(name), support()))


@everything
def test_padding_is_as_if_it_were_not_there(name):
    kept = [0, 2, 3, 5]
    valid = torch.zeros(4, 6, dtype=torch.bool)
    valid[:, kept] = True
    padded = replace(support(), x=support().x.where(valid[..., None, None, None], 7.0), valid=valid)
    torch.testing.assert_close(predicted(learned(name), padded), predicted(learned(name), of_items(support(), kept)))


@everything
def test_tasks_of_one_batch_may_have_different_ways(name):
    """The first has one class only, the others five, which is more than there were when it was made."""
    adaptation = learned(name)
    y = torch.cat([torch.ones(1, 6, dtype=torch.int64), torch.tensor([0, 1, 2, 3, 4, 4]).expand(3, -1)])
    together = predicted(adaptation, replace(support(), y=y))
    assert together.shape == (4, 5, 5)
    assert torch.equal(together[0].exp(), torch.tensor([0.0, 1, 0, 0, 0]).double().expand(5, -1))
    assert torch.isfinite(together[1:]).all()
    alone = predicted(adaptation, replace(support(), y=y)[1:2], x=QUERY[1:2])
    torch.testing.assert_close(alone[0], together[1])


@everything
def test_classes_that_come_later_can_be_predicted_then(name):
    first = of_items(support(), [0, 4])
    state = absorbed(learned(name), [first])
    assert learned(name).predict(state, QUERY).shape[-1] == 1
    more = learned(name).adapt(state, of_items(support(), [1, 2, 3, 5]))
    whole = predicted(learned(name), of_items(support(), [0, 4, 1, 2, 3, 5]))
    torch.testing.assert_close(learned(name).predict(more, QUERY).log_softmax(-1), whole)


@everything
def test_the_gradient_reaches_every_parameter_and_is_that_of_the_loss(name):
    """Along a random change of all parameters, against a difference; one task lacks a class."""
    generator = torch.Generator().manual_seed(0)
    adaptation = learned(name)
    losses = getattr(adaptation, "losses", PROBLEM.losses)
    lacking = replace(support(), y=torch.cat([support().y[:1].clamp(max=1), support().y[1:]]))
    asked = torch.tensor([0, 1, 1, 0, 0]).expand(4, -1)

    def loss(params: dict[str, Tensor]) -> Tensor:
        def after() -> Tensor:
            return losses(adaptation.predict(absorbed(adaptation, [lacking]), QUERY), asked).mean()

        return with_parameters(adaptation, params, after)

    params = {key: value.detach().requires_grad_() for key, value in adaptation.named_parameters()}
    gradients = torch.autograd.grad(loss(params), list(params.values()))
    assert all(bool(gradient.abs().sum() > 0) for gradient in gradients)
    change = [torch.randn(value.shape, generator=generator, dtype=torch.float64) for value in gradients]
    there, back = (
        loss({key: value.detach() + step * by for (key, value), by in zip(params.items(), change, strict=True)})
        for step in (1e-6, -1e-6)
    )
    slope = sum((gradient * by).sum() for gradient, by in zip(gradients, change, strict=True))
    torch.testing.assert_close((there - back) / 2e-6, slope, rtol=1e-4, atol=1e-7)


def with_parameters(module: nn.Module, params: dict[str, Tensor], function: Any) -> Tensor:
    """What a function of no argument returns while a module has other parameters."""
    holder = nn.Module()
    holder.held = module
    holder.forward = lambda: function()
    return torch.func.functional_call(holder, {f"held.{key}": value for key, value in params.items()}, ())


# by hand, on numbers as they are


def test_prototypes_by_hand():
    """Means (1, 0) and (0, 3), at squared distances 1 and 13 from the query (2, 0), at cosines 1 and 0."""
    data = Examples(torch.tensor([[[0.0, 0], [2, 0], [0, 3]]]), torch.tensor([[0, 0, 1]]))
    query = torch.tensor([[[2.0, 0.0]]])
    euclidean, cosine = PrototypeAdaptation(identity(2)), PrototypeAdaptation(identity(2), distance="cosine")
    euclidean.anything = nn.Parameter(torch.zeros(()))
    torch.testing.assert_close(absorbed(euclidean, [data]).means, torch.tensor([[[1.0, 0], [0, 3]]]))
    torch.testing.assert_close(euclidean.predict(absorbed(euclidean, [data]), query), torch.tensor([[[-1.0, -13]]]))
    torch.testing.assert_close(cosine.predict(absorbed(cosine, [data]), query), torch.tensor([[[10.0, 0]]]))


def test_attention_by_hand():
    """Cosines 1, 0 and -1 at a scale of one: shares e, 1 and 1 / e; the first two examples are of one class."""
    adaptation = MatchingAdaptation(identity(2))
    adaptation.log_scale.data.zero_()
    data = Examples(torch.tensor([[[3.0, 0], [0, 1], [-2, 0]]]), torch.tensor([[1, 1, 0]]))
    shares = predicted(adaptation, data, x=torch.tensor([[[1.0, 0]]])).exp()
    whole = torch.e + 1 + 1 / torch.e
    torch.testing.assert_close(shares, torch.tensor([[[1 / torch.e / whole, (torch.e + 1) / whole]]]))


def test_full_contexts_against_a_loop_over_torch_s_own_cells():
    contexts = FullContexts(3, num_steps=2, generator=torch.Generator().manual_seed(0)).double()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 4, 3, generator=generator, dtype=torch.float64)
    query = torch.randn(1, 1, 3, generator=generator, dtype=torch.float64)
    valid = torch.tensor([[True, True, False, True]])
    adaptation = MatchingAdaptation(identity(3), contexts=contexts).double()
    state = absorbed(adaptation, [Examples(x, torch.tensor([[0, 1, 1, 2]]), valid)])
    outputs = {place: x[0, place].clone() for place in (0, 1, 3)}
    for lstm, order in ((contexts.forward_g, (0, 1, 3)), (contexts.backward_g, (3, 1, 0))):
        memory = (torch.zeros(1, 3).double(), torch.zeros(1, 3).double())
        for place in order:
            memory = torch.lstm_cell(x[:, place], memory, *lstm.rnn.all_weights[0])
            outputs[place] += memory[0][0]
    support = contexts.of_support(state)
    torch.testing.assert_close(support[0, [0, 1, 3]], torch.stack(list(outputs.values())))
    keys = torch.stack(list(outputs.values()))
    hidden, cell = torch.zeros(1, 3).double(), torch.zeros(1, 3).double()
    for _ in range(2):
        read = (hidden @ keys.T).softmax(-1) @ keys
        hidden, cell = torch.lstm_cell(torch.cat([query[0], read], -1), (hidden, cell), *contexts.f.rnn.all_weights[0])
        hidden = hidden + query[0]
    torch.testing.assert_close(contexts.of_queries(query, support, valid)[0], hidden)


def test_relations_are_those_of_maps_laid_one_upon_the_other():
    """Against the first block as it is, on every pair."""
    generator = torch.Generator().manual_seed(0)
    config = ConvConfig(filters=3, num_blocks=1, output="maps", normalisation="transductive")
    relation = Relation((2, 4, 4), config, hidden_size=5, generator=generator).double()
    query = torch.randn(1, 3, 2, 4, 4, generator=generator, dtype=torch.float64)
    classes = torch.randn(1, 2, 2, 4, 4, generator=generator, dtype=torch.float64)
    pairs = torch.stack([torch.cat([query[0, q], classes[0, w]]) for q in range(3) for w in range(2)])
    expected = relation.head(relation.second(relation.first(pairs, 0).unsqueeze(0))).view(1, 3, 2)
    torch.testing.assert_close(relation(query, classes), expected)


def test_scores_of_relation_are_judged_by_their_squared_error():
    """Log scores of 0.5, 1 and 0 for a query of the first class: (0.25 + 1 + 0) / 3."""
    config = ConvConfig(filters=3, num_blocks=1, output="maps")
    generator = torch.Generator().manual_seed(0)
    embed = ConvNet(config, (1, 8, 8), generator=generator)
    relation = Relation(embed.map_shape, config, hidden_size=2, generator=generator)
    adaptation = RelationAdaptation(embed, relation, pooling="sum")
    log_scores = torch.tensor([[[0.5, 1.0, 0.0]]]).log().requires_grad_()
    losses = adaptation.losses(log_scores, torch.tensor([[0]]))
    torch.testing.assert_close(losses, torch.tensor([[1.25 / 3]]))
    assert torch.isfinite(torch.autograd.grad(losses.sum(), log_scores)[0]).all()


@pytest.mark.parametrize(("similarity", "expected"), [("best", [-1.0, -2.0]), ("mean", [-2.0, -2.0])])
def test_pairs_by_hand(similarity, expected):
    """Differences of features to a query at zero: 1 and 3 of the first class, 2 of the second; all weigh minus one."""
    adaptation = SiameseAdaptation(identity(1), feature_size=1, similarity=similarity, generator=torch.Generator())
    adaptation.embed = nn.Sequential()
    adaptation.threshold.data.zero_()
    data = Examples(torch.tensor([[[1.0], [3.0], [-2.0]]]), torch.tensor([[0, 0, 1]]))
    log_odds = adaptation.predict(absorbed(adaptation, [data]), torch.zeros(1, 1, 1))
    torch.testing.assert_close(log_odds, torch.tensor([[expected]]))


def test_pairs_are_judged_by_half_of_same_and_half_of_different():
    """Odds of 3 for the right class, 1 for another, 0 for one that was not seen: logarithms of 4 / 3 and of 2."""
    adaptation = SiameseAdaptation(identity(1), feature_size=1, similarity="best", generator=torch.Generator())
    losses = adaptation.losses(torch.tensor([[[3.0, 1.0, 0.0]]]).log(), torch.tensor([[0]]))
    torch.testing.assert_close(losses, (torch.tensor([[4 / 3]]).log() + torch.tensor([[2.0]]).log()) / 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: RelationConfig(hidden_size=0), "hidden_size is 0; must be at least 1"),
        (lambda: SiameseConfig(feature_size=0), "feature_size is 0; must be at least 1"),
        (lambda: MetaOptNetConfig(head="tree"), "head is 'tree'; must be one of svm, ridge"),  # type: ignore[arg-type]
        (lambda: MetaOptNetConfig(cost=0.0), "cost is 0.0; must be positive"),
        (lambda: MatchingConfig(context_steps=-1), "context_steps is -1; must be at least 0"),
        (
            lambda: RelationConfig(conv=FLAT).make_learner(PROBLEM, num_iterations=1, generator=torch.Generator()),
            "output is 'flat'; must be 'maps' for RelationConfig",
        ),
        (
            lambda: MatchingConfig(conv=MAPS).make_learner(PROBLEM, num_iterations=1, generator=torch.Generator()),
            "output is 'maps'; must be 'flat' or 'mean' for MatchingConfig",
        ),
    ],
)
def test_settings_that_do_not_fit_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        settings()
