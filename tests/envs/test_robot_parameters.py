"""Task parameters of robots in physical units: what each does to the simulation, by physics."""

import copy
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.rl2 import RL2Config
from envs.check import check_family
from envs.locomotion.custom_robot import MujocoFamily
from envs.samplers import Choice, LogUniform, Uniform
from envs.simulators.cpu import CpuPhysics
from envs.simulators.model import load_model
from experiments import Experiment
from metarl.trainer import TrainConfig

ROOT = Path(__file__).resolve().parents[2]
G = 9.81
STEP = 0.02  # s; of ten substeps

BOX = """
<mujoco>
  <option timestep="0.002" {options}/>
  <worldbody>
    <geom name="floor" type="plane" size="9 9 1" friction="0.5"/>
    <body name="box" pos="0 0 0.1">
      <freejoint name="root"/>
      <geom name="box" type="box" size="0.2 0.2 0.1" mass="3" friction="0.5"/>
      <site name="sole" type="box" size="0.3 0.3 0.2"/>
      {inside}
    </body>
    <body name="weight" pos="0 3 1"><joint name="fall" type="slide" axis="0 0 1"/><geom size="0.1" mass="1"/></body>
  </worldbody>
  <actuator><motor name="lift" joint="fall" ctrlrange="0 20"/></actuator>
  <sensor><touch name="scales" site="sole"/></sensor>
</mujoco>
"""
CART = """
<mujoco>
  <option timestep="0.002" gravity="0 0 0"/>
  <worldbody>
    <body name="cart">
      <joint name="rail" type="slide" axis="1 0 0"/>
      <geom type="box" size="0.1 0.1 0.1" mass="2"/>
    </body>
    <body name="arm" pos="0 2 0">
      <joint name="swing" axis="0 1 0" damping="0.5"/>
      <geom type="capsule" fromto="0 0 0 0 0 0.3" size="0.02" mass="1"/>
    </body>
  </worldbody>
  <actuator>
    <motor name="pull" joint="rail" ctrlrange="-10 10" forcelimited="true" forcerange="-8 8"/>
    <position name="aim" joint="swing" kp="30" kv="1" ctrlrange="-2 2" gear="2"/>
  </actuator>
  <sensor>
    <jointpos name="angle" joint="swing"/>
    <jointvel name="speed" joint="rail"/>
    <actuatorfrc name="pull" actuator="pull"/>
    <actuatorfrc name="aim" actuator="aim"/>
  </sensor>
</mujoco>
"""


@pytest.fixture(scope="module")
def robot(tmp_path_factory) -> Callable[..., Any]:
    """Makes families of a robot in MJCF."""
    folder = tmp_path_factory.mktemp("robots")

    def make(mjcf: str, tasks: dict[str, Any], **changes: Any) -> Any:
        path = folder / f"{abs(hash(mjcf))}.xml"
        path.write_text(mjcf)
        settings: dict[str, Any] = {
            "observe": lambda physics, task: torch.cat([physics.qpos, physics.qvel, physics.sensordata], 1),
            "reward": lambda physics, action, task: physics.qpos[:, 0],
            "horizon": 1000,
            "frame_skip": 10,
            "start_noise": 0.0,
        }
        return MujocoFamily(mjcf=path, tasks=tasks, **{**settings, **changes})

    return make


def box(options: str = "", inside: str = "") -> str:
    return BOX.format(options=options, inside=inside)


def started(family: Any, *values: Any) -> Any:
    """An environment with a row for each of the values of the family's parameters, in the order of `tasks`."""
    generator = torch.Generator().manual_seed(0)
    tasks = family.sample(len(values), "train", generator)
    columns = [torch.tensor(column, dtype=torch.float32) for column in zip(*values, strict=True)]
    env = family.make_env(len(values), generator)
    env.reset(type(tasks)(**dict(zip(vars(tasks), columns, strict=True))))
    return env


def acted(env: Any, *action: float, steps: int) -> list[Any]:
    return [env.step(torch.tensor([action]).expand(env.num_rows, -1)) for _ in range(steps)]


# What a robot carries


def test_a_payload_weighs_what_it_should_on_the_scales(robot):
    env = started(robot(box(), {"payload": Uniform(0, 5, bodies=["box"])}), (0.0,), (2.0,))
    acted(env, 0.0, steps=100)
    weight = env.physics.data("sensordata")[:, 0]
    assert weight.tolist() == pytest.approx([3 * G, 5 * G], rel=1e-3)


