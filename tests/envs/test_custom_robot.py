"""A robot of one's own: ranges, model fields, batched physics, mistakes by name, and the documented example."""

import importlib
import logging
import math
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from envs.bridges.gymnasium_env import GymnasiumEnv
from envs.check import check_family
from envs.locomotion.custom_robot import MujocoFamily
from envs.samplers import Choice, LogUniform, Uniform
from experiments.cli.main import main
from experiments.cli.recording import record, visible_env
from experiments.experiment.definition import load
from experiments.experiment.reading import read
from metarl.errors import UserError
from metarl.run.directory import Run

ROOT = Path(__file__).resolve().parents[2]
CRANE = load("own_robot/rl2").family

ARM = """
<mujoco>
  <option timestep="0.01"/>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 1" pos="0 0 -3" friction="1 0.1 0.1"/>
    <body name="upper">
      <joint name="shoulder" type="ball" damping="0.5"/>
      <geom name="upper" type="capsule" fromto="0 0 0 0.5 0 0" size="0.05" mass="1"/>
      <body name="lower" pos="0.5 0 0">
        <joint name="elbow" type="hinge" axis="0 1 0" damping="0.2"/>
        <geom name="lower" type="capsule" fromto="0 0 0 0.5 0 0" size="0.05" mass="2"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor name="bend" joint="elbow" ctrlrange="-1 1" gear="2"/>
    <motor name="twist" joint="shoulder" gear="1 0 0 0 0 0" ctrlrange="0 3"/>
  </actuator>
</mujoco>
"""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def arm(tmp_path_factory) -> Callable[..., Any]:
    """Makes families of an arm of two links."""
    path = tmp_path_factory.mktemp("arm") / "arm.xml"
    path.write_text(ARM)

    def make(**changes: Any) -> Any:
        settings: dict[str, Any] = {
            "mjcf": path,
            "observe": lambda physics, task: torch.cat([physics.qpos, physics.qvel], 1),
            "reward": lambda physics, action, task: physics.velocity("elbow"),
            "tasks": {"target": Uniform(0, 1)},
            "horizon": 5,
        }
        settings |= changes
        free = [name for name in ("target", "side") if name in settings["tasks"]]
        return MujocoFamily(**{"unchecked": free, **settings})

    return make


def env_for(family: Any, **values: Any) -> Any:
    """One row in the task of the given values."""
    env = family.make_env(1, generator())
    task = family.sample(1, "train", generator())
    env.reset(replace(task, **{name: torch.tensor([value]) for name, value in values.items()}))
    return env


@pytest.fixture
def images() -> None:
    """Skips the test where MuJoCo cannot render."""
    try:
        visible_env(CRANE)
    except UserError as error:
        pytest.skip(str(error))


# Ranges


@pytest.mark.parametrize(
    ("sampler", "low", "high"),
    [
        (Uniform(-1, 3), -1, 3),
        (Uniform(0, 3), 0, 3),
        (Uniform(-3, -1), -3, -1),
        (LogUniform(0.5, 2), 0.5, 2),
        (Choice([-1, 1, 5]), -1, 5),
    ],
)
def test_ranges_hold_their_values_and_the_band_outside_none_of_them(sampler, low, high):
    inside = sampler.sample((4000,), "train", generator())
    assert inside.dtype == torch.float32
    assert low <= float(inside.min()) < float(inside.max()) <= high
    assert bool(sampler.contains(inside).all())
    outside = sampler.sample((4000,), "ood", generator())
    assert bool(sampler.contains(outside).any()) != sampler.has_ood
    assert torch.equal(inside, sampler.sample((4000,), "train", generator()))


def test_bands_outside_are_a_third_as_wide_and_keep_the_sign():
    both, above, below = (sampler.sample((4000,), "ood", generator()) for sampler in (
        Uniform(-1, 2), Uniform(0, 3), Uniform(-3, 0)
    ))  # fmt: skip
    assert float(both.min()) == pytest.approx(-2, abs=0.01)
    assert float(both.max()) == pytest.approx(3, abs=0.01)
    assert float((both > 0).float().mean()) == pytest.approx(0.5, abs=0.05)
    assert 3 < float(above.min()) < float(above.max()) <= 4
    assert -4 <= float(below.min()) < float(below.max()) < -3
    ratios = LogUniform(1 / 8, 8).sample((4000,), "ood", generator()).log2()
    assert float(ratios.abs().min()) > 3
    assert float(ratios.abs().max()) == pytest.approx(5, abs=0.01)


