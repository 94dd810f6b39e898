"""An external memory: a controller that writes what it has met to slots of its own choice, and reads by similarity.

Santoro, Bartunov, Botvinick, Wierstra, Lillicrap. Meta-learning with memory-augmented neural networks (2016).

Each step reads the slots that are like a key, then writes the key: to the slots that were like the key of the step
before, to a slot that has been used the least, or to some of both; a gate decides. Least-used slots are erased first.
What was just written is likest to its key, so that what comes a step later, such as the label of what was met now, can
be written to the same place.

Deviations: 1. the controller also says how sharply a head reads, as in neural Turing machines (Graves et al. 2014);
with the bare similarity, between -1 and 1, no slot can stand out among a hundred. Heads begin sharp enough to find the
slot that they have just written among all that are empty. 2. each head writes to one of the least-used slots, of which
there are as many as heads. 3. the controller's initial state is learned rather than zero (it starts at zero). 4. a head
reads before it writes; in the paper's formulas it reads what the step leaves behind, where a sharp head finds its own
key first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, softplus

from metarl.adaptation.sequence import SequenceState, ask_in_copies
from metarl.checks import widths
from metarl.nets.mlp import linear

_NEXT_TO_NOTHING = 1e-4  # a squared length


@dataclass(frozen=True)
class ExternalMemoryConfig:
    """Settings of an external memory; the paper's for Omniglot."""

    num_slots: int = 128
    slot_size: int = 40
    num_heads: int = 4
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
    """What a controller and its external memory hold of each row; `hidden` is the controller's, then what was read."""

    cell: Tensor  # [B, C], the controller's carry
    slots: Tensor  # [B, slots, size]
    usage: Tensor  # [B, slots]
    read_weights: Tensor  # [B, heads, slots] of the last step's keys and what the slots then held; sums to one


class ExternalMemory(nn.Module):
    """An LSTM of `controller_size` units with memory slots beside it; what is read is both."""

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
                    nn.init.orthogonal_(gate, generator=generator)
        self.key = linear(controller_size, reads, gain=1.0, generator=generator)
        self.gate = linear(controller_size, config.num_heads, gain=1.0, generator=generator)
        self.sharpness = linear(controller_size, config.num_heads, gain=1.0, generator=generator)
        # a slot like the key outweighs all the empty ones together by their number
        nn.init.constant_(self.sharpness.bias, 2 * math.log(config.num_slots))
        self.initial_hidden = nn.Parameter(torch.zeros(controller_size, device=generator.device))
        self.initial_cell = nn.Parameter(torch.zeros(controller_size, device=generator.device))

    def prior(self, num_rows: int) -> ExternalMemoryState:
        """Empty slots, none of them used."""
        config, zeros = self.config, self.initial_hidden.new_zeros
        nothing_read = zeros(num_rows, config.num_heads * config.slot_size)
        return ExternalMemoryState(
            hidden=torch.cat([self.initial_hidden.expand(num_rows, -1), nothing_read], -1),
            cell=self.initial_cell.expand(num_rows, -1),
            slots=zeros(num_rows, config.num_slots, config.slot_size),
            usage=zeros(num_rows, config.num_slots),
            read_weights=zeros(num_rows, config.num_heads, config.num_slots),
        )

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
        """What is read after each of the items x [T, B, in]: [T, B, H]; and the memory after the last."""
        reads = []
        for item in x:
            state = self.step(state, item)
            reads.append(state.hidden)
        return torch.stack(reads), state

    def ask(self, state: ExternalMemoryState, x: Tensor) -> Tensor:
        """What would be read [B, Q, H] if one of x [B, Q, in] came next."""
        return ask_in_copies(self, state, x)


def similarity(key: Tensor, slots: Tensor, sharpness: Tensor) -> Tensor:
    """How like each slot is to a head's key [B, heads, size], beside the other slots: [B, heads, slots], of sum one.

    slots: [B, slots, size]. sharpness: [B, heads], what the cosine of the angle between the two is multiplied by.
    """
    return (sharpness.unsqueeze(-1) * (_of_length_one(key) @ _of_length_one(slots).mT)).softmax(-1)


def _of_length_one(x: Tensor) -> Tensor:
    """Vectors [..., size] with their length taken out; what is almost nothing stays so, and so do its gradients."""
    return x * (x.square().sum(-1, keepdim=True) + _NEXT_TO_NOTHING).rsqrt()


def write(state: ExternalMemoryState, key: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    """The slots after each head has written its key [B, heads, size], and how much to each: [B, heads, slots].

    gate: [B, heads], the share that goes to the slots that were like the head's key a step ago; the rest goes to a slot
    that has been used the least, the first of equals.
    """
    num_heads, num_slots = state.read_weights.shape[1:]
    least_used = one_hot(state.usage.argsort(stable=True, dim=-1)[:, :num_heads], num_slots).to(key.dtype)
    share = gate.unsqueeze(-1)
    written = share * state.read_weights + (1 - share) * least_used
    kept = 1 - least_used.sum(1)
    return state.slots * kept.unsqueeze(-1) + written.mT @ key, written