def test_a_payload_off_the_centre_is_a_point_mass_fixed_there(robot):
    """As MuJoCo's own compiler merges it into the body."""
    names = ("payload", "payload_x", "payload_y", "payload_z")
    tasks = {name: Uniform(0.1, 1, bodies=["box"]) for name in names}
    family = robot(box('gravity="0 0 0"'), tasks, unchecked=names)
    place = (0.25, -0.125, 0.5)  # exact in float32
    env = started(family, (2.0, *place), (0.0, *place))
    welded = '<geom size="1e-4" mass="2" pos="{} {} {}" contype="0" conaffinity="0"/>'.format(*place)
    path = family.body.with_name("welded.xml")
    path.write_text(box('gravity="0 0 0"', welded))
    compiled, bare = CpuPhysics(load_model(path), 1), CpuPhysics(family.body, 1)
    turning = torch.zeros(1, 7, dtype=torch.float64)
    turning[0, 3:6] = torch.tensor([1.0, 2.0, 3.0])
    for physics in (env.physics, compiled, bare):
        physics.reset(physics.initial_qpos.expand(physics.num_rows, -1), turning.expand(physics.num_rows, -1))
        physics.step(torch.zeros(physics.num_rows, 1), 500)
    assert (env.physics.qpos[0] - compiled.qpos[0]).abs().max() < 1e-6
    assert (env.physics.qpos[1] - bare.qpos[0]).abs().max() < 1e-9
    assert (compiled.qpos[0] - bare.qpos[0]).abs().max() > 0.1


def test_a_push_changes_the_momentum_by_its_size_along_the_ground(robot):
    tasks = {"push": Uniform(0, 9, bodies=["box"]), "push_interval": Choice([1e-9])}  # one in each step
    env = started(robot(box('gravity="0 0 0"'), tasks), *[(6.0, 1e-9)] * 50)
    acted(env, 0.0, steps=1)
    velocity = env.physics.qvel[:, :3]
    assert (velocity[:, :2].norm(dim=1) * 3 - 6).abs().max() < 1e-3
    assert velocity[:, 2].abs().max() < 1e-9
    angles = torch.atan2(velocity[:, 1], velocity[:, 0])
    assert float(angles.min()) < -2 < 2 < float(angles.max())  # in all directions


def test_pushes_come_at_random_times_with_the_mean_interval(robot):
    tasks = {"push": Uniform(0, 9, bodies=["box"]), "push_interval": Uniform(0.05, 0.5)}
    env = started(robot(box('gravity="0 0 0"'), tasks), *[(3.0, 0.1)] * 20, *[(3.0, 0.4)] * 20)
    counts, before = torch.zeros(40), env.physics.qvel.clone()
    for _ in range(200):
        acted(env, 0.0, steps=1)
        counts += (env.physics.qvel - before).abs().amax(1) > 1e-3
        before = env.physics.qvel.clone()
    assert float(counts[:20].mean()) == pytest.approx(200 * STEP / 0.1, rel=0.15)
    assert float(counts[20:].mean()) == pytest.approx(200 * STEP / 0.4, rel=0.3)


def test_sliding_friction_alone_stops_a_box(robot):
    family = robot(box(), {"friction": Uniform(0.1, 1, scale=False, shared=True)}, start=_sliding)
    env = started(family, (0.2,), (0.8,))
    acted(env, 0.0, steps=80)
    distance = env.physics.qpos[:, 0].tolist()
    assert distance == pytest.approx([1.5**2 / (2 * mu * G) for mu in (0.2, 0.8)], rel=0.05)
    friction = env.physics.copy_row(1)[0].geom_friction
    assert friction[0].tolist() == [pytest.approx(0.8), 0.005, 0.0001]


def _sliding(task: Any) -> dict[str, Tensor]:
    velocity = torch.zeros(len(task), 7)
    velocity[:, 0] = 1.5
    return {"qvel": velocity}


# Actuators


def test_a_motors_strength_multiplies_its_force_below_and_at_its_limit(robot):
    family = robot(CART, {"motor_strength": Uniform(0.5, 1, shared=True)})
    for action, force in ((4.0, 4.0), (10.0, 8.0)):
        env = started(family, (1.0,), (0.7,))
        acted(env, action, 0.5, steps=1)
        pull = env.physics.data("sensordata")[:, 2]
        assert pull.tolist() == pytest.approx([force, 0.7 * force])
        env.physics.reset(env.physics.initial_qpos.expand(2, -1), torch.zeros(2, 2))
        env.physics.step(torch.tensor([[0.0, 0.5]]).expand(2, -1), 1)
        aim = env.physics.data("sensordata")[:, 3]
        assert aim.tolist() == pytest.approx([15.0, 10.5])


