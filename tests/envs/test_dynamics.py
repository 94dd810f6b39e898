"""Robots whose dynamics differ from task to task: what multipliers do to the model, limbs, starts, rewards by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from envs.check import check_family
from envs.locomotion.dynamics import AntDynamics, DynamicsTasks, HalfCheetahDynamics, HumanoidDynamics
from envs.locomotion.limbs import model_with_limbs
from envs.locomotion.ranges import Multiplier
from envs.simulators.model import load_model
from tests.envs.test_locomotion import between, drawn, generator, in_the_middle, moments

FAMILIES: list[Any] = [HalfCheetahDynamics(), AntDynamics(), HumanoidDynamics()]
by_name: Any = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def tasks_of(**multipliers: float) -> DynamicsTasks:
    """One task, nominal but for what is given."""
    nominal = {"mass": 1.0, "damping": 1.0, "friction": 1.0, "limb_length": 1.0}
    return DynamicsTasks(**{name: torch.tensor([value]) for name, value in (nominal | multipliers).items()})


@pytest.mark.parametrize("vary", [("mass",), ("limb_length",), ("damping", "friction")])
@by_name
def test_variants_obey_the_laws(family: Any, vary: Any) -> None:
    check_family(replace(family, horizon=6, vary=vary, **in_the_middle(family)))


@pytest.mark.parametrize(
    ("family", "z", "dt", "expected"),
    [
        # v = 0.1 / 0.05 = 2; |a|² is 0.25 times the number of motors
        (HalfCheetahDynamics(), 0.0, 0.05, 2 - 0.05 * 1.5),
        (AntDynamics(), 0.5, 0.05, 2 + 1 - 0.5 * 2),
        (AntDynamics(), 1.1, 0.05, 2 - 0.5 * 2),
        (HumanoidDynamics(), 1.4, 0.05, 1.25 * 2 + 5 - 0.1 * 4.25),
        (HumanoidDynamics(), 0.9, 0.05, 1.25 * 2 - 0.1 * 4.25),
    ],
)
def test_rewards_by_hand(family: Any, z: float, dt: float, expected: float) -> None:
    before, after = moments(family, (0.0, 0.0), (0.1, 7.0), q2=z)
    action = torch.full((1, family.robot.num_actions), 0.5)
    assert float(family.reward(before, after, action, tasks_of(), dt)) == pytest.approx(expected, abs=1e-6)
    assert family.metrics(before, after, action, tasks_of(), dt).tolist() == [[pytest.approx(2.0)]]
    falls = family.terminated(after, tasks_of())
    assert falls is None or bool(falls) == (z in (1.1, 0.9))


@by_name
def test_multipliers_scale_the_fields_of_the_model(family: Any) -> None:
    env = type(family)(vary=("mass", "damping", "friction")).make_env(1, generator())
    env.reset(tasks_of(mass=2.0, damping=0.5, friction=1.5))
    model, _ = env.copy_row(0)
    plain = load_model(family.body)
    expected = {
        "body_mass": 2.0,
        "body_inertia": 2.0,
        "dof_damping": 0.5,
        "geom_friction": 1.5,
        "body_subtreemass": 2.0,
    }
    for field, multiplier in expected.items():
        assert np.allclose(getattr(model, field), multiplier * getattr(plain, field), rtol=1e-12), field
    for field in ("geom_size", "body_pos", "dof_armature", "jnt_stiffness"):
        assert np.array_equal(getattr(model, field), getattr(plain, field)), field


@by_name
def test_limbs_of_nominal_length_are_those_of_the_body(family: Any) -> None:
    ours, plain = model_with_limbs(family.body, family.limbs, 1.0), load_model(family.body)
    for name in dir(plain):
        value = getattr(plain, name)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            assert np.allclose(value, getattr(ours, name), rtol=1e-9, atol=1e-9), name


@by_name
def test_longer_limbs_are_longer_and_heavier(family: Any) -> None:
    """Half-lengths are multiplied, radii are not; a capsule's mass is its volume's; the trunk stays as it was."""
    plain, longer = load_model(family.body), model_with_limbs(family.body, family.limbs, 1.2)
    for geom in range(1, plain.ngeom):
        body = plain.geom_bodyid[geom]
        name = mujoco.mj_id2name(plain, mujoco.mjtObj.mjOBJ_BODY.value, body)  # type: ignore[attr-defined]
        capsule = plain.geom_type[geom] == mujoco.mjtGeom.mjGEOM_CAPSULE  # type: ignore[attr-defined]
        scale = 1.2 if name in family.limbs and capsule else 1.0
        radius, half = plain.geom_size[geom, :2]
        assert longer.geom_size[geom, 0] == radius
        assert longer.geom_size[geom, 1] == pytest.approx(scale * half)
        if plain.body_geomnum[body] == 1 and capsule:
            volumes = [math.pi * radius**2 * (2 * length + 4 / 3 * radius) for length in (half, scale * half)]
            ratio = longer.body_mass[body] / plain.body_mass[body]
            assert ratio == pytest.approx(volumes[1] / volumes[0], rel=1e-9)
    assert longer.body_mass[1] == pytest.approx(plain.body_mass[1])
    assert longer.body_mass.sum() > 1.05 * plain.body_mass.sum()


def clearance(model: Any, qpos: np.ndarray[Any, Any]) -> float:
    """How high the lowest point of the robot is above the floor, from its capsules and spheres."""
    data = mujoco.MjData(model)  # type: ignore[attr-defined]
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)  # type: ignore[attr-defined]
    lowest = math.inf
    for geom in range(model.ngeom):
        if model.geom_bodyid[geom]:
            capsule = model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_CAPSULE  # type: ignore[attr-defined]
            reach = model.geom_size[geom, 0] + capsule * abs(data.geom_xmat[geom, 8]) * model.geom_size[geom, 1]
            lowest = min(lowest, data.geom_xpos[geom, 2] - reach)
    return lowest


@by_name
def test_robots_start_as_high_above_the_floor_as_the_one_described(family: Any) -> None:
    expected = clearance(load_model(family.body), load_model(family.body).qpos0)
    tasks = family.sample(6, "ood", generator())
    qpos = torch.tensor(load_model(family.body).qpos0).repeat(6, 1)
    states = [family.initial_state(tasks, qpos, torch.zeros(6, 1), generator(seed))[0] for seed in range(2)]
    noise = family.robot.noise.add(qpos, torch.zeros(6, 1), generator(0))[0] - qpos
    assert not torch.equal(*states)
    for row, model in enumerate(family.models(tasks)):
        assert clearance(model, (states[0] - noise)[row].numpy()) == pytest.approx(expected, abs=1e-6)


@by_name
def test_each_row_moves_as_its_own_model_does(family: Any) -> None:
    """Limbs and multipliers at once, against MuJoCo's own loop on that row's model, to the last bit."""
    env = family.make_env(3, generator())
    env.reset(family.sample(3, "train", generator(1)))
    starts = env.physics.qpos.clone(), env.physics.qvel.clone()
    models = [env.copy_row(row)[0] for row in range(3)]
    assert len({float(model.body_mass.sum()) for model in models}) == 3
    limit = family.robot.action_limit
    actions = limit * (2 * torch.rand(10, 3, family.robot.num_actions, generator=generator()) - 1)
    for action in actions:
        env.physics.step(action.double(), 5)
    for row, model in enumerate(models):
        data = mujoco.MjData(model)  # type: ignore[attr-defined]
        data.qpos[:], data.qvel[:] = starts[0][row], starts[1][row]
        mujoco.mj_forward(model, data)  # type: ignore[attr-defined]
        for action in actions[:, row].double():
            data.ctrl[:] = action
            for _ in range(5):
                mujoco.mj_step(model, data)  # type: ignore[attr-defined]
        assert np.array_equal(data.qpos, env.physics.qpos[row])


def test_the_ranges_of_multipliers() -> None:
    family = AntDynamics()
    for quantity, limit in (("mass", 2.0), ("damping", 2.0), ("friction", 2.0)):
        assert between(drawn(family, "train", quantity).log() / math.log(limit), -1, 1)
        assert between((drawn(family, "ood", quantity).log() / math.log(limit)).abs(), 1, 4 / 3)
    for split, number in (("train", 48), ("ood", 16)):
        lengths = drawn(family, split, "limb_length")
        assert len(set(lengths.tolist())) == number
    lengths = drawn(family, "train", "limb_length")
    assert 1 / 1.25 < lengths.min() < 0.805
    assert 1.24 < lengths.max() < 1.25
    only = AntDynamics(vary=("friction",))
    assert (drawn(only, "train", "mass") == 1).all()
    assert (drawn(only, "train", "friction") != 1).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vary": ()}, r"vary is \(\); must be one or more of mass, damping, friction, limb_length"),
        ({"vary": ("size",)}, "vary is .*size"),
        ({"mass": 2.0}, r"mass is 2.0; must be a sampler such as Multiplier\(base=2.0\)"),
        ({"limb_length": Multiplier(1.2)}, "num_values is 0; must be at least 1"),
    ],
)
def test_wrong_variants_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AntDynamics(**arguments)
