"""The simulation benchmark's structure, at a tiny size: what it measures and says, not how fast anything is."""

from __future__ import annotations

import json
import statistics
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from envs.locomotion.half_cheetah import HalfCheetahVel
from experiments.benchmarks import peers, simulation
from experiments.benchmarks.contenders import Dynamics, MemorylessAgent, gpu_limit
from experiments.benchmarks.harness import Result, interleave, ratios, report
from experiments.benchmarks.simulation import Settings

BODY = "half_cheetah"
TINY = Settings(bodies=(BODY,), rows=(8, 16), copies=4, num_rounds=2, horizon=5, seconds=0.01, num_processes=(2, 3))


@pytest.fixture(scope="module")
def measured() -> Result:
    return simulation.run(TINY)


@pytest.fixture(scope="module")
def result(measured: Result) -> dict[str, Any]:
    return measured.as_json()


@pytest.mark.slow
def test_every_contender_is_measured_in_every_round(result: dict[str, Any]) -> None:
    speeds = result["measured"]
    kinds = ("limit", "closed_loop", "per_task_dynamics", "per_task_policies")
    ours = {f"{kind}_{BODY}_{rows}" for kind in kinds for rows in (8, 16)} | {f"rand_params_{BODY}_16"}
    theirs = {"gymnasium_sync_{}_8", "gymnasium_sync_{}_16", "gymnasium_async_{}_2", "gymnasium_async_{}_3"}
    theirs = {name.format(BODY) for name in theirs | {"sb3_subproc_{}_2"}}
    assert ours | theirs <= set(speeds)
    assert all(name.startswith(("envpool_", "gpu_")) for name in set(speeds) - ours - theirs)
    for speed in speeds.values():
        assert len(speed["rounds"]) == TINY.num_rounds
        assert min(speed["rounds"]) > 0
        assert speed["median"] == statistics.median(speed["rounds"])
        assert speed["unit"] == "env-steps/s"
    assert result["details"]["rows"][f"gymnasium_async_{BODY}_2"] == 2
    assert result["details"]["rows"][f"closed_loop_{BODY}_16"] == 16


@pytest.mark.parametrize("body", [body for body in simulation.BODIES if body != BODY])
def test_every_body_has_the_same_contenders(body: str) -> None:
    settings = Settings(bodies=(body,), rows=(8,), copies=4, horizon=3, num_processes=(1,))
    speeds = {}
    for contender in simulation._ours(body, settings, torch.Generator().manual_seed(0)):
        num_steps, seconds = contender.measure(2)
        assert num_steps == 2 * 3 * 8
        assert seconds > 0
        speeds[contender.name] = [num_steps / seconds]
    assert {f"closed_loop_{body}_8 / limit_{body}_8", f"per_task_policies_{body}_8 / closed_loop_{body}_8"} <= set(
        simulation._ratio_names(settings, speeds)
    )


@pytest.mark.slow
def test_ratios_are_medians_of_the_rounds(result: dict[str, Any]) -> None:
    for name, ratio in result["ratios"].items():
        above, below = (result["measured"][part]["rounds"] for part in name.split(" / "))
        assert ratio == pytest.approx(statistics.median([above[0] / below[0], above[1] / below[1]]))
    assert f"closed_loop_{BODY}_8 / limit_{BODY}_8" in result["ratios"]
    assert f"per_task_dynamics_{BODY}_16 / closed_loop_{BODY}_16" in result["ratios"]
    assert f"closed_loop_{BODY}_16 / gymnasium_async_{BODY}_2" in result["ratios"]


