"""Meta networks: a slow net, and fast weights that learned nets generate from loss gradients.

Munkhdalai, Yu. Meta networks (2017).

A slow net embeds and classifies each support example; shared nets map the gradients of its losses, entry by entry, to
fast weights. Those of the embedding serve the whole task; those of the classifier are kept per example, and a query
reads them by attention over the examples' embeddings. The output of a layer with fast weights is the sum of its outputs
with slow and with fast weights.

Deviations: 1. convolutions have slow weights only; the linear layers after them have fast ones. 2. the task's fast
weights are a mean over examples of a perceptron's output for each gradient, independent of their order, instead of an
LSTM that reads them in turn; their contribution to an embedding is added without a ReLU. 3. the embedding's loss is the
classifier's own last layer's loss on it. 4. cosines are multiplied by a learned scale (it starts at ten). 5. gradients
are computed in closed form rather than by autograd, and treated as constants by the nets that read them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metarl.checks import positive, widths
from metarl.fewshot.amortised import ExampleAdaptation
from metarl.fewshot.embedding import EmbeddingConfig
from metarl.fewshot.learned_rule import log_and_sign
from metarl.fewshot.problem import Classification
from metarl.fewshot.seen_classes import EmbeddedExamples, cosines, one_hot
from metarl.nets.conv import ConvNet
from metarl.nets.mlp import linear, mlp
from metarl.records import Examples, Record

_READER = 20  # hidden units of the nets that map gradients to fast weights


@dataclass(frozen=True)
class FastWeights(Record):
    """The examples and their fast weights, with H hidden units, D features and W ways."""

    examples: EmbeddedExamples  # [N, K, 2 D], features for the embedding and for the classifier
    embedding: Tensor  # [N, H, D], per task
    keys: Tensor  # [N, K, H], embeddings of the examples
    hidden: Tensor  # [N, K, H, D], per example
    output: Tensor  # [N, K, W, H], per example, per example


class FastWeightAdaptation(ExampleAdaptation[FastWeights]):
    """A meta network: `key_net` and `net` turn images [N, K, ...] into features [N, K, D].

    ways: number of the classifier's outputs.
    """

    def __init__(
        self,
        key_net: ConvNet,
        net: ConvNet,
        *,
        hidden_size: int,
        ways: int,
        scale: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.key_net, self.net, self.ways, self.scale = key_net, net, ways, scale
        size = net.output_size
        self.embedding = linear(size, hidden_size, gain=2**0.5, generator=generator)
        self.hidden = linear(size, hidden_size, gain=2**0.5, generator=generator)
        self.output = linear(hidden_size, ways, gain=1.0, generator=generator)
        self.of_task, self.of_example = (
            mlp([2, _READER, _READER, 1], activation="relu", output_gain=1.0, generator=generator) for _ in range(2)
        )
        self.log_scale = nn.Parameter(torch.tensor(10.0, device=generator.device).log())

    @property
    def adapted_parameters(self) -> int:
        """The number of parameters generated per task, not counting those per example."""
        return self.hidden.weight.numel()

    def prior(self, num_tasks: int) -> FastWeights:
        """The state without examples or fast weights."""
        examples = EmbeddedExamples.empty(num_tasks, 2 * self.net.output_size, self.log_scale)
        return self._written(examples)

    def adapt(self, state: FastWeights, context: Examples) -> FastWeights:
        """The fast weights for the examples of context [N, K, ...] and all earlier ones.

        Raises:
            ValueError: when there are more classes than outputs.
        """
        if int(context.y.max()) >= self.ways:
            raise ValueError(f"ways is {int(context.y.max()) + 1}; this learner's net has outputs for {self.ways}")
        features = torch.cat([self.key_net(context.x), self.net(context.x)], -1)
        return self._written(state.examples.append(features, context.y, context.valid))

    def predict(self, state: FastWeights, x: Tensor) -> Tensor:
        """Logits [N, Q, W] for queries x [N, Q, ...]; classes without examples are excluded once there are examples."""
        similarity = self.log_scale.exp() * cosines(self._embedded(self.key_net(x), state.embedding), state.keys)
        padding = ~state.examples.valid.unsqueeze(1)
        attention = similarity.masked_fill(padding, -torch.inf).softmax(-1)  # [N, Q, K]
        features = self.net(x)  # [N, Q, D]
        fast = torch.einsum("nqk,nkhd,nqd->nqh", attention, state.hidden, features)
        hidden = self.hidden(features).relu() + fast.relu()
        logits = self.output(hidden) + torch.einsum("nqk,nkwh,nqh->nqw", attention, state.output, hidden)
        seen = one_hot(state.examples.y, self.ways, state.examples.valid).any(1, keepdim=True)
        return logits.masked_fill(~seen & seen.any(-1, keepdim=True), -torch.inf)

    def _embedded(self, features: Tensor, fast: Tensor) -> Tensor:
        """Embeddings [N, K, H], with slow weights and the task's fast weights."""
        return self.embedding(features).relu() + features @ fast.mT

    def _written(self, examples: EmbeddedExamples) -> FastWeights:
        key_features, features = examples.x.split(self.net.output_size, -1)
        with torch.no_grad():
            of_embedding, _ = self.gradients(self.embedding, key_features, examples.y)
            of_hidden, of_output = self.gradients(self.hidden, features, examples.y)
        valid = examples.valid.to(features.dtype).unsqueeze(-1)
        each = self._read(self.of_task, of_embedding) * valid.unsqueeze(-1)
        embedding = each.sum(1) / valid.sum(1, keepdim=True).clamp(min=1)
        keys = self._embedded(key_features, embedding)
        return FastWeights(
            examples, embedding, keys, self._read(self.of_example, of_hidden), self._read(self.of_example, of_output)
        )

    def _read(self, reader: nn.Module, gradient: Tensor) -> Tensor:
        """Fast weights, with the shape of the gradients."""
        return self.scale * reader(log_and_sign(gradient)).squeeze(-1)

    def gradients(self, first: nn.Module, features: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients in both layers of each example's negative log-likelihood under `first`, ReLU and the output layer.

        features [N, K, D], y [N, K] -> [N, K, H, D], [N, K, W, H].
        """
        hidden = first(features).relu()
        error = self.output(hidden).softmax(-1) - nn.functional.one_hot(y, self.ways)  # [N, K, W]
        back = (error @ self.output.weight) * (hidden > 0)  # [N, K, H]
        return back.unsqueeze(-1) * features.unsqueeze(-2), error.unsqueeze(-1) * hidden.unsqueeze(-2)


@dataclass(frozen=True)
class MetaNetworkConfig(EmbeddingConfig):
    """Meta network: a slow net, and fast weights that learned nets generate from its gradients."""

    hidden_size: int = 64  # number of hidden units of the linear layers with fast weights
    scale: float = 0.02  # factor on the fast weights

    def __post_init__(self) -> None:
        super().__post_init__()
        widths(self, "hidden_size")
        positive(self, "scale")

    def make_adaptation(
        self, embed: ConvNet, problem: Classification, generator: torch.Generator
    ) -> FastWeightAdaptation:
        return FastWeightAdaptation(
            embed,
            self.make_embedding(problem, generator),
            hidden_size=self.hidden_size,
            ways=problem.ways,
            scale=self.scale,
            generator=generator,
        )
