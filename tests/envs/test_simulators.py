"""The engine on CPU threads: fields and models by row, errors of single rows, and an environment that never waits."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from envs.check import check_family
from envs.locomotion.divergence import _describe
from envs.locomotion.half_cheetah import BODY, HalfCheetahRandParams, HalfCheetahVel
from envs.locomotion.mujoco_env import MujocoEnv
from envs.simulators import make_physics
from envs.simulators.cpu import CpuPhysics
from envs.simulators.log_limiter import LogLimiter
from envs.simulators.model import load_model
from experiments.cli.main import main
from metarl.records import Record

aten: Any = torch.ops.aten  # type: ignore[attr-defined]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scaled(physics: Any, **scales: float) -> dict[str, Tensor]:
    """Fields of 3 rows: the body's own, and it times and divided by a number."""
    factors = {name: torch.tensor([1.0, scale, 1 / scale], dtype=torch.float64) for name, scale in scales.items()}
    return {name: torch.einsum("b,...->b...", factors[name], physics.field(name)) for name in scales}


# Fields and models by row


def test_all_that_derives_from_fields_follows() -> None:
    """Every number of a row's model is that of a model edited and completed by MuJoCo itself."""
    physics = CpuPhysics(BODY, 3)
    scales = {"body_mass": 1.7, "body_inertia": 1.3, "dof_damping": 2.0, "dof_armature": 3.0, "actuator_gear": 2.0}
    fields = scaled(physics, **scales, geom_friction=0.5)
    physics.set_fields(fields)
    plain = load_model(BODY)
    for row in range(3):
        ours, _ = physics.copy_row(row)
        expected = load_model(BODY)
        for name, value in fields.items():
            setattr(expected, name, value[row].numpy())
        mujoco.mj_setConst(expected, mujoco.MjData(expected))  # type: ignore[attr-defined]
        derived = 0
        for name in dir(expected):
            value = getattr(expected, name)
            if not name.startswith("_") and isinstance(value, np.ndarray):
                assert np.array_equal(value, getattr(ours, name)), name
                derived += name not in fields and not np.array_equal(value, getattr(plain, name))
        assert derived >= 4 or row == 0  # subtree masses, inverse weights of bodies and joints, accelerations


def longer_shin(factor: float) -> Callable[[Any], None]:
    def edit(spec: Any) -> None:
        foot, shin = spec.body("bfoot"), spec.body("bshin")
        foot.pos = factor * np.array(foot.pos)
        for geom in shin.geoms:
            geom.size = [geom.size[0], factor * geom.size[1], 0]

    return edit


def test_rows_can_have_models_of_their_own() -> None:
    models = [load_model(BODY, longer_shin(factor)) for factor in (1.0, 1.4)]
    physics = CpuPhysics(BODY, 4)
    physics.set_fields(physics_fields := {"body_mass": physics.field("body_mass").expand(4, -1) * 2})
    physics.set_models([models[0], models[1], models[1], models[0]])
    fresh = CpuPhysics(BODY, 4)
    start = physics.initial_qpos.expand(4, 9), torch.zeros(4, 9, dtype=torch.float64)
    for each in (physics, fresh):
        each.reset(*start)
    for action in torch.rand(20, 6, generator=generator()).double():
        physics.step(action.expand(4, 6), 5)
        fresh.step(action.expand(4, 6), 5)
    assert torch.equal(physics.qpos[[0, 3]], fresh.qpos[[0, 3]])  # an unchanged description, and the fields are gone
    assert torch.equal(physics.qpos[1], physics.qpos[2])
    assert not torch.equal(physics.qpos[0], physics.qpos[1])

    data = mujoco.MjData(models[1])  # type: ignore[attr-defined]
    for action in torch.rand(20, 6, generator=generator()).double():
        data.ctrl[:] = action
        for _ in range(5):
            mujoco.mj_step(models[1], data)  # type: ignore[attr-defined]
    assert np.array_equal(data.qpos, physics.qpos[1])

    physics.set_fields(physics_fields)  # on top of the models
    in_use: Any = physics._batch.models
    assert in_use[1] is in_use[2]  # which makes them faster
    assert in_use[0] is not in_use[1]
    model, _ = physics.copy_row(1)
    assert np.array_equal(model.body_mass, physics_fields["body_mass"][1])
    assert np.array_equal(model.geom_size, models[1].geom_size)
    assert model.body_subtreemass[0] == pytest.approx(float(physics_fields["body_mass"][1].sum()))