def test_log_uniform_is_uniform_in_the_logarithm():
    values = LogUniform(0.5, 2).sample((20000,), "train", generator())
    assert float((values < 1).float().mean()) == pytest.approx(0.5, abs=0.02)
    assert float(values.log().std()) == pytest.approx(math.log(4) / math.sqrt(12), rel=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(3, 0), "low is 3; must be less than high, 0"),
        (lambda: Uniform(0, math.inf), "high is inf; must be a finite number"),
        (lambda: LogUniform(0, 2), "low is 0; must be positive and finite"),
        (lambda: Choice([]), "values is []; must be a list of finite numbers"),
    ],
)
def test_a_wrong_range_is_named(make, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the whole message is compared
        make()
    assert str(error.value) == message


def test_contact_forces_are_computed_for_functions_that_read_them(arm):
    box = """<mujoco><worldbody><geom type="plane" size="1 1 1"/><body pos="0 0 0.1"><joint type="slide" axis="0 0 1"/>
      <geom type="box" size="0.1 0.1 0.1" mass="2"/></body></worldbody>
      <actuator><motor joint="lift" ctrlrange="-1 1"/></actuator></mujoco>""".replace("<joint ", '<joint name="lift" ')
    path = arm().body.parent / "box.xml"
    path.write_text(box)
    family = arm(
        mjcf=path,
        observe=lambda physics, task: physics.cfrc_ext[:, 1],
        reward=lambda physics, action, task: physics.qpos[:, 0],
        start_noise=0.0,
        horizon=500,
        frame_skip=5,
    )
    env = family.make_env(2, generator())
    step = env.reset(family.sample(1, "train", generator()))
    assert not step.obs.any()
    for _ in range(300):
        step = env.step(torch.zeros(2, 1))
    assert step.obs[:, 5].tolist() == pytest.approx([2 * 9.81] * 2, rel=1e-3)  # the floor carries the weight, N


# Model fields


def test_a_mass_is_multiplied_and_its_inertia_follows():
    env, model = env_for(CRANE, body_mass=3.0), CRANE.model
    changed, _ = env.copy_row(0)
    load_body, trolley = model.body("load").id, model.body("trolley").id
    assert changed.body_mass[load_body] == pytest.approx(3 * model.body_mass[load_body])
    assert changed.body_mass[trolley] == model.body_mass[trolley]
    assert changed.body_inertia[load_body] == pytest.approx(3 * model.body_inertia[load_body])
    assert changed.body_subtreemass[trolley] == pytest.approx(model.body_mass[trolley] + 3 * model.body_mass[load_body])


def test_fields_change_where_they_are_selected(arm):
    tasks = {
        "dof_damping": LogUniform(1, 4),
        "geom_friction": LogUniform(1, 4, geoms=["floor"]),
        "actuator_gear": LogUniform(1, 4, actuators=["twist", "bend"]),
        "body_mass": Uniform(1, 4, bodies=["lower"], scale=False),
        "opt.gravity": Uniform(0.5, 2),
        "opt.viscosity": Uniform(1, 2, scale=False),
    }
    family = arm(tasks=tasks, unchecked=["geom_friction"])  # as the floor is out of reach
    task = family.sample(3, "train", generator())
    assert task.dof_damping.shape == (3, 2)  # a value for each joint, of which the first has three axes
    assert task.actuator_gear.shape == (3, 2)
    assert task.geom_friction.shape == task.opt_gravity.shape == (3,)
    env = family.make_env(3, generator())
    env.reset(task)
    for row in range(3):
        model, _ = env.copy_row(row)
        shoulder, elbow = task.dof_damping[row].tolist()
        assert model.dof_damping == pytest.approx([0.5 * shoulder] * 3 + [0.2 * elbow])
        assert model.geom("floor").friction == pytest.approx(float(task.geom_friction[row]) * np.array([1, 0.1, 0.1]))
        assert model.geom("upper").friction == pytest.approx([1, 0.005, 0.0001])
        twist, bend = task.actuator_gear[row].tolist()
        assert model.actuator("twist").gear[0] == pytest.approx(twist)
        assert model.actuator("bend").gear[0] == pytest.approx(2 * bend)
        assert model.body("lower").mass[0] == pytest.approx(float(task.body_mass[row]))
        assert model.body("lower").inertia == pytest.approx(
            family.model.body("lower").inertia * float(task.body_mass[row]) / 2
        )
        assert model.opt.gravity == pytest.approx([0, 0, -9.81 * float(task.opt_gravity[row])])
        assert model.opt.viscosity == pytest.approx(float(task.opt_viscosity[row]))


def test_physics_has_joints_bodies_and_fields_by_name(arm):
    seen: list[Any] = []

    def reward(physics: Any, action: Any, task: Any) -> Any:
        seen.append((physics, physics.body("lower").clone(), physics.before.qvel, physics.sensordata.shape))
        return physics.position("elbow") - physics.before.qpos[:, -1]

    family = arm(reward=reward, metrics={"height": lambda physics, action, task: physics.body("lower")[:, 2]})
    assert family.dynamics.fields == ("sensordata", "xpos")
    assert family.dynamics.fields_before == ("qpos", "qvel")
    assert family.action_space.low.tolist() == [-1, 0]
    env = family.make_env(2, generator())
    first = env.reset(family.sample(2, "train", generator()))
    step = env.step(torch.tensor([[1.0, 3.0], [-5.0, -5.0]]))
    physics, lower, qvel_before, sensors = seen[-1]
    assert physics.position("shoulder").shape == (2, 4)
    assert physics.velocity("shoulder").shape == (2, 3)
    assert physics.dt == pytest.approx(0.01)
    assert lower.shape == (2, 3)
    assert sensors == (2, 0)
    assert torch.equal(qvel_before.float(), first.obs[:, 5:])
    assert torch.allclose(step.reward, step.next_obs[:, 4] - first.obs[:, 4])
    assert torch.equal(step.metrics[:, 0], lower[:, 2].float())
    assert physics.velocity("elbow")[0] > physics.velocity("elbow")[1]  # each actuator has limits of its own


def test_the_cranes_reward_is_what_it_says():
    env = env_for(CRANE, target=0.5)
    step = env.step(torch.tensor([[2.0]]))  # which is clipped to 1
    trolley, sine = step.next_obs[0, :2].tolist()
    assert float(step.reward[0]) == pytest.approx(1 - abs(trolley + 0.6 * sine - 0.5) - 0.01, abs=1e-6)


# Mistakes


def test_mistakes_in_tasks_are_named(arm, tmp_path):
    def message(**changes: Any) -> str:
        with pytest.raises(ValueError) as error:  # noqa: PT011, the messages are compared
            arm(**changes)
        assert "\n" not in str(error.value)
        return str(error.value)

    def of_task(name: str, sampler: Any) -> str:
        return message(tasks={name: sampler})

    assert of_task("body_mas", Uniform(0, 1)) == (
        "task 'body_mas' is no field of MuJoCo's model that can vary: did you mean 'body_mass'?"
    )
    assert "did you mean 'opt.gravity'?" in of_task("gravity", Uniform(0, 1))
    assert "did you mean 'opt.gravity'?" in of_task("opt.gravty", Uniform(0, 1))
    assert of_task("opt.timestep", Uniform(0, 1)).startswith("task 'opt.timestep' is the same for all tasks")
    assert of_task("body_parentid", Uniform(0, 1)).startswith("task 'body_parentid' is no field of MuJoCo's model that")
    assert of_task("body_mass", Uniform(1, 2, bodies=["torso"])) == (
        "task 'body_mass' selects 'torso' of bodies: the model has 'upper', 'lower'"
    )
    assert of_task("body_mass", Uniform(1, 2, bodies="lower")) == (
        "task 'body_mass' has bodies 'lower'; must be a list of names"
    )
    assert of_task("geom_friction", Uniform(1, 2, bodies=["lower"])) == (
        "task 'geom_friction' selects bodies: select by geoms"
    )
    assert of_task("opt.gravity", Uniform(1, 2, joints=["elbow"])) == (
        "task 'opt.gravity' selects joints: it has no elements to select"
    )
    assert of_task("target", Uniform(1, 2, joints=["elbow"])).startswith(
        "task 'target' selects joints, but is no field of MuJoCo's model"
    )
    assert of_task("dof_armature", Uniform(1, 2)) == (
        "task 'dof_armature' multiplies values that are all zero in the model: use scale=False"
    )
    assert of_task("opt.gravity", Uniform(1, 2, scale=False)) == (
        "task 'opt.gravity' has 3 numbers; scale=False gives one: multiply the model's own"
    )
    assert of_task("the target", Uniform(1, 2)).startswith("'the target' is not a valid parameter name")
    assert of_task("target", 3).startswith("task 'target' is 3; must be a sampler")
    assert message(tasks={}).startswith("tasks is empty")
    assert message(horizon=0).startswith("horizon is 0")
    assert message(mjcf=tmp_path / "absent.xml").endswith("absent.xml'; there is no such file")
    for name, text, expected in (
        ("bad", "<mujoco><worldbody><bodi/></worldbody></mujoco>", "bodi"),
        ("still", "<mujoco><worldbody/></mujoco>", "the model has no actuator"),
        ("endless", ARM.replace('ctrlrange="-1 1"', ""), "actuator 'bend' has no ctrlrange: actions need limits"),
    ):
        (tmp_path / f"{name}.xml").write_text(text)
        found = message(mjcf=tmp_path / f"{name}.xml")
        assert expected in found
        assert f"{name}.xml" in found


def test_mistakes_in_functions_are_named(arm):
    def message(**changes: Any) -> str:
        with pytest.raises(ValueError) as error:  # noqa: PT011, the messages are compared
            arm(**changes)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert message(observe=lambda physics, task: physics.qpos[:, 0]) == (
        "observe gives float64 of shape (7,) for 7 rows: it must be floats of shape (7, size)"
    )
    assert message(observe=lambda physics, task: physics.qpos.T).startswith("observe gives float64 of shape (5, 7)")
    assert message(observe=lambda physics, task: physics.qpos.numpy()) == "observe gives ndarray: it must be a tensor"
    assert message(reward=lambda physics, action, task: -physics.qpos[:, :1]) == (
        "reward gives float64 of shape (7, 1) for 7 rows: it must be floats of shape (7,)"
    )
    assert message(reward=lambda physics, action, task: task.target.log() * 0 / 0).startswith(
        "reward is not finite for a robot at rest in the task target="
    )
    assert message(reward=lambda physics, action, task: task.gaol) == (
        "reward fails: AttributeError: 'CustomTasks' object has no attribute 'gaol'"
    )
    assert message(reward=lambda physics, action, task: physics.position("knee")) == (
        "reward fails: ValueError: the model has no joint 'knee': it has 'shoulder', 'elbow'"
    )
    assert "'xpoz' is not a field of MuJoCo's data: did you mean 'xpos'?" in message(
        reward=lambda physics, action, task: physics.xpoz[:, 0, 0]
    )
    assert "physics.before is available in reward and metrics only" in message(
        observe=lambda physics, task: physics.before.qpos
    )
    assert message(terminated=lambda physics, task: physics.velocity("elbow")) == (
        "terminated gives float64 of shape (7,) for 7 rows: it must be bools of shape (7,)"
    )
    assert message(goal=lambda task: task.target).startswith("goal gives float32 of shape (7,) for 7 rows")
    assert message(metrics={"height": lambda physics, action, task: physics.xpos}).startswith("height gives float64")
    assert message(terminated=3) == "terminated is 3; must be a function"


def test_an_observation_that_stops_being_finite_is_named(arm):
    family = arm(observe=lambda physics, task: physics.position("elbow").sqrt()[:, None], start_noise=0.0)
    env = family.make_env(2, generator())
    env.reset(family.sample(2, "train", generator()))
    action = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    message = r"observation of row \d is \[nan\] at qpos .* its task is target="
    with pytest.raises(FloatingPointError, match=message):
        env.step(action)


def test_tasks_that_are_all_choices_have_no_ood(arm):
    family = arm(tasks={"side": Choice([-1, 1])})
    with pytest.raises(ValueError, match="split is 'ood'; must be one of train, test for own_robot"):
        family.sample(1, "ood", generator())
    mixed = arm(tasks={"side": Choice([-1, 1]), "target": Uniform(0, 1)}).sample(50, "ood", generator())
    assert set(mixed.side.tolist()) == {-1.0, 1.0}
    assert bool((mixed.target > 1).all())


# Parameters without an effect


def message(make: Callable[[], Any]) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011, the messages are compared
        make()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("mass", "body_mass"),
        ("damping", "dof_damping"),
        ("tendon_stifness", "tendon_stiffness"),
        ("site_poss", "site_pos"),
        ("jiont_range", "jnt_range"),
    ],
)
def test_a_parameter_that_no_function_asks_for_is_refused_with_the_nearest_field(arm, name, nearest):
    found = message(lambda: arm(tasks={name: Uniform(1, 2)}))
    assert found == (
        f"task {name!r} has no effect: it is no field of MuJoCo's model, and neither observe, reward, terminated, "
        f"start nor act asks for task.{name}: did you mean {nearest!r}?"
    )
    arm(tasks={name: Uniform(1, 2)}, reward=lambda physics, action, task: getattr(task, name))
    arm(tasks={name: Uniform(1, 2)}, unchecked=[name])


