"""Compiled meta-gradients: the same updates as without a compiler, and a clear word where they cannot be had."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from metarl.fewshot.compiled import CompiledObjective
from metarl.fewshot.gradient_learner import GradientLearner
from metarl.fewshot.methods.anil import ANILConfig
from metarl.fewshot.methods.maml import MAMLConfig
from metarl.fewshot.methods.maml_plus_plus import MAMLPlusPlusConfig
from metarl.fewshot.methods.meta_sgd import MetaSGDConfig
from metarl.fewshot.methods.t_net import TNetConfig
from metarl.fewshot.problem import Regression
from metarl.fewshot.regression import Sinusoid

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's own, when its compiler is imported
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
CONFIGS: dict[str, Any] = {
    "maml": MAMLConfig(hidden_sizes=(5,), num_inner_steps=2),
    "first_order": MAMLConfig(hidden_sizes=(5,), first_order=True, activation="tanh"),
    "meta_sgd": MetaSGDConfig(hidden_sizes=(5,)),
    "maml_plus_plus": MAMLPlusPlusConfig(hidden_sizes=(5,), num_inner_steps=2, first_order_share=0.1),
}


def learner_of(config: Any, *, compiled: bool) -> GradientLearner:
    generator = torch.Generator().manual_seed(0)
    learner = replace(config, compiled=compiled).make_learner(Regression(1, 1), num_iterations=20, generator=generator)
    assert isinstance(learner, GradientLearner)
    return learner


def check_same_updates(config: Any) -> None:
    """Three updates with and without a compiler; MAML++ changes from first to second order, and weights, on the way."""
    generator = torch.Generator().manual_seed(1)
    plain, compiled = learner_of(config, compiled=False), learner_of(config, compiled=True)
    for _ in range(3):
        episode = Sinusoid().episode(4, "train", generator=generator)
        expected, found = plain.update(episode, generator), compiled.update(episode, generator)
        assert found == pytest.approx(expected, rel=1e-4)
    for ours, theirs in zip(plain.adaptation.parameters(), compiled.adaptation.parameters(), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_whole_update_is_traced_in_one_graph_and_equals_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *a, **settings: compile_with(*a, **settings, backend="aot_eager"))
    check_same_updates(CONFIGS["meta_sgd"])


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_compiled_code_computes_the_same_update(name: str) -> None:
    check_same_updates(CONFIGS[name])


@pytest.mark.parametrize(
    "config",
    [ANILConfig(), MAMLConfig(batching="vmap"), MAMLConfig(activation="silu"), TNetConfig()],
    ids=["head", "vmap", "silu", "t_net"],
)
def test_what_cannot_be_traced_is_refused_at_the_start(config: Any) -> None:
    with pytest.raises(ValueError, match="compiled is True; must be False unless all parameters"):
        learner_of(config, compiled=True)


def test_a_missing_compiler_is_named_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config as settings

    monkeypatch.setattr(settings.cpp, "cxx", ("/there/is/none",))
    with pytest.raises(ValueError, match="compiled is True; torch finds no C\\+\\+ compiler"):
        CompiledObjective(torch.nn.Linear(1, 1), lambda: (torch.zeros(()), torch.zeros(())))
