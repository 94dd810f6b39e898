"""Meta-learning by gradients through adaptation: the common part of MAML and its variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from metarl.adaptation.batching import Batching
from metarl.adaptation.gradient import GradientAdaptation
from metarl.adaptation.update_rules import params_of
from metarl.checks import at_least, in_range, literals, not_empty, positive, rounds, widths
from metarl.fewshot.compiled import CompiledObjective
from metarl.fewshot.episode import FewShotEpisode, num_ways
from metarl.fewshot.normalising import absorb_statistics, in_evaluation, normalisation_facts, with_context
from metarl.fewshot.outer_step import MetaLearned, OuterConfig, OuterStep
from metarl.fewshot.problem import Classification, Problem
from metarl.nets.conv import STRIDED, ConvConfig, ImageClassifier
from metarl.nets.mlp import mlp
from metarl.optim import flat_gradient
from metarl.records import Examples
from metarl.rl.losses import mean_over_examples


class AdaptsBySteps(MetaLearned, Protocol):
    """An `Adaptation` of a net's parameters in steps on a support set."""

    @property
    def net(self) -> nn.Module: ...

    @property
    def adapted(self) -> tuple[str, ...]: ...  # names of the net's parameters

    @property
    def num_steps(self) -> int: ...

    def prior(self, num_tasks: int) -> Any: ...

    def adapt(self, state: Any, context: Examples, num_steps: int | None = None) -> Any: ...

    def path(
        self, state: Any, context: Examples, num_steps: int | None = None, *, first_order: bool | None = None
    ) -> list[Any]: ...

    def predict(self, state: Any, x: Tensor, context: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True)
class NetConfig:
    """The net that adapts."""

    hidden_sizes: tuple[int, ...] = (40, 40)  # hidden layers of the net for vectors
    activation: Literal["relu", "tanh", "silu"] = "relu"  # activation function of the net for vectors
    conv: ConvConfig = STRIDED  # settings of the convolutional net for images

    def __post_init__(self) -> None:
        literals(self)
        not_empty(self, "hidden_sizes")
        widths(self, "hidden_sizes")

    def make_net(self, problem: Problem, generator: torch.Generator) -> nn.Module:
        if len(problem.input_shape) == 3:
            return ImageClassifier(self.conv, problem.input_shape, problem.output_size, generator=generator)
        sizes = (*problem.input_shape, *self.hidden_sizes, problem.output_size)
        return mlp(sizes, activation=self.activation, output_gain=1.0, generator=generator)


@dataclass(frozen=True)
class InnerStepsConfig(NetConfig):
    """Gradient steps on the net."""

    num_inner_steps: int = 1  # number of inner steps in meta-training
    inner_lr: float = 0.01  # step size of the inner steps; its initial value, if step sizes are learned
    batching: Batching = "batched"  # way of batching over tasks; results agree up to rounding
    chunk_size: int = 8  # number of tasks per chunk, for batching "chunks"

    def __post_init__(self) -> None:
        super().__post_init__()
        rounds(self, "num_inner_steps")
        at_least(self, 1, "chunk_size")
        positive(self, "inner_lr")


@dataclass(frozen=True)
class MetaGradientConfig(OuterConfig):
    """Settings of the meta-gradient of the loss after the last inner step, and of the meta-update."""

    final_outer_lr: float | None = None  # step size at the last iteration, reached along half a cosine; None: constant

    compiled = False  # whether compiled code computes the outer gradient

    def is_first_order(self, progress: float) -> bool:
        """Whether the meta-gradient is first order; progress: completed fraction of the training."""
        return False

    def step_weights(self, num_steps: int, progress: float) -> list[float]:
        """The weight of the loss after each inner step; progress: completed fraction of the training."""
        return [0.0] * (num_steps - 1) + [1.0]