@pytest.mark.parametrize(
    "reward",
    [
        lambda physics, action, task: torch.stack(list(vars(task).values()), 1).sum(1),
        lambda physics, action, task: task.map(lambda value: 2 * value).target,
        lambda physics, action, task: replace(task, target=task.target + 1).target,
    ],
)
def test_a_parameter_may_be_asked_for_in_any_way(arm, reward):
    arm(tasks={"target": Uniform(1, 2)}, reward=reward, unchecked=())


def test_a_parameter_that_only_images_and_metrics_ask_for_is_refused(arm):
    functions: dict[str, Any] = {
        "goal": lambda task: task.target[:, None].expand(-1, 3),
        "metrics": {"far": lambda physics, action, task: task.target},
    }
    assert message(lambda: arm(unchecked=(), **functions)).startswith("task 'target' has no effect")
    length = "observe does not ask for it by its length"
    observe = lambda physics, task: physics.qpos * torch.ones(len(task), 1)  # noqa: E731
    assert message(lambda: arm(unchecked=(), observe=observe)).startswith("task 'target' has no effect"), length


def test_a_field_of_the_model_without_an_effect_is_refused(arm):
    assert message(lambda: arm(tasks={"geom_friction": Uniform(1, 2, geoms=["floor"])})).startswith(
        "task 'geom_friction' has no effect: 5 random steps with 1.5 and with 1."
    )
    assert message(lambda: arm(tasks={"body_subtreemass": Uniform(1, 2)})) == (
        "task 'body_subtreemass' has no effect: MuJoCo computes 'body_subtreemass' from other fields"
    )
    arm(tasks={"geom_friction": Uniform(1, 2, geoms=["floor"])}, unchecked=["geom_friction"])
    arm(tasks={"geom_friction": Choice([2])})  # one value has nothing to be compared with
    assert message(lambda: arm(unchecked=["mass"])) == "unchecked has 'mass'; must be among target"


