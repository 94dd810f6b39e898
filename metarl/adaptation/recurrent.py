"""Recurrent memories for `SequenceAdaptation`: a GRU or an LSTM.

Cho et al. (2014) for the GRU; Hochreiter and Schmidhuber (1997) for the LSTM.
Tallec, Ollivier. Can recurrent neural networks warp time? (2018), for the initial span of the memory.

Deviations: 1. the initial memory is learned rather than zero (it starts at zero).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from metarl.adaptation.sequence import SequenceState, ask_in_copies
from metarl.checks import at_least, literals
from metarl.nets.initialisation import orthogonal_
from metarl.nets.recurrence import gru

Cell = Literal["gru", "lstm"]


@dataclass(frozen=True)
class RecurrentConfig:
    """Settings of a GRU or LSTM."""

    cell: Cell = "gru"  # kind of recurrent cell
    span: int | None = None  # items that the untrained memory keeps, at most; None: about two

    def __post_init__(self) -> None:
        literals(self)
        at_least(self, 2, "span")

    def make(self, input_size: int, hidden_size: int, *, generator: torch.Generator) -> Recurrent:
        return Recurrent(self, input_size, hidden_size, generator=generator)


@dataclass(frozen=True)
class RecurrentState(SequenceState):
    """The state of a recurrent network, per row."""

    cell: Tensor | None = None  # [B, H], the LSTM's cell state; None for the GRU


class Recurrent(nn.Module):
    """A GRU or LSTM.

    With a span in its settings, the untrained units remember from 2 up to `span` items (the chrono initialisation of
    the gates); without one, about two.
    """

    def __init__(
        self, config: RecurrentConfig, input_size: int, hidden_size: int, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.config, self.hidden_size = config, hidden_size
        kind = nn.GRU if config.cell == "gru" else nn.LSTM
        self.rnn = kind(input_size, hidden_size, device=generator.device)
        for weight in self.rnn.all_weights[0]:  # input and recurrent weights and their biases; the gates are stacked
            if weight.ndim == 1:
                nn.init.zeros_(weight)
            else:
                for gate in weight.split(hidden_size):
                    orthogonal_(gate, generator=generator)
        if config.span is not None:
            self._set_span(config.span, generator)
        start = torch.zeros(hidden_size, device=generator.device)
        self.initial_hidden = nn.Parameter(start)
        self.initial_cell = nn.Parameter(start.clone()) if config.cell == "lstm" else None

    def _set_span(self, span: int, generator: torch.Generator) -> None:
        """Bias the gates so that unit i forgets after a time drawn from [2, span]."""
        bias = self.rnn.all_weights[0][
            2
        ].data  # input bias; gates: reset, update, new (GRU) or input, forget, cell, output (LSTM)
        size = self.hidden_size
        keep = (1 + (span - 2) * torch.rand(size, generator=generator, device=bias.device)).log()
        bias[size : 2 * size] = keep  # the gate that retains the memory: the GRU's update, the LSTM's forget
        if self.config.cell == "lstm":
            bias[:size] = -keep

    def prior(self, num_rows: int) -> RecurrentState:
        """The learned initial memory."""
        cell = None if self.initial_cell is None else self.initial_cell.expand(num_rows, -1)
        return RecurrentState(self.initial_hidden.expand(num_rows, -1), cell)

    def fixed_prior(self, num_rows: int, num_items: int) -> RecurrentState:
        """`prior`, whose shapes never change."""
        return self.prior(num_rows)

    def step(self, state: RecurrentState, x: Tensor) -> RecurrentState:
        """The memory after one more item x [B, in]."""
        weights = self.rnn.all_weights[0]
        if state.cell is None:
            return RecurrentState(torch.gru_cell(x, state.hidden, *weights))
        return RecurrentState(*torch.lstm_cell(x, (state.hidden, state.cell), *weights))

    def read(self, state: RecurrentState, x: Tensor) -> tuple[Tensor, RecurrentState]:
        """The hidden states [T, B, H] after each of the items x [T, B, in], and the memory after the last."""
        if state.cell is None and x.device.type == "cpu":
            read = gru(x, state.hidden, self.rnn.all_weights[0])
            return read, RecurrentState(read[-1])
        hidden = state.hidden.unsqueeze(0).contiguous()
        if state.cell is None:
            read, _ = self.rnn(x, hidden)
            return read, RecurrentState(read[-1])
        read, (_, cell) = self.rnn(x, (hidden, state.cell.unsqueeze(0).contiguous()))
        return read, RecurrentState(read[-1], cell[0])

    def ask(self, state: RecurrentState, x: Tensor) -> Tensor:
        """The hidden states [B, Q, H] if each of x [B, Q, in], separately, came next."""
        return ask_in_copies(self, state, x)