def test_actions_take_effect_when_their_latency_has_passed(robot):
    """30 ms are a step and a half: a force of 4 N on 2 kg begins in the middle of the second step."""
    env = started(robot(CART, {"action_latency": Uniform(0, 60)}), (0.0,), (20.0,), (30.0,), (44.0,))
    speeds = torch.stack([step.obs[:, 2] for step in acted(env, 4.0, 0.0, steps=6)])
    times = STEP * torch.arange(1, 7)
    for row, latency in enumerate((0.0, 0.02, 0.03, 0.044)):
        expected = 2 * (times - latency).clamp(min=0)
        assert (speeds[:, row] - expected).abs().max() < 1e-6
    acted(env, 0.0, 0.0, steps=3)  # the last force has ended: all have been pulled for as long
    assert (env.physics.qvel[:, 0] - 2 * 6 * STEP).abs().max() < 1e-6


def test_nothing_sent_in_an_episode_arrives_in_the_next(robot):
    env = started(robot(CART, {"action_latency": Uniform(0, 60)}, horizon=3), (0.0,), (40.0,))
    *_, last, first = acted(env, 4.0, 0.0, steps=4)
    assert last.truncated.all()
    assert float(first.obs[0, 2]) > 0
    assert float(first.obs[1, 2]) == 0


# Sensors


def test_observations_are_as_old_as_their_latency(robot):
    family = robot(CART, {"obs_latency": Uniform(0, 60)}, start=_rolling)
    env = started(family, (0.0,), (20.0,), (30.0,), (44.0,))
    steps = acted(env, 0.0, 0.0, steps=6)
    times = STEP * torch.arange(1, 7)
    for row, latency in enumerate((0.0, 0.02, 0.03, 0.044)):
        expected = 2 * (times - latency).clamp(min=0)
        assert (torch.stack([step.obs[row, 0] for step in steps]) - expected).abs().max() < 1e-6
        assert (torch.stack([step.reward[row] for step in steps]) - 2 * times).abs().max() < 1e-6  # of what is


def _rolling(task: Any) -> dict[str, Tensor]:
    return {"qvel": torch.tensor([2.0, 0.0]).expand(len(task), -1)}


def test_sensors_have_the_noise_and_the_bias_of_the_task(robot):
    tasks = {
        "sensor_noise": Uniform(0, 1, sensors=["speed"]),
        "sensor_bias": Uniform(-1, 1, sensors=["speed"]),
    }
    env = started(robot(CART, tasks), (0.0, 0.5), (0.3, -0.5))
    readings = torch.stack([step.obs[:, 5] for step in acted(env, 0.0, 0.0, steps=400)])
    assert readings.std(0).tolist() == pytest.approx([0.0, 0.3], rel=0.15, abs=1e-6)
    assert readings.mean(0).tolist() == pytest.approx([0.5, -0.5], abs=0.05)
    assert not env.physics.data("sensordata").any()  # what is has neither
    others = torch.stack([step.obs[:, 4] for step in acted(env, 0.0, 0.0, steps=3)])
    assert not others.any()


def test_a_joint_offset_is_measured_and_shifts_what_its_servo_holds(robot):
    env = started(robot(CART, {"joint_offset": Uniform(-0.3, 0.3, joints=["swing"])}), (0.0,), (0.2,))
    step = acted(env, 0.0, 1.0, steps=150)[-1]
    true, measured, sensor = env.physics.qpos[:, 1], step.obs[:, 1], step.obs[:, 4]
    assert measured.tolist() == pytest.approx([0.5, 0.5], abs=1e-3)  # a gear of 2: the servo holds its own reading
    assert sensor.tolist() == pytest.approx([0.5, 0.5], abs=1e-3)
    assert true.tolist() == pytest.approx([0.5, 0.3], abs=1e-3)


# All of them


EVERYTHING = {
    "payload": Uniform(0, 2, bodies=["cart", "arm"]),
    "payload_x": Uniform(-0.1, 0.1, bodies=["cart", "arm"], shared=True),
    "motor_strength": Uniform(0.7, 1.1),
    "actuator_kp": LogUniform(0.5, 2, actuators=["aim"]),
    "push": Uniform(0, 5, bodies=["cart"]),
    "push_interval": Uniform(0.05, 0.1),
    "action_latency": Uniform(0, 50),
    "obs_latency": Uniform(0, 50),
    "sensor_noise": Uniform(0, 0.1),
    "sensor_bias": Uniform(-0.1, 0.1, sensors=["speed"]),
    "joint_offset": Uniform(-0.1, 0.1),
}


