"""Black-box adaptation: the state is the memory of a recurrent network that reads the data item by item.

Duan et al. RL2: fast reinforcement learning via slow reinforcement learning (2016).
Wang et al. Learning to reinforcement learn (2016).
Cho et al. (2014) for the GRU; Hochreiter and Schmidhuber (1997) for the LSTM.
Tallec, Ollivier. Can recurrent neural networks warp time? (2018), for the initial span of the memory.

Deviations: 1. the initial memory is learned rather than zero (it starts at zero).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from metarl.records import Record

Cell = Literal["gru", "lstm"]


@dataclass(frozen=True)
class Memory(Record):
    """What a recurrent network remembers of each row."""

    hidden: Tensor  # [B, H], what is read
    cell: Tensor | None = None  # [B, H], the LSTM's carry; None for the GRU


class RecurrentAdaptation(nn.Module):
    """Fold a GRU or LSTM over the items of a task; a head reads the memory together with the query.

    encoder: maps an item [..., item] to the network's input [..., input_size].
    head: called as head(hidden [..., H], x [..., in]), returns the prediction.
    span: about how many items the memory keeps before any training, spread over its units from 2 to `span` (the
        chrono initialisation of the gates); None for no such bias, which keeps about two.
    """

    def __init__(
        self,
        encoder: Callable[[Tensor], Tensor],
        head: Callable[[Tensor, Tensor], Tensor],
        *,
        input_size: int,
        hidden_size: int,
        cell: Cell,
        span: int | None = None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if cell not in ("gru", "lstm"):
            raise ValueError(f"cell is {cell!r}; allowed are 'gru' and 'lstm'")
        self.encoder, self.head, self.cell = encoder, head, cell
        kind = nn.GRU if cell == "gru" else nn.LSTM
        self.rnn = kind(input_size, hidden_size, device=generator.device)
        for weight in self.rnn.all_weights[0]:  # input, recurrent and their biases; the gates lie one after another
            if weight.ndim == 1:
                nn.init.zeros_(weight)
            else:
                for gate in weight.split(hidden_size):
                    nn.init.orthogonal_(gate, generator=generator)
        if span is not None:
            self._set_span(span, generator)
        self.initial_hidden = nn.Parameter(torch.zeros(hidden_size, device=generator.device))
        self.initial_cell = nn.Parameter(torch.zeros(hidden_size, device=generator.device)) if cell == "lstm" else None

    def _set_span(self, span: int, generator: torch.Generator) -> None:
        """Bias the gates so that unit i forgets after a time drawn from [2, span]."""
        if span < 2:
            raise ValueError(f"span is {span}; it must be at least 2, or None")
        bias = self.rnn.all_weights[0][2].data  # of the input: reset, update, new; or input, forget, cell, output
        size = self.rnn.hidden_size
        keep = (1 + (span - 2) * torch.rand(size, generator=generator, device=bias.device)).log()
        bias[size : 2 * size] = keep  # the gate that keeps: GRU's update, LSTM's forget
        if self.cell == "lstm":
            bias[:size] = -keep

    def prior(self, num_tasks: int) -> Memory:
        """The learned initial memory, once per task."""
        cell = None if self.initial_cell is None else self.initial_cell.expand(num_tasks, -1)
        return Memory(self.initial_hidden.expand(num_tasks, -1), cell)

    def adapt(self, state: Memory, context: Tensor) -> Memory:
        """The memory after reading context [N, K, item], item after item."""
        for item in context.unbind(1):
            state = self.absorb(state, item)
        return state

    def absorb(self, state: Memory, item: Tensor) -> Memory:
        """The memory after one more item [B, item]: one step of `adapt`, without the item axis."""
        x, weights = self.encoder(item), self.rnn.all_weights[0]
        if state.cell is None:
            return Memory(torch.gru_cell(x, state.hidden, *weights))
        return Memory(*torch.lstm_cell(x, (state.hidden, state.cell), *weights))

    def unroll(self, state: Memory, context: Tensor) -> Tensor:
        """Hidden state after each item of context [T, B, item]: [T, B, H]; equals repeated `absorb`, in one call."""
        x, hidden = self.encoder(context), state.hidden.unsqueeze(0).contiguous()
        if state.cell is None:
            return self.rnn(x, hidden)[0]
        return self.rnn(x, (hidden, state.cell.unsqueeze(0).contiguous()))[0]

    def predict(self, state: Memory, x: Tensor) -> Tensor:
        """The head's outputs [N, Q, out] for queries x [N, Q, in]."""
        return self.head(state.hidden.unsqueeze(1).expand(-1, x.shape[1], -1), x)
