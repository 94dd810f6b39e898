"""The benchmark of growing work: every case is an update at any size, and what is asked is items per second."""

from typing import Any

import pytest

from experiments.benchmarks import growth
from experiments.benchmarks.growth import CASES, FACTORS, Settings

SMALL = {"rl2_transformer_episodes": 1, "sinusoid_maml_steps": 1, "prototypical_pixels": 20**2, "pearl_context": 8}


@pytest.mark.parametrize("name", CASES)
def test_every_case_is_an_update_at_any_size(name: str) -> None:
    size = SMALL.get(name, 2)
    assert size < CASES[name].smallest
    work = CASES[name].make(size)
    work()
    work()  # once more: an update leaves what the next one needs


def test_a_cost_that_grows_faster_than_its_size_misses_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Inline:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def __enter__(self) -> "Inline":
            return self

        def __exit__(self, *_: object) -> None: ...

        def submit(self, function: Any, name: str, factor: int, num_rounds: int) -> "Inline":
            power = 2 if name == "promp_tasks" else 1
            self.value = [float((CASES[name].smallest * factor) ** power)] * num_rounds, 1.0 * factor
            return self

        def result(self) -> Any:
            return self.value

    monkeypatch.setattr(growth, "ProcessPoolExecutor", Inline)
    result = growth.run(Settings(cases=("promp_tasks", "rl2_tasks")))
    assert result.ratios == {"promp_tasks 80 / promp_tasks 20": 0.25, "rl2_tasks 1024 / rl2_tasks 256": 1.0}
    targets = result.as_json()["targets"]
    assert [target["reached"] for target in targets.values()] == [False, True]
    assert result.details["memory, promp_tasks 80"] == f"{FACTORS[-1]} MB"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cases": ("tea",)}, "cases has 'tea'; must be among rl2_tasks, "),
        ({"factors": (2,)}, r"factors is \(2,\); must be two or more"),
        ({"num_rounds": 0}, "num_rounds is 0"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**settings)
