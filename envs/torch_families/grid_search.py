"""The exact Bayes-optimal value of searching a grid for a goal, by branch and bound.

Until the goal is found, the agent learns only which cells are empty. A policy is therefore a fixed path until it
reaches the goal; from then on it goes to the goal and stays. With a uniform prior its value is a sum over the possible
goal cells. Finding one of them in step t of H, instead of not in this episode, is worth the same for every cell as long
as later episodes find the others as fast as if they were known:

    gain(t) = (goal_reward - step_reward) * (H - t + 1)

This gives a cheap upper bound on the remaining gain: each step finds at most one cell, none before it can be reached,
and later episodes find the remaining cells at their distance from the start.
"""

from __future__ import annotations

import math
from functools import lru_cache

MAX_NODES = 200_000
TOLERANCE = 1e-9

Found = dict[int, tuple[int, int]]  # cell -> (episode from 0, step from 1) in which the path first reaches it


@lru_cache
def bayes_optimal_returns(
    size: int, horizon: int, num_episodes: int, goal_reward: float, step_reward: float
) -> tuple[tuple[float, ...], ...] | None:
    """Returns by episode, [num_episodes], and goal cell, [size²], of a policy whose expected sum over them is largest.

    Start in a corner, goal uniform over the cells but for the start and its three neighbours, moves to the four sides,
    `goal_reward` in each step that ends on the goal and `step_reward` (less than it) in others. None where no optimum
    is proven within the allowed number of nodes, or depth of recursion. Cells that hold no goal have nan.
    """
    search = _Search(size, horizon, num_episodes, goal_reward, step_reward)
    try:
        _, found = search.best(0, search.candidates)
    except (_TooManyNodesError, RecursionError):  # the latter where paths of many episodes are nested too deeply
        return None
    never = (num_episodes, horizon)
    cells = _members(search.candidates)
    return tuple(
        tuple(
            search.episode_return(cell, index, *found.get(cell, never)) if cell in cells else math.nan
            for cell in range(size**2)
        )
        for index in range(num_episodes)
    )


class _TooManyNodesError(Exception):
    """The search has visited more nodes than allowed."""


class _Search:
    """Branch and bound over paths; sets of cells are the bits of an integer, cells are x * size + y."""

    def __init__(self, size: int, horizon: int, num_episodes: int, goal_reward: float, step_reward: float) -> None:
        cells = [divmod(cell, size) for cell in range(size**2)]
        self.horizon, self.num_episodes = horizon, num_episodes
        self.goal_reward, self.step_reward = goal_reward, step_reward
        self.candidates = sum(1 << cell for cell, (x, y) in enumerate(cells) if x > 1 or y > 1)
        self.distance = [[abs(x - u) + abs(y - v) for u, v in cells] for x, y in cells]
        self.neighbours = [[b for b, far in enumerate(row) if far == 1] for row in self.distance]
        self.gain = [(goal_reward - step_reward) * (horizon - step + 1) for step in range(horizon + 1)]
        self.memory: dict[tuple[int, int], tuple[float, Found]] = {}
        self.nodes = 0

    def episode_return(self, cell: int, index: int, episode: int, step: int) -> float:
        """Return of episode `index` with the goal in `cell`, first reached in `step` of `episode`."""
        if index < episode:
            return self.step_reward * self.horizon
        if index > episode:
            step = self.distance[0][cell]
        steps_on_goal = max(self.horizon - step + 1, 0)
        return steps_on_goal * self.goal_reward + (self.horizon - steps_on_goal) * self.step_reward

    def best(self, episode: int, unknown: int) -> tuple[float, Found]:
        """The largest sum, over goals in `unknown`, of the returns from `episode` on, and the path's finds."""
        if episode == self.num_episodes or unknown == 0:
            return 0.0, {}
        if (episode, unknown) not in self.memory:
            self.memory[episode, unknown] = _EpisodeSearch(self, episode, unknown).solve()
        return self.memory[episode, unknown]

    def known_return(self, episode: int, cells: int) -> float:
        """The sum, over goals in `cells`, of the returns of the episodes after `episode` if the goals are known."""
        returns = sum(self.episode_return(cell, 1, 0, 0) for cell in _members(cells))
        return (self.num_episodes - episode - 1) * returns

    def gain_bound(self, step: int, position: int, unknown: int) -> float:
        """An upper bound on any path's gain in the rest of an episode, after `step` steps, at `position`."""
        distance = self.distance[position]
        total = 0.0
        latest = step
        for far in sorted(distance[cell] for cell in _members(unknown)):
            latest = max(latest + 1, step + far)
            if latest > self.horizon:
                break
            total += self.gain[latest]
        return total

    def bound(self, episode: int, unknown: int) -> float:
        """An upper bound on `best`."""
        if episode == self.num_episodes:
            return 0.0
        nothing_found = unknown.bit_count() * self.horizon * self.step_reward
        return nothing_found + self.gain_bound(0, 0, unknown) + self.known_return(episode, unknown)


class _EpisodeSearch:
    """The search for the best path of one episode, given optimal later episodes."""

    def __init__(self, search: _Search, episode: int, unknown: int) -> None:
        self.search, self.episode, self.unknown = search, episode, unknown
        self.ceiling = search.bound(episode, unknown)
        self.later = search.known_return(episode, unknown)
        self.nothing_found = unknown.bit_count() * search.horizon * search.step_reward
        self.value = float("-inf")
        self.found: Found = {}
        self.gained: dict[tuple[int, int, int], float] = {}

    def solve(self) -> tuple[float, Found]:
        self._visit(0, 0, self.unknown, 0.0, {})
        return self.value, self.found

    def _visit(self, step: int, position: int, unknown: int, gain: float, found: Found) -> None:
        """Depth-first search from a position; gain, found: of the path so far."""
        search = self.search
        search.nodes += 1
        if search.nodes > MAX_NODES:
            raise _TooManyNodesError
        still = search.gain_bound(step, position, unknown)
        if self.nothing_found + gain + still + self.later <= self.value + TOLERANCE:
            return
        if still == 0.0:
            self._finish(unknown, gain, found)
            return
        if self.gained.get((step, position, unknown), float("-inf")) >= gain:
            return  # another order of the same cells arrived here with at least this gain
        self.gained[step, position, unknown] = gain
        # New cells first: finding a good path early makes the bound prune early.
        for cell in sorted(search.neighbours[position], key=lambda cell: ~unknown >> cell & 1):
            if unknown >> cell & 1:
                new_found = {**found, cell: (self.episode, step + 1)}
                self._visit(step + 1, cell, unknown & ~(1 << cell), gain + search.gain[step + 1], new_found)
            else:
                self._visit(step + 1, cell, unknown, gain, found)
            if self.value >= self.ceiling - TOLERANCE:
                return

    def _finish(self, unknown: int, gain: float, found: Found) -> None:
        """No more cells can be found in this episode: add the value of the later ones."""
        search = self.search
        this_episode = self.nothing_found + gain + search.known_return(self.episode, self.unknown & ~unknown)
        if this_episode + search.bound(self.episode + 1, unknown) <= self.value + TOLERANCE:
            return
        later, found_later = search.best(self.episode + 1, unknown)
        if this_episode + later > self.value + TOLERANCE:
            self.value = this_episode + later
            self.found = {**found, **found_later}


@lru_cache(maxsize=1 << 16)
def _members(cells: int) -> list[int]:
    return [cell for cell in range(cells.bit_length()) if cells >> cell & 1]
