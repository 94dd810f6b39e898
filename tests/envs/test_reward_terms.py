"""Rewards of named terms and ends for named reasons: their sums by episode, what is logged, and mistakes by name."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from agents.rl2 import RL2Config
from envs.check import check_family
from envs.locomotion.custom_robot import MujocoFamily
from envs.locomotion.reward_terms import Term
from envs.samplers import Uniform
from experiments.cli.recording import Moment, caption
from metarl.trainer import TrainConfig, Trainer
from tests.experiments.command import run

SLIDER = """<mujoco><option timestep="0.1"/><worldbody><body><joint name="slide" type="slide" axis="1 0 0" damping="1"/>
  <geom size="0.1" mass="1"/></body></worldbody>
  <actuator><motor joint="slide" gear="5" ctrlrange="-1 1" ctrllimited="true"/></actuator></mujoco>"""

TERMS = {
    "near": (1.0, lambda physics, action, task: 1 - (physics.position("slide") - task.target).abs()),
    "effort": (-0.5, lambda physics, action, task: action[:, 0].square()),
}
REASONS = {
    "right": lambda physics, task: physics.position("slide") > 0.25,
    "left": lambda physics, task: physics.position("slide") < -0.25,
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("slider") / "slider.xml"
    path.write_text(SLIDER)
    return path


@pytest.fixture(scope="module")
def slider(path) -> Any:
    def make(**changes: Any) -> Any:
        settings: dict[str, Any] = {
            "mjcf": path,
            "observe": lambda physics, task: torch.cat([physics.qpos, physics.qvel], 1),
            "reward": TERMS,
            "terminated": REASONS,
            "tasks": {"target": Uniform(-1, 1)},
            "horizon": 6,
            "start_noise": 0.0,
        }
        return MujocoFamily(**{**settings, **changes})

    return make


def test_the_sums_of_the_terms_are_measured_when_an_episode_ends(slider):
    family = slider()
    check_family(family)
    env = family.make_env(3, generator())
    names = ("reward_near", "reward_effort", "ended_by_right", "ended_by_left")
    assert env.metric_names == names
    first = env.reset(replace(family.sample(3, "train", generator()), target=torch.zeros(3)))
    assert first.metrics.isnan().all()
    action = torch.tensor([[1.0], [-1.0], [0.0]])
    returns, sums, ended = torch.zeros(3), torch.zeros(3, 2), torch.zeros(3)
    for _ in range(6):
        step = env.step(action)
        returns += step.reward
        place = step.next_obs[:, 0]
        sums += torch.stack([1 - place.abs(), -0.5 * action[:, 0].square()], 1)
        for row in range(3):
            if not step.episode_end[row]:
                assert step.metrics[row].isnan().all()
                continue
            ended[row] += 1
            assert step.metrics[row, :2].tolist() == pytest.approx(sums[row].tolist(), abs=1e-5)
            assert float(step.metrics[row, :2].sum()) == pytest.approx(float(returns[row]), abs=1e-5)
            assert step.metrics[row, 2:].tolist() == [float(place[row] > 0.25), float(place[row] < -0.25)]
            returns[row], sums[row] = 0, 0  # the next episode's start afresh
    assert ended.tolist() == [2, 2, 1]  # three steps to either end, and the time limit


def test_rows_that_rest_add_nothing(slider):
    env = slider(terminated=None, horizon=3).make_env(2, generator())
    env.reset(slider().sample(1, "train", generator()))
    for active in ([True, True], [False, True], [False, True], [True, True], [True, True]):
        step = env.step(torch.ones(2, 1), torch.tensor(active))
    assert step.truncated.tolist() == [True, False]
    assert float(step.metrics[0, 1]) == pytest.approx(3 * -0.5)


def test_a_function_alone_is_measured_by_nothing(slider):
    function = TERMS["near"][1]
    family = slider(reward=function, terminated=REASONS["left"])
    assert family.make_env(1, generator()).metric_names == ()
    terms = slider(reward={"near": Term(1.0, function)}, terminated={"left": REASONS["left"]})
    for each in (family, terms):
        env = each.make_env(2, generator())
        env.reset(each.sample(2, "train", generator()))
    rewards = []
    for each in (family, terms):
        env = each.make_env(2, generator())
        env.reset(each.sample(2, "train", generator()))
        rewards.append(torch.stack([env.step(torch.ones(2, 1)).reward for _ in range(3)]))
    assert torch.equal(*rewards)


def test_terms_and_reasons_are_logged_in_training_and_evaluation(slider):
    train = TrainConfig(num_iterations=1, num_tasks=4, eval_tasks=4)
    trainer = Trainer(slider(), RL2Config(hidden_size=4), train, agent_name="rl2", seed=0)
    logged = trainer.iterate()
    near, effort = (logged[f"meta_train/reward_{name}/ep_1"] for name in ("near", "effort"))
    assert near + effort == pytest.approx(logged["meta_train/return/ep_1"], abs=1e-4)
    assert 0 <= logged["meta_train/ended_by_left/ep_2"] <= 1
    evaluation = trainer.evaluate("test", num_tasks=4)
    total = [sum(pair) for pair in zip(*(evaluation.metrics[f"reward_{name}"] for name in TERMS), strict=True)]
    assert total == pytest.approx([point.mean for point in evaluation.points], abs=1e-4)
    assert set(evaluation.metrics) == {"reward_near", "reward_effort", "ended_by_right", "ended_by_left"}


def test_the_command_check_shows_them_at_rest_and_under_random_actions(path, tmp_path, capsys):
    recipe = tmp_path / "slider.py"
    recipe.write_text(f"""
