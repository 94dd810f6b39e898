"""Black-box adaptation: the state is the memory of a sequence model that reads the data item by item.

Hochreiter, Younger, Conwell. Learning to learn using gradient descent (2001).
Santoro et al. Meta-learning with memory-augmented neural networks (2016).
Duan et al. RL2: fast reinforcement learning via slow reinforcement learning (2016).
Mishra et al. A simple neural attentive meta-learner (2018).

The memory is an argument: see recurrent.py, snail.py, transformer.py and external_memory.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from metarl.records import Record


@dataclass(frozen=True)
class SequenceState(Record):
    """The state of a memory, per row: its output and, in subclasses, everything needed to continue reading."""

    hidden: Tensor  # [B, H]

    @property
    def max_items(self) -> int | None:
        """The number of items after which the oldest is forgotten, for states of a fixed shape; None: no such limit."""
        return None


S = TypeVar("S", bound=SequenceState)


class SequenceMemory(Protocol[S]):
    """A module that reads items one after another; its state is passed explicitly and never modified in place."""

    hidden_size: int  # H

    def prior(self, num_rows: int) -> S:
        """The memory before any item."""
        ...

    def fixed_prior(self, num_rows: int, num_items: int) -> S:
        """The memory before any item, in a form whose shapes `step` keeps; it holds at least the last `num_items`."""
        ...

    def step(self, state: S, x: Tensor) -> S:
        """The memory after one more item x [B, in]."""
        ...

    def read(self, state: S, x: Tensor) -> tuple[Tensor, S]:
        """The hidden states [T, B, H] after each of x [T, B, in], in one call, and the memory after the last."""
        ...

    def ask(self, state: S, x: Tensor) -> Tensor:
        """The hidden states [B, Q, H] if each of x [B, Q, in], separately, came next."""
        ...


class MemoryConfig(Protocol):
    """The configuration of a memory: a frozen dataclass, defined in the memory's own file."""

    def make(self, input_size: int, hidden_size: int, *, generator: torch.Generator) -> Any:
        """A fresh `SequenceMemory` on the generator's device, initialised from it."""
        ...


class SequenceBelief(nn.Module, Generic[S]):
    """A memory that reads the items of a task.

    encoder: maps an item [..., item] to the memory's input [..., in].
    memory: a `SequenceMemory`, which is a module.
    """

    def __init__(self, encoder: Callable[[Tensor], Tensor], memory: SequenceMemory[S]) -> None:
        super().__init__()
        self.encoder, self.memory = encoder, memory

    def prior(self, num_tasks: int) -> S:
        """The memory before any item, once per task."""
        return self.memory.prior(num_tasks)

    def fixed_prior(self, num_tasks: int, num_items: int) -> S:
        """`prior` in a form whose shapes `absorb` keeps; it holds at least the last `num_items` items."""
        return self.memory.fixed_prior(num_tasks, num_items)

    def adapt(self, state: S, context: Tensor) -> S:
        """The memory after reading context [N, K, item] in order."""
        return self.read(state, context)[1] if context.shape[1] else state

    def read(self, state: S, context: Tensor) -> tuple[Tensor, S]:
        """The hidden states [N, K, H] after each item of context [N, K, item], and the memory after the last."""
        hidden, state = self.memory.read(state, self.encoder(context.transpose(0, 1)))
        return hidden.transpose(0, 1), state

    def absorb(self, state: S, item: Tensor) -> S:
        """The memory after one more item [B, item]: one step of `adapt`, without the item axis."""
        return self.memory.step(state, self.encoder(item))

    def unroll(self, state: S, context: Tensor) -> Tensor:
        """The hidden states [T, B, H] after each item of context [T, B, item]; equals repeated `absorb` in one call."""
        return self.unroll_on(state, context)[0]

    def unroll_on(self, state: S, context: Tensor) -> tuple[Tensor, S]:
        """What `unroll` returns, and the memory after the last item, from which to read on."""
        return self.memory.read(state, self.encoder(context))


class SequenceAdaptation(SequenceBelief[S]):
    """A memory that reads the items of a task, and a head that reads the memory together with the query.

    encoder, memory: as in `SequenceBelief`.
    head: called as head(hidden [..., H], x [..., size]), returns the prediction.
    query: maps a query [..., size] to the memory's input; each query is then read as one more item, separately from
        the other queries. None: the memory does not read queries, and the head sees the memory after the last item.
    """

    def __init__(
        self,
        encoder: Callable[[Tensor], Tensor],
        memory: SequenceMemory[S],
        head: Callable[[Tensor, Tensor], Tensor],
        *,
        query: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(encoder, memory)
        self.head, self.query = head, query

    def predict(self, state: S, x: Tensor) -> Tensor:
        """The head's outputs [N, Q, out] for queries x [N, Q, size]."""
        if self.query is None:
            return self.head(state.hidden.unsqueeze(1).expand(-1, x.shape[1], -1), x)
        return self.head(self.memory.ask(state, self.query(x)), x)


def ask_in_copies(memory: SequenceMemory[S], state: S, x: Tensor) -> Tensor:
    """`SequenceMemory.ask` for fixed-size memories: each query [B, Q, in] is a step from a copy of its row's state."""
    copies = state.repeat_interleave(x.shape[1])
    return memory.step(copies, x.flatten(0, 1)).hidden.unflatten(0, x.shape[:2])
