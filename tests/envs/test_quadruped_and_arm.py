"""The robots of our own drawing: how they stand and hang, what their tasks change, curricula over their tasks."""

from dataclasses import replace
from typing import Any

import mujoco
import pytest
import torch

from agents.rl2 import RL2Config
from envs.locomotion.arm import ArmReach, target
from envs.locomotion.quadruped import QuadrupedVel
from envs.simulators.model import load_model
from experiments.cli.main import main
from metarl.task_samplers.adr import ADRConfig
from metarl.task_samplers.curriculum import Curriculum, Stage
from metarl.trainer import TrainConfig, Trainer

QUADRUPED, ARM = QuadrupedVel(), ArmReach()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def started(family: Any, num_rows: int, **values: Any) -> Any:
    """An environment of a family in tasks with these values, one in each row."""
    env = family.make_env(num_rows, generator())
    task = family.sample(num_rows, "train", generator())
    env.reset(replace(task, **{name: torch.as_tensor(value) for name, value in values.items()}))
    return env


@pytest.mark.parametrize("family", [QUADRUPED, ARM], ids=lambda family: family.name)
def test_the_home_pose_is_inside_all_limits(family):
    model = load_model(family.body)
    data = mujoco.MjData(model)  # type: ignore[attr-defined]
    mujoco.mj_resetDataKeyframe(model, data, 0)  # type: ignore[attr-defined]
    mujoco.mj_forward(model, data)  # type: ignore[attr-defined]
    joints = [index for index in range(model.njnt) if model.jnt_limited[index]]
    for joint in joints:
        low, high = model.jnt_range[joint]
        assert low < data.qpos[model.jnt_qposadr[joint]] < high
    assert len(joints) == model.nu
    assert (model.actuator_ctrlrange[:, 0] < data.ctrl).all()
    assert (data.ctrl < model.actuator_ctrlrange[:, 1]).all()


def test_the_quadruped_stands_and_sags_under_its_load():
    heights = []
    env = started(QUADRUPED, 3, body_mass=[0.1, 2.0, 4.0], actuator_kp=[1.0] * 3, geom_friction=[1.0] * 3)
    for _ in range(60):
        step = env.step(torch.zeros(3, 8))
        assert not step.terminated.any()
    heights = env.physics.qpos[:, 2].tolist()
    assert 0.26 > heights[0] > heights[1] > heights[2] > 0.2
    assert env.physics.qpos[:, :2].abs().max() < 0.1


def test_the_quadrupeds_reward_is_that_of_its_speed():
    env = started(QUADRUPED, 2, velocity=[0.0, 0.5])
    *_, step = (env.step(torch.zeros(2, 8)) for _ in range(100))
    assert step.truncated.all()
    values = dict(zip(env.metric_names, step.metrics.T, strict=True))
    assert float(values["reward_speed"][0]) > 80  # it stands, as it shall
    assert float(values["reward_speed"][1]) == pytest.approx(100 * 0.135, abs=5)  # exp(-2) in each step
    assert values["ended_by_fall"].tolist() == values["ended_by_tilt"].tolist() == [0, 0]


def test_a_quadruped_on_its_side_has_ended_its_episode():
    env = started(QUADRUPED, 4)
    ended: set[str] = set()
    names = env.metric_names
    for index in range(120):
        step = env.step(torch.full((4, 8), (-1.0) ** (index // 4)))
        for row in step.terminated.nonzero().flatten().tolist():
            ended |= {name for name, value in zip(names, step.metrics[row], strict=True) if "ended" in name and value}
    assert ended


def test_the_arm_hangs_lower_the_heavier_its_links():
    masses = [[0.5] * 3, [1.0] * 3, [2.0] * 3]
    env = started(replace(ARM, start_noise=0.0), 3, body_mass=masses)
    for _ in range(40):
        env.step(torch.zeros(3, 5))
    droop = env.physics.qpos[:, 1] - 0.5  # the shoulder's, rad
    assert 0 < droop[0] < droop[1] < droop[2]
    assert float(droop[2] / droop[0]) > 1.8
    assert float(droop[1]) == pytest.approx(0.18, abs=0.03)


def test_the_arms_targets_are_within_its_reach():
    tasks = ARM.sample(500, "train", generator())
    places = target(tasks)
    assert (places[:, 2] > 0.05).all()
    assert ((places - torch.tensor([0.0, 0.0, 0.3])).norm(dim=1) < 0.6).all()


@pytest.mark.parametrize("name", ["quadruped_vel", "arm_reach"])
def test_weights_and_scales_are_options(name, capsys):
    with pytest.raises(SystemExit):
        main(["train", f"{name}/rl2", "--help"])
    text = capsys.readouterr().out
    assert "--family.act.scale" in text
    assert "--family.reward.jerk.weight FLOAT" in text
    assert "--family.tasks.body-mass.high FLOAT" in text


def test_a_curriculum_goes_through_ranges_of_a_robots_parameters():
    stages = [Stage(1, {"velocity": (0.2, 0.4), "body_mass": (0.1, 1)}), Stage(1, {"body_mass": (0.1, 2)})]
    train = TrainConfig(num_iterations=3, num_tasks=6, sampler=Curriculum(stages))
    source: Any = RL2Config().make_source(QUADRUPED, train, {name: generator() for name in ("task", "env")})
    seen = []
    for _ in range(3):
        tasks = source.sampler.propose(64, generator())
        logged = source.sampler.report(tasks, torch.zeros(64))
        seen.append((logged["sampler/stage"], float(tasks.body_mass.max()), float(tasks.velocity.max())))
    (one, mass, speed), (two, more, _), (three, most, fastest) = seen
    assert (one, two, three) == (1, 2, 3)
    assert mass <= 1 < more <= 2 < most <= 5
    assert speed <= 0.4 < fastest


def test_ranges_of_a_robots_parameters_widen_by_themselves():
    train = TrainConfig(num_iterations=2, num_tasks=16, eval_every=0, eval_tasks=2, sampler=ADRConfig(decide_every=1))
    family = replace(QUADRUPED, horizon=5)
    trainer = Trainer(family, RL2Config(hidden_size=4), train, agent_name="rl2", seed=0)
    logged = [trainer.iterate() for _ in range(2)]
    widths = [row["sampler/body_mass/width"] for row in logged]
    assert 0 < widths[0] < 1
    assert {"sampler/velocity/width", "sampler/geom_friction/p50", "sampler/actuator_kp/p90"} <= set(logged[0])
