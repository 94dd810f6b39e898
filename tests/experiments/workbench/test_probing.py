"""Probes: numbers where the answer is known, exact knowledge by hand, the states of every learner, the command."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import metarl
from agents.maml import MAMLTRPOConfig
from agents.pearl import PEARLConfig
from agents.promp import ProMPConfig
from agents.rl2 import RL2Config
from agents.rl2_sac import RL2SACConfig
from agents.varibad import VariBADConfig
from envs.torch_families.bandits import BernoulliBandit
from envs.torch_families.gridworld import GridNavi
from envs.torch_families.navigation import PointNavigation
from experiments.experiment.definition import Experiment
from experiments.workbench.insight.known import known_of
from experiments.workbench.insight.pictures import attention, distances, scatter
from experiments.workbench.insight.probes import probe, ridge
from experiments.workbench.insight.probing import probe_states, target_of
from experiments.workbench.insight.states import TaskStates, task_states
from metarl._lazy import imported
from metarl.adaptation.attention import KeysValues, attend, attention_weights
from metarl.adaptation.snail import SnailConfig
from metarl.adaptation.transformer import TransformerConfig
from metarl.errors import UserError
from metarl.fewshot.catalog import LEARNERS
from metarl.fewshot.regression import Sinusoid
from metarl.records import Decision, Trajectory
from metarl.trainer import TrainConfig
from tests.experiments.command import run as command

GRID = Experiment(
    GridNavi(size=3, horizon=4, num_episodes=2),
    RL2Config(hidden_size=4, head_sizes=(), num_epochs=1),
    TrainConfig(num_iterations=1, num_tasks=2, eval_tasks=2),
)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator(), dtype=torch.float64)


def test_ridge_halves_the_slope_where_the_penalty_equals_the_variance():
    x = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    predicted = ridge(x, torch.tensor([[1.0], [3.0]], dtype=torch.float64), torch.tensor([[5.0]]).double(), penalty=1.0)
    assert predicted.item() == pytest.approx(2 + 5 / 2)  # the mean is 2, and the slope 1 / (1 + 1)


@pytest.mark.parametrize("size", [5, 300])
def test_a_probe_reads_numbers_that_the_state_holds_and_its_control_does_not(size):
    x = normal(400, size)
    found = probe(x, x[:, :2] @ torch.tensor([[2.0, 1.0], [0.0, 3.0]]).double(), 300, generator())
    assert found.score.mean > (0.99 if size == 5 else 0.5)
    assert found.control.mean < 0.1


def test_a_probe_reads_classes_that_the_state_holds_and_its_control_does_not():
    y = torch.arange(300) % 3
    x = torch.nn.functional.one_hot(y, 3).double() + 0.1 * normal(300, 3)
    found = probe(x, y, 150, generator())
    assert found.score.mean == 1
    assert found.score.ci95 == (1, 1)


def test_a_state_that_does_not_vary_tells_nothing():
    found = probe(torch.ones(100, 4).double(), normal(100, 1), 50, generator())
    assert found.score.mean < 0.05
    assert probe(torch.ones(100, 4).double(), torch.arange(100) % 4, 50, generator()).score.mean <= 0.3


def test_a_parameter_is_told_apart_by_value_or_predicted_as_a_number():
    numbers = torch.linspace(0, 1, 50)
    half_fixed = torch.stack([numbers, torch.zeros(50)], 1)
    classes, number, one_of_two = (target_of(one) for one in (torch.tensor([-1.0, 1, 1]), numbers, half_fixed))
    assert classes is not None
    assert number is not None
    assert one_of_two is not None
    assert classes.tolist() == [0, 1, 1]
    assert number.shape == one_of_two.shape == (50, 1)
    assert target_of(torch.ones(50)) is None


def trajectory_of(next_obs: Tensor, action: Tensor, reward: Tensor, episode_end: Tensor) -> Trajectory:
    start = torch.cat([torch.ones_like(episode_end[:1]), episode_end[:-1]])
    no = torch.zeros_like(episode_end)
    valid = torch.ones_like(episode_end)
    return Trajectory(next_obs, Decision(action), reward, next_obs, no, episode_end, start, no, valid)


def test_what_can_be_known_of_a_goal_is_the_posterior_where_episodes_end():
    family = GridNavi(size=3, horizon=2, num_episodes=2)
    seen = family.cell_observations()[torch.tensor([1, 2, 1, 4])].unsqueeze(1)
    end = torch.tensor([False, True, False, True]).unsqueeze(1)
    known = known_of(family, trajectory_of(seen, torch.zeros(4, 1).long(), torch.full((4, 1), -0.1), end))["goal"]
    assert known.right()[:, 0].tolist() == pytest.approx([1 / 5, 1 / 4, 1 / 4])


def test_what_can_be_known_of_an_arm_is_its_posterior_mean_after_each_pull():
    family = BernoulliBandit(num_arms=2, num_pulls=2)
    ends = torch.ones(2, 1, dtype=torch.bool)
    action, reward = torch.tensor([[0], [1]]), torch.tensor([[1.0], [0.0]])
    known = known_of(family, trajectory_of(torch.zeros(2, 1, 1), action, reward, ends))["mean"]
    assert known.mean is not None
    assert known.mean[:, 0].tolist() == [pytest.approx(row) for row in ([1 / 2, 1 / 2], [2 / 3, 1 / 2], [2 / 3, 1 / 3])]


SMALL: dict[str, Any] = {"hidden_sizes": (8,)}
AGENTS: dict[str, Any] = {
    "rl2": RL2Config(hidden_size=4, head_sizes=()),
    "rl2_snail": RL2Config(hidden_size=4, head_sizes=(), memory=SnailConfig((2,), (2,), (2,), length=4)),
    "rl2_transformer": RL2Config(hidden_size=8, head_sizes=(), memory=TransformerConfig(num_heads=2)),
    "rl2_sac": RL2SACConfig(hidden_size=4, head_sizes=(8,), buffer_trials=10),
    "varibad": VariBADConfig(hidden_size=4, embedding_size=4, buffer_trials=10),
    "pearl": PEARLConfig(**SMALL, encoder_sizes=(8,)),
    "maml_trpo": MAMLTRPOConfig(**SMALL, num_rollouts=2),
    "promp": ProMPConfig(**SMALL, num_rollouts=2),
}


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_shows_a_vector_for_each_task_and_exchanges_states(name):
    family = replace(PointNavigation(), horizon=3)
    trainer = Experiment(family, AGENTS[name], TrainConfig(num_iterations=1, num_tasks=2)).trainer()
    agent: Any = trainer.agent
    states = task_states(trainer, "test", 6, 2, seed=0)
    assert states.vectors.shape[:2] == (3, 6)
    assert len(states.vectors[-1].unique(dim=0)) == 6
    with torch.no_grad():
        state = agent.prior(3, 2 if name in ("pearl", "maml_trpo", "promp") else 1)
        vectors = agent.state_vectors(state)
        exchanged = agent.states_of(state, torch.tensor([2, 0, 2, 1]))
    assert agent.state_vectors(exchanged).equal(vectors[[2, 0, 2, 1]])


@pytest.mark.parametrize("name", ["maml", "reptile", "cnp", "np", "transformer", "learned_optimizer", "lstm"])
def test_learners_of_functions_show_a_vector_for_each_task_and_point(name):
    config = imported(LEARNERS[name])()
    trainer = Experiment(
        Sinusoid(shots=4, queries=6), config, TrainConfig(num_iterations=1, num_tasks=2, num_points=3)
    ).trainer()
    states = task_states(trainer, "test", 5, 3, seed=0)
    assert states.vectors.shape[:2] == (4, 5)
    assert len(states.vectors[0].unique(dim=0)) == 1
    assert len(states.vectors[3].unique(dim=0)) == 5
    assert set(states.parameters) == {"amplitude", "phase"}


@pytest.mark.parametrize("name", ["rl2_snail", "rl2_transformer", "rl2"])
def test_attention_is_a_mean_over_past_steps_as_each_episode_begins(name):
    trainer = Experiment(replace(PointNavigation(), horizon=3), AGENTS[name], TrainConfig(1, 2)).trainer()
    weights = task_states(trainer, "test", 4, 2, seed=0).attention
    if name == "rl2":
        assert weights is None
        return
    assert weights is not None
    assert [len(row) for row in weights] == [1, 4, 7]
    assert [sum(row) for row in weights] == pytest.approx([1, 1, 1], abs=1e-5)
    assert attention(weights, "episode")[:4] == b"\x89PNG"


def test_attention_weights_are_those_with_which_items_are_read():
    """Each value is a unit vector of its own, so what is read is the weights."""
    query, keys, values = torch.randn(1, 1, 1, 3), torch.randn(1, 1, 4, 3), torch.eye(4).view(1, 1, 4, 4)
    past, new = (KeysValues(keys[:, :, part], values[:, :, part]) for part in (slice(3), slice(3, 4)))
    read, _ = attend(query, new, past, alone=False)
    torch.testing.assert_close(attention_weights(query, new, past), read[:, :, 0])


def states_of_goals() -> TaskStates:
    goals = torch.arange(60) % 3
    told = torch.nn.functional.one_hot(goals, 3).double() + 0.01 * normal(60, 3)
    return TaskStates("episode", torch.stack([torch.zeros(60, 3).double(), told]), {"goal": goals.float()}, None, {})


def test_probes_of_states_say_what_is_known_before_and_after():
    (goal,) = probe_states(states_of_goals(), [0, 1], seed=0).probes
    assert goal.measure == "accuracy"
    assert goal.points[0].score.mean == pytest.approx(1 / 3, abs=0.1)
    assert goal.points[1].score.mean == 1


def test_too_few_tasks_are_refused():
    states = replace(states_of_goals(), vectors=states_of_goals().vectors[:, :10])
    with pytest.raises(UserError, match="--tasks is 10; must be at least 20"):
        probe_states(states, [0, 1], seed=0)


def test_pictures_of_states_are_pngs_and_distances_follow_the_parameter():
    numbers = torch.rand(40, generator=generator())
    vectors = torch.stack([torch.zeros(40, 1), numbers[:, None]]).double()
    states = TaskStates("episode", vectors, {"velocity": numbers}, None, {})
    png, correlation = distances(states, 1)
    assert correlation == pytest.approx(1)
    assert png[:4] == scatter(states, [0, 1])[:4] == b"\x89PNG"


def test_the_command_prints_saves_and_refuses(tmp_path, capsys):
    metarl.train(GRID, run_dir=tmp_path / "run", log=(), progress=False)
    where = str(tmp_path / "run")
    status, output, _ = command(capsys, "probe", where, "--tasks", "40")
    assert status == 0
    assert "goal (5 values)" in output
    saved = json.loads((tmp_path / "run" / "probe_test_40x2_i1_s0.json").read_text())
    assert saved["probes"][0]["points"][0]["known"]["mean"] == pytest.approx(0.2)
    assert (tmp_path / "run" / "probe_test_40x2_i1_s0_states.png").is_file()
    printed = json.loads(command(capsys, "probe", where, "--tasks", "40", "--json")[1])
    assert printed == saved
    status, _, errors = command(capsys, "probe", where, "--tasks", "12")
    assert (status, errors) == (2, "metarl: --tasks is 12; must be at least 20: half of them are held out\n")


def test_states_before_any_data_of_different_tasks_are_told_apart_only_by_what_is_seen():
    trainer = GRID.trainer()
    states = task_states(trainer, "test", 8, 2, seed=0)
    assert len(states.vectors[0].unique(dim=0)) == 1
