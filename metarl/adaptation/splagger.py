"""Split aggregation: a recurrent memory and an aggregate that ignores the items' order, side by side.

Beck et al. SplAgger: split aggregation for meta-reinforcement learning (2024).

What tells of a task often does not depend on when it was seen. The largest value so far, of each feature of an item,
forgets nothing and gives each item that set it the whole gradient, however long ago it was; the recurrent half keeps
what the order tells.

Deviations: 1. the aggregate is that of the embedded items, so their order changes nothing in it; the published code
aggregates half of the recurrent network's outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metarl.adaptation.recurrent import Cell, RecurrentConfig, RecurrentState
from metarl.adaptation.sequence import ask_in_copies
from metarl.checks import in_range, literals
from metarl.nets.mlp import linear


@dataclass(frozen=True)
class SplAggerConfig:
    """Split aggregation: a recurrent memory and the maximum over time, side by side."""

    cell: Cell = "gru"  # kind of recurrent cell
    aggregate_fraction: float = 0.5  # fraction of the memory's output that is a maximum over time

    def __post_init__(self) -> None:
        literals(self)
        in_range(self, 0, 1, "aggregate_fraction", open_ends=True)

    def sizes(self, hidden_size: int) -> tuple[int, int]:
        """The sizes of the recurrent part and of the aggregate, which make up the memory's output.

        Raises:
            ValueError: when one of them would be empty.
        """
        aggregate = round(hidden_size * self.aggregate_fraction)
        if not 0 < aggregate < hidden_size:
            raise ValueError(
                f"hidden_size is {hidden_size}; must leave a unit to either part with aggregate_fraction "
                f"{self.aggregate_fraction:g}"
            )
        return hidden_size - aggregate, aggregate

    def make(self, input_size: int, hidden_size: int, *, generator: torch.Generator) -> SplAgger:
        return SplAgger(self, input_size, hidden_size, generator=generator)


class SplAgger(nn.Module):
    """A `SequenceMemory` whose hidden state is a recurrent network's, and the maximum of each feature over time."""

    def __init__(
        self, config: SplAggerConfig, input_size: int, hidden_size: int, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.hidden_size, self.sizes = hidden_size, config.sizes(hidden_size)
        recurrent_size, aggregate_size = self.sizes
        self.recurrent = RecurrentConfig(config.cell).make(input_size, recurrent_size, generator=generator)
        self.features = linear(input_size, aggregate_size, gain=1.0, generator=generator)

    def prior(self, num_rows: int) -> RecurrentState:
        """The recurrent network's learned initial memory, and maxima of zero."""
        recurrent = self.recurrent.prior(num_rows)
        return _joined(recurrent, recurrent.hidden.new_zeros(num_rows, self.sizes[1]))

    def fixed_prior(self, num_rows: int, num_items: int) -> RecurrentState:
        """`prior`, whose shapes never change."""
        return self.prior(num_rows)

    def step(self, state: RecurrentState, x: Tensor) -> RecurrentState:
        """The memory after one more item x [B, in]."""
        recurrent, maximum = self._split(state)
        return _joined(self.recurrent.step(recurrent, x), torch.maximum(maximum, self.features(x)))

    def read(self, state: RecurrentState, x: Tensor) -> tuple[Tensor, RecurrentState]:
        """The hidden states [T, B, H] after each of the items x [T, B, in], and the memory after the last."""
        recurrent, maximum = self._split(state)
        hidden, recurrent = self.recurrent.read(recurrent, x)
        maxima = torch.cat([maximum.unsqueeze(0), self.features(x)]).cummax(0).values[1:]
        return torch.cat([hidden, maxima], -1), _joined(recurrent, maxima[-1])

    def ask(self, state: RecurrentState, x: Tensor) -> Tensor:
        """The hidden states [B, Q, H] if each of x [B, Q, in], separately, came next."""
        return ask_in_copies(self, state, x)

    def _split(self, state: RecurrentState) -> tuple[RecurrentState, Tensor]:
        """The recurrent network's state and the maximum [B, aggregate]."""
        hidden, maximum = state.hidden.split(self.sizes, -1)
        return RecurrentState(hidden, state.cell), maximum


def _joined(recurrent: RecurrentState, maximum: Tensor) -> RecurrentState:
    return RecurrentState(torch.cat([recurrent.hidden, maximum], -1), recurrent.cell)