@pytest.mark.slow
def test_targets_are_judged_where_they_were_measured(
    measured: Result, result: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert result["targets"] == {}  # none is asked of 8 or 16 rows
    names = []
    for body in ("half_cheetah", "hopper", "walker2d", "ant", "humanoid"):
        for kind in ("limit", "closed_loop", "per_task_dynamics", "per_task_policies", "gymnasium_sync", "envpool"):
            names += [f"{kind}_{body}_{rows}" for rows in (64, 320, 800)]
        names += [f"gymnasium_async_{body}_40", f"gymnasium_async_{body}_200"]
    named = {*names}
    assert all(set(target.split(" / ")) <= named for target in simulation.TARGETS)
    settings = Settings(bodies=(BODY,))
    asked = {target for target in simulation.TARGETS if BODY in target}
    assert len(asked) == 8
    assert asked <= set(simulation._ratio_names(settings, dict.fromkeys(names)))
    monkeypatch.setattr(simulation, "run", lambda settings: measured)
    simulation.main(json=True)
    assert json.loads(capsys.readouterr().out)["measured"] == result["measured"]
    simulation.main()
    printed = capsys.readouterr().out
    assert f"per_task_dynamics_{BODY}_16" in printed
    assert "gymnasium_sync" in printed


@pytest.mark.slow
def test_torchs_threads_are_as_before(result: dict[str, Any]) -> None:
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="stop"):
        _run_until_stopped()
    assert torch.get_num_threads() == threads


def _run_until_stopped() -> None:
    original = simulation._contenders
    simulation._contenders = _stop
    try:
        simulation.run(TINY)
    finally:
        simulation._contenders = original


def _stop(*arguments: Any) -> Any:
    assert torch.get_num_threads() == 1
    raise RuntimeError("stop")


def test_the_agents_log_prob_is_that_of_its_sample() -> None:
    agent = MemorylessAgent(HalfCheetahVel(), torch.Generator().manual_seed(0))
    obs = torch.randn(5, 17, generator=torch.Generator().manual_seed(1))
    decision = agent.act(None, obs, torch.Generator().manual_seed(2))
    mean = agent.act(None, obs, None).action
    expected = torch.distributions.Normal(mean, 1.0).log_prob(decision.action).sum(1)
    assert torch.allclose(decision.log_prob, expected, atol=1e-5)


