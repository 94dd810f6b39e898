"""The GPU's engine, on Warp's CPU device: the same simulations as the C engine's, up to float32, before contact."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.rl2 import RL2Config
from envs.catalog import make
from envs.check import check_family
from envs.locomotion import robots
from envs.locomotion.custom_robot import MujocoFamily
from envs.locomotion.half_cheetah import BODY
from envs.locomotion.mujoco_env import MujocoEnv
from envs.samplers import Choice, Uniform
from envs.simulators.cpu import CpuPhysics
from envs.simulators.model import load_model
from envs.wrappers import OnEngine
from tests.envs.test_simulators import NothingWaits, longer_shin

mujoco_warp: Any = pytest.importorskip("mujoco_warp")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:warp")]

ROBOT = """
<mujoco>
  <option timestep="0.002"/>
  <worldbody>
    <geom name="floor" type="plane" size="9 9 1"/>
    <body name="trunk" pos="0 0 0.3">
      <freejoint name="root"/>
      <geom type="box" size="0.2 0.1 0.05" mass="3"/>
      <body name="leg" pos="0.1 0 -0.05">
        <joint name="hip" axis="0 1 0" damping="0.1" armature="0.02"/>
        <geom type="capsule" fromto="0 0 0 0 0 -0.1" size="0.03" mass="0.5"/>
      </body>
    </body>
    <body name="rod" pos="0 2 1">
      <joint name="rod" axis="0 1 0" damping="0.1" armature="0.02"/>
      <geom size="0.1" pos="0.2 0 0" mass="0.5"/>
    </body>
  </worldbody>
  <actuator>
    <position name="hip" joint="hip" kp="20" kv="1" ctrlrange="-1 1" forcerange="-8 8"/>
    <motor name="rod" joint="rod" ctrlrange="-1 1"/>
  </actuator>
  <sensor><jointpos joint="hip"/><jointvel joint="rod"/></sensor>
</mujoco>
"""
BALL = """
<mujoco>
  <option timestep="0.005"/>
  <worldbody>
    <geom name="floor" type="plane" size="9 9 1"/>
    <body pos="1 0.2 0.5">
      <joint name="x" type="slide" axis="0 0 1" damping="1"/><geom size="0.1" mass="1"/>
    </body>
    <body pos="0 3 2"><joint name="turn"/><geom size="0.1"/></body>
  </worldbody>
  <actuator><motor joint="turn" ctrlrange="-1 1"/></actuator>
</mujoco>
"""
HUMANOID = robots.HUMANOID.body  # it asks for PGS and RK4, and has a free joint
CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gpu_physics(body: Any, num_rows: int) -> Any:
    from envs.simulators.gpu import GpuPhysics

    return GpuPhysics(body, num_rows, CPU)


def changed(physics: Any) -> dict[str, Tensor]:
    """Mass, inertia, damping, friction and gravity of 4 rows, from a half to twice the body's own."""
    scale = 2 ** torch.linspace(-1, 1, 4, dtype=torch.float64)
    names = ("body_mass", "body_inertia", "dof_damping", "geom_friction", "opt.gravity")
    return {name: torch.einsum("b,...->b...", scale, physics.field(name)) for name in names}


def start(each: list[Any], height: tuple[int, float], rows: Tensor | None = None) -> None:
    """The same state in all engines: noisy, and too high up to touch the floor for a while."""
    cpu = each[0]
    qpos = cpu.initial_qpos.expand(4, -1) + 0.1 * torch.rand(*cpu.qpos.shape, generator=generator()).double()
    qpos[:, height[0]] += height[1]
    qvel = 0.1 * torch.randn(*cpu.qvel.shape, generator=generator(1)).double()
    for physics in each:
        physics.reset(qpos.to(physics.qpos.dtype), qvel.to(physics.qpos.dtype), rows)


def step_all(each: list[Any], num_steps: int, seed: int = 0) -> None:
    num_controls = each[0].model.nu
    for action in 2 * torch.rand(num_steps, 4, num_controls, generator=generator(seed)) - 1:
        for physics in each:
            diverged = physics.step(action, 5)
            assert diverged is None or not diverged.any()


