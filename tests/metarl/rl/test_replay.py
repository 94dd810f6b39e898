"""Replay: against a Python list for each task; windows, bounds and exact resume."""

import pytest
import torch

from metarl.rl.replay import Replay, Transition


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def replay(num_tasks: int = 3, capacity: int = 8) -> Replay:
    return Replay(num_tasks, capacity, 2, 1, max_gigabytes=0.1)


def items(numbers: list[list[int]]) -> Transition:
    """Transitions whose every entry is a number: [M, K, ...]."""
    value = torch.tensor(numbers, dtype=torch.float32)
    two = value[..., None].expand(*value.shape, 2)
    return Transition(two, value[..., None], value, -value, two + 0.5, value.long() % 2 == 1)


def held(replay: Replay, task: int, *, recent: bool = False) -> set[int]:
    """All that can be drawn of a task."""
    drawn = replay.sample(torch.tensor([task]), 500, seeded(), recent=recent)
    assert torch.equal(drawn.shaped_reward, -drawn.reward)
    assert torch.equal(drawn.next_obs, drawn.obs + 0.5)
    assert torch.equal(drawn.action[..., 0], drawn.obs[..., 1])
    assert torch.equal(drawn.terminated, drawn.reward % 2 == 1)
    return {int(number) for number in drawn.reward.flatten().tolist()}


def test_rings_hold_what_lists_hold():
    """Random batches of random valid items, more than the rings hold, against lists."""
    rings, lists, windows, generator = replay(), [[], [], []], [[], [], []], seeded()
    number = 1
    for _ in range(30):
        tasks = torch.randperm(3, generator=generator)[:2]
        valid = torch.rand(2, 11, generator=generator) < 0.6
        numbers = [list(range(number + 11 * row, number + 11 * row + 11)) for row in range(2)]
        number += 22
        rings.forget_recent(tasks)
        split = 4
        for part, recent in ((slice(0, split), True), (slice(split, 11), False)):
            rings.add(tasks, items(numbers)[:, part], valid[:, part], recent=recent)
        for row, task in enumerate(tasks.tolist()):
            new = [n for n, v in zip(numbers[row], valid[row].tolist(), strict=True) if v]
            lists[task] = (lists[task] + new)[-8:]
            first = [n for n in new if n < numbers[row][split]]
            windows[task] = [n for n in first if n in lists[task]]
        for task in range(3):
            if lists[task]:
                assert held(rings, task) == set(lists[task])
            window = [n for n in windows[task] if n in lists[task]]
            assert int(rings.num_recent[task]) == len(window)
            if window:
                assert held(rings, task, recent=True) == set(window)


def test_more_items_than_the_ring_holds_leave_the_last_ones():
    rings = replay(1)
    rings.add(torch.tensor([0]), items([list(range(20))]), torch.ones(1, 20, dtype=torch.bool), recent=True)
    assert held(rings, 0) == held(rings, 0, recent=True) == set(range(12, 20))


def test_draws_are_uniform_and_of_the_generator():
    rings = replay(2)
    rings.add(
        torch.tensor([0, 1]), items([[1, 2, 3, 4], [5, 6, 7, 8]]), torch.ones(2, 4, dtype=torch.bool), recent=True
    )
    drawn, again = (rings.sample(torch.tensor([1, 0, 1]), 4000, seeded()).reward for _ in range(2))
    assert torch.equal(drawn, again)
    for row, low in enumerate((5, 1, 5)):
        shares = torch.bincount(drawn[row].long() - low, minlength=4) / 4000
        torch.testing.assert_close(shares, torch.full((4,), 0.25), rtol=0, atol=0.03)


def test_a_gap_in_a_window_and_an_empty_task_are_named():
    rings, task, valid = replay(), torch.tensor([1]), torch.ones(1, 2, dtype=torch.bool)
    rings.add(task, items([[1, 2]]), valid, recent=False)
    with pytest.raises(ValueError, match="task 1 has no recent transition"):
        rings.sample(task, 1, seeded(), recent=True)
    with pytest.raises(ValueError, match="must be contiguous"):
        rings.add(task, items([[3, 4]]), valid, recent=True)
    with pytest.raises(ValueError, match="task 2 has no transition"):
        rings.sample(torch.tensor([1, 2]), 1, seeded())


