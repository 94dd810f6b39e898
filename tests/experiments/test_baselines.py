"""The baselines reproduce the published numbers, and their parts what can be computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from envs.catalog import make
from envs.torch_families.bandits import BanditTasks, BernoulliBandit, GaussianBandit
from envs.torch_families.tabular import TabularMDP
from experiments.baselines import COLUMNS, BaselineResult, baselines, rows
from experiments.baselines.bandits import Belief, epsilon_greedy, gittins_indices, play, thompson, ucb1
from experiments.baselines.from_scratch import ppo_baselines
from experiments.baselines.tabular import Belief as TabularBelief
from experiments.baselines.trials import random_policy


def _agrees(result: BaselineResult, num_trials: int) -> bool:
    """Within three standard errors of the difference; the published means are of 1000 trials and rounded to .1."""
    assert result.published is not None
    assert result.standard_error is not None
    spread = result.standard_error * math.sqrt(num_trials)
    standard_error = spread * math.sqrt(1 / num_trials + 1 / 1000)
    return abs(result.mean - result.published) <= 3 * standard_error + 0.05


@pytest.mark.parametrize(
    ("family", "num_trials", "num_published"),
    [
        (BernoulliBandit(num_arms=5, num_pulls=10), 4000, 6),
        (BernoulliBandit(num_arms=10, num_pulls=10), 4000, 6),
        (BernoulliBandit(num_arms=5, num_pulls=100), 4000, 6),
        pytest.param(BernoulliBandit(num_arms=5, num_pulls=500), 5000, 6, marks=pytest.mark.slow),
        pytest.param(TabularMDP(num_episodes=50), 2000, 2, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_published_numbers_reproduce(family: Any, num_trials: int, num_published: int) -> None:
    results = baselines(family, num_trials)
    published = [result for result in results if result.published is not None]
    assert len(published) == num_published
    wrong = [f"{r.name}: {r.mean:.2f} +- {r.standard_error:.2f}" for r in published if not _agrees(r, num_trials)]
    assert not wrong


@pytest.fixture(scope="module")
def tabular() -> dict[str, BaselineResult]:
    return {result.name: result for result in baselines(TabularMDP(), 3000)}


def test_published_tabular_numbers_reproduce(tabular: dict[str, BaselineResult]) -> None:
    assert tabular["psrl"].published == 138.1
    assert tabular["random"].published == 100.1
    assert _agrees(tabular["psrl"], 3000)
    assert _agrees(tabular["random"], 3000)


def test_psrl_with_the_true_prior_does_not_reproduce_the_paper(tabular: dict[str, BaselineResult]) -> None:
    """Evidence for the prior that "psrl" uses: the tasks' own gives significantly less in ten episodes."""
    assert tabular["psrl_true_prior"].mean < tabular["psrl"].mean - 2
    assert not _agrees(replace(tabular["psrl_true_prior"], published=138.1), 3000)


def test_known_optima(tabular: dict[str, BaselineResult]) -> None:
    bandit = {result.name: result for result in baselines(BernoulliBandit(num_arms=5, num_pulls=10), 4000)}
    assert bandit["oracle"].mean == pytest.approx(10 * 5 / 6, abs=0.06)
    assert tabular["oracle"].mean == pytest.approx(218.2, abs=2)


def test_grid_navi_values_are_exact() -> None:
    results = {result.name: result for result in baselines(make("grid_navi"))}
    assert results["bayes_optimal"].mean == pytest.approx(37 + 3 / 14)
    assert results["oracle"].mean == pytest.approx(4 * (11 + 1 / 14))
    assert results["random"].mean < 0
    assert all(result.standard_error == 0 for result in results.values())


@pytest.mark.parametrize("name", ["point_navigation", "semicircle", "wind", "half_cheetah_dir"])
def test_any_family_has_the_random_policy(name: str) -> None:
    family: Any = make(name, horizon=5, num_episodes=2) if name != "half_cheetah_dir" else make(name, horizon=5)
    results = {result.name: result for result in baselines(family, 8)}
    assert math.isfinite(results["random"].mean)
    if "oracle" in results:
        assert results["oracle"].mean >= results["random"].mean