@dataclass(frozen=True)
class OuterStepsConfig(MetaGradientConfig):
    """Settings of the meta-gradient through the inner steps, with optional first order and multi-step losses."""

    first_order: bool = False  # whether the outer gradient ignores the derivative of the inner one
    # whether compiled code computes the outer gradient of a perceptron; needs a C++ compiler and half a minute at the
    # start
    compiled: bool = False
    first_order_share: float = 0.0  # fraction of the iterations with a first-order outer gradient; then second order
    multi_step_share: float = 0.0  # fraction of the iterations over which losses after earlier steps fade out (MAML++)

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range(self, 0, 1, "first_order_share", "multi_step_share")

    def is_first_order(self, progress: float) -> bool:
        return self.first_order or progress < self.first_order_share

    def step_weights(self, num_steps: int, progress: float) -> list[float]:
        return fading_weights(num_steps, progress, self.multi_step_share)


class GradientLearner:
    """Learns the initialisation, and other meta-learned parts of the adaptation, by Adam on the adapted loss."""

    point = "step"

    def __init__(
        self, config: MetaGradientConfig, adaptation: AdaptsBySteps, problem: Problem, num_iterations: int
    ) -> None:
        self.config, self.adaptation, self.problem = config, adaptation, problem
        self.outer_step = OuterStep(config, adaptation, num_iterations)
        self._compiled = self._compiled_loss() if config.compiled else None

    @property
    def facts(self) -> Mapping[str, Any]:
        return gradient_facts(self.adaptation)

    def check_episodes(self, train: FewShotEpisode, test: FewShotEpisode) -> None:
        """Check that the net has enough outputs for these episodes.

        Raises:
            ValueError: when there are more classes than the net has outputs.
        """
        check_ways(self.problem, train)
        check_ways(self.problem, test)

    def update(self, experience: FewShotEpisode, generator: torch.Generator) -> dict[str, float]:
        """One step of Adam; the logged score is from before the step."""
        check_ways(self.problem, experience)
        support, query = with_context(self.adaptation.net, experience)
        weights, used, first_order = self._loss_settings()
        if self._compiled:
            loss, prediction = self._compiled(support, query, torch.tensor(weights), used, first_order)
            states: list[Any] = []  # there are no statistics to absorb
        else:
            prior = self._prior(len(support), generator)
            loss, prediction, states = self._adapted_loss(prior, support, query, weights, used, first_order)
        score = self.problem.score(prediction.detach(), query).mean()
        norm = self.outer_step(loss)
        self._absorb_statistics(states, experience)
        return {f"train/query_{self.problem.measure.name}": float(score), "train/grad_norm": norm}

    def task_gradients(self, experience: FewShotEpisode, num_tasks: int, generator: torch.Generator) -> Tensor:
        """The gradients of the loss on the queries after adaptation: [num_tasks, P]."""
        check_ways(self.problem, experience)
        parameters, gradients = list(self.adaptation.parameters()), []
        for task in range(num_tasks):
            support, query = with_context(self.adaptation.net, experience[task : task + 1])
            prior = self._prior(1, generator)
            loss, _, _ = self._adapted_loss(prior, support, query, *self._loss_settings())
            gradients.append(flat_gradient(loss, parameters))
        return torch.stack(gradients)

    def _loss_settings(self) -> tuple[list[float], tuple[bool, ...], bool]:
        """The weight of the loss after each step now, which of them count, and whether gradients are first order."""
        progress = self.outer_step.progress
        weights = self.config.step_weights(self.adaptation.num_steps, progress)
        return weights, tuple(map(bool, weights)), self.config.is_first_order(progress)

    def _adapted_loss(
        self,
        prior: Any,
        support: Examples,
        query: Examples,
        weights: Sequence[float] | Tensor,
        used: Sequence[bool],
        first_order: bool,
    ) -> tuple[Tensor, Tensor, list[Any]]:
        """The weighted loss after the steps that are used, the last one's prediction, and the states on the way."""
        states = self.adaptation.path(prior, support, first_order=first_order)
        losses, prediction = [], query.x
        for step, state in enumerate(states[1:]):
            if used[step]:  # the last step always is
                prediction = self.adaptation.predict(state, query.x, query.context)
                of_examples = self.problem.losses(prediction, query.y)
                losses.append(weights[step] * mean_over_examples(of_examples, query.valid).mean())
        return torch.stack(losses).sum(), prediction, states

    def _compiled_loss(self) -> CompiledObjective:
        """The adapted loss and the prediction as one compiled graph.

        Raises:
            ValueError: when the adaptation cannot be traced in one graph, or there is no C++ compiler.
        """
        adaptation = self.adaptation
        if not isinstance(adaptation, GradientAdaptation) or not adaptation.is_written_out:
            raise ValueError(
                "compiled is True; must be False unless all parameters of a net for vectors adapt, its activation is "
                "tanh or relu, and batching is 'batched'"
            )

        def loss(support: Examples, query: Examples, *settings: Any) -> tuple[Tensor, Tensor]:
            return self._adapted_loss(adaptation.prior(len(support)), support, query, *settings)[:2]

        return CompiledObjective(adaptation, loss)

    def _prior(self, num_tasks: int, generator: torch.Generator) -> Any:
        """The start of adaptation in meta-training."""
        return self.adaptation.prior(num_tasks)

    def _absorb_statistics(self, states: list[Any], experience: FewShotEpisode) -> None:
        """Update running statistics, if the net has any, after an update that went through these states."""
        absorb_statistics(self.adaptation.net, experience)

    def predictions(self, episode: FewShotEpisode, num_points: int) -> Tensor:
        check_ways(self.problem, episode)
        return gradient_predictions(self.adaptation, episode, num_points)

    def state_vectors(self, episode: FewShotEpisode, num_points: int) -> Tensor:
        """The parameters that adapt [num_points + 1, N, P]."""
        check_ways(self.problem, episode)
        support, _ = with_context(self.adaptation.net, episode)
        with torch.no_grad(), in_evaluation(self.adaptation.net):
            states = self.adaptation.path(self.adaptation.prior(len(support)), support, num_points)
        return torch.stack([adapted_vectors(self.adaptation, state) for state in states])

    def state_dict(self) -> dict[str, Any]:
        return self.outer_step.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.outer_step.load_state_dict(state)