@pytest.mark.parametrize(("body", "height"), [(BODY, (1, 3.0)), (HUMANOID, (2, 3.0))], ids=["half_cheetah", "humanoid"])
def test_both_engines_agree(body: Path, height: tuple[int, float], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        cpu, gpu = CpuPhysics(body, 4), gpu_physics(body, 4)
    switched = any("using Newton's method" in record.getMessage() for record in caplog.records)
    assert switched == (body is HUMANOID)
    for physics in (cpu, gpu):
        physics.set_fields(changed(physics))
    start([cpu, gpu], height)
    step_all([cpu, gpu], 12)
    assert gpu.qpos.dtype == torch.float32
    assert (cpu.qpos - gpu.qpos).abs().max() < 1e-5
    assert ((cpu.qvel - gpu.qvel).abs() / (1 + cpu.qvel.abs())).max() < 1e-4
    assert (cpu.qpos[0] - cpu.qpos[3]).abs().max() > 0.1  # the rows' physics do differ
    for row in (0, 3):
        (ours, _), (theirs, _) = cpu.copy_row(row), gpu.copy_row(row)
        derived = ("body_subtreemass", "body_invweight0", "dof_invweight0", "actuator_acc0", "geom_friction")
        for name in derived:
            assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=1e-4, abs=1e-6), name
        assert ours.opt.gravity == pytest.approx(theirs.opt.gravity)

    for physics in (cpu, gpu):  # a field that is not named keeps its value
        physics.set_fields({"opt.gravity": physics.field("opt.gravity").expand(4, 3)})
    start([cpu, gpu], height)
    step_all([cpu, gpu], 5)
    assert (cpu.qpos - gpu.qpos).abs().max() < 1e-5


def test_both_engines_agree_on_limbs_of_other_lengths() -> None:
    models = [load_model(BODY, longer_shin(factor)) for factor in (0.7, 1.0, 1.2, 1.5)]
    cpu, gpu = CpuPhysics(BODY, 4), gpu_physics(BODY, 4)
    gpu.set_fields(changed(gpu))  # which the models replace
    heavy = {
        name: 2 * torch.stack([torch.from_numpy(getattr(model, name)) for model in models])
        for name in ("body_mass", "body_inertia")
    }
    finals = []
    for fields in ({}, heavy):  # which come on top
        for physics in (cpu, gpu):
            physics.set_models(models)
            physics.set_fields(fields)
        start([cpu, gpu], (1, 3.0))
        step_all([cpu, gpu], 12)
        assert (cpu.qpos - gpu.qpos).abs().max() < 1e-5
        finals.append(cpu.qpos.clone())
    assert (finals[0][0] - finals[0][3]).abs().max() > 1e-3
    assert (finals[0] - finals[1]).abs().amax(1).min() > 1e-3


def test_only_the_rows_that_are_meant_are_stepped_and_reset() -> None:
    cpu, gpu = CpuPhysics(BODY, 4), gpu_physics(BODY, 4)
    start([cpu, gpu], (1, 3.0))
    some = torch.tensor([True, False, False, True])
    for index, action in enumerate(torch.rand(6, 4, 6, generator=generator())):
        before = gpu.qpos.clone()
        for physics in (cpu, gpu):
            physics.step(action, 5, some if index % 2 else None)
        assert torch.equal(gpu.qpos[~some], before[~some]) == (index % 2 == 1)
    assert (cpu.qpos - gpu.qpos).abs().max() < 1e-5
    before = gpu.qpos.clone()
    start([cpu, gpu], (1, 4.0), some)
    assert torch.equal(gpu.qpos[~some], before[~some])
    assert not torch.equal(gpu.qpos[some], before[some])
    step_all([cpu, gpu], 3)
    assert (cpu.qpos - gpu.qpos).abs().max() < 1e-5


