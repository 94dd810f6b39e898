"""The simulation benchmark's structure, at a tiny size: what it measures and says, not how fast anything is."""

from __future__ import annotations

import json
import statistics
from typing import Any

import pytest
import torch

from experiments.benchmarks import peers, simulation
from experiments.benchmarks.simulation import MemorylessAgent, Settings

TINY = Settings(rows=(8, 16), copies=4, num_rounds=2, horizon=5, seconds=0.01, num_processes=(2, 3))


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return simulation.run(TINY)


def test_every_contender_is_measured_in_every_round(result: dict[str, Any]) -> None:
    speeds = result["env_steps_per_second"]
    ours = {f"{name}_{rows}" for name in ("limit", "closed_loop", "closed_loop_per_task") for rows in TINY.rows}
    ours.add("closed_loop_rand_params_16")
    theirs = {"gymnasium_sync_8", "gymnasium_sync_16", "gymnasium_async_2", "gymnasium_async_3", "sb3_subproc_2"}
    assert ours | theirs <= set(speeds)
    assert all(name.startswith("envpool_") for name in set(speeds) - ours - theirs)
    for speed in speeds.values():
        assert len(speed["rounds"]) == TINY.num_rounds
        assert min(speed["rounds"]) > 0
        assert speed["median"] == statistics.median(speed["rounds"])
    assert speeds["gymnasium_async_2"]["rows"] == 2
    assert speeds["closed_loop_16"]["rows"] == 16


def test_ratios_are_medians_of_the_rounds(result: dict[str, Any]) -> None:
    for name, ratio in result["ratios"].items():
        above, below = (result["env_steps_per_second"][part]["rounds"] for part in name.split(" / "))
        assert ratio == pytest.approx(statistics.median([above[0] / below[0], above[1] / below[1]]))
    assert {"closed_loop_8 / limit_8", "closed_loop_per_task_16 / closed_loop_16"} <= set(result["ratios"])
    assert "closed_loop_16 / gymnasium_async_2" in result["ratios"]


def test_targets_are_judged_where_they_were_measured(
    result: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert result["targets"] == {}  # none is asked of 8 or 16 rows
    assert set(simulation.TARGETS) <= {
        *simulation._ratio_names(
            Settings(),
            {
                f"{name}_{rows}"
                for name in ("limit", "closed_loop", "closed_loop_per_task", "envpool")
                for rows in (64, 800)
            }
            | {"gymnasium_sync_800", "gymnasium_async_40", "gymnasium_async_200"},
        )
    }
    monkeypatch.setattr(simulation, "run", lambda: result)
    simulation.main(json=True)
    assert json.loads(capsys.readouterr().out) == result
    simulation.main()
    printed = capsys.readouterr().out
    assert "closed_loop_per_task_16" in printed
    assert "gymnasium_sync" in printed


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
    agent = MemorylessAgent(torch.Generator().manual_seed(0))
    obs = torch.randn(5, 17, generator=torch.Generator().manual_seed(1))
    decision = agent.act(None, obs, torch.Generator().manual_seed(2))
    mean = agent.act(None, obs, None).action
    expected = torch.distributions.Normal(mean, 1.0).log_prob(decision.action).sum(1)
    assert torch.allclose(decision.log_prob, expected, atol=1e-5)


def test_peers_are_gymnasiums_half_cheetah() -> None:
    peer = peers.gymnasium_sync(2)
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
        ({"rows": (60,)}, "rows has 60: allowed are multiples of copies, 8"),
    ],
)
def test_a_wrong_size_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**arguments)