def test_too_much_memory_is_named_before_it_is_taken():
    with pytest.raises(
        ValueError, match=r"100 tasks x 1000000 transitions x 169 bytes needs 16.9 GB; max_gigabytes is 4"
    ):
        Replay(100, 1_000_000, 17, 6, max_gigabytes=4)
    with pytest.raises(ValueError, match="capacity is 0; must be at least 1"):
        Replay(1, 0, 1, 1, max_gigabytes=1)


def test_what_is_saved_is_exact_and_no_larger_than_what_is_written():
    rings, tasks = replay(), torch.tensor([0, 2])
    rings.add(tasks, items([[1, 2, 3], [4, 5, 6]]), torch.tensor([[True, True, False], [True] * 3]), recent=True)
    state = rings.state_dict()
    assert {len(values) for values in state["packed"]} == {5}
    other = replay()
    other.add(torch.tensor([1]), items([[9]]), torch.ones(1, 1, dtype=torch.bool), recent=False)
    other.load_state_dict(state)
    for which in (rings, other):
        which.add(tasks, items([[7], [8]]), torch.ones(2, 1, dtype=torch.bool), recent=False)
    for recent in (False, True):
        one, two = (which.sample(tasks, 50, seeded(), recent=recent) for which in (rings, other))
        assert torch.equal(one.reward, two.reward)
    assert torch.equal(other.num_items, torch.tensor([3, 0, 4]))


def chained(first: int, last: int, reward: float = 1.0) -> Transition:
    """An episode of one task, whose next observations are the observations that follow: [1, K, ...]."""
    obs = torch.arange(first, last + 1.0).expand(1, 2, -1).transpose(1, 2)
    value = torch.full((1, last - first), reward)
    return Transition(obs[:, :-1], value[..., None], value, value, obs[:, 1:], value > 5)


def test_next_observations_and_rewards_are_saved_once():
    rings, valid = replay(1, 6), torch.ones(1, 4, dtype=torch.bool)
    rings.add(torch.tensor([0]), chained(0, 4), valid, recent=True)
    rings.add(torch.tensor([0]), chained(10, 14, -0.0), valid, recent=True)  # over the first two of the ring
    state = rings.state_dict()
    assert state["packed"][3] is None
    assert len(state["packed"][-1]) == 3  # of the ring's seam, of the first episode's end and of the ring's own
    other = replay(1, 6)
    other.load_state_dict(state)
    for name, ring in vars(rings._rings).items():
        assert torch.equal(getattr(other._rings, name), ring), name
    assert torch.equal(other._rings.reward.signbit(), rings._rings.reward.signbit())


def test_a_replay_from_before_it_was_packed_is_read():
    rings, other = replay(1, 6), replay(1, 6)
    rings.add(torch.tensor([0]), chained(0, 4), torch.ones(1, 4, dtype=torch.bool), recent=True)
    written = rings._rings[rings._places()]
    other.load_state_dict({"rings": list(vars(written).values()), "marks": rings.state_dict()["marks"]})
    assert torch.equal(other._rings.next_obs, rings._rings.next_obs)


@pytest.mark.parametrize("index", range(7))
def test_a_replay_that_does_not_fit_is_refused(index):
    rings = replay(1, 6)
    rings.add(torch.tensor([0]), items([[1, 2, 3]]), torch.ones(1, 3, dtype=torch.bool), recent=True)
    state = rings.state_dict()
    state["packed"][index] = state["packed"][index][:1]
    with pytest.raises(ValueError, match="replay"):
        replay(1, 6).load_state_dict(state)
    with pytest.raises(ValueError, match=r"replay\.marks must be in order"):
        replay(1, 6).load_state_dict({**rings.state_dict(), "marks": torch.tensor([[3], [-1], [5]])})