def test_the_laws_of_families_hold_with_all_of_them(robot):
    family = robot(CART, EVERYTHING, horizon=5)
    check_family(family)
    shapes = {name: tuple(value.shape[1:]) for name, value in vars(family.sample(1, "test", torch.Generator())).items()}
    assert shapes["payload"] == shapes["motor_strength"] == shapes["joint_offset"] == (2,)
    assert shapes["payload_x"] == shapes["action_latency"] == ()
    assert shapes["sensor_noise"] == (4,)


def test_rows_that_start_anew_do_not_disturb_the_others(robot):
    tasks = {name: sampler for name, sampler in EVERYTHING.items() if name.endswith("latency")}
    family = robot(CART, tasks)
    envs = [started(family, (33.0, 21.0), (12.0, 47.0)) for _ in range(2)]
    for env in envs:
        acted(env, 3.0, 1.0, steps=5)
    others = family.sample(2, "train", torch.Generator().manual_seed(1))
    envs[1].restart(others, torch.tensor([False, True]))
    rows = [[step.obs[0] for step in acted(env, -2.0, 0.5, steps=5)] for env in envs]
    assert torch.equal(torch.stack(rows[0]), torch.stack(rows[1]))


def test_noise_and_pushes_do_not_depend_on_when_the_episodes_of_others_end(robot):
    tasks = {
        "far": Choice([0.1, 9.0]),
        "sensor_noise": Uniform(0, 1, sensors=["speed"]),
        "push": Uniform(0, 1, bodies=["arm"]),
        "push_interval": Choice([0.1]),
    }
    ends = {"terminated": lambda physics, task: physics.qpos[:, 0] > task.far, "start": _rolling}
    family = robot(CART, tasks, **ends)
    first = (0.1, 0.3, 0.5, 0.1)
    rows = []
    for other in (0.1, 9.0):  # whose episode ends together with that of the first, or never
        env = started(family, first, (other, 0.3, 0.5, 0.1))
        steps = acted(env, 0.0, 0.0, steps=12)
        assert any(bool(step.terminated.all()) for step in steps) == (other == 0.1)
        rows.append(torch.stack([step.obs[0] for step in steps]))
    assert torch.equal(*rows)


def test_a_resumed_training_is_the_same_bit_for_bit_with_all_of_them(robot):
    experiment = Experiment(
        family=robot(CART, EVERYTHING, horizon=5),
        agent=RL2Config(hidden_size=8),
        train=TrainConfig(num_iterations=3, num_tasks=4, eval_every=0),
    )
    whole, first, second = (experiment.trainer() for _ in range(3))
    for _ in range(3):
        whole.iterate()
    first.iterate()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(2):
        second.iterate()
    assert second.metrics == whole.metrics


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"payload": Uniform(0, 1)}, "task 'payload' selects no bodies; must name them, such as bodies=['cart']"),
        ({"payload": Uniform(-1, 1, bodies=["arm"])}, "task 'payload' draws -1.67; must be at least 0"),
        ({"payload_x": Uniform(0, 1, bodies=["arm"])}, "task 'payload_x' has no effect without 'payload'; add that"),
        ({"push_interval": Uniform(0, 1)}, "task 'push_interval' has no effect without 'push'; add that"),
        ({"push": Uniform(0, 1, bodies=["legs"])}, "task 'push' selects 'legs' of bodies: the model has 'cart', 'arm'"),
        ({"sensor_bias": Uniform(0, 1, sensors=["gyro"])}, "selects 'gyro' of sensors: the model has 'angle', 'speed'"),
        ({"sensor_bias": Uniform(0, 1, joints=["swing"])}, "task 'sensor_bias' selects joints: select by sensors"),
        ({"action_latency": Uniform(0, 1, joints=["swing"])}, "selects joints: it has no elements to select"),
        ({"motor_strength": Uniform(0, 1, scale=False)}, "must multiply the actuators' own forces"),
        ({"motor_strenght": Uniform(0, 1)}, "did you mean 'motor_strength'?"),
    ],
)
def test_mistakes_are_named(robot, tasks, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        robot(CART, tasks)


def test_a_free_joint_has_no_encoder(robot):
    with pytest.raises(ValueError, match="selects the joint 'root'; must be a hinge or a slide"):
        robot(box(), {"joint_offset": Uniform(0, 1, joints=["root"])})
    assert math.isclose(robot(box(), {"joint_offset": Uniform(0, 1)}).parameters["joint_offset"].num_values, 1)


def test_the_examples_of_the_documentation_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.+?)```", (ROOT / "docs" / "robots.md").read_text(), re.DOTALL)
    for block in blocks:
        names: dict[str, Any] = {}
        exec(block, names)
        check_family(replace(names["family"], horizon=20))