def test_ppo_without_meta_learning_makes_use_of_a_task_that_it_sees() -> None:
    """Of two arms with standard normal means, the better one pays 0.56 on average; blindly, each pays nothing."""
    family = GaussianBandit(num_arms=2, num_pulls=1)
    generator = torch.Generator().manual_seed(0)
    tasks = family.sample(1000, "test", generator)
    hidden, visible = ppo_baselines(family, tasks, 4000, generator)
    assert (hidden.name, visible.name) == ("ppo_hidden", "ppo_visible")
    assert visible.source == "no meta-learning; 4,096 steps, one seed"
    best, chosen = float(tasks.mean.max(1).values.mean()), visible.mean
    assert abs(hidden.mean) < 0.2
    assert 0.6 * best < chosen < best + 0.1


def test_any_family_has_ppo_where_steps_are_granted() -> None:
    family: Any = make("half_cheetah_vel", horizon=3)
    names = [result.name for result in baselines(family, 4, ppo_steps=1)]
    assert set(names) == {"random", "ppo_hidden", "ppo_visible"}
    assert not any(result.name.startswith("ppo") for result in baselines(family, 4))
    with pytest.raises(ValueError, match="ppo_steps is -1; must be at least 0"):
        baselines(family, 4, ppo_steps=-1)


def test_random_policy_plays_whole_trials_and_no_more() -> None:
    """Five pulls of arms that always pay: five episodes of one step each."""
    tasks = BanditTasks(torch.ones(3, 2))
    family: Any = BernoulliBandit(num_arms=2, num_pulls=5)
    assert random_policy(family, tasks, torch.Generator()).tolist() == [[1.0] * 3] * 5


def test_results_come_best_first_and_repeat_with_the_seed() -> None:
    family = BernoulliBandit(num_arms=3, num_pulls=5)
    results = baselines(family, 50, seed=3)
    assert [r.mean for r in results] == sorted((r.mean for r in results), reverse=True)
    assert results == baselines(family, 50, seed=3)
    assert results != baselines(family, 50, seed=4)


def test_rows_are_text_for_every_column() -> None:
    table = rows([BaselineResult("a", 1.234, None), BaselineResult("b", 2, 0.5, 2.1, "c")])
    assert table == [("a", "1.23", "", "", ""), ("b", "2.00", "0.50", "2.10", "c")]
    assert len(COLUMNS) == 5


def test_one_trial_is_refused() -> None:
    with pytest.raises(ValueError, match="num_trials is 1"):
        baselines(BernoulliBandit(), 1)


def test_the_global_setting_of_threads_is_left_as_it_was() -> None:
    before = torch.get_num_threads()
    baselines(BernoulliBandit(num_pulls=2), 2)
    assert torch.get_num_threads() == before


# The parts


def _seen(family: BernoulliBandit | GaussianBandit, pulls: list[tuple[int, float]]) -> Belief:
    belief = Belief(family, 1)
    for arm, reward in pulls:
        belief.update(torch.tensor([arm]), torch.tensor([reward]))
    return belief


def test_beliefs_by_hand() -> None:
    bernoulli = _seen(BernoulliBandit(num_arms=3), [(0, 1.0), (0, 1.0), (1, 0.0)])
    assert bernoulli.mean[0].tolist() == pytest.approx([3 / 4, 1 / 3, 1 / 2])
    assert bernoulli.count[0].tolist() == [4, 3, 2]
    # Reward variance 4 against prior variance 1: the prior is worth four pulls.
    gaussian = _seen(GaussianBandit(num_arms=2, reward_std=2.0), [(0, 3.0), (0, 3.0)])
    assert gaussian.mean[0].tolist() == pytest.approx([1.0, 0.0])
    assert gaussian.count[0].tolist() == [6, 4]


def test_posterior_draws_have_the_posterior_mean_and_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    belief = Belief(BernoulliBandit(num_arms=2), 20_000)
    belief.update(torch.zeros(20_000, dtype=torch.int64), torch.ones(20_000))
    draws = belief.sample(generator)  # Beta(2, 1) and Beta(1, 1)
    assert draws.mean(0).tolist() == pytest.approx([2 / 3, 1 / 2], abs=0.01)
    assert draws.var(0).tolist() == pytest.approx([1 / 18, 1 / 12], rel=0.05)
    belief = Belief(GaussianBandit(num_arms=2), 20_000)
    belief.update(torch.zeros(20_000, dtype=torch.int64), torch.ones(20_000))
    draws = belief.sample(generator)  # N(1/2, 1/2) and N(0, 1)
    assert draws.mean(0).tolist() == pytest.approx([1 / 2, 0], abs=0.03)
    assert draws.var(0).tolist() == pytest.approx([1 / 2, 1], rel=0.05)


