"""The buffer of trials: the most recent ones, whole, bit for bit after a resume, and refused where they do not fit."""

import copy

import pytest
import torch

from metarl.rl.trial_buffer import TrialBuffer, TrialSteps


def buffer(capacity: int = 3, num_steps: int = 4) -> TrialBuffer:
    return TrialBuffer(capacity, num_steps, 2, None, max_gigabytes=0.1)


def trials(first: int, count: int, steps: int = 4) -> TrialSteps:
    """Trials numbered from `first`, whose every entry is the number."""
    number = torch.arange(first, first + count).expand(steps, -1)
    obs = number[..., None].expand(-1, -1, 2).float()
    return TrialSteps(obs, number.clone(), number.float(), obs + 0.5, torch.ones(steps, count, dtype=torch.bool))


def numbers(held: TrialBuffer) -> set[int]:
    """The numbers of the trials that are drawn."""
    drawn = held.sample(200, torch.Generator().manual_seed(0))
    assert torch.equal(drawn.obs[..., 0] + 0.5, drawn.next_obs[..., 1])
    assert torch.equal(drawn.action, drawn.reward.long())
    return set(drawn.action[0].tolist())


def test_the_most_recent_trials_are_drawn():
    held = buffer()
    held.add(trials(0, 2))
    assert numbers(held) == {0, 1}
    held.add(trials(2, 2))
    assert numbers(held) == {1, 2, 3}
    held.add(trials(4, 5))
    assert numbers(held) == {6, 7, 8}


def test_a_shorter_trial_replaces_a_longer_one_to_its_end():
    held = buffer(capacity=1)
    held.add(trials(1, 1))
    held.add(trials(2, 1, steps=2))
    drawn = held.sample(1, torch.Generator())
    assert drawn.valid[:, 0].tolist() == [True, True, False, False]
    assert drawn.reward[:, 0].tolist() == [2, 2, 0, 0]


def test_parts_of_trials_are_consecutive_and_every_step_is_in_some():
    """Trials of 12 and of 5 steps, whose entries are the steps' numbers; parts of up to 4 with the step after them."""
    held = TrialBuffer(2, 12, 1, None, max_gigabytes=0.1)
    for length in (12, 5):
        number = torch.arange(length)[:, None]
        reward = number.float() + 100 * (length == 5)
        held.add(TrialSteps(reward[..., None], number, reward, reward[..., None], torch.ones(length, 1).bool()))
    parts, first = held.sample_parts(4000, 4, torch.Generator().manual_seed(0))
    assert parts.obs.shape == (5, 4000, 1)
    is_short = parts.reward[0] >= 100
    assert torch.equal(first, parts.action[0])
    for k in range(1, 5):
        assert torch.equal(parts.action[k][parts.valid[k]], (first + k)[parts.valid[k]])
    assert torch.equal(parts.valid.sum(0), (torch.where(is_short, 5, 12) - first).clamp(max=5))
    assert set(first[is_short].tolist()) == {0, 1}
    assert set(first[~is_short].tolist()) == set(range(9))
    begins = (first[~is_short] == 0).float().mean()
    assert float(begins) == pytest.approx(4 / 12, abs=0.04)


def test_a_round_trip_keeps_every_trial_and_where_the_next_one_goes():
    first, second = buffer(), buffer()
    first.add(trials(0, 4))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for held in (first, second):
        held.add(trials(4, 1))
    one, other = (held.sample(50, torch.Generator().manual_seed(0)) for held in (first, second))
    assert torch.equal(one.obs, other.obs)
    assert numbers(second) == {2, 3, 4}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state.update(num_added=-1), "buffer.num_added is -1; must be"),
        (lambda state: state.update(num_added=2), "buffer.obs must be a tensor of torch.float32 with shape"),
        (lambda state: state["trials"].pop(), "buffer.trials must be a list of 5 tensors"),
        (lambda state: state["trials"].__setitem__(1, torch.zeros(4, 3)), "buffer.action must be a tensor of"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(spoil, message):
    held = buffer()
    held.add(trials(0, 3))
    state = copy.deepcopy(held.state_dict())
    spoil(state)
    with pytest.raises(ValueError, match=message):
        held.load_state_dict(state)
    assert numbers(held) == {0, 1, 2}


def test_an_empty_buffer_and_one_beyond_its_memory_are_refused():
    with pytest.raises(ValueError, match="the buffer holds no trial"):
        buffer().sample(1, torch.Generator())
    with pytest.raises(ValueError, match=r"1000000 trials x 400 steps needs 76.8 GB; max_gigabytes is 8"):
        TrialBuffer(1_000_000, 400, 20, 6, max_gigabytes=8)
