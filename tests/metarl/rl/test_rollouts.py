"""The collection loop on an environment whose rows end their episodes at different times."""

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.records import Decision, Examples, Record, Step
from metarl.rl import rollouts
from metarl.rl.rollouts import collect


class StaggeredEnv:
    """Row b's episodes last b + 1 steps; the observation counts the row's steps within its episode."""

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows
        self.device = torch.device("cpu")
        self.observation_space = spaces.Box(0, 10, (1,))
        self.action_space = spaces.Discrete(2)
        self.simulated = torch.zeros(num_rows, dtype=torch.long)

    def reset(self, tasks: Record) -> Step:
        self.elapsed = torch.zeros(self.num_rows, dtype=torch.long)
        nothing = torch.zeros(self.num_rows, dtype=torch.bool)
        return Step(self._obs(), self._obs(), torch.zeros(self.num_rows), nothing, nothing)

    def step(self, action: Tensor, active: Tensor | None = None) -> Step:
        active = torch.ones(self.num_rows, dtype=torch.bool) if active is None else active
        self.simulated += active
        self.elapsed = self.elapsed + active
        next_obs = self._obs()
        end = (self.elapsed > torch.arange(self.num_rows)) & active
        self.elapsed = torch.where(end, 0, self.elapsed)
        return Step(self._obs(), next_obs, active.float(), end, torch.zeros_like(end))

    def _obs(self) -> Tensor:
        return self.elapsed[:, None].float()


class CountingAgent:
    """Its state counts what it has observed; it acts on nothing."""

    block = None
    training_blocks = None

    def prior(self, num_tasks: int, copies: int = 1) -> Tensor:
        return torch.zeros(num_tasks * copies)

    def observe(self, state: Tensor, action: Tensor | None, step: Step) -> Tensor:
        assert (action is None) == (state.sum() == 0)
        return state + 1

    def act(self, state: Tensor, obs: Tensor, generator: torch.Generator | None) -> Decision:
        return Decision(state.long())


def run(num_rows: int, num_episodes: int):
    env = StaggeredEnv(num_rows)
    tasks = Examples(torch.zeros(num_rows), torch.zeros(num_rows))
    return env, collect(env, CountingAgent(), tasks, num_episodes, generator=None)  # type: ignore[arg-type]


def test_rows_whose_trial_is_over_are_not_simulated_and_not_valid():
    env, trajectory = run(num_rows=3, num_episodes=2)
    assert trajectory.valid.T.int().tolist() == [[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]
    assert env.simulated.tolist() == [2, 4, 6]
    assert trajectory.num_steps == 12
    assert trajectory.episode_returns(2).tolist() == [[1, 2, 3], [1, 2, 3]]


def test_starts_and_ends_line_up():
    _, trajectory = run(num_rows=2, num_episodes=2)
    assert trajectory.episode_start.T.int().tolist() == [[1, 1, 0, 0], [1, 0, 1, 0]]
    assert trajectory.trial_start.T.int().tolist() == [[1, 0, 0, 0], [1, 0, 0, 0]]
    assert trajectory.terminated.T.int().tolist() == [[1, 1, 0, 0], [0, 1, 0, 1]]


def test_next_obs_is_what_the_action_led_to_and_obs_what_was_acted_on():
    _, trajectory = run(num_rows=2, num_episodes=2)
    assert trajectory.obs[:, 1, 0].tolist() == [0, 1, 0, 1]
    assert trajectory.next_obs[:, 1, 0].tolist() == [1, 2, 1, 2]


def test_the_agent_has_observed_all_that_came_before_it_acts():
    _, trajectory = run(num_rows=1, num_episodes=4)
    assert trajectory.decision.action[:, 0].tolist() == [1, 2, 3, 4]


def test_asking_seldom_whether_all_is_over_changes_nothing(monkeypatch):
    _, often = run(num_rows=3, num_episodes=2)
    monkeypatch.setattr(rollouts, "_steps_between_syncs", lambda device: 4)
    env, seldom = run(num_rows=3, num_episodes=2)
    assert env.simulated.tolist() == [2, 4, 6]
    assert torch.equal(often.valid, seldom.valid)
    assert torch.equal(often.obs, seldom.obs)


def test_the_result_may_enter_a_graph():
    _, trajectory = run(num_rows=1, num_episodes=1)
    weight = torch.ones(1, requires_grad=True)
    (trajectory.obs * weight).sum().backward()
    assert not trajectory.obs.is_inference()


def test_torch_threads_are_given_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run(num_rows=1, num_episodes=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_no_episodes_is_refused():
    with pytest.raises(ValueError, match="num_episodes is 0"):
        run(num_rows=1, num_episodes=0)
