"""The meta-gradient benchmark's structure, at a tiny size: what it measures and says, not how fast anything is."""

import json

import pytest
import torch

from experiments.benchmarks import meta_gradient
from experiments.benchmarks.meta_gradient import Settings
from experiments.benchmarks.outer_step import OuterStepSize

TINY = Settings(
    num_tasks=3,
    num_inner_steps=(1, 2),
    num_rounds=2,
    num_repeats=1,
    outer=OuterStepSize(num_tasks=3, num_rollouts=2, num_steps=4),
    num_outer_rounds=2,
)


def test_every_contender_is_timed_and_set_against_ours(monkeypatch, capsys):
    threads = torch.get_num_threads()
    result = meta_gradient.run(TINY)
    assert torch.get_num_threads() == threads
    ours = {f"{kind}_{steps}" for kind in ("vmap", "chunks", "our_loop", "loop") for steps in (1, 2)}
    assert ours <= set(result.rounds)
    assert min(min(values) for values in result.rounds.values()) > 0
    assert {"loop_1 / batched_1", "chunks_2 / batched_2"} <= set(result.ratios)
    assert {f"{name} / outer_batched" for name in ("outer_loop", "outer_loop_our_products")} <= set(result.ratios)
    assert 0 < result.details["simulation_share"] < 1
    assert result.asked == {}  # none is asked of three tasks
    monkeypatch.setattr(meta_gradient, "run", lambda: result)
    meta_gradient.main(json=True)
    assert json.loads(capsys.readouterr().out)["measured"] == result.as_json()["measured"]
    meta_gradient.main()
    assert "loop_1 / batched_1" in capsys.readouterr().out


def test_a_contender_with_another_gradient_is_not_timed(monkeypatch):
    right = meta_gradient._ours
    monkeypatch.setattr(meta_gradient, "_ours", lambda net, episode, steps, batching: right(net, episode, 3, batching))
    with pytest.raises(AssertionError):
        meta_gradient.run(TINY)


def test_a_wrong_size_is_named():
    with pytest.raises(ValueError, match="must be positive"):
        Settings(num_tasks=0)
    with pytest.raises(ValueError, match="must be positive"):
        OuterStepSize(num_rollouts=0)
