"""The benchmark of whole updates: peers agree with ours, and what is missing is named."""

import os
from typing import Any

import pytest

from experiments.benchmarks import updates
from experiments.benchmarks.update_peers import contest, supervised
from experiments.benchmarks.updates import CASES, Settings

PEERS = ("rl2", "supervised", "promp", "pearl")


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile is left out: it takes many seconds per case."""
    monkeypatch.setattr(contest, "has_compiler", lambda: False)
    monkeypatch.setattr(supervised, "has_compiler", lambda: False)


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize("case", CASES)
def test_all_contenders_agree_and_are_measured_in_every_round(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PEERS:
        monkeypatch.setattr(f"experiments.benchmarks.update_peers.{name}.has_jax", lambda: False)
    rounds = updates._measure(Settings(cases=(case,), num_rounds=2, small=True), threads=1)
    assert set(rounds) == {f"{case} ours, 1 thread", f"{case} eager, 1 thread"}
    assert all(len(values) == 2 and min(values) > 0 for values in rounds.values())


@pytest.mark.slow
@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize("case", CASES)
def test_jax_computes_the_same(case: str) -> None:
    pytest.importorskip("jax")
    found: Any = CASES[case](True)  # raises where gradients or parameters differ
    assert "jax" in found


def test_a_difference_is_named_before_anything_is_timed() -> None:
    with pytest.raises(AssertionError, match=r"b differs from a by 0\.5; allowed is 0\.1"):
        contest.check_agreement({"a": lambda: [2.0], "b": lambda: [3.0]}, 0.1)
    contest.check_agreement({"a": lambda: [2.0], "b": lambda: [2.1]}, 0.1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, when its compiler is imported
def test_what_torch_cannot_compile_is_no_contender(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import Unsupported

    def refuse() -> list[float]:
        raise Unsupported("no such operation", case_name="refused")

    monkeypatch.setattr(contest, "has_compiler", lambda: True)
    found: dict[str, contest.Work] = {}
    contest.add_compiled(found, refuse)
    assert not found
    contest.add_compiled(found, lambda: [1.0])
    assert list(found) == ["compiled"]


def test_ratios_compare_contenders_of_one_case_and_one_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    class Inline:
        def __enter__(self) -> "Inline":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def submit(self, function: Any, *arguments: Any) -> "Inline":
            self.value = function(*arguments)
            return self

        def result(self) -> Any:
            return self.value

    def measured(settings: Settings, threads: int) -> dict[str, list[float]]:
        assert f"intra_op_parallelism_threads={threads}" in os.environ["XLA_FLAGS"]
        return {updates._named("a", name, threads): [seconds * threads] for name, seconds in (("ours", 1), ("jax", 3))}

    monkeypatch.setattr(updates, "_fresh_process", Inline)
    monkeypatch.setattr(updates, "_measure", measured)
    monkeypatch.setattr(updates, "has_compiler", lambda: False)
    monkeypatch.setattr(updates, "has_jax", lambda: True)
    before = dict(os.environ)
    result = updates.run(Settings(threads=(1, 2)))
    assert dict(os.environ) == before
    assert result.ratios == {
        "a jax, 1 thread / a ours, 1 thread": 3,
        "a jax, 2 threads / a ours, 2 threads": 3,
    }
    assert result.left_out == (updates.LEFT_OUT["compiled"],)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cases": ("rl3",)}, "cases has 'rl3'; must be among rl2_grid_navi"),
        ({"threads": ()}, r"threads is \(\); must be numbers of at least 1"),
        ({"num_rounds": 0}, "num_rounds is 0; must be at least 1"),
    ],
)
def test_a_wrong_size_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**arguments)
