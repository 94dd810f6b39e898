"""Settings that cannot work are refused in one line when they are made, before anything is allocated or trained."""

from typing import Any

import pytest

from agents.maml import MAMLTRPOConfig
from agents.pearl import PEARLConfig
from agents.rl2 import RL2Config
from envs.torch_families.bandits import BernoulliBandit
from envs.torch_families.navigation import PointNavigation
from experiments.experiment.definition import Experiment
from experiments.experiment.overrides import with_overrides
from metarl import memory
from metarl.adaptation.recurrent import RecurrentConfig
from metarl.errors import UserError
from metarl.fewshot.methods.maml import MAMLConfig
from metarl.fewshot.methods.neural_processes import CNPConfig
from metarl.fewshot.methods.reptile import ReptileConfig
from metarl.fewshot.regression import Sinusoid
from metarl.trainer import TrainConfig

SHORT = TrainConfig(num_iterations=2, num_tasks=2, num_points=1, eval_tasks=2)
FEW = Sinusoid(shots=2, queries=3)
EXPERIMENTS: dict[str, Experiment[Any, Any]] = {
    "maml": Experiment(FEW, MAMLConfig(), SHORT),
    "reptile": Experiment(FEW, ReptileConfig(inner_batch=5), SHORT),
    "cnp": Experiment(FEW, CNPConfig(), SHORT),
    "rl2": Experiment(BernoulliBandit(), RL2Config(hidden_size=4), SHORT),
    "maml_trpo": Experiment(PointNavigation(), MAMLTRPOConfig(), SHORT),
    "pearl": Experiment(PointNavigation(horizon=2), PEARLConfig(), SHORT),
}


@pytest.fixture(autouse=True)
def _small_machine(monkeypatch):
    """A machine of one gigabyte: what is refused does not depend on where the tests run."""
    monkeypatch.setattr(memory, "machine_gigabytes", lambda: 1.0)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("reptile", {"agent.inner_batch": 4}, "inner_batch is 4; must divide the 5 examples of a task's episode"),
        ("reptile", {"family.queries": 4}, "inner_batch is 5; must divide the 6 examples of a task's episode"),
        ("reptile", {"agent.test_batch": 3}, "test_batch is 3; must divide the"),
        ("cnp", {"agent.latent_size": -1}, "latent_size is -1; must be at least 1"),
        ("maml", {"agent.inner_lr": 1e300}, r"inner_lr is 1e\+300; must be between"),
        ("maml", {"agent.inner_lr": 1e-300}, "inner_lr is 1e-300; must be between"),
        ("maml_trpo", {"agent.min_std": -0.0}, "min_std is -0.0; must be positive and finite"),
        ("maml_trpo", {"agent.min_std": 0.0}, "min_std is 0.0; must be positive and finite"),
        ("maml_trpo", {"agent.num_inner_steps": 10**9}, "num_inner_steps is 1000000000; must be at most 1,000,000"),
        ("maml_trpo", {"family.horizon": 10**9}, "an iteration of .* steps in point_navigation would need .* GB"),
        ("rl2", {"train.num_tasks": 2**31 - 1}, "would need .* GB of memory; this machine has 1"),
        ("pearl", {"agent.initial_episodes": 10**9}, "would need .* GB of memory; this machine has 1"),
        ("maml", {"family.shots": 2**31 - 1}, "would need .* GB of memory; this machine has 1"),
        ("maml", {"family.shots": 10**400}, r"shots is 10\^400 or so; must be at most 2,147,483,647"),
        ("maml", {"train.num_iterations": 10**400}, r"num_iterations is 10\^400 or so; must be at most"),
        ("rl2", {"agent.hidden_size": 10**6}, "hidden_size is 1000000; must be at most 16,384"),
        ("maml", {"seed": 2**63}, "seed is 9223372036854775808; must be at most"),
    ],
)
def test_what_cannot_work_is_refused(name, overrides, message):
    with pytest.raises(UserError, match=message):
        with_overrides(EXPERIMENTS[name], overrides).trainer()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MAMLConfig(activation="gelu"), "activation is 'gelu'; must be one of"),  # type: ignore[arg-type]
        (lambda: RL2Config(activation="gelu"), "activation is 'gelu'; must be one of"),  # type: ignore[arg-type]
        (lambda: PEARLConfig(aggregation="sum"), "aggregation is 'sum'; must be one of"),  # type: ignore[arg-type]
        (lambda: RecurrentConfig("rnn"), "cell is 'rnn'; must be one of gru, lstm"),  # type: ignore[arg-type]
    ],
)
def test_choices_made_in_python_are_checked_as_those_of_command_lines_are(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_settings_that_are_nested_without_end_are_refused():
    deep: Any = 1
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(UserError, match=r"agent\.hidden_sizes is a value that is nested too deeply"):
        with_overrides(EXPERIMENTS["maml"], {"agent.hidden_sizes": deep})
    with pytest.raises(UserError, match="is not a field"):
        with_overrides(EXPERIMENTS["maml"], {".".join(["agent"] * 5000): 1})