def test_a_late_contact_shows_its_friction(tmp_path):
    path = tmp_path / "puck.xml"
    path.write_text("""<mujoco><worldbody><geom name="floor" type="plane" size="1 1 1"/>
      <body pos="0 0 0.3"><freejoint/><geom type="box" size="0.1 0.1 0.1"/></body></worldbody>
      <actuator><motor body="puck" ctrlrange="-1 1"/></actuator></mujoco>"""
      .replace("<body pos", '<body name="puck" pos').replace('<motor body="puck"', '<motor site="s" gear="1 0 0 0 0 0"')
      .replace("<freejoint/>", '<freejoint/><site name="s"/>'))  # fmt: skip
    settings: dict[str, Any] = {
        "mjcf": path,
        "observe": lambda physics, task: physics.qpos,
        "reward": lambda physics, action, task: physics.qpos[:, 0],
        "tasks": {"geom_friction": Uniform(0.1, 2, geoms=["floor"])},
        "start_noise": 0.0,
        "frame_skip": 5,
    }
    MujocoFamily(horizon=60, **settings)
    assert "10 random steps" in message(lambda: MujocoFamily(horizon=10, **settings))  # it is still falling


@pytest.mark.parametrize(
    ("name", "why"), [("to", "records"), ("map", "records"), ("lambda", "Python"), ("__doc__", "records")]
)
def test_names_that_are_taken_are_refused(arm, name, why):
    found = message(lambda: arm(tasks={name: Uniform(0, 1)}))
    assert found.startswith(f"{name!r} is not a valid parameter name, as it is taken by ")
    assert why in found


