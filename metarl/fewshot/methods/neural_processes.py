"""Neural processes for few-shot regression: conditional ones, and ones with a random latent.

Garnelo et al. Conditional neural processes (2018). Garnelo et al. Neural processes (2018).
Volpp et al. Bayesian context aggregation for neural processes (2021), for the latent's posterior.

They absorb examples instead of taking steps, so their adaptation curve counts examples. Each update evaluates the loss
after a random number of the support's examples and after all of them.

Deviations: 1. the random latent's posterior is a product of Gaussians with the prior, instead of the output of a net on
a mean over the examples; the curve uses the latent's mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metarl.adaptation.context import Aggregation, Belief, ContextAdaptation, factor_size
from metarl.checks import not_empty, positive, widths
from metarl.fewshot.episode import FewShotEpisode
from metarl.fewshot.outer_step import OuterConfig, OuterStep
from metarl.fewshot.problem import Problem, Regression, squared_errors
from metarl.nets.distributions import DiagonalGaussian
from metarl.nets.mlp import Activation, mlp
from metarl.optim import flat_gradient
from metarl.parallel import shared_noise
from metarl.records import Examples, cat, stack

_INITIAL_RAW_VARIANCE = -3.0  # softplus of it is the initial variance of one example's factor


@dataclass(frozen=True)
class CNPConfig(OuterConfig):
    """Conditional neural process: the mean of a deterministic encoding of each example."""

    hidden_sizes: tuple[int, ...] = (128, 128)  # hidden layers of the encoder and of the head
    latent_size: int = 128  # size of the latent of each function
    activation: Activation = "relu"  # activation function of the encoder and of the head
    aggregation: Aggregation = "mean"  # way of combining the examples into one latent
    min_std: float = 0.1  # lower bound on the predicted standard deviation

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "min_std")
        not_empty(self, "hidden_sizes")
        widths(self, "hidden_sizes", "latent_size")

    def make_learner(self, problem: Problem, *, num_iterations: int, generator: torch.Generator) -> NeuralProcess:
        """A fresh neural process.

        Raises:
            ValueError: when the problem is a classification.
        """
        if not isinstance(problem, Regression):
            raise ValueError(f"agent is {type(self).__name__}, a learner of regression; this family has classes")
        input_size, output_size = problem.input_size, problem.output_size
        factors = factor_size(self.latent_size, self.aggregation)
        settings: Any = {"activation": self.activation, "output_gain": 1.0, "generator": generator}
        encoder = mlp((input_size + output_size, *self.hidden_sizes, factors), **settings)
        if factors == 2 * self.latent_size:  # random latents start with low variance
            list(encoder.parameters())[-1].data[self.latent_size :] = _INITIAL_RAW_VARIANCE
        head = _Head(mlp((self.latent_size + input_size, *self.hidden_sizes, 2 * output_size), **settings))
        adaptation = ContextAdaptation(
            encoder, head, latent_size=self.latent_size, aggregation=self.aggregation, device=generator.device
        )
        return NeuralProcess(self, adaptation, num_iterations)


@dataclass(frozen=True)
class NPConfig(CNPConfig):
    """Neural process: a random latent, trained so that the posterior from few examples matches the one from all."""

    latent_size: int = 16  # size of the latent of each function
    aggregation: Aggregation = "product_with_prior"  # way of combining the examples into one latent


class _Head(nn.Module):
    """The prediction for x given a latent: mean and raw standard deviation, concatenated."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, latent: Tensor, x: Tensor) -> Tensor:
        return self.net(torch.cat([latent, x], -1))


