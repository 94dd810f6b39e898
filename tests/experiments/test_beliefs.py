"""Beliefs about a hidden goal: the exact posterior by hand, and an agent's beside it, in numbers and as a picture."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from agents.rl2 import RL2Config
from agents.varibad import VariBAD, VariBADConfig
from envs.locomotion.half_cheetah import HalfCheetahVel
from envs.locomotion.tasks import VelocityTasks
from envs.torch_families.gridworld import GridNavi
from envs.torch_families.navigation import Semicircle
from experiments.cli.belief import draw_beliefs
from experiments.experiment.beliefs import GoalBeliefs, goal_beliefs, velocity_beliefs
from metarl.nets.distributions import DiagonalGaussian
from tests.experiments.command import run

FAMILY = GridNavi(size=3, horizon=3, num_episodes=2)
CONFIG = VariBADConfig(hidden_size=8, embedding_size=8, reward_decoder="one_hot", normalise_obs=False)


def agent(config: VariBADConfig = CONFIG, family: GridNavi = FAMILY) -> VariBAD:
    generator = torch.Generator().manual_seed(0)
    return config.make(family.observation_space, family.action_space, num_iterations=1, generator=generator)


@pytest.mark.parametrize("observation", ["one_hot", "xy"])
def test_the_exact_posterior_rules_out_empty_cells_until_the_goal_is_found(observation):
    """On 3 x 3 cells the goal is in one of five: 2, 5, 6, 7 and 8. Through 1 to 2, then to 5, which is the goal."""
    family = replace(FAMILY, observation=observation)
    seen = family.cell_observations()[torch.tensor([1, 2, 2, 5, 2])].unsqueeze(1)
    reward = torch.tensor([-0.1, -0.1, -0.1, 1.0, -0.1]).unsqueeze(1)
    posterior = family.goal_posterior(seen, reward)[:, 0]
    fifth: dict[int, float] = dict.fromkeys((2, 5, 6, 7, 8), 0.2)
    quarter: dict[int, float] = dict.fromkeys((5, 6, 7, 8), 0.25)
    for row, expected in zip(posterior, [fifth, fifth, quarter, quarter, {5: 1.0}, {5: 1.0}], strict=True):
        assert row.tolist() == pytest.approx([expected.get(cell, 0.0) for cell in range(9)])


def test_a_goal_outside_the_training_range_is_known_once_it_is_found():
    seen = FAMILY.cell_observations()[torch.tensor([1])].unsqueeze(1)
    assert FAMILY.goal_posterior(seen, torch.ones(1, 1))[1, 0].tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0]


def test_the_divergence_is_from_the_exact_to_the_believed_where_an_episode_is_over():
    exact = torch.tensor([[[0.5, 0.5, 0.0]], [[0.5, 0.5, 0.0]], [[0.0, 1.0, 0.0]], [[0.0, 1.0, 0.0]]])
    believed = torch.tensor([[[0.25, 0.25, 0.5]], [[0.5, 0.5, 0.0]], [[0.25, 0.5, 0.25]], [[0.0, 1.0, 0.0]]])
    start = torch.tensor([[True], [False], [True], [False]])
    beliefs = GoalBeliefs(believed, exact, start)
    two = float(np.log(2))
    assert beliefs.divergence()[:, 0].tolist() == pytest.approx([two, 0, two, 0])
    assert beliefs.divergence_by_episode() == pytest.approx([two])


class _Knows:
    """An agent that predicts a reward at cell 8 alone, and acts as another does."""

    def __init__(self, other: VariBAD) -> None:
        self.block, self.prior, self.observe, self.act = None, other.prior, other.observe, other.act

    def predict_reward(self, belief: DiagonalGaussian, obs, action, next_obs, *, num_samples, generator):
        predicted = torch.where(next_obs[:, 8] == 1, 1.0, 1e-20)
        return predicted.expand(num_samples, len(belief.mean), -1)


def test_an_agents_belief_is_its_prediction_normalised_over_possible_goals():
    tasks = FAMILY.sample(4, "test", torch.Generator().manual_seed(0))
    beliefs = goal_beliefs(FAMILY, _Knows(agent()), tasks, 2, generator=torch.Generator().manual_seed(0))
    assert beliefs.believed.shape == beliefs.exact.shape == (6, 4, 9)
    assert torch.equal(beliefs.believed[..., 8], torch.ones(6, 4))
    torch.testing.assert_close(agent_beliefs().believed.sum(-1), torch.ones(6, 4))
    assert not agent_beliefs().believed[..., [0, 1, 3, 4]].any()


def agent_beliefs() -> GoalBeliefs:
    tasks = FAMILY.sample(4, "test", torch.Generator().manual_seed(0))
    return goal_beliefs(FAMILY, agent(), tasks, 2, generator=torch.Generator().manual_seed(0))


def test_a_scalar_prediction_is_in_the_rewards_own_units():
    made = agent(replace(CONFIG, reward_decoder="scalar"))
    cells, stay = FAMILY.cell_observations(), torch.zeros(9, dtype=torch.int64)
    belief = made.prior(2).belief
    predicted = made.predict_reward(belief, cells, stay, cells, num_samples=3, generator=torch.Generator())
    assert predicted.shape == (3, 2, 9)
    made.moments = replace(made.moments, reward=made.moments.reward.of(torch.tensor([0.0, 4.0])))  # deviation 2
    again = made.predict_reward(belief, cells, stay, cells, num_samples=3, generator=torch.Generator())
    torch.testing.assert_close(again, 2 * predicted)


def test_the_picture_has_two_rows_per_episode_and_shows_different_maps():
    picture = draw_beliefs(FAMILY, agent(), 2)
    assert picture is not None
    assert len(picture.distance) == 1
    assert str(picture) == f" (KL from the exact one: {picture.distance[0]:.3f} after episode 1, in nats)"
    with Image.open(io.BytesIO(picture.png)) as image:
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 10
    assert draw_beliefs(FAMILY, agent(), 2) == picture


RUN = HalfCheetahVel(horizon=12)
ROBOT = VariBADConfig(hidden_size=8, embedding_size=8, reward_decoder="scalar")


def robot_agent() -> VariBAD:
    return ROBOT.make(RUN.observation_space, RUN.action_space, num_iterations=1, generator=torch.Generator())


class _KnowsVelocity:
    """An agent that predicts the reward of moving at 1.25 or, in half of the samples, .75 m/s."""

    def __init__(self, other: VariBAD) -> None:
        self.block, self.prior, self.observe, self.act = None, other.prior, other.observe, other.act

    def predict_reward(self, belief: DiagonalGaussian, obs, action, next_obs, *, num_samples, generator):
        asked = torch.where(torch.arange(num_samples) % 2 == 0, 1.25, 0.75)
        predicted = -(next_obs[:, RUN.observed_velocity] - asked[:, None]).abs()
        return predicted[:, None].expand(-1, len(belief.mean), -1)


def test_a_belief_about_a_velocity_is_where_the_highest_reward_is_predicted():
    tasks, generator = VelocityTasks(torch.tensor([1.0, 2.0])), torch.Generator().manual_seed(0)
    beliefs = velocity_beliefs(RUN, _KnowsVelocity(robot_agent()), tasks, 2, every=5, generator=generator)
    assert beliefs.step.tolist() == [0, 5, 10, 12, 15, 20]
    assert beliefs.mean.shape == (6, 2)
    assert beliefs.episode_start[:, 0].tolist() == [True, False, False, True, False, False]
    torch.testing.assert_close(beliefs.mean, torch.ones(6, 2), atol=0.04, rtol=0)
    torch.testing.assert_close(beliefs.deviation, torch.full((6, 2), 0.25), atol=0.04, rtol=0)
    assert beliefs.error_by_episode() == pytest.approx([0.5], abs=0.04)
    assert float(beliefs.own.abs().max()) > 0.05


def test_the_observed_velocity_is_that_by_which_the_robot_moves():
    env = RUN.make_env(1, torch.Generator().manual_seed(0))
    env.reset(VelocityTasks(torch.ones(1)))
    before = env.physics.qpos[0, 0].clone()
    obs = [env.step(torch.ones(1, 6)).obs[0, RUN.observed_velocity] for _ in range(4)]
    moved = (env.physics.qpos[0, 0] - before) / (4 * env.seconds_per_step)
    assert float(torch.stack(obs).mean()) == pytest.approx(float(moved), abs=0.2)
    assert float(moved.abs()) > 0.3


def test_beliefs_about_a_velocity_are_drawn_as_curves():
    picture = draw_beliefs(RUN, robot_agent(), 2)
    assert picture is not None
    error = picture.distance[0]
    assert str(picture) == f" (distance from the velocity asked for: {error:.3f} after episode 1, in m/s)"
    with Image.open(io.BytesIO(picture.png)) as image:
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 10


def test_there_is_no_picture_without_a_reward_model_or_an_exact_posterior():
    made = RL2Config().make(
        FAMILY.observation_space, FAMILY.action_space, num_iterations=1, generator=torch.Generator()
    )
    assert draw_beliefs(FAMILY, made, 2) is None
    assert draw_beliefs(Semicircle(), agent(), 2) is None


RECIPE = """
from agents.varibad import VariBADConfig
from envs.torch_families.gridworld import GridNavi
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=GridNavi(size=3, horizon=3, num_episodes=2),
    agent=VariBADConfig(hidden_size=8, reward_decoder="one_hot", num_vae_steps=1),
    train=TrainConfig(num_iterations=1, num_tasks=4, eval_tasks=4),
)
"""


def test_an_evaluation_draws_the_belief_and_prints_its_divergence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("recipe.py").write_text(RECIPE)
    assert run(capsys, "train", "recipe.py", "--run-dir", "run")[0] == 0
    status, printed, errors = run(capsys, "evaluate", "run", "--tasks", "3")
    assert status == 0, errors
    [picture] = Path("run").glob("*_belief.png")
    assert f"Belief: {picture} (KL from the exact one: " in printed
    assert run(capsys, "evaluate", "run", "--tasks", "3", "--episodes", "1")[1].rstrip().endswith("_belief.png")
