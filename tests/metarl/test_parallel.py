"""Several processes that share a training have the numbers of one, up to the order in which floats are added."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from agents.rl2 import RL2Config
from metarl import noise, parallel, shared_memory
from metarl.parallel import Share
from metarl.trainer import TrainConfig, Trainer
from tests.metarl.two_processes import CASES, MDP, by_processes, train

# Biases that change no output: their gradients are rounding errors, which Adam magnifies. And a mean that follows one.
WITHOUT_EFFECT = ("project.bias", "conv.bias", "norm.running_mean")


def tensors(state: Any, where: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(state, torch.Tensor):
        yield where, state
    elif isinstance(state, (dict, list)):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from tensors(value, f"{where}.{key}")


def check_equal(one: dict[str, Any], several: dict[str, Any]) -> None:
    """Equal to 1e-5: curves, scores of each test task in order, and all that is learned; random streams to the bit."""
    assert len(one["rows"]) == len(several["rows"])
    for mine, theirs in zip(one["rows"], several["rows"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    assert one["tasks_hash"] == several["tasks_hash"]
    torch.testing.assert_close(one["scores"], several["scores"], rtol=1e-5, atol=1e-6)
    theirs = dict(tensors(several["state"]))
    for name, value in tensors(one["state"]):
        if not value.is_floating_point():
            assert torch.equal(value, theirs[name]), name
        elif value.numel() and not name.endswith(WITHOUT_EFFECT):
            size = float(value.abs().max())
            torch.testing.assert_close(value, theirs[name], rtol=0, atol=3e-5 * size + 1e-7, msg=name)


USUAL = ("rl2", "maml_trpo", "promp", "pearl", "varibad", "maml")  # always compared, the others in the long tests


LONG = [pytest.param(name, marks=pytest.mark.slow) for name in CASES if name not in USUAL]


@pytest.mark.parametrize("name", [*USUAL, *LONG])
def test_two_processes_give_the_curve_and_the_parameters_of_one(name, tmp_path):
    by_two = by_processes(2, functools.partial(train, name, CASES[name], 3), tmp_path / "two.pt")
    check_equal(train(name, CASES[name], 3), by_two)
    assert by_two["communication"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rl2", "promp", "pearl", "rl2_sac", "varibad", "maml"])
def test_what_two_processes_began_one_and_then_three_continue(name, tmp_path):
    whole = train(name, CASES[name], 5)
    first = by_processes(2, functools.partial(train, name, CASES[name], 2), tmp_path / "two.pt")
    second = train(name, CASES[name], 1, first["state"])
    third = by_processes(3, functools.partial(train, name, CASES[name], 2, second["state"]), tmp_path / "three.pt")
    check_equal(whole, {**third, "rows": first["rows"] + second["rows"] + third["rows"]})


def refusal() -> str:
    with pytest.raises(ValueError, match="process") as error:
        Trainer(MDP, RL2Config(), TrainConfig(num_iterations=1, num_tasks=1), agent_name="rl2", seed=0)
    return str(error.value)


@pytest.mark.slow
def test_fewer_tasks_than_processes_are_refused_in_a_line(tmp_path):
    text = by_processes(2, refusal, tmp_path / "refusal.pt")
    assert text == "num_tasks is 1; must be at least 2, the number of processes"


def test_shares_of_tasks_come_back_together_in_their_order():
    rows = torch.arange(5).repeat_interleave(2) * 10 + torch.arange(2).repeat(5)  # task and copy
    shares = [Share(5, index, 3) for index in range(3)]
    parts = [share.own(rows) for share in shares]
    assert [part.tolist() for part in parts] == [[0, 1, 30, 31], [10, 11, 40, 41], [20, 21]]
    assert torch.equal(shares[0]._ordered(parts, 0), rows)
    assert [share.fraction for share in shares] == [0.4, 0.4, 0.2]
    minibatch = torch.tensor([7, 0, 4, 9])  # rows of tasks 3, 0, 2 and 4
    assert [share.own_rows(minibatch, 10).tolist() for share in shares] == [[3, 0], [3], [0]]


@pytest.mark.parametrize("seed", range(3))
def test_the_noise_of_a_task_is_that_which_one_process_draws_for_it(seed):
    def draws(size: int, generator: torch.Generator) -> list[torch.Tensor]:
        values = torch.empty(size, 2)
        return [
            torch.rand(size, 3, generator=generator),
            torch.randn((size,), generator=generator),
            torch.randint(9, (size, 2), generator=generator),
            values.normal_(generator=generator).clone(),
            values.exponential_(generator=generator).clone(),
            torch.randint(100, (), generator=generator),
        ]

    whole = draws(5, torch.Generator().manual_seed(seed))
    for index in range(2):
        share, generator = Share(5, index, 2), torch.Generator().manual_seed(seed)
        with share.noise():
            parts = draws(share.size, generator)
        for part, drawn in zip(parts, whole, strict=True):
            assert torch.equal(part, drawn if drawn.ndim == 0 else share.own(drawn))


def test_noise_that_cannot_be_shared_is_refused():
    share, generator = Share(5, 0, 2), torch.Generator()
    with share.noise(), pytest.raises(ValueError, match=r"shape \[4\]; axis 0 must be a multiple of the 3 tasks"):
        torch.rand(4, generator=generator)
    with share.noise(), pytest.raises(ValueError, match="bernoulli, which several processes cannot share"):
        torch.bernoulli(torch.ones(3), generator=generator)


def test_noise_drawn_by_a_reference_to_a_function_of_torch_is_refused(monkeypatch):
    share, generator = Share(5, 0, 2), torch.Generator()
    with share.noise():
        replaced = torch.rand
    kept: Any = inspect.unwrap(replaced)  # what `from torch import rand` gives before a run of several processes begins
    monkeypatch.setattr(noise, "_num_contexts", 0)
    with share.noise(), pytest.raises(ValueError, match="a reference to torch's rand; must"):
        kept(3, generator=generator)
    assert kept(3).shape == (3,)


def by_memory_and_by_gloo() -> dict[str, list[Any]]:
    """Sums of tensors of several types and lengths, longer than a slot too: through shared memory, and by gloo."""
    memory, generator, found = parallel._memory, torch.Generator().manual_seed(parallel.process_index()), {}
    assert memory is not None
    for way in (memory, None):
        parallel._memory = way
        generator.manual_seed(parallel.process_index())
        tensors = [torch.randn(size, generator=generator).double().to(kind) for size, kind in _SIZES]
        found["gloo" if way is None else "memory"] = [parallel._sum(value) for value in tensors]
    parallel._memory = memory
    return found


_SIZES = [((), torch.float32), ((3, 5), torch.float64), ((1_000_003,), torch.float32), ((7,), torch.int64)]


@pytest.mark.skipif(not shared_memory.is_supported(), reason="this machine's processes cannot share memory")
def test_sums_through_shared_memory_are_those_of_gloo(tmp_path):
    found = by_processes(2, by_memory_and_by_gloo, tmp_path / "sums.pt")
    for ours, theirs in zip(found["memory"], found["gloo"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_one_process_shares_nothing():
    with parallel.sharing(5) as share:
        assert (share.size, share.fraction, parallel.is_shared()) == (5, 1.0, False)
        value = torch.ones(2)
        assert parallel.total(value) is value
        assert parallel.share_of_mean(value) is value