class NeuralProcess:
    """Learns encoder and head by Adam on the likelihood of queries, given part of the support."""

    point = "example"

    def __init__(self, config: CNPConfig, adaptation: ContextAdaptation, num_iterations: int) -> None:
        self.config, self.adaptation = config, adaptation
        self.outer_step = OuterStep(config, adaptation, num_iterations)

    def update(self, experience: FewShotEpisode, generator: torch.Generator) -> dict[str, float]:
        """One step of Adam; `train/query_mse` is the mean squared error after the whole support, before the step."""
        support, query = experience.support, experience.query
        with shared_noise():
            loss, error = self._judge(support, query, generator)
        norm = self.outer_step(loss)
        return {"train/query_mse": float(error), "train/loss": float(loss.detach()), "train/grad_norm": norm}

    def task_gradients(self, experience: FewShotEpisode, num_tasks: int, generator: torch.Generator) -> Tensor:
        """The gradients of the loss given part of the support and all of it: [num_tasks, P]."""
        parameters = list(self.adaptation.parameters())
        tasks = (experience[task : task + 1] for task in range(num_tasks))
        losses = (self._judge(task.support, task.query, generator)[0] for task in tasks)
        return torch.stack([flat_gradient(loss, parameters) for loss in losses])

    def _judge(self, support: Examples, query: Examples, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The loss on a batch of tasks, over support and queries, and the query error after the whole support."""
        num_tasks, shots = support.x.shape[:2]
        path = self.adaptation.path(self.adaptation.prior(num_tasks), _items(support))
        few = torch.randint(shots + 1, (num_tasks,), generator=generator, device=support.x.device)
        beliefs = stack([path[few, torch.arange(num_tasks, device=few.device)], path[-1]])  # [2, N, Z]
        judged = cat([support, query], 1)
        if self.adaptation.is_random:
            loss = self._bound(beliefs, self.adaptation.adapt(path[-1], _items(query)), judged, generator)
        else:
            x = judged.x.expand(2, *judged.x.shape)
            loss = -self._prediction(self.adaptation.predict(beliefs, x)).log_prob(judged.y).mean()
        with torch.no_grad():
            prediction = self._prediction(self.adaptation.predict(path[-1], query.x))
        return loss, squared_errors(prediction.mean, query.y).mean()

    def _bound(self, beliefs: Belief, whole: Belief, judged: Examples, generator: torch.Generator) -> Tensor:
        """The negative evidence lower bound per datum.

        It is the reconstruction loss under a sample from the posterior of all data, plus the KL divergence of that
        posterior from those of part of the data.
        """
        posterior = self.adaptation.posterior(whole)
        prediction = self._prediction(self.adaptation.predict(whole, judged.x, generator))
        kl = posterior.kl(self.adaptation.posterior(beliefs)).mean(0)  # [N]
        return (kl - prediction.log_prob(judged.y).sum(-1)).mean() / judged.x.shape[1]

    @property
    def facts(self) -> Mapping[str, Any]:
        return {}

    def predictions(self, episode: FewShotEpisode, num_points: int) -> Tensor:
        """The means after 0, 1, ... examples of the support: [num_points + 1, N, Q, out].

        Raises:
            ValueError: when the support has fewer examples.
        """
        support, query = episode.support, episode.query
        if num_points > support.x.shape[1]:
            raise ValueError(
                f"num_points is {num_points}; must be at most {support.x.shape[1]}, the support's examples"
            )
        with torch.no_grad():
            path: Belief = self.adaptation.path(self.adaptation.prior(len(support)), _items(support))[: num_points + 1]
            x = query.x.expand(num_points + 1, *query.x.shape)
            return self._prediction(self.adaptation.predict(path, x)).mean

    @torch.no_grad()
    def state_vectors(self, episode: FewShotEpisode, num_points: int) -> Tensor:
        """The latent's mean and, where it is random, its log variance: [num_points + 1, N, Z or 2 Z]."""
        support = episode.support
        path = self.adaptation.path(self.adaptation.prior(len(support)), _items(support))[: num_points + 1]
        if not self.adaptation.is_random:
            return self.adaptation.latent(path)
        posterior = self.adaptation.posterior(path)
        return torch.cat([posterior.mean, 2 * posterior.log_std], -1)

    def _prediction(self, outputs: Tensor) -> DiagonalGaussian:
        mean, raw = outputs.chunk(2, -1)
        std = self.config.min_std + (1 - self.config.min_std) * nn.functional.softplus(raw)
        return DiagonalGaussian(mean, std.log())

    def state_dict(self) -> dict[str, Any]:
        return self.outer_step.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.outer_step.load_state_dict(state)


def _items(data: Examples) -> Tensor:
    return torch.cat([data.x, data.y], -1)  # [N, K, in + out]