def test_two_names_of_one_field_are_refused(arm):
    tasks = {"opt.gravity": Uniform(1, 2), "opt_gravity": Uniform(1, 2)}
    assert message(lambda: arm(tasks=tasks)) == (
        "tasks has 'opt.gravity' and 'opt_gravity', which are one field of a task; rename one"
    )


class Drawn:
    """A sampler of the user's own."""

    def __init__(self, sample: Callable[..., Any], has_ood: bool = False) -> None:
        self.draw, self.has_ood = sample, has_ood

    def sample(self, shape: Any, split: str, generator: torch.Generator) -> Any:
        return self.draw(tuple(shape), split)

    def contains(self, values: Any) -> Any:
        return values >= 0


def test_samplers_of_no_use_are_named(arm):
    def of(sampler: Any) -> str:
        return message(lambda: arm(tasks={"target": sampler}))

    def beyond(shape: Any, split: str) -> Any:
        return torch.full(shape, 1.0 if split == "train" else math.inf)

    begin = "the sampler of task 'target'"
    assert of(Drawn(lambda shape, split: torch.full(shape, math.nan))) == (
        f"{begin} draws nan for the split 'train'; must be finite numbers"
    )
    assert of(Drawn(beyond, has_ood=True)) == f"{begin} draws inf for the split 'ood'; must be finite numbers"
    assert of(Drawn(lambda shape, split: torch.ones(3))) == (
        f"{begin} gives shape (3,); must be a tensor of shape (256,)"
    )
    assert of(Drawn(lambda shape, split: 1.0)) == f"{begin} gives float; must be a tensor of shape (256,)"
    assert of(Drawn(lambda shape, split: shape[5])) == (
        f"{begin} fails for the split 'train': IndexError: tuple index out of range"
    )
    flat = Drawn(lambda shape, split: torch.rand(shape[:1]))
    assert message(lambda: arm(tasks={"body_mass": flat})) == (
        "the sampler of task 'body_mass' gives shape (7,); must be a tensor of shape (7, 2)"
    )


@pytest.mark.parametrize("timestep", ["0", "nan", "-0.01"])
def test_a_timestep_that_is_none_is_named(arm, tmp_path, timestep):
    path = tmp_path / "arm.xml"
    path.write_text(ARM.replace("0.01", timestep, 1))
    assert message(lambda: arm(mjcf=path)) == f"{path}: timestep is {float(timestep)}; must be positive and finite"


def test_a_number_that_is_none_is_named(arm, tmp_path):
    path = tmp_path / "arm.xml"
    path.write_text(ARM.replace('<option timestep="0.01"', '<option timestep="0.01" gravity="0 0 nan"'))
    assert message(lambda: arm(mjcf=path)) == f"{path}: opt.gravity has a NaN; must be numbers"


# Servos

SERVOS = """<mujoco><option timestep="0.002"/><worldbody>
  <body name="upper"><joint name="shoulder" axis="0 0 1" damping="0.1"/><geom size="0.05" pos="0.3 0 0"/>
  <body name="lower" pos="0.3 0 0"><joint name="elbow" axis="0 0 1" damping="0.1"/><geom size="0.05" pos="0.3 0 0"/>
  </body></body>
  <body name="marker" mocap="true" pos="1 0 0"><geom size="0.02" contype="0" conaffinity="0"/></body></worldbody>
  <actuator><position name="shoulder" joint="shoulder" kp="40" kv="4" ctrlrange="-2 2"/>
  <intvelocity name="elbow" joint="elbow" kp="40" kv="4" ctrlrange="-1 1" actrange="-3 3"/></actuator>
  <keyframe><key name="stand" qpos="0 0.5"/>
  <key name="home" qpos="0.6 1.2" qvel="0.1 0.2" ctrl="0.62 0" act="1.25" mpos="1 2 3" mquat="0 1 0 0"/></keyframe>
</mujoco>"""


@pytest.fixture(scope="module")
def servos(tmp_path_factory) -> Callable[..., Any]:
    """Makes families of two servos with a home position, and a marker that is put where one likes."""
    path = tmp_path_factory.mktemp("servos") / "servos.xml"
    path.write_text(SERVOS)

    def make(**changes: Any) -> Any:
        settings: dict[str, Any] = {
            "mjcf": path,
            "observe": lambda physics, task: torch.cat([physics.qpos, physics.qvel], 1),
            "reward": lambda physics, action, task: physics.qpos[:, 0],
            "tasks": {"body_mass": LogUniform(1 / 2, 2, shared=True)},
            "horizon": 4,
            "start": "home",
            "start_noise": 0.0,
        }
        return MujocoFamily(**{**settings, **changes})

    return make