def test_fields_of_the_data_agree() -> None:
    """One substep behind the state after a step, current after a reset, and as they were in rows that rest."""
    cpu, gpu = CpuPhysics(HUMANOID, 4), gpu_physics(HUMANOID, 4)
    names = ("xpos", "xmat", "cvel", "cinert", "subtree_com", "qfrc_actuator", "time")
    some = torch.tensor([True, False, False, True])

    def agree() -> None:
        for name in names:
            expected, found = cpu.data(name), gpu.data(name)
            assert found.shape == expected.shape
            assert torch.allclose(found.double(), expected, rtol=1e-4, atol=1e-4), name

    for physics in (cpu, gpu):
        for name in names:
            physics.data(name)  # kept from now on
    start([cpu, gpu], (2, 3.0))
    agree()
    for index, action in enumerate(torch.rand(6, 4, cpu.model.nu, generator=generator()) - 0.5):
        for physics in (cpu, gpu):
            physics.step(action, 5, some if index % 2 else None)
        agree()
    start([cpu, gpu], (2, 4.0), some)
    agree()
    step_all([cpu, gpu], 2)
    agree()
    assert gpu.data("sensordata").shape == (4, 0)
    with pytest.raises(ValueError, match="'position' is not a field of a GPU's data"):
        gpu.data("position")


def test_a_row_that_diverges_leaves_the_others_alone() -> None:
    physics, alone = gpu_physics(BODY, 4), gpu_physics(BODY, 4)
    start([physics, alone], (1, 3.0))
    physics.qvel[1] = 1e9
    physics.qpos[2, 0] = torch.nan
    action = torch.zeros(4, 6)
    assert physics.step(action, 5).tolist() == [False, True, True, False]
    assert not alone.step(action, 5).any()
    assert torch.equal(physics.qpos[[0, 3]], alone.qpos[[0, 3]])
    start([physics, alone], (1, 3.0))
    step_all([physics, alone], 3)
    assert torch.equal(physics.qpos, alone.qpos)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of the engine, that friction is near zero where it is so