def test_wrong_fields_and_models_are_named() -> None:
    physics = CpuPhysics(BODY, 2)
    mass = physics.field("body_mass").repeat(2, 1)
    mass[1, 3] = np.nan
    with pytest.raises(ValueError, match=r"field 'body_mass' of row 1 is \[.*nan.*\]; must be finite"):
        physics.set_fields({"body_mass": mass})
    with pytest.raises(ValueError, match="models has 1 entries; must have one for each of the 2 rows"):
        physics.set_models([physics.model])

    def another_leg(spec: Any) -> None:
        spec.body("torso").add_body(name="fin", pos=[0, 0, 0.1]).add_geom(size=[0.01, 0.01, 0.01])

    with pytest.raises(ValueError, match=r"model of row 1 has nbody = 9; must be the body's own, 8"):
        physics.set_models([physics.model, load_model(BODY, another_leg)])


def test_the_device_chooses_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_physics(BODY, 2, torch.device("cpu")), CpuPhysics)
    with pytest.raises(ValueError, match="device is 'meta': MuJoCo simulates on 'cpu' and 'cuda'"):
        make_physics(BODY, 2, torch.device("meta"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"mujoco-warp is not installed: pip install 'metarl\[gpu\]'"):
        make_physics(BODY, 2, torch.device("cuda"))


# Simulations that go wrong


def test_an_error_in_one_row_is_isolated(caplog: pytest.LogCaptureFixture) -> None:
    """MuJoCo refuses the integrator of row 1 at every step; the others go on as if alone."""
    family = HalfCheetahVel(horizon=30)
    env, alone = family.make_env(3, generator()), family.make_env(3, generator())
    tasks = family.sample(3, "train", generator())
    env.reset(tasks)
    first = alone.reset(tasks)
    env.physics._batch.expand("opt.integrator")[1] = 77  # type: ignore[attr-defined]
    with caplog.at_level(logging.WARNING):
        for action in torch.rand(25, 3, 6, generator=generator()):
            step, expected = env.step(action), alone.step(action)
            assert step.truncated.tolist() == [False, True, False]
            assert torch.equal(step.next_obs[[0, 2]], expected.next_obs[[0, 2]])
            assert torch.equal(step.reward[[0, 2]], expected.reward[[0, 2]])
            assert step.reward[1] == 0
            assert step.obs.isfinite().all()
    assert env.num_diverged == 25
    messages = [record.getMessage() for record in caplog.records]
    assert any("invalid integrator" in message for message in messages)
    lines = [message for message in messages if "the simulation of row 1 diverged at step 1" in message]
    assert len(lines) == 11  # each of the first ten, the twentieth
    assert "20 so far" in lines[-1]
    assert first.obs.shape == (3, 17)


def test_a_task_is_described_in_one_line() -> None:
    @dataclass(frozen=True)
    class Tasks(Record):
        mass: Tensor
        fields: dict[str, Tensor]
        absent: Tensor | None = None

    tasks = Tasks(torch.tensor([[1.0, 1 / 3], [2.0, 2 / 3]]), {"opt.gravity": torch.tensor([-9.81, -1.62])})
    assert _describe(tasks, 1) == "mass=[2, 0.6667], opt.gravity=-1.62"


def test_a_log_limiter_allows_ten_and_then_ever_fewer() -> None:
    log_limiter = LogLimiter()
    granted = [number for number in range(1, 1001) if log_limiter.allows()]
    assert granted == [*range(1, 11), 20, 40, 80, 160, 320, 640]
    assert log_limiter.count == 1000


@dataclass(frozen=True)
class Explosive(HalfCheetahRandParams):
    """In every fourth row, damping pushes instead of braking: MuJoCo diverges after a few steps."""

    def physics(self, tasks: Any, nominal: Any) -> Any:
        fields = dict(super().physics(tasks, nominal))
        fields["dof_damping"][::4] *= -40
        return fields


def test_training_goes_on_where_simulations_diverge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.py").write_text(
        "from agents.rl2 import RL2Config\n"
        "from experiments.experiment.definition import Experiment\n"
        "from metarl.trainer import TrainConfig\n"
        "from tests.envs.test_simulators import Explosive\n"
        "experiment = Experiment(Explosive(horizon=25), RL2Config(hidden_size=8),"
        " TrainConfig(num_iterations=3, num_tasks=8, eval_tasks=4, eval_every=0))\n"
    )
    with pytest.raises(SystemExit, match="0"):
        main(["train", "recipe.py", "--run-dir", "run"])
    with open("run/progress.csv") as file:
        counts = [float(row["rollout/num_diverged"]) for row in csv.DictReader(file)]
    assert len(counts) == 3
    assert min(counts) >= 2  # two of eight rows explode
    printed = capsys.readouterr().out
    assert f"Diverged:    {sum(counts):.0f} environments diverged or crashed" in printed
    assert sorted(os.listdir()) == ["recipe.py", "run"]  # and no log of MuJoCo's


