"""Records: what torch sees in them, and the one bridge between the time-major and the task-major layout."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from metarl.records import Decision, Examples, Record, Trajectory, cat, stack


@dataclass(frozen=True)
class Body(Record):
    mass: Tensor
    fields: dict[str, Tensor]
    nothing: Tensor | None = None


def body(num_tasks: int) -> Body:
    return Body(torch.arange(num_tasks).float(), {"damping": torch.ones(num_tasks, 2)})


def test_vmap_maps_over_nested_records():
    doubled = torch.vmap(lambda one: Body(one.mass * 2, {"damping": one.fields["damping"].sum()}))(body(3))
    assert doubled.mass.tolist() == [0, 2, 4]
    assert doubled.fields["damping"].tolist() == [2, 2, 2]
    assert doubled.nothing is None


def test_indexing_length_and_copies():
    tasks = body(3)
    assert len(tasks) == 3
    assert tasks[1:].mass.tolist() == [1, 2]
    assert tasks.repeat_interleave(2).mass.tolist() == [0, 0, 1, 1, 2, 2]
    assert tasks.repeat_interleave(1) is tasks


def test_a_record_without_tensors_has_no_length():
    with pytest.raises(TypeError, match="Decision"):
        len(Decision(None))  # type: ignore[arg-type]


def test_stack_and_cat():
    pair = [Examples(torch.zeros(2, 3), torch.ones(2, 1)), Examples(torch.ones(2, 3), torch.ones(2, 1))]
    assert stack(pair).x.shape == (2, 2, 3)
    assert cat(pair, dim=1).x.shape == (2, 6)
    assert stack([body(2), body(2)], dim=1).fields["damping"].shape == (2, 2, 2)


def trajectory() -> Trajectory[Decision]:
    """Two rows; the first has episodes of 1 and 2 steps, the second of 2 and 1 and then nothing."""
    reward = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0], [0.0, 99.0]])
    end = torch.tensor([[True, False], [False, True], [True, True], [True, False]])
    valid = torch.tensor([[True, True], [True, True], [True, True], [True, False]])
    start = torch.tensor([[True, True], [True, False], [False, True], [True, False]])
    trial_start = torch.zeros(4, 2, dtype=torch.bool)
    trial_start[0] = True
    obs = torch.arange(8.0).view(4, 2, 1)
    return Trajectory(obs, Decision(reward), reward, obs, end, torch.zeros_like(end), start, trial_start, valid)


def test_episode_returns_leave_out_what_is_not_valid():
    assert trajectory().episode_returns(3).tolist() == [[1, 30], [6, 40], [0, 0]]
    assert trajectory().num_steps == 7


def test_by_task_keeps_the_copies_of_a_task_together_in_time_order():
    assert trajectory().by_task(1).obs.squeeze(-1).tolist() == [[0, 2, 4, 6, 1, 3, 5, 7]]
    assert trajectory().by_task(2).obs.squeeze(-1).tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]