def gradient_predictions(adaptation: AdaptsBySteps, episode: FewShotEpisode, num_steps: int) -> Tensor:
    """Predictions for the queries after 0, 1, ... steps on the support: [num_steps + 1, N, Q, out]."""
    support, query = with_context(adaptation.net, episode)
    with torch.no_grad(), in_evaluation(adaptation.net):
        states = adaptation.path(adaptation.prior(len(support)), support, num_steps)
        return torch.stack([adaptation.predict(state, query.x, query.context) for state in states])


def adapted_vectors(adaptation: AdaptsBySteps, state: Any) -> Tensor:
    """Each task's own parameters as a vector: [N, P]."""
    params = params_of(state)
    return torch.cat([params[name].flatten(1) for name in adaptation.adapted], 1)


def check_ways(problem: Problem, episode: FewShotEpisode) -> None:
    """Check that an episode has at most as many classes as the net has outputs.

    Raises:
        ValueError: when it has more.
    """
    if isinstance(problem, Classification) and num_ways(episode) > problem.ways:
        raise ValueError(f"ways is {num_ways(episode)}; this learner's net has outputs for {problem.ways}")


def gradient_facts(adaptation: AdaptsBySteps) -> dict[str, Any]:
    """The net's normalisation and the number of parameters that adapt to a task."""
    params = dict(adaptation.net.named_parameters())
    adapted = {"adapted_parameters": sum(params[name].numel() for name in adaptation.adapted)}
    return {**normalisation_facts(adaptation.net), **adapted}


def fading_weights(num_steps: int, progress: float, share: float) -> list[float]:
    """MAML++'s weights of the losses after each step: equal at first, only the last from `share` on; they sum to one.

    progress: completed fraction of the training.
    """
    left = max(0.0, 1 - progress / share) if share else 0.0
    early = left / num_steps
    return [early] * (num_steps - 1) + [1 - early * (num_steps - 1)]