def settled(servos: Callable[..., Any], parameter: str, sampler: Any, value: Any) -> list[float]:
    """The angles [rad] that a command of 1 rad to the shoulder ends at."""
    env = env_for(servos(tasks={parameter: sampler}, horizon=900, start="stand"), **{parameter: value})
    steps = [env.step(torch.tensor([[1.0, 0.0]])) for _ in range(800)]
    return steps[-1].obs[0, :2].tolist()


def test_a_gain_without_its_bias_is_warned_of(servos, caplog):
    with caplog.at_level(logging.WARNING):
        both = LogUniform(1 / 2, 2, shared=True)
        servos(tasks={"actuator_kp": both, "actuator_kd": both, "body_mass": both})
        assert caplog.messages == []
        gain = LogUniform(1 / 2, 2, actuators=["shoulder"])
        servos(tasks={"actuator_gainprm": gain})
        servos(tasks={"actuator_gainprm": gain}, horizon=5)  # which is not worth another warning
    assert len(caplog.messages) == 1
    assert "task 'actuator_gainprm' changes servo 'shoulder' apart from its bias" in caplog.messages[0]
    assert all(way in caplog.messages[0] for way in ("actuator_kp", "actuator_kd", "shared=True", "motor_strength"))
    assert settled(servos, "actuator_gainprm", gain, 0.7)[0] == pytest.approx(0.7, abs=1e-3)
    stiffness = LogUniform(1 / 2, 2, actuators=["shoulder"])
    assert settled(servos, "actuator_kp", stiffness, 0.7)[0] == pytest.approx(1.0, abs=1e-3)


def test_a_motor_has_no_bias_to_be_warned_of(arm, caplog):
    with caplog.at_level(logging.WARNING):
        arm(tasks={"actuator_gainprm": LogUniform(1 / 2, 2)})
    assert caplog.messages == []
    assert message(lambda: arm(tasks={"actuator_kp": LogUniform(1 / 2, 2)})) == (
        "task 'actuator_kp' has actuator 'bend', which is not a position servo"
    )


def test_stiffness_and_damping_change_gain_and_bias_together(servos):
    tasks = {"actuator_kp": LogUniform(1 / 2, 2), "actuator_kd": Uniform(1, 9, scale=False, actuators=["elbow"])}
    family = servos(tasks=tasks)
    task = family.sample(2, "train", generator())
    env = family.make_env(2, generator())
    env.reset(task)
    for row in range(2):
        model, _ = env.copy_row(row)
        kp, kd = task.actuator_kp[row], task.actuator_kd[row]
        assert model.actuator_gainprm[:, 0] == pytest.approx(40 * kp)
        assert model.actuator_biasprm[:, 1] == pytest.approx(-40 * kp)
        assert model.actuator_biasprm[:, 2] == pytest.approx([-4, -float(kd)])


def test_a_velocity_servos_damping_is_its_gain_too(servos, tmp_path):
    path = tmp_path / "velocity.xml"
    path.write_text(SERVOS.replace('<position name="shoulder" joint="shoulder" kp="40" kv="4"',
                                   '<velocity name="shoulder" joint="shoulder" kv="4"'))  # fmt: skip
    damping = Uniform(1, 9, scale=False, actuators=["shoulder"])
    model, _ = env_for(servos(mjcf=path, tasks={"actuator_kd": damping}), actuator_kd=6.0).copy_row(0)
    assert (model.actuator_gainprm[0, 0], model.actuator_biasprm[0, 2]) == (6, -6)


def test_a_shared_draw_is_one_value_for_all_elements(arm):
    family = arm(tasks={"dof_damping": LogUniform(1, 4, shared=True), "body_mass": LogUniform(1, 4)})
    task = family.sample(2, "train", generator())
    assert (task.dof_damping.shape, task.body_mass.shape) == ((2,), (2, 2))
    env = family.make_env(2, generator())
    env.reset(task)
    model, _ = env.copy_row(1)
    assert model.dof_damping == pytest.approx(float(task.dof_damping[1]) * np.array([0.5, 0.5, 0.5, 0.2]))


def test_both_ends_of_a_range_cannot_be_one_number(servos):
    assert message(lambda: servos(tasks={"jnt_range": Uniform(1, 2, scale=False)})).startswith(
        "task 'jnt_range' has two ends; scale=False gives one number"
    )


# Where episodes start, and what actions mean


def everything(physics: Any, task: Any) -> Any:
    given = (physics.qpos, physics.qvel, physics.act, physics.ctrl, physics.mocap_pos[:, 0], physics.mocap_quat[:, 0])
    return torch.cat(given, 1)


HOME = [0.6, 1.2, 0.1, 0.2, 1.25, 0.62, 0, 1, 2, 3, 0, 1, 0, 0]


def test_episodes_start_in_a_keyframe_of_the_file(servos):
    family = servos(observe=everything)
    env = family.make_env(2, generator())
    step = env.reset(family.sample(2, "train", generator()))
    assert step.obs.tolist() == [pytest.approx(HOME)] * 2
    for _ in range(4):
        step = env.step(torch.ones(2, 2))
    assert step.truncated.all()
    assert step.next_obs[0].tolist() != pytest.approx(HOME)
    assert step.obs.tolist() == [pytest.approx(HOME)] * 2


