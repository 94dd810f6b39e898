"""The few-shot benchmark's structure, at a tiny size: what it measures and says, not how fast anything is."""

import json
from typing import Any

import pytest

from experiments.benchmarks import fewshot
from experiments.benchmarks.fewshot import Settings
from experiments.experiment.names import experiment_names

TINY = Settings(num_tasks=2, ways=2, queries=1, num_rounds=1, recipes=("prototypical",))


def test_a_learner_is_measured_in_all_three_ways() -> None:
    result = fewshot.run(TINY)
    rates = {name.removeprefix("prototypical "): values for name, values in result.rounds.items()}
    assert set(rates) == {"batched", "looped", "adapting"}
    assert min(min(values) for values in rates.values()) > 0
    name = "prototypical batched / prototypical looped"
    assert result.ratios == {name: pytest.approx(rates["batched"][0] / rates["looped"][0])}


def test_every_recipe_of_the_family_is_measured(monkeypatch: Any, capsys: Any) -> None:
    measured = []

    def contenders(name: str, settings: Settings) -> dict[str, Any]:
        measured.append(name)
        return dict.fromkeys(("batched", "looped", "adapting"), lambda: None)

    monkeypatch.setattr(fewshot, "_contenders", contenders)
    fewshot.main(json=True)
    assert json.loads(capsys.readouterr().out)["settings"]["num_tasks"] == 8
    assert [f"omniglot/{name}" for name in measured] == [n for n in experiment_names() if n.startswith("omniglot/")]
    fewshot.main()
    assert "prototypical" in capsys.readouterr().out


def test_a_wrong_size_is_named() -> None:
    with pytest.raises(ValueError, match="num_rounds is 0; must be at least 1"):
        Settings(num_rounds=0)
