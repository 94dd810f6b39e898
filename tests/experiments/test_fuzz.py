"""Configurations and command lines of every kind work or are refused in one line; none hangs or ends in a traceback."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from agents.maml import MAMLTRPOConfig
from agents.pearl import PEARLConfig
from agents.promp import ProMPConfig
from agents.rl2 import RL2Config
from envs.torch_families.bandits import BernoulliBandit
from envs.torch_families.gridworld import GridNavi
from envs.torch_families.navigation import PointNavigation
from experiments.cli.arguments import parse
from experiments.experiment.definition import Experiment, argument_type
from experiments.experiment.overrides import with_overrides
from metarl import memory
from metarl.adaptation.snail import SnailConfig
from metarl.adaptation.transformer import TransformerConfig
from metarl.errors import UserError
from metarl.fewshot.methods.anil import ANILConfig
from metarl.fewshot.methods.imaml import IMAMLConfig
from metarl.fewshot.methods.learned_optimizer import LearnedOptimizerConfig
from metarl.fewshot.methods.lstm import LSTMConfig
from metarl.fewshot.methods.maml import MAMLConfig
from metarl.fewshot.methods.maml_plus_plus import MAMLPlusPlusConfig
from metarl.fewshot.methods.mann import MANNConfig
from metarl.fewshot.methods.meta_learner_lstm import MetaLearnerLSTMConfig
from metarl.fewshot.methods.neural_processes import CNPConfig, NPConfig
from metarl.fewshot.methods.reptile import ReptileConfig
from metarl.fewshot.methods.snail import SnailLearnerConfig
from metarl.fewshot.methods.t_net import TNetConfig
from metarl.fewshot.methods.transformer import TransformerLearnerConfig
from metarl.fewshot.regression import Harmonic, Sinusoid
from metarl.trainer import TrainConfig

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")


@pytest.fixture(scope="module", autouse=True)
def _small_machine():
    """A machine of one gigabyte: what is refused does not depend on where the tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "machine_gigabytes", lambda: 1.0)
        yield


SHORT = TrainConfig(num_iterations=2, num_tasks=2, num_points=1, eval_tasks=2)
FEW = Sinusoid(shots=2, queries=3)
TINY: dict[str, Any] = {"hidden_sizes": (4,)}
PEARL = PEARLConfig(
    **TINY,
    encoder_sizes=(4,),
    num_train_tasks=2,
    initial_episodes=1,
    prior_episodes=1,
    extra_episodes=1,
    num_gradient_steps=1,
    meta_batch=2,
    batch=4,
    context=4,
    capacity=50,
)
EXPERIMENTS: list[Experiment[Any, Any]] = [
    Experiment(FEW, MAMLConfig(**TINY), SHORT),
    Experiment(FEW, ANILConfig(**TINY), SHORT),
    Experiment(FEW, IMAMLConfig(**TINY, num_inner_steps=2), SHORT),
    Experiment(FEW, MAMLPlusPlusConfig(**TINY), SHORT),
    Experiment(FEW, TNetConfig(**TINY, gated=True), SHORT),
    Experiment(FEW, ReptileConfig(**TINY, inner_batch=5), SHORT),
    Experiment(FEW, LearnedOptimizerConfig(**TINY, hidden_size=2, num_inner_steps=1), SHORT),
    Experiment(FEW, MetaLearnerLSTMConfig(**TINY, hidden_size=2, num_inner_steps=1), SHORT),
    Experiment(Harmonic(shots=2, queries=3), CNPConfig(**TINY, latent_size=3), SHORT),
    Experiment(FEW, NPConfig(**TINY, latent_size=3), SHORT),
    Experiment(FEW, LSTMConfig(**TINY, hidden_size=4), SHORT),
    Experiment(FEW, MANNConfig(**TINY, hidden_size=4), SHORT),
    Experiment(FEW, SnailLearnerConfig(**TINY, snail=SnailConfig((4,), (4,), (4,), length=3)), SHORT),
    Experiment(FEW, TransformerLearnerConfig(**TINY, width=8), SHORT),
    Experiment(BernoulliBandit(num_pulls=2), RL2Config(hidden_size=4), SHORT),
    Experiment(GridNavi(size=3, horizon=2), RL2Config(hidden_size=8, memory=TransformerConfig()), SHORT),
    Experiment(PointNavigation(horizon=2), MAMLTRPOConfig(**TINY, num_rollouts=2, num_cg_steps=2), SHORT),
    Experiment(PointNavigation(horizon=2), ProMPConfig(**TINY, num_rollouts=2), SHORT),
    Experiment(PointNavigation(horizon=2), PEARL, SHORT),
]
WHOLE = [-(10**12), -1, 0, 1, 2, 3, 2**31, 10**12, 10**400]
REAL = [-math.inf, -1.0, -0.0, 0.0, 1e-300, 1e-40, 0.5, 1.0, 1e30, 1e300, math.inf, math.nan]
WORDS = ["", "-1", "1e400", "nan", "None", "True", "[1", "é\u0000", "--", "1,2", "9" * 5000, "((((", "maml"]


def settings_of(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """The dotted name and value of every number, switch, text and tuple of numbers in nested settings."""
    for field in fields(value):
        inner, name = getattr(value, field.name), f"{where}.{field.name}"
        if is_dataclass(inner):
            yield from settings_of(inner, name)
        elif field.init and isinstance(inner, (bool, int, float, str, tuple)):
            yield name, inner


def other_values(value: Any) -> list[Any]:
    """Values to try in place of one: of its own kind, extreme, or of no meaning."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, tuple):
        return [[], [WHOLE[0]], [0], [1], [10**12], [1, 1], *([number, number] for number in REAL)]
    if isinstance(value, str):
        return ["none", ""]
    return [*WHOLE, *REAL]


CHANGES = [
    (number, name, other)
    for number, experiment in enumerate(EXPERIMENTS)
    for part in ("family", "agent", "train")
    for name, value in settings_of(getattr(experiment, part), part)
    if name != "agent.compiled"  # half a minute of a C++ compiler; tests/metarl/fewshot/test_compiled.py has it
    for other in other_values(value)
]


def tried(number: int, overrides: dict[str, Any]) -> None:
    """Train for an iteration and evaluate, as far as the settings are taken."""
    try:
        trainer = with_overrides(EXPERIMENTS[number], overrides).trainer()
    except UserError:
        return
    with contextlib.suppress(FloatingPointError):  # one line on the command line; what was saved before stays
        trainer.iterate()
        trainer.evaluate()


@hypothesis.settings(derandomize=True, deadline=None, max_examples=100, database=None)
@hypothesis.given(st.sampled_from(CHANGES))
def test_a_changed_setting_works_or_is_refused(change):
    number, name, value = change
    tried(number, {name: value})


@hypothesis.settings(derandomize=True, deadline=None, max_examples=25, database=None)
@hypothesis.given(st.integers(0, len(EXPERIMENTS) - 1), st.data())
def test_command_lines_are_taken_or_refused_in_one_line(number, data):
    experiment = EXPERIMENTS[number]
    names = [name for part in ("family", "agent", "train") for name, _ in settings_of(getattr(experiment, part), part)]
    words = []
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from([*names, "agent", "seed", "agent.agent", "train.num_task", ""]))
        words += [f"--{name.replace('_', '-')}", *data.draw(st.lists(st.sampled_from(WORDS), max_size=2))]
    with contextlib.suppress(UserError):
        parse(argument_type(experiment), words, prog="metarl train recipe", default=experiment)
