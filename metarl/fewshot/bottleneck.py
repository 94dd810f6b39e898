"""Meta-regularisation: an information bottleneck on the weights that do not adapt to a task.

Yin, Tucker, Zhou, Levine, Finn. Meta-learning without memorization (2020), the variant on weights.

Each such weight is random in meta-training: normal around its value, with a learned deviation. The loss is raised by
the KL divergence of all of them from the standard normal distribution, times a cost. What is stored in these weights
thus costs something, and what is read from a task's support does not; so a learner reads. Predictions use the means.

Deviations: 1. only matrices and filters are random; biases and the scales of normalisation are not. 2. the deviations
have an Adam of their own, with a higher rate, as they begin small.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from metarl.fewshot.episode import FewShotEpisode, FewShotLearner
from metarl.optim import load_adam

_FIRST_STD = 0.02
_LEARNING_RATE = 1e-2  # of the logarithms of the deviations


class StepsByAdam(Protocol):
    """The meta-update of a module's parameters (metarl/fewshot/outer_step.py)."""

    module: Any
    optimizer: torch.optim.Adam


class HasOuterStep(FewShotLearner, Protocol):
    """A learner whose meta-learned parameters are learned by one Adam."""

    outer_step: StepsByAdam


class Bottlenecked:
    """A learner whose weights that do not adapt are random in meta-training; all else is the learner's.

    cost: the weight of the KL divergence, in nats.

    Raises:
        ValueError: when all weights adapt.
    """

    def __init__(self, learner: HasOuterStep, cost: float) -> None:
        self.learner, self.cost = learner, cost
        self.weights = weights_that_do_not_adapt(learner.outer_step.module)
        if not self.weights:
            raise ValueError(
                f"information_cost is {cost:g}, but all weights adapt; choose others, as by adapted 'head'"
            )
        self.log_std = [nn.Parameter(torch.full_like(weight, _FIRST_STD).log()) for weight in self.weights]
        self.optimizer = torch.optim.Adam(self.log_std, lr=_LEARNING_RATE)
        self._noise: list[Tensor] = []  # [...] standard normal, that the weights now have
        self._means: list[Tensor] = []
        learner.outer_step.optimizer.register_step_pre_hook(self._settle)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.learner, name)

    @property
    def point(self) -> str:
        return self.learner.point

    @property
    def facts(self) -> Mapping[str, Any]:
        return self.learner.facts

    def predictions(self, episode: FewShotEpisode, num_points: int) -> Tensor:
        """The learner's predictions, with the means of all weights."""
        return self.learner.predictions(episode, num_points)

    @torch.no_grad()
    def update(self, experience: FewShotEpisode, generator: torch.Generator) -> dict[str, float]:
        """The learner's update with random weights; the logged score is theirs."""
        device = generator.device
        self._means = [weight.clone() for weight in self.weights]
        self._noise = [torch.randn(weight.shape, generator=generator, device=device) for weight in self.weights]
        for weight, log_std, noise in zip(self.weights, self.log_std, self._noise, strict=True):
            weight += log_std.exp() * noise
        with torch.enable_grad():
            metrics = self.learner.update(experience, generator)
        return {**metrics, "train/information": self.information()}

    @torch.no_grad()
    def information(self) -> float:
        """The KL divergence of all random weights from the standard normal distribution, in nats."""
        pairs = zip(self.weights, self.log_std, strict=True)
        return float(sum((0.5 * (mean**2 + (2 * s).exp() - 1) - s).sum() for mean, s in pairs))

    @torch.no_grad()
    def _settle(self, *_: Any) -> None:
        """Before the learner's Adam steps: go back to the means, step the deviations, add the cost to the gradients."""
        for weight, mean, log_std, noise in zip(self.weights, self._means, self.log_std, self._noise, strict=True):
            std = log_std.exp()
            weight.copy_(mean)
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            log_std.grad = weight.grad * std * noise + self.cost * (std**2 - 1)
            weight.grad += self.cost * mean
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        bottleneck = {"log_std": [value.detach() for value in self.log_std], "optimizer": self.optimizer.state_dict()}
        return {**self.learner.state_dict(), "bottleneck": bottleneck}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.learner.load_state_dict(state)
        with torch.no_grad():
            for own, saved in zip(self.log_std, state["bottleneck"]["log_std"], strict=True):
                own.copy_(saved)
        load_adam(self.optimizer, state["bottleneck"]["optimizer"])


def weights_that_do_not_adapt(module: Any) -> list[nn.Parameter]:
    """The matrices and filters among a module's parameters, without those that have a copy per task."""
    net, adapted = getattr(module, "net", module), frozenset(getattr(module, "adapted", ()))
    named = net.named_parameters() if adapted else module.named_parameters()
    return [value for name, value in named if value.ndim > 1 and name not in adapted and value.requires_grad]