import torch
from agents.rl2 import RL2Config
from envs.locomotion.custom_robot import MujocoFamily
from envs.samplers import Uniform
from experiments import Experiment
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=MujocoFamily(
        mjcf={str(path)!r},
        observe=lambda physics, task: torch.cat([physics.qpos, physics.qvel], 1),
        reward={{
            "near": (1.0, lambda physics, action, task: -(physics.position("slide") - task.target).abs()),
            "effort": (-0.5, lambda physics, action, task: action[:, 0].square()),
        }},
        terminated={{"right": lambda physics, task: physics.position("slide") > 0.3}},
        tasks={{"target": Uniform(-1, 1)}},
        horizon=6,
    ),
    agent=RL2Config(),
    train=TrainConfig(num_iterations=1, num_tasks=2),
)
""")
    assert "reward effort" in run(capsys, "check", str(recipe), "--tasks", "2")[1]
    facts = json.loads(run(capsys, "check", str(recipe), "--tasks", "8", "--json")[1])
    assert facts["at_rest"]["metrics"]["reward_effort"] == 0
    assert facts["random"]["metrics"]["reward_effort"] < -0.1
    assert 0 <= facts["random"]["metrics"]["ended_by_right"] <= 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"reward": {}}, "reward is empty; must be a function, or functions by name"),
        ({"reward": 3}, "reward is 3; must be a function"),
        ({"reward": {"near": 3}}, "reward 'near' is 3; must be a pair (weight, function)"),
        ({"reward": {"near": (1.0, 2)}}, "reward 'near': function is 2; must be a function"),
        ({"reward": {"near": (math.nan, TERMS["near"][1])}}, "reward 'near': weight is nan; must be a finite number"),
        (
            {"reward": {"far off": TERMS["near"]}},
            "reward has 'far off'; must be names of letters, digits, underscores",
        ),
        (
            {"reward": {"near": (1.0, lambda physics, action, task: physics.qpos)}},
            "reward 'near' gives float64 of shape (7, 1) for 7 rows: it must be floats of shape (7,)",
        ),
        ({"terminated": {}}, "terminated is empty; must be a function, or functions by name"),
        ({"terminated": {"left": 1}}, "terminated 'left' is 1; must be a function"),
        (
            {"terminated": {"left": lambda physics, task: physics.position("slide")}},
            "terminated 'left' gives float64 of shape (7,) for 7 rows: it must be bools of shape (7,)",
        ),
        (
            {"metrics": {"reward_near": TERMS["near"][1]}},
            "metrics has 'reward_near', which is measured of the reward or of the ends; rename it",
        ),
    ],
)
def test_mistakes_are_named(slider, changes, expected):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the whole message is compared
        slider(**changes)
    assert str(error.value) == expected


def test_a_video_says_why_an_episode_has_ended():
    measured = (("speed", 0.5), ("reward_near", 7.0), ("ended_by_left", 1.0), ("ended_by_right", 0.0))
    moment = Moment(1, 3, 7.0, (), True, True, measured)
    assert caption("slider", moment, 2, 6)[:2] == [
        "slider   now: speed 0.50",
        "episode 1 of 2    step 3 of 6    ended by left    return 7.0",
    ]