def test_too_little_room_is_noticed_once_a_rollout(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_data = mujoco_warp.make_data
    monkeypatch.setattr(mujoco_warp, "make_data", lambda *given, **room: make_data(*given, **({"njmax": 7} | room)))
    physics = gpu_physics(BODY, 4)
    action = torch.zeros(4, 6)
    for _ in range(20):  # it falls, and lies on more points than there is room for
        physics.step(action, 5)
    physics.set_fields({})
    (message,) = [record.getMessage() for record in caplog.records]
    assert "contacts or constraints of 4 of 4 rows did not fit" in message
    assert physics._data.njmax == 14
    assert torch.equal(physics.qpos[0].double(), physics.initial_qpos.double())  # made anew
    physics.step(action, 5)
    physics.set_fields({})
    assert len(caplog.records) == 1


def test_wrong_fields_are_named() -> None:
    physics = gpu_physics(BODY, 2)
    with pytest.raises(ValueError, match="'body_weight' is not a field"):
        physics.set_fields({"body_weight": torch.ones(2, 8)})
    with pytest.raises(ValueError, match=r"'body_mass' has shape \(2, 7\); must be \(2, 8\)"):
        physics.set_fields({"body_mass": torch.ones(2, 7)})
    with pytest.raises(ValueError, match=r"field 'opt.iterations' cannot differ from row to row on a GPU"):
        physics.set_fields({"opt.iterations": torch.ones(2)})
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(physics)


# The environment on this engine


class OnWarp:
    """A family whose environments run on the GPU's engine."""

    def __init__(self, family: Any) -> None:
        self._family = family

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def make_env(self, num_rows: int, generator: torch.Generator) -> Any:
        if num_rows < 1:
            raise ValueError("num_rows")
        return MujocoEnv(self._family, gpu_physics(self._family.body, num_rows), generator)


@pytest.mark.parametrize("name", ["half_cheetah_rand_params", "humanoid_dir"])
def test_the_laws_of_families_hold(name: str) -> None:
    family: Any = OnWarp(make(name, horizon=6))
    check_family(family)


@pytest.mark.parametrize("name", ["half_cheetah_rand_params", "ant_goal", "humanoid_dir", "hopper_rand_params"])
def test_no_step_of_environment_and_agent_waits(name: str) -> None:
    """A rollout's inner loop under a guard against all that would make the host wait for a GPU."""
    family = OnWarp(make(name, horizon=3))
    env = family.make_env(4, generator())
    config = RL2Config(hidden_size=8)
    agent = config.make(family.observation_space, family.action_space, num_iterations=1, generator=generator())
    truncated = []
    with torch.inference_mode():
        step = env.reset(family.sample(2, "train", generator()))
        env.step(torch.zeros(4, *family.action_space.shape))  # records the graphs
        state = agent.observe(agent.prior(4), None, step)
        with NothingWaits():
            for _ in range(7):
                decision = agent.act(state, step.obs, generator(2))
                step = env.step(decision.action)
                state = agent.observe(state, decision.action, step)
                truncated.append(step.truncated)
    assert torch.stack(truncated).all(1).tolist() == [False, True, False, False, True, False, False]
    assert env.num_diverged == 0


@pytest.mark.parametrize("name", ["half_cheetah_rand_params", "quadruped_vel"])
def test_episodes_start_and_go_on_alike_on_both_engines_for_one_seed(name: str) -> None:
    family: Any = make(name)
    steps = []
    for engine in ("mujoco", "mujoco_warp"):
        env = OnEngine(family, engine).make_env(3, generator(1))
        env.reset(family.sample(3, "test", generator(2)))
        steps.append(env.step(torch.zeros(3, *family.action_space.shape)))
    torch.testing.assert_close(steps[1].obs, steps[0].obs, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(steps[1].reward, steps[0].reward, atol=1e-2, rtol=1e-2)


def test_a_row_can_be_drawn() -> None:
    """A row's model and data for pictures: its own fields, at its own place."""
    physics = gpu_physics(BODY, 4)
    physics.set_fields(fields := changed(physics))
    start([physics], (1, 3.0))
    model, data = physics.copy_row(2)
    assert model.body_mass == pytest.approx(fields["body_mass"][2].numpy())
    assert data.qpos == pytest.approx(physics.qpos[2].numpy())
    assert data.xpos[1, 2] == pytest.approx(model.body_pos[1, 2] + float(physics.qpos[2, 1]))


def test_both_engines_are_given_the_same_inputs(tmp_path: Path) -> None:
    """Activations, controls and mocap bodies at the start, mocap bodies at each step, and none in frozen rows."""
    path = tmp_path / "servo.xml"
    path.write_text("""<mujoco><option timestep="0.005"/><worldbody><body name="hand" mocap="true" pos="0 0 1"/>
      <body pos="0 0 0"><joint name="j" axis="0 1 0" damping="1"/><geom size="0.1" pos="0.5 0 0"/></body></worldbody>
      <actuator><intvelocity joint="j" kp="20" ctrlrange="-1 1" actrange="-3 3"/></actuator></mujoco>""")
    cpu, gpu = CpuPhysics(path, 4), gpu_physics(path, 4)
    values = torch.linspace(0, 1, 4)
    inputs = {"act": values[:, None], "ctrl": values[:, None], "mocap_pos": values.view(4, 1, 1).expand(4, 1, 3)}
    some = torch.tensor([True, False, True, True])
    for physics in (cpu, gpu):
        at_rest = torch.zeros_like(physics.qpos)
        for name in ("ctrl", "xpos"):  # which a reset is to compute from now on
            physics.data(name)
        physics.reset(at_rest, at_rest)
        physics.reset(at_rest, at_rest, some, inputs)
        assert physics.data("xpos")[:, 1, 0].tolist() == pytest.approx([0, 0, 2 / 3, 1])
        moved = {"mocap_pos": torch.full((4, 1, 3), 5.0)}
        physics.step(torch.ones(4, 1), 3, torch.tensor([True, True, False, True]), moved)
        assert physics.data("ctrl").flatten().tolist() == pytest.approx([1, 1, 2 / 3, 1])
        assert physics.data("mocap_pos")[:, 0, 0].tolist() == pytest.approx([5, 5, 2 / 3, 5])
        _, data = physics.copy_row(2)
        assert (data.act[0], data.mocap_pos[0, 0]) == pytest.approx((2 / 3, 2 / 3))
    assert (cpu.qpos - gpu.qpos).abs().max() < 1e-5
    assert float(cpu.qpos[3, 0]) > float(cpu.qpos[0, 0])


def test_what_robots_differ_in_by_name_is_the_same_on_both_engines(tmp_path: Path) -> None:
    """Until contacts make small differences large."""
    path = tmp_path / "robot.xml"
    path.write_text(ROBOT)
    tasks = {
        "payload": Uniform(0, 2, bodies=["trunk"]),
        "payload_x": Uniform(-0.1, 0.1, bodies=["trunk"]),
        "payload_z": Uniform(-0.1, 0.1, bodies=["trunk"]),
        "motor_strength": Uniform(0.5, 1),
        "actuator_kp": Uniform(0.5, 2, actuators=["hip"]),
        "friction": Uniform(0.5, 2, shared=True),
        "push": Uniform(1, 3, bodies=["trunk"]),
        "push_interval": Choice([0.05]),
        "action_latency": Uniform(0, 50),
        "obs_latency": Uniform(0, 50),
        "sensor_noise": Uniform(0, 0.1),
        "sensor_bias": Uniform(-0.1, 0.1),
        "joint_offset": Uniform(-0.2, 0.2),
        "terrain_slope": Uniform(-0.2, 0.2),
    }
    family = MujocoFamily(
        mjcf=path,
        observe=lambda physics, task: torch.cat([physics.qpos, physics.qvel, physics.sensordata], 1),
        reward=lambda physics, action, task: physics.qvel[:, 0],
        tasks=tasks,
        horizon=100,
        frame_skip=5,
        start_noise=0.0,
    )
    sampled, envs = family.sample(4, "train", generator()), []
    for physics in (CpuPhysics(family.model, 4), gpu_physics(family.model, 4)):
        disturbed = family.dynamics.disturbed(physics, generator(1))  # not the start's: it draws in the engine's dtype
        envs.append(MujocoEnv(family.dynamics, disturbed, generator(3)))
        envs[-1].reset(sampled)
    rows: list[Tensor] = []
    for action in 2 * torch.rand(10, 4, 2, generator=generator(2)) - 1:
        one, other = (env.step(action) for env in envs)
        assert (one.obs - other.obs).abs().max() < 1e-3
        rows.append(one.obs)
    assert (rows[-1][0] - rows[-1][3]).abs().max() > 0.1


@pytest.mark.parametrize("name", ["terrain_slope", "terrain_bumps", "terrain_steps"])
def test_the_ground_of_each_row_is_the_same_on_both_engines(tmp_path: Path, name: str) -> None:
    """A ball falls on the ground and stays within a millimetre of where it stays on the other engine."""
    path = tmp_path / "ball.xml"
    path.write_text(BALL)
    family = MujocoFamily(
        mjcf=path,
        observe=lambda physics, task: torch.cat([physics.qpos, physics.qvel], 1),
        reward=lambda physics, action, task: physics.qvel[:, 0],
        tasks={name: Uniform(0.01, 0.2)},
        horizon=100,
        frame_skip=5,
        start_noise=0.0,
        unchecked=(name,),
    )
    sampled, heights = family.sample(4, "train", generator()), []
    for physics in (CpuPhysics(family.model, 4), gpu_physics(family.model, 4)):
        env = MujocoEnv(family.dynamics, physics, generator())
        env.reset(sampled)
        for _ in range(30):
            env.step(torch.zeros(4, 1))
        heights.append(env.physics.qpos[:, 0].double().clone())
    assert (heights[0] - heights[1]).abs().max() < 1e-3
    assert (heights[0] - heights[0][0]).abs().max() > 5e-3