def test_choices_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    # Means 2/3, 3/5 and 1/3 on 3, 5 and 3 pulls, the prior's two among them.
    belief = _seen(BernoulliBandit(num_arms=3), [(0, 1.0), (1, 1.0), (1, 1.0), (1, 0.0), (2, 0.0)])
    assert epsilon_greedy(torch.zeros(()))(belief, 5, generator).item() == 0
    assert ucb1(torch.tensor(0.0))(belief, 5, generator).item() == 0
    better = _seen(BernoulliBandit(num_arms=2), [(0, 1.0), (0, 1.0), (1, 1.0)])  # 3/4 on 4, 2/3 on 3
    # log 4 = 1.386: bonuses c * .833 and c * .961; arm 1 is ahead when c * .129 > .0833, so from c = .648.
    assert ucb1(torch.tensor(0.6))(better, 3, generator).item() == 0
    assert ucb1(torch.tensor(0.7))(better, 3, generator).item() == 1
    assert {int(thompson(better, 3, generator)) for _ in range(50)} == {0, 1}
    assert {int(epsilon_greedy(torch.ones(()))(better, 3, generator)) for _ in range(50)} == {0, 1}


def test_ties_are_broken_at_random() -> None:
    belief, generator = Belief(BernoulliBandit(num_arms=4), 4000), torch.Generator().manual_seed(0)
    chosen = epsilon_greedy(torch.zeros(()))(belief, 0, generator)
    assert torch.bincount(chosen, minlength=4).tolist() == pytest.approx([1000] * 4, abs=4 * math.sqrt(750))


def test_gittins_indices_by_hand_and_against_published_ones() -> None:
    # One pull to learn from, discount 1/2, Beta(1, 1). Play it, and for ever after have the better of a known payoff x
    # and the posterior mean: 2/3 after a success, x after a failure. Worth the same as x for ever when
    # x / (1/2) = 1/2 (1 + 1/2 * (2/3) / (1/2)) + 1/2 * (1/2 * x / (1/2)), so 3/2 x = 5/6 and x = 5/9.
    assert gittins_indices(1, 0.5)[0, 0].item() == pytest.approx(5 / 9, abs=1e-3)
    # Nothing counts but the next pull: the index is the mean.
    assert gittins_indices(2, 0.0)[0, 1].item() == pytest.approx(1 / 3, abs=1e-3)
    # Gittins 1989, Bernoulli arms, discount 0.9: Beta(1, 1) .7029, Beta(2, 1) .8001, Beta(1, 2) .5001.
    indices = gittins_indices(200, 0.9)
    assert indices[0, 0].item() == pytest.approx(0.7029, abs=1e-3)
    assert indices[1, 0].item() == pytest.approx(0.8001, abs=1e-3)
    assert indices[0, 1].item() == pytest.approx(0.5001, abs=1e-3)


def test_play_collects_the_rewards_of_all_pulls() -> None:
    family = BernoulliBandit(num_arms=2, num_pulls=7)
    tasks = BanditTasks(torch.tensor([[0.0, 1.0]]))
    total = play(family, tasks, lambda belief, pull, generator: torch.tensor([pull % 2]), torch.Generator())
    assert total.tolist() == [[0.0], [1.0]] * 3 + [[0.0]]


def test_tabular_belief_by_hand() -> None:
    family = TabularMDP(num_states=2, num_actions=2)
    belief = TabularBelief(family, 4000, reward_mean=0.0)
    state = torch.zeros(4000, dtype=torch.int64)
    for reward in (2.0, 4.0):
        belief.update(state, state + 1, torch.full((4000,), reward), state + 1)
    draw = belief.sample(torch.Generator().manual_seed(0))
    # Two visits beside the prior's: mean 6 / 3, variance 1 / 3; counts 1 and 3 of the next states.
    assert draw.reward_mean[:, 0, 1].mean().item() == pytest.approx(2.0, abs=0.04)
    assert draw.reward_mean[:, 0, 1].var().item() == pytest.approx(1 / 3, rel=0.1)
    assert draw.transition[:, 0, 1].mean(0).tolist() == pytest.approx([0.25, 0.75], abs=0.02)
    assert draw.reward_mean[:, 1, 1].mean().item() == pytest.approx(0.0, abs=0.07)
