"""An external memory: a controller that writes to slots of its choice and reads by similarity.

Santoro, Bartunov, Botvinick, Wierstra, Lillicrap. Meta-learning with memory-augmented neural networks (2016).

Each step reads the slots similar to a key, then writes the key: to the slots that were similar to the previous step's
key, to a least-used slot, or to a mixture of both, as a gate decides. Least-used slots are erased first. The slot just
written is the most similar to its key, so an item that arrives one step later (the label of the current input) can be
written to the same slot.

Deviations: 1. the controller also sets how sharply a head reads, as in neural Turing machines (Graves et al. 2014);
with the bare similarity, between -1 and 1, no slot can stand out among a hundred. Heads start sharp enough to find the
slot they have just written among all the empty ones. 2. each head writes to one of the least-used slots; there are as
many of them as heads. 3. the controller's initial state is learned rather than zero (it starts at zero). 4. a head
reads before it writes; in the paper's formulas it reads after the write, where a sharp head finds its own key first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, softplus

from metarl.adaptation.sequence import SequenceState, ask_in_copies
from metarl.checks import widths
from metarl.nets.initialisation import orthogonal_
from metarl.nets.mlp import linear

_MIN_SQUARED_LENGTH = 1e-4  # squared length below which a vector is not scaled up to unit length


@dataclass(frozen=True)
class ExternalMemoryConfig:
    """Settings of an external memory; the defaults are the paper's for Omniglot."""

    num_slots: int = 128  # number of memory slots
    slot_size: int = 40  # size of a slot
    num_heads: int = 4  # number of read and write heads; at most `num_slots`
    usage_decay: float = 0.99  # decay of a slot's usage per step

    def __post_init__(self) -> None:
        widths(self, "num_slots", "slot_size", "num_heads")
        if self.num_heads > self.num_slots:
            raise ValueError(f"num_heads is {self.num_heads}; must be at most num_slots, {self.num_slots}")
        if not 0 <= self.usage_decay < 1:
            raise ValueError(f"usage_decay is {self.usage_decay}; must lie in [0, 1)")

    def make(self, input_size: int, hidden_size: int, *, generator: torch.Generator) -> ExternalMemory:
        return ExternalMemory(self, input_size, hidden_size, generator=generator)


@dataclass(frozen=True)
class ExternalMemoryState(SequenceState):
    """The state of the controller and its memory, per row; `hidden` is the controller's state and the vectors read."""

    cell: Tensor  # [B, C], the controller's carry
    slots: Tensor  # [B, slots, size]
    usage: Tensor  # [B, slots]
    read_weights: Tensor  # [B, heads, slots], similarity of slots to the last step's keys after its write; sum to one


class ExternalMemory(nn.Module):
    """An LSTM of `controller_size` units with memory slots; its output is the LSTM's state and the vectors read."""

    def __init__(
        self, config: ExternalMemoryConfig, input_size: int, controller_size: int, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.config, self.controller_size = config, controller_size
        reads = config.num_heads * config.slot_size
        self.hidden_size = controller_size + reads
        self.controller = nn.LSTMCell(input_size + reads, controller_size, device=generator.device)
        for weight in self.controller.parameters():
            if weight.ndim == 1:
                nn.init.zeros_(weight)
            else:
                for gate in weight.split(controller_size):
                    orthogonal_(gate, generator=generator)
        self.key = linear(controller_size, reads, gain=1.0, generator=generator)
        self.gate = linear(controller_size, config.num_heads, gain=1.0, generator=generator)
        self.sharpness = linear(controller_size, config.num_heads, gain=1.0, generator=generator)
        # a slot that matches the key outweighs all empty slots together
        nn.init.constant_(self.sharpness.bias, 2 * math.log(config.num_slots))
        self.initial_hidden = nn.Parameter(torch.zeros(controller_size, device=generator.device))
        self.initial_cell = nn.Parameter(torch.zeros(controller_size, device=generator.device))

    def prior(self, num_rows: int) -> ExternalMemoryState:
        """Empty slots, none of them used."""
        config, zeros = self.config, self.initial_hidden.new_zeros
        no_reads = zeros(num_rows, config.num_heads * config.slot_size)
        return ExternalMemoryState(
            hidden=torch.cat([self.initial_hidden.expand(num_rows, -1), no_reads], -1),
            cell=self.initial_cell.expand(num_rows, -1),
            slots=zeros(num_rows, config.num_slots, config.slot_size),
            usage=zeros(num_rows, config.num_slots),
            read_weights=zeros(num_rows, config.num_heads, config.num_slots),
        )

    def fixed_prior(self, num_rows: int, num_items: int) -> ExternalMemoryState:
        """`prior`, whose shapes never change."""
        return self.prior(num_rows)

    def step(self, state: ExternalMemoryState, x: Tensor) -> ExternalMemoryState:
        """The memory after one more item x [B, in]."""
        hidden, found = state.hidden.split([self.controller_size, self.hidden_size - self.controller_size], -1)
        hidden, cell = self.controller(torch.cat([x, found], -1), (hidden, state.cell))
        key = self.key(hidden).tanh().unflatten(-1, (self.config.num_heads, -1))  # [B, heads, size]
        sharpness = 1 + softplus(self.sharpness(hidden))
        read = similarity(key, state.slots, sharpness)
        found = (read @ state.slots).flatten(1)
        slots, written = write(state, key, self.gate(hidden).sigmoid())
        usage = self.config.usage_decay * state.usage + (written + read).sum(1).detach()
        hidden = torch.cat([hidden, found], -1)
        return ExternalMemoryState(hidden, cell, slots, usage, similarity(key, slots, sharpness))

    def read(self, state: ExternalMemoryState, x: Tensor) -> tuple[Tensor, ExternalMemoryState]:
        """The hidden states [T, B, H] after each of the items x [T, B, in], and the memory after the last."""
        reads = []
        for item in x:
            state = self.step(state, item)
            reads.append(state.hidden)
        return torch.stack(reads), state

    def ask(self, state: ExternalMemoryState, x: Tensor) -> Tensor:
        """The hidden states [B, Q, H] if each of x [B, Q, in], separately, came next."""
        return ask_in_copies(self, state, x)


def similarity(key: Tensor, slots: Tensor, sharpness: Tensor) -> Tensor:
    """Softmax over slots of their similarity to a head's key [B, heads, size]: [B, heads, slots].

    slots: [B, slots, size]. sharpness: [B, heads], the factor on the cosine similarity.
    """
    return (sharpness.unsqueeze(-1) * (_unit_length(key) @ _unit_length(slots).mT)).softmax(-1)


def _unit_length(x: Tensor) -> Tensor:
    """Vectors [..., size] scaled to unit length; vectors near zero stay near zero, with bounded gradients."""
    return x * (x.square().sum(-1, keepdim=True) + _MIN_SQUARED_LENGTH).rsqrt()


def write(state: ExternalMemoryState, key: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    """The slots after each head has written its key [B, heads, size], and the write weights [B, heads, slots].

    gate: [B, heads], the fraction written to the slots that matched the head's key at the previous step; the rest goes
    to the least-used slot (the first of equals).
    """
    num_heads, num_slots = state.read_weights.shape[1:]
    least_used = one_hot(state.usage.argsort(stable=True, dim=-1)[:, :num_heads], num_slots).to(key.dtype)
    fraction = gate.unsqueeze(-1)
    written = fraction * state.read_weights + (1 - fraction) * least_used
    kept = 1 - least_used.sum(1)
    return state.slots * kept.unsqueeze(-1) + written.mT @ key, written