def test_without_one_they_start_where_they_did(servos, caplog):
    with caplog.at_level(logging.WARNING):
        env = env_for(servos(start="qpos0"), body_mass=1.0)
        assert caplog.messages == []
        env = env_for(servos(start=""), body_mass=1.0)
    assert env.physics.qpos.tolist() == [[0, 0]]
    assert caplog.messages == [
        "servos.xml has a keyframe 'home', but start is ''; set start='home', or 'qpos0' to ignore it"
    ]


def test_episodes_start_where_a_function_of_the_task_says(servos):
    tasks = {"angle": Uniform(1, 2)}
    env = env_for(
        servos(observe=everything, tasks=tasks, start=lambda task: task.angle[:, None].expand(-1, 2)), angle=1.5
    )
    assert env.physics.qpos.tolist() == [[1.5, 1.5]]

    def start(task: Any) -> Any:
        places = torch.stack([task.angle, 0 * task.angle, 0 * task.angle], 1)
        return {"qvel": places[:, :2], "mocap_pos": places[:, None]}

    env = env_for(servos(observe=everything, tasks=tasks, start=start), angle=1.5)
    assert (env.physics.qpos.tolist(), env.physics.qvel.tolist()) == ([[0, 0]], [[1.5, 0]])
    assert env.physics.data("mocap_pos").tolist() == [[[1.5, 0, 0]]]


def test_noise_is_that_of_each_joint(servos):
    family = servos(start_noise=0.0, joint_noise={"elbow": 0.1})
    env = family.make_env(100, generator())
    obs = env.reset(family.sample(1, "train", generator())).obs
    assert obs[:, 0].tolist() == pytest.approx([0.6] * 100)
    assert obs[:, 2].tolist() == pytest.approx([0.1] * 100)
    for column, middle in ((1, 1.2), (3, 0.2)):
        assert 0.09 < float((obs[:, column] - middle).abs().max()) < 0.1
    alike = servos(start_noise=0.1).make_env(100, generator())
    assert torch.equal(alike.reset(family.sample(1, "train", generator())).obs[:, 1], obs[:, 1])  # from one stream


def test_act_makes_controls_and_places_of_actions(servos):
    def act(physics: Any, action: Any, task: Any) -> Any:
        place = torch.cat([action[:, 2:], physics.qpos], 1)[:, None]
        return {"ctrl": torch.tensor([0.62, 0]) + 0.3 * action[:, :2], "mocap_pos": place}

    family = servos(observe=everything, act=act, num_actions=3)
    assert (family.action_space.low.tolist(), family.action_space.high.tolist()) == ([-1] * 3, [1] * 3)
    env = family.make_env(2, generator())
    env.reset(family.sample(2, "train", generator()))
    step = env.step(torch.tensor([[0, 0, 0.5], [1, 7, -1]]), torch.tensor([True, False]))
    assert step.obs[0, 5:10].tolist() == pytest.approx([0.62, 0, 0.5, 0.6, 1.2])
    assert step.obs[1].tolist() == pytest.approx(HOME)  # a row that is not active stays as it is
    step = env.step(torch.tensor([[0, 0, 0.5], [1, 7, -1]]))
    assert step.obs[1, 5:10].tolist() == pytest.approx([0.92, 0.3, -1, 0.6, 1.2])
    check_family(family)


def test_a_robot_may_have_a_marker_to_move_and_no_actuator(servos, tmp_path):
    path = tmp_path / "still.xml"
    path.write_text(re.sub(r"<actuator>.*</keyframe>", "", SERVOS, flags=re.DOTALL))
    settings: dict[str, Any] = {"mjcf": path, "start": "", "start_noise": 0.1}
    assert message(lambda: servos(**settings)).endswith("the model has no actuator; must have at least one")
    settings["act"] = lambda physics, action, task: {"mocap_pos": action[:, None]}
    assert message(lambda: servos(**settings)) == "num_actions is 0; must be at least 1, as the model has no actuator"
    env = env_for(servos(**settings, num_actions=3), body_mass=1.0)
    env.step(torch.tensor([[0.1, 0.2, 0.3]]))
    assert env.physics.data("mocap_pos").flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_mistakes_in_where_episodes_start_and_in_act_are_named(servos, arm):
    def of(**changes: Any) -> str:
        return message(lambda: servos(**changes))

    assert of(start="hmoe") == "start is 'hmoe'; must be a keyframe: did you mean 'home'?"
    assert of(start="x") == "start is 'x'; must be a keyframe: the model has 'stand', 'home'"
    assert message(lambda: arm(start="home")) == "start is 'home'; must be a keyframe: the model has none"
    assert of(start=3) == "start is 3; must be the name of a keyframe, positions by joint, or a function"
    assert of(start=lambda task: torch.zeros(2)) == "start gives qpos of shape (2,); must be (7, 2)"
    assert of(start=lambda task: {"pos": 3}) == (
        "start gives 'pos'; must be among qpos, qvel, ctrl, act, mocap_pos, mocap_quat"
    )
    assert of(start=lambda task: {"act": torch.full((7, 1), math.nan)}) == "start gives act that is not finite"
    assert of(start=lambda task: task.height) == (
        "start fails: AttributeError: 'CustomTasks' object has no attribute 'height'"
    )
    assert of(joint_noise={"knee": 0.1}) == "joint_noise: the model has no joint 'knee': it has 'shoulder', 'elbow'"
    assert of(joint_noise={"elbow": -1}) == "joint_noise of 'elbow' is -1; must be zero or positive, and finite"
    assert of(start_noise=-1) == "start_noise is -1; must be at least 0"
    assert of(act=lambda physics, action, task: action[:, :1]) == "act gives ctrl of shape (7, 1); must be (7, 2)"
    assert of(act=lambda physics, action, task: {"qpos": action}) == (
        "act gives 'qpos'; must be among ctrl, mocap_pos, mocap_quat"
    )
    assert of(act=lambda physics, action, task: 3) == "act gives int: it must be a tensor"
    assert of(num_actions=3) == "num_actions is 3; must be 0 without act, which makes controls of them"