def test_policies_by_task_are_those_of_the_tasks() -> None:
    agent = MemorylessAgent(HalfCheetahVel(), torch.Generator().manual_seed(0), num_tasks=3)
    obs = torch.randn(6, 17, generator=torch.Generator().manual_seed(1))  # two rows a task
    with torch.inference_mode():
        action = agent.act(None, obs, None).action
        expected = [agent._policies[row // 2].net(obs[row]) for row in range(6)]
    assert torch.allclose(action, torch.stack(expected), atol=1e-6)
    assert not torch.allclose(agent._policies[0].net(obs[5]), action[5], atol=1e-3)


def test_per_task_dynamics_differ_a_little_from_task_to_task() -> None:
    generator = torch.Generator().manual_seed(0)
    plain, changed = (Dynamics(HalfCheetahVel(), per_task) for per_task in (False, True))
    tasks = plain.sample(4, "train", generator)
    assert plain.physics(tasks, lambda name: torch.ones(3)) == {}
    mass = changed.physics(tasks, lambda name: torch.ones(3))["body_mass"]
    assert mass.shape == (4, 3)
    assert mass[:, 0].tolist() == pytest.approx([0.996, 1 - 0.004 / 3, 1 + 0.004 / 3, 1.004])


def test_the_engine_of_a_device_is_measured_as_the_limit_there() -> None:
    """On a CPU here; on a GPU, the benchmark itself does so."""
    family = Dynamics(HalfCheetahVel(horizon=4), per_task=False)
    num_steps, seconds = gpu_limit("gpu_limit", family, 8, torch.Generator().manual_seed(0)).measure(3)
    assert num_steps == 3 * 4 * 8
    assert seconds > 0


class FakeEnvPool:
    """EnvPool's functions, with robots of these sizes; options change them where the robot knows the option."""

    def __init__(self, **observations: int) -> None:
        self.observations = {name.replace("_", "-"): size for name, size in observations.items()}
        self.closed: list[str] = []

    def list_all_envs(self) -> list[str]:
        return list(self.observations)

    def make(self, task: str, *, num_envs: int, use_contact_force: bool = True, **settings: Any) -> Any:
        size = self.observations[task] - (78 if not use_contact_force and task == "Ant-v5" else 0)
        space = SimpleNamespace(shape=(size,))
        obs = np.zeros((num_envs, size))
        return SimpleNamespace(
            observation_space=space,
            action_space=SimpleNamespace(shape=(17 if "Humanoid" in task else 8,)),
            reset=lambda: (obs, {}),
            step=lambda action: (obs, np.zeros(num_envs)),
            close=lambda: self.closed.append(task),
        )


@pytest.mark.parametrize(
    ("robots", "body", "found"),
    [
        ({"Ant_v5": 105, "Ant_v4": 27}, "ant", None),  # v5 without contact forces, as ours
        ({"Ant_v5": 200, "Ant_v4": 27}, "ant", ["Ant-v5"]),  # v4 is alike
        ({"Ant_v4": 27}, "ant", None),
    ],
)
def test_envpool_is_measured_on_the_robot_that_is_like_ours(robots, body, found, monkeypatch) -> None:
    fake = FakeEnvPool(**robots)
    monkeypatch.setitem(sys.modules, "envpool", fake)
    peer = peers.envpool(body, 3)
    assert peer.measure(lambda obs: (torch.zeros(len(obs), 8), torch.zeros(len(obs))), 2)[0] == 6
    assert fake.closed == (found or [])


@pytest.mark.parametrize(
    ("robots", "message"),
    [
        (
            {"Humanoid_v5": 348, "Humanoid_v4": 376},
            "EnvPool was left out for humanoid: Humanoid-v5 has 348 observations, Humanoid-v4 has 376 observations; "
            "ours has 270 observations",
        ),
        ({"Ant_v5": 105}, "EnvPool was left out for humanoid: it has no such robot; ours has 270 observations"),
        (None, "EnvPool is not installed and was left out"),
    ],
)
def test_what_cannot_be_compared_is_left_out_with_a_line(robots, message, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None if robots is None else FakeEnvPool(**robots))
    monkeypatch.setattr(peers, "gymnasium_sync", lambda body, number: peers.Peer("sync", number, None, None, None))  # type: ignore[arg-type]
    left_out: list[str] = []
    settings = Settings(bodies=("humanoid",), rows=(8, 16))
    found = simulation._peers("humanoid", settings, torch.Generator().manual_seed(0), left_out)
    assert [contender.name for contender in found] == ["sync_16"]
    assert left_out == [message] * 2
    report(Result("simulation", settings, {}, {}, {}, left_out=(message,)), json=False)
    assert message in capsys.readouterr().out


def test_rounds_are_interleaved_and_the_first_can_warm_up() -> None:
    calls: list[str] = []
    contenders = {name: lambda name=name: calls.append(name) or float(len(calls)) for name in "ab"}
    assert interleave(contenders, 2, warm_up=True) == {"a": [3.0, 5.0], "b": [4.0, 6.0]}
    assert calls == ["a", "b"] * 3


def test_ratios_are_of_what_was_measured_and_judged_where_they_are_asked() -> None:
    rounds = {"a": [2.0, 6.0, 9.0], "b": [1.0, 2.0, 9.0]}
    found = ratios(rounds, ["a / b", "a / c", "a / b"])
    assert found == {"a / b": 2.0}
    result = Result("x", Settings(), dict.fromkeys(rounds, "s"), rounds, found, asked={"a / b": 2.5, "a / c": 1.0})
    assert result.as_json()["targets"] == {"a / b": {"asked": 2.5, "measured": 2.0, "reached": False}}


def test_peers_are_gymnasiums_half_cheetah() -> None:
    peer = peers.gymnasium_sync(BODY, 2)
    seen: list[torch.Tensor] = []

    def policy(obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(obs)
        return torch.full((2, 6), 9.0), torch.zeros(2)

    num_steps, seconds = peer.measure(policy, 3)
    peer.close()
    assert num_steps == 6
    assert seconds > 0
    assert [obs.shape for obs in seen] == [(2, 17)] * 3
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": (64, 0)}, r"rows of the simulation benchmark is \(64, 0\)"),
        ({"num_rounds": 0}, "num_rounds of the simulation benchmark is 0"),
        ({"rows": (60,)}, "rows has 60; must be a multiple of copies, 8"),
        ({"bodies": ("spider",)}, "bodies has 'spider'; must be one of half_cheetah"),
    ],
)
def test_a_wrong_size_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**arguments)
