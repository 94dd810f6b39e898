"""No memory: a policy that reads it acts on the observation alone.

Trained on a distribution of tasks, it is domain randomisation (Tobin et al. 2017): one behaviour for all tasks, the
baseline that every adaptation should beat.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metarl.adaptation.sequence import SequenceState


@dataclass(frozen=True)
class NoMemoryConfig:
    """No memory: the policy acts on the observation alone."""

    def make(self, input_size: int, hidden_size: int, *, generator: torch.Generator) -> NoMemory:
        return NoMemory(generator.device)


class NoMemory(nn.Module):
    """A `SequenceMemory` whose hidden state is empty."""

    hidden_size = 0

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.register_buffer("_empty", torch.zeros(0, device=device), persistent=False)

    _empty: Tensor

    def prior(self, num_rows: int) -> SequenceState:
        """The empty memory."""
        return SequenceState(self._empty.expand(num_rows, 0))

    def fixed_prior(self, num_rows: int, num_items: int) -> SequenceState:
        """`prior`, whose shapes never change."""
        return self.prior(num_rows)

    def step(self, state: SequenceState, x: Tensor) -> SequenceState:
        """The same memory, whatever the item x [B, in]."""
        return state

    def read(self, state: SequenceState, x: Tensor) -> tuple[Tensor, SequenceState]:
        """Empty hidden states [T, B, 0], and the same memory."""
        return self._empty.expand(*x.shape[:2], 0), state

    def ask(self, state: SequenceState, x: Tensor) -> Tensor:
        """Empty hidden states [B, Q, 0]."""
        return self._empty.expand(*x.shape[:2], 0)
