"""A step of a rollout recorded once and replayed, on a GPU as one CUDA graph: agent, environment and storage.

A small step asks a GPU for some sixty kernels, each of which takes the host several microseconds to launch; a graph is
launched at once. What a replay does is fixed: the same kernels on the same memory. So whatever a step reads and
replaces is kept in one place, the results of step t are written into row t of memory for all steps, and nothing may
depend on a number that only the host knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metarl.errors import UserError

Carry = TypeVar("Carry")
Result = TypeVar("Result")
Recorder = Callable[[Callable[[], None], Callable[[], None], Sequence[torch.Generator]], Callable[[], None]]


@runtime_checkable
class Carries(Protocol):
    """Optional attributes of a `VectorEnv` whose step depends on nothing but tensors, its tasks among them."""

    carried: tuple[Tensor, ...]  # what a step reads and replaces; known after `reset`, and may be set

    generator: torch.Generator  # source of all its randomness


class CannotRecordError(UserError):
    """A step that no graph can replay, as what it reads is of another shape or kind each time."""


class StepGraph(Generic[Carry, Result]):
    """Steps (carry) -> (carry, result), at most `num_steps` of them, of which the first is recorded.

    Carries and results are tensors in records, tuples or dicts; other leaves must stay the same objects. A step must
    not modify what it is given.
    """

    _number: Tensor  # [1] int64, of the step that is next
    _results: Result  # with a leading axis for the steps

    def __init__(
        self,
        step: Callable[[Carry], tuple[Carry, Result]],
        start: Carry,
        num_steps: int,
        generators: Sequence[torch.Generator],
        record: Recorder,
    ) -> None:
        """generators: all that a step draws from. record: how a step becomes a graph, such as `cuda_graph`.

        Raises:
            CannotRecordError: when a step's carry has other shapes than the one before.
        """
        self._step = step
        self._carry: Carry = pytree.tree_map_only(Tensor, torch.clone, start)
        self._num_steps = num_steps
        self._replay = record(self._warm_up, self._one, generators)

    def run(self) -> Result:
        """Take all steps; returns their results, with a leading axis for the steps."""
        for _ in range(self._num_steps):
            self._replay()
        return self._results

    def _warm_up(self) -> None:
        """A step without effect, after which the results' shapes are known."""
        carry, result = self._step(self._carry)
        self._check(carry)
        device = next(leaf.device for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor))
        self._number = torch.zeros(1, dtype=torch.int64, device=device)
        self._results = pytree.tree_map_only(
            Tensor, lambda value: value.new_zeros(self._num_steps, *value.shape), result
        )

    def _one(self) -> None:
        carry, result = self._step(self._carry)
        for rows, value in zip(pytree.tree_leaves(self._results), pytree.tree_leaves(result), strict=True):
            if isinstance(rows, Tensor):
                rows.index_copy_(0, self._number, value.unsqueeze(0))
        # After the results, which may be parts of the carry; copied, as a part may also become another part.
        values = pytree.tree_leaves(pytree.tree_map_only(Tensor, torch.clone, carry))
        for old, value in zip(pytree.tree_leaves(self._carry), values, strict=True):
            if isinstance(old, Tensor):
                old.copy_(value)
        self._number += 1

    def _check(self, carry: Carry) -> None:
        before, after = pytree.tree_flatten(self._carry), pytree.tree_flatten(carry)
        if before[1] != after[1]:
            raise CannotRecordError("a step changes the structure of the state")
        for old, new in zip(before[0], after[0], strict=True):
            if not isinstance(old, Tensor):
                if old is not new:
                    raise CannotRecordError(f"a step replaces a {type(old).__name__}, which is not a record of tensors")
            elif (old.shape, old.dtype) != (new.shape, new.dtype):
                raise CannotRecordError(
                    f"a step makes a tensor of shape {list(new.shape)} from one of {list(old.shape)}"
                )


def cuda_graph(
    warm_up: Callable[[], None], step: Callable[[], None], generators: Sequence[torch.Generator]
) -> Callable[[], None]:
    """Record a step as a CUDA graph, after a warm-up in which libraries allocate what they need; returns its replay."""
    states = [generator.get_state() for generator in generators]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        warm_up()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        step()
    return graph.replay