def test_controls_that_are_not_finite_are_named(servos):
    env = env_for(servos(act=lambda physics, action, task: (action + 0.5).sqrt()), body_mass=1.0)
    env.step(torch.zeros(1, 2))
    with pytest.raises(FloatingPointError, match=r"ctrl that act gives of row 0 is \[nan, .* its task is body_mass="):
        env.step(torch.full((1, 2), -1.0))


# The laws and the example


def test_it_obeys_the_laws_of_families(arm):
    check_family(replace(CRANE, horizon=12))
    check_family(arm(tasks={"target": Uniform(0, 1), "dof_damping": LogUniform(1 / 2, 2)}))


# The checker remarks that positions and velocities are unbounded; they are.
@pytest.mark.filterwarnings("ignore:.*Box observation space (min|max)imum value is -?infinity.*")
def test_gymnasium_and_stable_baselines3_accept_it():
    check_env(GymnasiumEnv(CRANE), skip_render_check=True)
    sb3_check_env(GymnasiumEnv(CRANE, task={"target": 0.5, "body_mass": 1.0}), warn=False)


@pytest.mark.usefixtures("images")
def test_a_video_of_it_is_made_without_a_display(tmp_path):
    family = replace(CRANE, horizon=4)
    agent: Any = load("own_robot/rl2").trainer().agent
    made = record(family, agent, family.sample(1, "test", generator()), 1, tmp_path / "crane.mp4")
    assert made.path.stat().st_size > 1000
    assert len(made.returns) == 1


def test_the_documentation_shows_the_recipe_as_it_is():
    recipe = (ROOT / "experiments" / "recipes" / "own_robot" / "rl2.py").read_text()
    [shown] = [
        block for block in re.findall(r"```python\n(.+?)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL)
        if "MujocoFamily(" in block
    ]  # fmt: skip
    assert shown in recipe


@pytest.mark.slow
@pytest.mark.usefixtures("images")
def test_a_run_of_it_is_resumed_evaluated_and_played(tmp_path, monkeypatch, capsys):
    def run(*words: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main(list(words))
        output, errors = capsys.readouterr()
        assert not stop.value.code, errors
        return output

    monkeypatch.chdir(tmp_path)
    tiny = ("--train.num-tasks", "4", "--train.eval-tasks", "3", "--agent.hidden-size", "8", "--family.horizon", "5")
    run("train", "own_robot/rl2", "--run-dir", "run", "--train.num-iterations", "2", *tiny)
    for file in ("rl2.py", "crane.xml"):
        shutil.copy(ROOT / "experiments" / "recipes" / "own_robot" / file, file)
    run("train", "rl2.py", "--run-dir", "half", "--train.num-iterations", "1", *tiny,
        "--family.tasks.target.high", "0.5")  # fmt: skip
    family = read(Run(Path("half"))).experiment.family
    assert family.horizon == 5
    assert family.mjcf == tmp_path / "crane.xml"
    assert family.tasks == {**CRANE.tasks, "target": Uniform(-1, 0.5)}
    functions, ranges = ["observe", "reward"], ["tasks.target", "tasks.body_mass"]
    assert Run(Path("half")).config()["family"]["of_recipe"] == [*functions, *ranges, "terminated", "goal"]
    run("resume", "half", "--num-iterations", "2")
    assert '"num_tasks": 7' in run("evaluate", "run", "--tasks", "7", "--json")
    task = ("--task", "target=0.7", "--task", "body_mass=2")
    output = run("play", "run", *task, "--episodes", "1", "--video", "own.mp4")
    assert "outside the range" not in output
    assert Path("own.mp4").is_file()

    window = FakeViewer()
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("experiments.cli.commands.play._window", window.opened)
    watched = run("play", "run", *task, "--episodes", "1", "--viewer")
    assert watched.splitlines()[-1] == output.splitlines()[-1]  # the same trial
    assert window.shown == 1 + 5  # the start and every step
    assert window.user_scn.ngeom == 1  # the goal


class FakeViewer:
    """MuJoCo's passive viewer without a window."""

    def __init__(self) -> None:
        mujoco: Any = importlib.import_module("mujoco")  # after envs has chosen how it renders
        self.cam, self.shown, self.user_scn = SimpleNamespace(), 0, mujoco.MjvScene(CRANE.model, 10)

    @contextmanager
    def opened(self, model: Any, data: Any) -> Iterator[Any]:
        yield self

    def is_running(self) -> bool:
        return True

    def lock(self) -> Any:
        return nullcontext()

    def sync(self) -> None:
        self.shown += 1