# An environment that never waits for its engine


class Asynchronous(CpuPhysics):
    """The CPU's engine, passed off as one that runs ahead of the host."""

    asynchronous = True

    def step(
        self, ctrl: Tensor, num_substeps: int, rows: Tensor | None = None, inputs: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        diverged = super().step(ctrl, num_substeps, rows, inputs)
        return torch.zeros(self.num_rows, dtype=torch.bool) if diverged is None else diverged


@dataclass(frozen=True)
class OnAnAccelerator(HalfCheetahVel):
    def make_env(self, num_rows: int, generator: torch.Generator, engine: Any = None) -> Any:
        if num_rows < 1:
            raise ValueError("num_rows")
        return MujocoEnv(self, Asynchronous(self.body, num_rows), generator)


class NothingWaits(TorchDispatchMode):
    """Raises at every operation for which the host would have to wait for an accelerator."""

    WAITING = (aten._local_scalar_dense, aten.is_nonzero, aten.nonzero, aten.equal, aten.masked_select)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        by_mask = func.overloadpacket in (aten.index, aten.index_put, aten.index_put_) and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if func.overloadpacket in self.WAITING or by_mask:
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


def test_the_laws_hold_on_an_engine_that_runs_ahead() -> None:
    check_family(OnAnAccelerator(horizon=20))


@pytest.mark.parametrize("partly", [False, True])
def test_no_step_waits_for_the_engine(partly: bool) -> None:
    env = OnAnAccelerator(horizon=4).make_env(3, generator())
    env.reset(env._family.sample(3, "train", generator()))
    active = torch.tensor([True, False, True]) if partly else None
    ends = []
    with NothingWaits():
        for action in torch.rand(9, 3, 6, generator=generator()):
            ends.append(env.step(action, active).truncated)
    expected = torch.zeros(9, 3, dtype=torch.bool)
    expected[[3, 7]] = True
    if partly:
        expected[:, 1] = False
    assert torch.equal(torch.stack(ends), expected)


def test_waiting_is_noticed() -> None:
    """The test above can fail: the synchronous engine's environment asks its rows at the horizon."""
    env = HalfCheetahVel(horizon=1).make_env(3, generator())
    env.reset(HalfCheetahVel().sample(3, "train", generator()))
    with pytest.raises(AssertionError, match="waits for the device"), NothingWaits():
        env.step(torch.zeros(3, 6))


def test_what_diverged_is_reported_when_it_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    family = OnAnAccelerator(horizon=10)
    env = family.make_env(4, generator())
    env.reset(family.sample(4, "train", generator()))
    with caplog.at_level(logging.WARNING, logger="envs.locomotion"):
        for index in range(6):
            if index == 2:
                env.physics.qvel[2] = 1e9
            step = env.step(torch.zeros(4, 6))
            assert step.truncated.tolist() == [False, False, index == 2, False]
            assert step.obs.isfinite().all()
        assert not [record for record in caplog.records if "diverged" in record.getMessage()]
        assert env.num_diverged == 1
        assert env.num_diverged == 1
    (message,) = [record.getMessage() for record in caplog.records if "diverged" in record.getMessage()]
    assert "row 2 diverged at step 3" in message

    env.step(torch.full((4, 6), torch.nan))
    with pytest.raises(ValueError, match="action of row 0 is not finite"):
        env.reset(family.sample(4, "train", generator()))
