"""Examples read one after another by a memory: the common part of SNAIL, the transformer, MANN and the LSTM.

An item is an example with its label; a query is one more item without a label, and queries do not see each other.
MANN and the LSTM get labels late, as published: an item is an example with the previous example's label, so each
example is first a query. They then also learn from every support example, and their prediction for a query after k
shots is the paper's presentation k + 1.

Deviations: 1. many separate queries follow one support, instead of one. 2. labels are scaled to the norm of an image's
features; the papers' have norm one. 3. with late labels, meta-training draws examples with replacement; the papers show
each of ten once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from metarl.adaptation.sequence import SequenceAdaptation, SequenceState
from metarl.checks import widths
from metarl.fewshot.amortised import AmortisedLearner, ExampleAdaptation
from metarl.fewshot.embedding import EMBEDDING
from metarl.fewshot.normalising import check_context
from metarl.fewshot.outer_step import OuterConfig
from metarl.fewshot.problem import Classification, Problem
from metarl.fewshot.seen_classes import one_hot
from metarl.nets.conv import ConvConfig, ConvNet
from metarl.nets.mlp import linear, mlp
from metarl.parallel import Share, current
from metarl.records import Examples, Record
from metarl.rl.losses import mean_over_examples


@dataclass(frozen=True)
class SequenceLearnerConfig(OuterConfig):
    """The common settings of learners that read examples in order."""

    embedding: Literal["conv", "pixels"] = "conv"  # view of an image that the memory reads: net features, or pixels
    conv: ConvConfig = EMBEDDING  # settings of the net that embeds images
    hidden_sizes: tuple[int, ...] = (64, 64)  # hidden layers of the net that embeds numbers for the memory
    late_labels: bool = False  # whether an example's label comes with the next one

    def __post_init__(self) -> None:
        super().__post_init__()
        widths(self, "hidden_sizes")

    def make_memory(self, input_size: int, generator: torch.Generator) -> Any:
        """A `SequenceMemory`."""
        raise NotImplementedError

    def make_learner(self, problem: Problem, *, num_iterations: int, generator: torch.Generator) -> AmortisedLearner:
        adaptation = ExampleReader(self, problem, generator)
        kind = OnlineLearner if self.late_labels else AmortisedLearner
        return kind(self, adaptation, problem, num_iterations)


@dataclass(frozen=True)
class ReaderState(Record):
    """The state of a reader, per task."""

    memory: SequenceState
    late_label: Tensor  # [N, L], the last example's label if it is still to be read; else zero


@dataclass(frozen=True)
class GroupedState:
    """The state for tasks with different numbers of examples, grouped by that number."""

    groups: tuple[tuple[Tensor, ReaderState], ...]  # indices into the N tasks, and their states


Reading = ReaderState | GroupedState


def groups_of(state: Reading) -> tuple[tuple[Tensor, ReaderState], ...]:
    if isinstance(state, GroupedState):
        return state.groups
    return ((torch.arange(len(state), device=state.late_label.device), state),)


class ExampleReader(ExampleAdaptation[Reading]):
    """A memory that reads labelled examples, and a linear head that maps its output for a query to a prediction.

    A label is a one-hot class vector scaled to about the norm of an image's features, or a vector of numbers with a one
    appended; a missing label is zero.
    """

    embeds_all_tasks = True

    def __init__(self, config: SequenceLearnerConfig, problem: Problem, generator: torch.Generator) -> None:
        super().__init__()
        self.late_labels = config.late_labels
        self.ways = problem.ways if isinstance(problem, Classification) else None
        self.label_size = problem.output_size + (0 if self.ways else 1)
        if not self.ways:
            sizes = (*problem.input_shape, *config.hidden_sizes)
            self.embed, size = mlp(sizes, activation="relu", generator=generator), sizes[-1]
        elif config.embedding == "conv":
            check_context(config.conv, type(config).__name__)
            self.embed = ConvNet(config.conv, problem.input_shape, fused=True, generator=generator)
            size = self.embed.output_size
        else:
            self.embed, size = nn.Flatten(-3), torch.Size(problem.input_shape).numel()
        self.label_length = math.sqrt(size / 2)  # the norm of `size` rectified unit normals
        memory = config.make_memory(size + self.label_size, generator)
        self.items: SequenceAdaptation[Any] = SequenceAdaptation(
            nn.Identity(), memory, lambda hidden, _: self.head(hidden), query=nn.Identity()
        )
        self.head = linear(memory.hidden_size, problem.output_size, gain=1.0, generator=generator)
        self.to(generator.device)

    def prior(self, num_tasks: int) -> ReaderState:
        """The memory before any example."""
        return ReaderState(self.items.prior(num_tasks), self.head.bias.new_zeros(num_tasks, self.label_size))

    def adapt(self, state: Reading, context: Examples) -> Reading:
        """The memory after reading the examples of context [N, K, ...] in order."""
        return self.read(state, context)[1] if context.x.shape[1] else state

    def read(self, state: Reading, context: Examples) -> tuple[Tensor, Reading]:
        """Outputs after each of the examples of context [N, K, ...], and the memory after the last.

        The outputs [N, K, out] are, with late labels, predictions of each example's own label; zero for padding. Tasks
        with different numbers of examples are read separately.

        Raises:
            ValueError: when there are more classes than the head has outputs.
        """
        if isinstance(state, ReaderState) and context.valid is None:
            return self._read(state, context)
        said = self.head.bias.new_zeros(*context.y.shape[:2], len(self.head.bias))
        valid = torch.ones_like(said[..., 0], dtype=torch.bool) if context.valid is None else context.valid
        groups: list[tuple[Tensor, ReaderState]] = []
        for rows, before in groups_of(state):
            counts = valid[rows].sum(1)
            for count in counts.unique():
                alike = counts == count
                group, members = before[alike], rows[alike]
                if count:
                    shown = torch.zeros_like(valid)
                    shown[members] = valid[members]
                    x, y = (value[shown].unflatten(0, (-1, int(count))) for value in (context.x, context.y))
                    answers, group = self._read(group, Examples(x, y))
                    said[shown] = answers.flatten(0, 1)
                groups.append((members, group))
        return said, GroupedState(tuple(groups))

    def _read(self, state: ReaderState, context: Examples) -> tuple[Tensor, ReaderState]:
        """`read` for tasks with equally many examples."""
        label = self._labels(context.y)
        given = label
        if self.late_labels:
            given = torch.cat([state.late_label.unsqueeze(1), label[:, :-1]], 1)
        items = torch.cat([self._embedded(context.x), given], -1)
        hidden, memory = self.items.read(state.memory, items)
        last = label[:, -1] if self.late_labels else state.late_label
        return self.head(hidden), ReaderState(memory, last)

    def predict(self, state: Reading, x: Tensor) -> Tensor:
        """Logits, or numbers, [N, Q, out] for queries x [N, Q, ...], each as the next item."""
        if isinstance(state, ReaderState):
            return self._predict(state, x)
        answers = torch.cat([self._predict(group, x[rows]) for rows, group in state.groups])
        return answers[torch.cat([rows for rows, _ in state.groups]).argsort()]

    def state_vectors(self, state: Reading) -> Tensor:
        """The memory's output [N, H]."""
        if isinstance(state, ReaderState):
            return state.memory.hidden
        vectors = torch.cat([group.memory.hidden for _, group in state.groups])
        return vectors[torch.cat([rows for rows, _ in state.groups]).argsort()]

    def _predict(self, state: ReaderState, x: Tensor) -> Tensor:
        label = state.late_label.unsqueeze(1).expand(-1, x.shape[1], -1)
        return self.items.predict(state.memory, torch.cat([self._embedded(x), label], -1))

    def _labels(self, y: Tensor) -> Tensor:
        """Labels y as the memory reads them: [N, K, L]."""
        if self.ways is None:
            return torch.cat([y, torch.ones_like(y[..., :1])], -1)
        ways = int(y.max()) + 1
        if ways > self.ways:
            raise ValueError(f"ways is {ways}; this learner's net has outputs for {self.ways}")
        return self.label_length * one_hot(y, self.ways).to(self.head.bias.dtype)

    def _embedded(self, x: Tensor) -> Tensor:
        """Features [N, K, D]; computed for all tasks at once if the normalisation is per image."""
        if isinstance(self.embed, ConvNet) and self.embed.config.normalisation not in ("transductive", "tasknorm"):
            return self.embed(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.embed(x)


class OnlineLearner(AmortisedLearner):
    """Learns from the predictions for every support example before its label arrives, and for the queries.

    Each update uses a random number of examples, drawn from the support with replacement. If every class came equally
    often, labels could be guessed by counting, and for a long time nothing else would be learned; and skills learned
    with few examples transfer to many.
    """

    def _judged(self, support: Examples, query: Examples, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        assert isinstance(self.adaptation, ExampleReader)
        met = drawn(support, generator)
        early, state = self.adaptation.read(self.adaptation.prior(len(met)), met)
        prediction = self.adaptation.predict(state, query.x)
        losses = torch.cat([self.losses(early, met.y), self.losses(prediction, query.y)], 1)
        if query.valid is None:
            return losses.mean(), prediction
        valid = torch.cat([query.valid.new_ones(met.x.shape[:2]), query.valid], 1)
        return mean_over_examples(losses, valid).mean(), prediction


def drawn(support: Examples, generator: torch.Generator) -> Examples:
    """Examples sampled from the support with replacement, without padding; equally many per task, from 1 to K."""
    device, (num_tasks, most) = support.x.device, support.x.shape[:2]
    count = int(torch.randint(most, (), generator=generator, device=device)) + 1
    weight = torch.ones(num_tasks, most, device=device) if support.valid is None else support.valid.float()
    share = current() or Share(num_tasks)
    chosen = share.own(share.gathered(weight).multinomial(count, replacement=True, generator=generator))
    rows = torch.arange(num_tasks, device=device).unsqueeze(-1)
    return Examples(support.x[rows, chosen], support.y[rows, chosen])
