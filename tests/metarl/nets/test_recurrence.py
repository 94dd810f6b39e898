"""The GRU over whole sequences, by torch and compiled by numba: torch's own numbers and gradients."""

import importlib.util
import sys

import pytest
import torch
from torch import Tensor, nn

from metarl.nets import recurrence
from metarl.nets.recurrence import gru

HAS_NUMBA = importlib.util.find_spec("numba") is not None


@pytest.fixture(params=["torch", "compiled"], autouse=True)
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> recurrence.Steps:
    """Each test's GRU computes its steps by one library and then by the other."""
    if request.param == "compiled" and not HAS_NUMBA:
        pytest.skip("numba is not installed: pip install 'metarl[fast]'")
    monkeypatch.setenv("METARL_NUMBA", "0" if request.param == "torch" else "1")
    steps = recurrence._steps_for(torch.float32)
    assert (steps is recurrence._TORCH) == (request.param == "torch")
    return steps


def layer(num_inputs: int, size: int, dtype: torch.dtype = torch.float32) -> nn.GRU:
    generator = torch.Generator().manual_seed(0)
    layer = nn.GRU(num_inputs, size, dtype=dtype)
    for parameter in layer.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator, dtype=dtype)
    return layer


def sequence(num_steps: int, rows: int, num_inputs: int, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(num_steps, rows, num_inputs, generator=generator, dtype=dtype, requires_grad=True)
    return x, torch.randn(rows, size, generator=generator, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("stretch", [1, 200, 10**6])  # one step at a time, stretches with a rest, all steps at once
@pytest.mark.parametrize(("num_steps", "rows", "size"), [(1, 1, 1), (11, 3, 5), (40, 2, 16), (3, 0, 4), (5, 9, 10)])
def test_states_and_gradients_are_those_of_torch(
    num_steps: int, rows: int, size: int, stretch: int, steps: recurrence.Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurrence, "_steps_for", lambda dtype: steps._replace(entries=stretch))
    theirs = layer(4, size)
    x, hidden = sequence(num_steps, rows, 4, size, torch.float32)
    weights = theirs.all_weights[0]
    states, expected = gru(x, hidden, weights), theirs(x, hidden.unsqueeze(0))[0]
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-6)
    slope = torch.randn(states.shape, generator=torch.Generator().manual_seed(2))
    ours = torch.autograd.grad(states, [x, hidden, *weights], slope)
    for gradient, known in zip(ours, torch.autograd.grad(expected, [x, hidden, *weights], slope), strict=True):
        torch.testing.assert_close(gradient, known, rtol=1e-4, atol=1e-5)


def test_gradients_equal_finite_differences() -> None:
    weights = [weight.detach().requires_grad_() for weight in layer(3, 4, torch.float64).all_weights[0]]
    x, hidden = sequence(6, 2, 3, 4, torch.float64)
    assert torch.autograd.gradcheck(lambda x, hidden, *weights: gru(x, hidden, weights), (x, hidden, *weights))


def test_gradients_of_inputs_do_not_depend_on_their_order_in_memory() -> None:
    theirs = layer(3, 4)
    x, hidden = sequence(2, 5, 3, 4, torch.float32)
    by_row, start = x.transpose(0, 1), hidden[:2]  # as a memory reads items [N, K, item]
    (ours,) = torch.autograd.grad(gru(by_row, start, theirs.all_weights[0]).square().sum(), [x])
    (known,) = torch.autograd.grad(theirs(by_row, start.unsqueeze(0))[0].square().sum(), [x])
    torch.testing.assert_close(ours, known, rtol=1e-4, atol=1e-5)


def test_a_sequence_read_in_two_parts_is_that_read_in_one() -> None:
    weights = layer(3, 4).all_weights[0]
    x, hidden = sequence(9, 2, 3, 4, torch.float32)
    with torch.no_grad():
        first = gru(x[:5], hidden, weights)
        torch.testing.assert_close(torch.cat([first, gru(x[5:], first[-1], weights)]), gru(x, hidden, weights))


def test_large_inputs_saturate_as_torchs_do() -> None:
    theirs = layer(3, 4)
    x, hidden = sequence(5, 2, 3, 4, torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(gru(1e4 * x, hidden, theirs.all_weights[0]), theirs(1e4 * x, hidden.unsqueeze(0))[0])


def test_what_was_changed_in_place_after_reading_is_noticed() -> None:
    x, hidden = sequence(4, 2, 3, 4, torch.float32)
    states = gru(x, hidden, layer(3, 4).all_weights[0])
    states.detach().zero_()
    with pytest.raises(RuntimeError, match="modified inplace"):
        states.sum().backward()


def test_rows_and_weights_that_lie_apart_in_memory_are_read_as_they_are() -> None:
    theirs = layer(3, 4)
    x, hidden = sequence(5, 2, 3, 4, torch.float32)
    apart = [torch.stack([weight, weight], -1)[..., 0] for weight in theirs.all_weights[0]]
    slope = torch.ones(4).expand(5, 2, 4)  # one number's memory for all
    states = gru(x, hidden[:1].expand(2, 4), apart)
    expected = theirs(x, hidden[:1].expand(1, 2, 4).contiguous())[0]
    (ours,), (known,) = (torch.autograd.grad(read, [hidden], slope) for read in (states, expected))
    torch.testing.assert_close(ours, known, rtol=1e-4, atol=1e-5)


def test_what_is_not_a_number_stays_so() -> None:
    x, hidden = sequence(4, 5, 3, 4, torch.float32)
    with torch.no_grad():
        x[1, 2, 0] = torch.nan
        states = gru(x, hidden, layer(3, 4).all_weights[0])
    assert states.isnan().any(2).nonzero().tolist() == [[1, 2], [2, 2], [3, 2]]


def test_the_same_sequence_gives_the_same_numbers_to_the_last_bit() -> None:
    weights = layer(3, 4).all_weights[0]
    x, hidden = sequence(9, 7, 3, 4, torch.float32)
    first, second = (torch.autograd.grad(gru(x, hidden, weights).square().sum(), weights) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_double_precision_and_a_missing_numba_are_computed_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert recurrence._steps_for(torch.float64) is recurrence._TORCH
    monkeypatch.setenv("METARL_NUMBA", "1")
    monkeypatch.setitem(sys.modules, "metarl.nets.compiled_gru", None)  # as importing fails without numba
    monkeypatch.delattr("metarl.nets.compiled_gru", raising=False)
    recurrence._compiled.cache_clear()
    try:
        assert recurrence._steps_for(torch.float32) is recurrence._TORCH
    finally:
        recurrence._compiled.cache_clear()
