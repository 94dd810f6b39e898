"""Meta-World itself, where its interpreter is there (`metarl setup metaworld`); skipped elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from envs.external.metaworld.family import Metaworld
from envs.external.metaworld.interpreter import VARIABLE, find_python
from experiments.benchmarks import metaworld as benchmark
from metarl.errors import UserError
from tests.envs.external.metaworld_rows import check_disjoint, generator, make


def _package() -> str | None:
    """The interpreter that has the package, looked for before the tests' stand-in takes its place."""
    try:
        return str(find_python())
    except UserError:
        return None


PACKAGE = _package()
pytestmark = pytest.mark.skipif(PACKAGE is None, reason="there is no interpreter that has metaworld")


@pytest.fixture(autouse=True)
def _the_package_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PACKAGE is not None
    monkeypatch.setenv(VARIABLE, PACKAGE)


def test_no_goal_of_the_test_tasks_is_one_of_training() -> None:
    check_disjoint(Metaworld("ML1-reach-v3"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ML1-push-v3", "ML10", "ML45"])
def test_no_goal_of_other_benchmarks_is_in_both_splits(name: str) -> None:
    check_disjoint(Metaworld(name))


def play(env: Any, tasks: Any, num_steps: int = 15) -> torch.Tensor:
    """What a few episodes of random actions show."""
    env.reset(tasks)
    draws = generator(1)
    steps = [env.step(torch.rand(len(tasks), 4, generator=draws) * 2 - 1) for _ in range(num_steps)]
    return torch.stack([torch.cat([step.obs, step.next_obs, step.reward[:, None]], -1) for step in steps])


def test_an_environment_that_had_other_tasks_is_as_good_as_new() -> None:
    family = Metaworld("ML-custom", train_envs=("reach-v3", "drawer-open-v3"), test_envs=("push-v3",), horizon=6)
    env, tasks = make(family)
    others = family.sample(4, "train", generator(5))
    fresh = play(env, tasks)
    play(env, others)
    assert torch.equal(play(env, tasks), fresh)
    in_one, _ = make(Metaworld(**{**vars(family), "num_workers": 1}))
    assert torch.equal(play(in_one, tasks), fresh)


def test_the_reward_has_the_version_that_its_score_names() -> None:
    (first, second) = (play(*make(Metaworld(reward_version=version)))[..., -1] for version in ("v1", "v2"))
    assert second.max() <= 10 < first.max()


@pytest.mark.slow
def test_scripted_policies_solve_what_they_are_written_for() -> None:
    counted, _ = benchmark.run(benchmark.Settings("MT10", num_goals=5))
    successes = [one.success for one in counted.values()]
    assert min(successes) >= 0.4, counted  # of peg-insert-side-v3, whose policy does not always get there
    assert sum(successes) / 10 >= 0.9, counted
