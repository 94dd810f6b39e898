"""The PEARL benchmark's structure, at a tiny size: what it measures and says, not how fast anything is."""

import json

import pytest
import torch

from agents.pearl import PEARLConfig
from experiments.benchmarks import pearl
from experiments.benchmarks.pearl import Settings

CONFIG = PEARLConfig(
    hidden_sizes=(8,), encoder_sizes=(8,), num_train_tasks=4, capacity=20, meta_batch=3, batch=5, context=6
)
TINY = Settings(config=CONFIG, num_rows=2, horizon=3, num_rounds=2, num_steps=1)


def test_ours_is_timed_beside_the_reference_and_many_rows_beside_one(monkeypatch, capsys):
    result = pearl.run(TINY)
    rates = {"ours", "reference", "reference, our matmul", "one row", "many rows", "loop"}
    assert set(result.rounds) == rates
    assert min(min(values) for values in result.rounds.values()) > 0
    ratios = {"reference / ours", "reference, our matmul / ours", "one row / many rows", "loop / many rows"}
    assert set(result.ratios) == ratios
    assert result.asked == {}  # none is asked of such sizes
    monkeypatch.setattr(pearl, "run", lambda: result)
    pearl.main(json=True)
    assert json.loads(capsys.readouterr().out)["ratios"] == dict(result.ratios)
    pearl.main()
    assert "s/gradient step" in capsys.readouterr().out


def test_a_reference_with_other_posteriors_is_not_timed(monkeypatch):
    right = pearl.Reference.posteriors

    def wrong(self, context):
        return [torch.distributions.Normal(p.mean + 0.1, p.stddev) for p in right(self, context)]

    monkeypatch.setattr(pearl.Reference, "posteriors", wrong)
    with pytest.raises(AssertionError, match="not close"):
        pearl.run(TINY)


def test_the_reference_learns():
    """Its steps move every part, and the bottleneck lowers the divergence where the critics are silent."""
    reference = pearl.Reference(CONFIG, 3, 2, 20, seed=0)
    parts = [reference.encoder, *reference.critics, reference.value, reference.policy]
    before = [[p.detach().clone() for p in part.parameters()] for part in parts]
    for _ in range(2):
        reference.gradient_step()
    for part, values in zip(parts, before, strict=True):
        assert all(not torch.equal(p, q) for p, q in zip(part.parameters(), values, strict=True))


@pytest.mark.parametrize("name", ["num_rows", "horizon", "num_rounds", "num_steps"])
def test_a_size_below_one_is_named(name):
    with pytest.raises(ValueError, match=f"{name} is 0; must be at least 1"):
        Settings(**{name: 0})  # type: ignore[arg-type]
