"""Matching networks: the state is the embedded examples, and a query's class is an attention-weighted vote of them.

Vinyals et al. Matching networks for one shot learning (2016).
Vinyals, Bengio, Kudlur. Order matters: sequence to sequence for sets (2016), for the attention of the queries.

Deviations: 1. the cosines are multiplied by a learned scale (it starts at ten), because a softmax of numbers between -1
and 1 can never be certain; 2. the LSTMs start from a learned memory rather than zero; 3. support and queries are
embedded separately, so running statistics are updated by one, then the other; the published code normalises both
together in meta-training.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metarl.adaptation.recurrent import Recurrent, RecurrentConfig, RecurrentState
from metarl.checks import rounds
from metarl.fewshot.amortised import ExampleAdaptation
from metarl.fewshot.embedding import EmbeddingConfig
from metarl.fewshot.problem import Classification
from metarl.fewshot.seen_classes import EmbeddedExamples, cosines
from metarl.nets.conv import ConvNet
from metarl.records import Examples


class MatchingAdaptation(ExampleAdaptation[EmbeddedExamples]):
    """A class's probability is the total attention on its examples, a softmax over the cosines to all examples.

    embed: images [N, K, ...] -> [N, K, D]. contexts: full context embeddings, in which examples depend on each other
    and queries on the examples; None: each image is embedded independently, and the examples' order is irrelevant.
    """

    def __init__(self, embed: ConvNet, *, contexts: FullContexts | None = None) -> None:
        super().__init__()
        self.embed, self.contexts = embed, contexts
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())

    def prior(self, num_tasks: int) -> EmbeddedExamples:
        return EmbeddedExamples.empty(num_tasks, self.embed.output_size, self.log_scale)

    def adapt(self, state: EmbeddedExamples, context: Examples) -> EmbeddedExamples:
        """The earlier examples and those of context [N, K, ...]."""
        return state.append(self.embed(context.x), context.y, context.valid)

    def predict(self, state: EmbeddedExamples, x: Tensor) -> Tensor:
        """Log-probabilities [N, Q, W] for queries x [N, Q, ...]."""
        support, query = state.x, self.embed(x)
        if self.contexts is not None:
            support = self.contexts.of_support(state)
            query = self.contexts.of_queries(query, support, state.valid)
        similarity = self.log_scale.exp() * cosines(query, support)  # [N, Q, K]
        attention = similarity.masked_fill(~state.valid.unsqueeze(1), -torch.inf).log_softmax(-1)
        outside = ~state.member.mT.unsqueeze(1)  # [N, 1, W, K]
        attention = attention.unsqueeze(2).masked_fill(outside, _NEVER)
        return state.mask_unseen(attention.logsumexp(-1))


_NEVER = -1e30  # the log of zero, with zero gradient


class FullContexts(nn.Module):
    """Full context embeddings: examples depend on each other, and queries depend on the examples.

    g, for examples: the embedding plus the outputs of a bidirectional LSTM. f, for a query: the hidden state of an LSTM
    that takes the embedding and reads the examples by attention, for `num_steps` rounds.
    """

    def __init__(self, size: int, *, num_steps: int, generator: torch.Generator) -> None:
        super().__init__()
        if num_steps < 1:
            raise ValueError(f"num_steps is {num_steps}; must be at least 1")
        self.num_steps = num_steps
        lstm = RecurrentConfig("lstm")
        self.forward_g = lstm.make(size, size, generator=generator)
        self.backward_g = lstm.make(size, size, generator=generator)
        self.f = lstm.make(2 * size, size, generator=generator)

    def of_support(self, examples: EmbeddedExamples) -> Tensor:
        """Embeddings [N, K, size] of the examples. Padding is read last in both directions, so it has no effect."""
        places = torch.arange(examples.y.shape[1], device=examples.y.device)
        read = examples.x
        for lstm, order in ((self.forward_g, places), (self.backward_g, -places)):
            order = torch.where(examples.valid, order, len(places)).argsort(-1)
            read = read + _read_in(lstm, examples.x, order)
        return read

    def of_queries(self, query: Tensor, support: Tensor, valid: Tensor) -> Tensor:
        """Embeddings [N, Q, size] of queries [N, Q, size], each reading support [N, K, size] independently."""
        num_tasks, num_queries, size = query.shape
        state = self.f.prior(num_tasks * num_queries)
        hidden = state.hidden.view_as(query)
        for _ in range(self.num_steps):
            attention = (hidden @ support.mT).masked_fill(~valid.unsqueeze(1), -torch.inf).softmax(-1)
            seen = torch.cat([query, attention @ support], -1)
            state = self.f.step(RecurrentState(hidden.reshape(-1, size), state.cell), seen.flatten(0, 1))
            hidden = state.hidden.view_as(query) + query
        return hidden


def _read_in(lstm: Recurrent, x: Tensor, order: Tensor) -> Tensor:
    """An LSTM's outputs for x [N, K, size], read in the given order [N, K]."""
    order = order.unsqueeze(-1).expand_as(x)
    read, _ = lstm.read(lstm.prior(len(x)), x.gather(1, order).transpose(0, 1))
    return torch.zeros_like(x).scatter(1, order, read.transpose(0, 1))


@dataclass(frozen=True)
class MatchingConfig(EmbeddingConfig):
    """Matching network: a query's class is an attention-weighted vote of the examples."""

    context_steps: int = 0  # rounds of attention in full context embeddings; 0: independent embeddings

    def __post_init__(self) -> None:
        super().__post_init__()
        rounds(self, "context_steps", minimum=0)

    def make_adaptation(
        self, embed: ConvNet, problem: Classification, generator: torch.Generator
    ) -> MatchingAdaptation:
        contexts = None
        if self.context_steps:
            contexts = FullContexts(embed.output_size, num_steps=self.context_steps, generator=generator)
        return MatchingAdaptation(embed, contexts=contexts)
