"""MAML for reinforcement learning: a policy that adapts to any task in a few policy-gradient steps.

Finn, Abbeel, Levine. Model-agnostic meta-learning for fast adaptation of deep networks (2017).
Stadie et al. Some considerations on learning to explore via meta-reinforcement learning (2018): E-MAML.

In every task the policy runs a block of episodes, takes an inner step on them, runs a fresh block, and so on; the outer
step improves the last block's return, differentiating through all inner steps. The log standard deviation adapts too.

Deviations from Finn et al.: 1. curvature is measured on every `curvature_stride`-th step of the data, which saves most
of the time; 1 uses all of them. 2. Fisher-vector products are exact, by double back-propagation, instead of finite
differences. 3. `action_scale` replaces an action wrapper of their environments: with 10, a policy unit is a tenth of
the action space's half-width. 4. weights are initialised orthogonally, those of the last layer small, instead of
Xavier. 5. with `normalise_obs`, observations are standardised by running moments of the training's, as RL2's are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.func import functional_call

from agents.meta_objective import InnerObjective, MetaObjective, Samples, inner_loss, samples_of
from agents.outer_steps import GradientEpochs, OuterStep, TrustRegion
from metarl.adaptation.gradient import GradientAdaptation, Params
from metarl.adaptation.step_sizes import FixedStepSizes, PerParameterStepSizes
from metarl.checks import at_least, in_range, literals, not_negative, positive, rounds, widths
from metarl.deployment import DeployedAdaptation, DeployedAgent, StepInputs, where
from metarl.nets.mlp import Activation, PolicyHead
from metarl.nets.moments import Moments
from metarl.optim import check_finite, flat_gradient
from metarl.protocols import TaskFamily
from metarl.records import Record, SampledDecision, Step, Trajectory, by_task
from metarl.rl.trials import TrialSource
from metarl.source import TrainConfig

Experience = Trajectory[SampledDecision]


@dataclass(frozen=True)
class MAMLConfig(ABC):
    """The common settings of the MAML variants, which differ in the outer step."""

    hidden_sizes: tuple[int, ...] = (64, 64)  # hidden layers of the policy
    activation: Activation = "tanh"  # nonlinearity of the hidden layers
    init_std: float = 1.0  # standard deviation of a fresh policy's continuous actions, in policy units
    min_std: float = 1e-6  # lower bound on the standard deviation of continuous actions, in policy units
    action_scale: float = 10.0  # policy units from the middle of the action space to its bounds
    num_rollouts: int = 20  # number of episodes per task before every inner step, and after the last
    num_inner_steps: int = 1  # number of inner steps in meta-training
    inner_lr: float = 0.1  # step size of the inner steps
    later_inner_lr: float | None = None  # step size of all inner steps after the first; None: the first one's
    learned_step_sizes: bool = False  # whether each parameter entry has a learned step size (Meta-SGD)
    first_order: bool = False  # whether the meta-gradient ignores the derivative of the inner steps
    inner_objective: InnerObjective = "log_likelihood"  # surrogate of the return maximised by the inner steps
    exploration_credit: float = 0.0  # credit of the steps before adaptation for the return after it (E-MAML: 1)
    normalise_obs: bool = False  # whether observations are standardised by their moments so far in the training
    gamma: float = 0.99  # discount factor
    lam: float = 1.0  # lambda of generalised advantage estimation

    def __post_init__(self) -> None:
        literals(self)
        widths(self, "hidden_sizes")
        at_least(self, 1, "num_rollouts")
        rounds(self, "num_inner_steps")
        in_range(self, 0, 1, "gamma", "lam")
        positive(self, "init_std", "min_std", "action_scale", "inner_lr", "later_inner_lr")
        not_negative(self, "exploration_credit")

    def make_source(
        self, family: TaskFamily, train: TrainConfig, generators: Mapping[str, torch.Generator]
    ) -> TrialSource:
        """Trials in fresh tasks."""
        return TrialSource(self, family, train, generators)

    def make(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        *,
        num_iterations: int,
        generator: torch.Generator,
    ) -> MAML:
        return MAML(self, observation_space, action_space, generator=generator)

    @abstractmethod
    def make_outer_step(self, parameters: list[nn.Parameter]) -> OuterStep:
        """The outer step, which moves the adaptation's parameters."""


@dataclass(frozen=True)
class MAMLTRPOConfig(MAMLConfig):
    """MAML with a trust region around the adapted policies."""

    max_kl: float = 0.01  # radius of the trust region, in nats
    num_cg_steps: int = 10  # number of conjugate-gradient steps
    cg_damping: float = 1e-5  # multiple of the identity added to the curvature
    curvature_stride: int = 4  # stride over the data's steps when measuring the curvature; 1: all steps
    max_backtracks: int = 15  # largest number of shorter steps that the line search tries
    backtrack_ratio: float = 0.8  # length of each step of the line search, relative to the previous one

    def __post_init__(self) -> None:
        super().__post_init__()
        rounds(self, "num_cg_steps")
        rounds(self, "max_backtracks", minimum=0)
        at_least(self, 1, "curvature_stride")
        positive(self, "max_kl")
        not_negative(self, "cg_damping")
        in_range(self, 0, 1, "backtrack_ratio", open_ends=True)

    def make_outer_step(self, parameters: list[nn.Parameter]) -> OuterStep:
        return TrustRegion(
            parameters,
            max_kl=self.max_kl,
            num_cg_steps=self.num_cg_steps,
            damping=self.cg_damping,
            curvature_stride=self.curvature_stride,
            max_backtracks=self.max_backtracks,
            backtrack_ratio=self.backtrack_ratio,
        )


@dataclass(frozen=True)
class PlainMAMLConfig(MAMLConfig):
    """MAML with one step of Adam on the meta-gradient."""

    outer_lr: float = 1e-3  # learning rate of Adam
    max_grad_norm: float | None = None  # largest norm of the meta-gradient; None: unlimited

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "outer_lr", "max_grad_norm")

    def make_outer_step(self, parameters: list[nn.Parameter]) -> OuterStep:
        return GradientEpochs(
            parameters,
            learning_rate=self.outer_lr,
            num_epochs=1,
            clip=None,
            kl_penalty=0.0,
            target_kl=None,
            num_inner_steps=self.num_inner_steps,
            max_grad_norm=self.max_grad_norm,
        )


@dataclass(frozen=True)
class MAMLState:
    """The policies of all tasks, and the number of inner steps taken from the meta-learned one."""

    params: Params  # [N, ...] each
    num_steps: int


@dataclass(frozen=True)
class DeployedPolicy(Record):
    """The state of a deployed agent, per row; unlike in training, each row has its own task."""

    params: Params  # [B, ...] each
    num_steps: Tensor  # [B] int64, the number of inner steps taken from the meta-learned policy


class MAML:
    """The agent: every task has its own policy, and all of them act, adapt and are evaluated in one batch."""

    def __init__(
        self,
        config: MAMLConfig,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        *,
        generator: torch.Generator,
    ) -> None:
        self.config = config
        self.block: int | None = config.num_rollouts
        self.training_blocks: int | None = config.num_inner_steps + 1
        self.policy = PolicyHead(
            (observation_space.shape[0], *config.hidden_sizes),
            action_space,
            activation=config.activation,
            init_std=config.init_std,
            min_std=config.min_std,
            action_scale=config.action_scale,
            generator=generator,
        )
        rates = (config.inner_lr, config.inner_lr if config.later_inner_lr is None else config.later_inner_lr)
        params = dict(self.policy.named_parameters())
        self.adaptation = GradientAdaptation(
            self.policy,
            inner_loss(self.policy, config.inner_objective),
            PerParameterStepSizes(params, config.inner_lr, generator)
            if config.learned_step_sizes
            else FixedStepSizes(rates),
            num_steps=config.num_inner_steps,
            first_order=config.first_order,
        )
        self.outer_step = config.make_outer_step(list(self.adaptation.parameters()))
        self.obs_moments = Moments.empty(*observation_space.shape, device=generator.device)
        self.num_updates = 0

    # --- acting -----------------------------------------------------------------------------------------------

    def prior(self, num_tasks: int, copies: int = 1) -> MAMLState:
        """The meta-learned policy for each task, shared by the task's rows."""
        return MAMLState({name: value.detach() for name, value in self.adaptation.prior(num_tasks).items()}, 0)

    def observe(self, state: MAMLState, action: Tensor | None, step: Step) -> MAMLState:
        """The unchanged state: no adaptation between inner steps."""
        return state

    def act(self, state: MAMLState, obs: Tensor, generator: torch.Generator | None) -> SampledDecision:
        num_tasks = len(next(iter(state.params.values())))
        by_task = self._normalised(obs).view(num_tasks, -1, obs.shape[-1])  # [N, E, O]
        distribution: Any = functional_call(self.policy, state.params, (by_task,))
        action = distribution.mode if generator is None else distribution.sample(generator)
        log_prob = distribution.log_prob(action)
        return SampledDecision(self.policy.to_env(action).flatten(0, 1), log_prob.flatten())

    def adapt(self, state: MAMLState, trajectory: Experience) -> MAMLState:
        """One inner step on a block of episodes."""
        samples = self._samples(trajectory, len(next(iter(state.params.values()))))
        with torch.no_grad():
            params = self.adaptation.step(state.params, samples, state.num_steps)
        return MAMLState(params, state.num_steps + 1)

    def state_vectors(self, state: MAMLState) -> Tensor:
        """The policy's parameters [N, P]."""
        return torch.cat([value.flatten(1) for value in state.params.values()], 1)

    def states_of(self, state: MAMLState, tasks: Tensor) -> MAMLState:
        return replace(state, params={name: value[tasks] for name, value in state.params.items()})

    def deployed(self, num_steps: int) -> DeployedAgent:
        """The policy, with its weights as the state; `noise` explores, as the data of an inner step must."""
        noise_size = 0 if self.policy.is_discrete else self.policy.num_actions

        def of_row(params: Params, obs: Tensor, noise: Tensor) -> Tensor:
            distribution: Any = functional_call(self.policy, params, (obs,))
            if not noise_size:
                return distribution.mode
            return self.policy.to_env(distribution.mode + noise * distribution.log_std.exp())

        def step(state: DeployedPolicy, inputs: StepInputs) -> tuple[Tensor, DeployedPolicy]:
            return torch.vmap(of_row)(state.params, self._normalised(inputs.obs), inputs.noise), state

        initial = DeployedPolicy(self.prior(1).params, self.obs_moments.mean.new_zeros(1, dtype=torch.int64))
        return DeployedAgent(step, initial, ("noise",) if noise_size else (), noise_size=noise_size)

    def deployed_adaptation(self, num_steps: int) -> DeployedAdaptation:
        """One inner step; padding has an advantage of zero."""
        discrete = self.policy.is_discrete
        like = self.obs_moments.mean

        def adapt(state: DeployedPolicy, obs: Tensor, action: Tensor, advantage: Tensor) -> DeployedPolicy:
            obs, action = self._normalised(obs)[None], self.policy.from_env(action)[None]
            with torch.no_grad():  # at the policy that sampled the data, both inner objectives have this gradient
                distribution: Any = functional_call(self.policy, state.params, (obs,))
                log_prob = distribution.log_prob(action)
            zeros = torch.zeros_like(log_prob)
            samples = Samples(obs, action, log_prob, zeros, advantage[None], zeros[:, 0])
            with torch.no_grad():
                first, later = (self.adaptation.step(state.params, samples, number) for number in (0, 1))
            is_first = state.num_steps == 0
            return DeployedPolicy(where(is_first, first, later), state.num_steps + 1)

        shape = (num_steps,) if discrete else (num_steps, self.policy.num_actions)
        inputs = {
            "obs": torch.zeros(num_steps, *like.shape, device=like.device),
            "action": torch.zeros(shape, dtype=torch.int64 if discrete else torch.float32, device=like.device),
            "advantage": torch.zeros(num_steps, device=like.device),
        }
        meanings = {
            "obs": "the observations acted on in a block of episodes",
            "action": "the actions taken there, which must explore",
            "advantage": "their advantages, of mean 0 and standard deviation 1, divided by the number of steps; 0 pads",
        }
        return DeployedAdaptation(adapt, inputs, meanings, self._block_inputs)

    def _block_inputs(self, trajectory: Experience, num_tasks: int) -> dict[str, Tensor]:
        """The inputs of the deployed inner step for N tasks: [N, K, ...] each."""
        advantage = self._samples(trajectory, num_tasks).advantage
        obs, action = (by_task(value, num_tasks) for value in (trajectory.obs, trajectory.decision.action))
        return {"obs": obs, "action": action, "advantage": advantage}

    def _samples(self, trajectory: Experience, num_tasks: int) -> Samples:
        trajectory = replace(trajectory, obs=self._normalised(trajectory.obs))
        return samples_of(trajectory, self.policy, num_tasks, gamma=self.config.gamma, lam=self.config.lam)

    def _normalised(self, obs: Tensor) -> Tensor:
        return self.obs_moments.standardise(obs) if self.config.normalise_obs else obs

    # --- learning ---------------------------------------------------------------------------------------------

    def update(self, trial: Sequence[Experience], generator: torch.Generator) -> dict[str, float]:
        """One outer step on a batch of trials.

        Raises:
            FloatingPointError: when a parameter is no longer finite; the agent is unusable then.
        """
        num_tasks = trial[0].reward.shape[1] // self.config.num_rollouts
        samples = [self._samples(trajectory, num_tasks) for trajectory in trial]
        objective = MetaObjective(self.adaptation, self.policy, samples, self.config.exploration_credit)
        metrics = self.outer_step(objective)
        self.num_updates += 1
        if self.config.normalise_obs:  # after the step, so that acting and learning saw the same inputs
            for trajectory in trial:
                self.obs_moments = self.obs_moments.merge(Moments.of(trajectory.obs[trajectory.valid]).of_all())
        check_finite(self.adaptation, f"update {self.num_updates}")
        if not self.policy.is_discrete:
            metrics["std"] = float(self.policy.log_std.detach().exp().mean())
        return {f"train/{name}": value for name, value in metrics.items()}

    def task_gradients(self, trial: Sequence[Experience], num_tasks: int, generator: torch.Generator) -> Tensor:
        """The gradients of the surrogate of the return after adaptation, without penalties: [num_tasks, P]."""
        samples = [self._samples(trajectory, num_tasks) for trajectory in trial]
        objective = MetaObjective(self.adaptation, self.policy, samples, self.config.exploration_credit)
        parameters = list(self.adaptation.parameters())
        return torch.stack([flat_gradient(part.loss(part.states()), parameters) for part in objective.by_task()])

    # --- saving -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        moments = {"obs_moments": dict(vars(self.obs_moments))} if self.config.normalise_obs else {}
        return {
            "adaptation": self.adaptation.state_dict(),
            "outer_step": self.outer_step.state_dict(),
            "num_updates": self.num_updates,
            **moments,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.adaptation.load_state_dict(state["adaptation"])
        self.outer_step.load_state_dict(state["outer_step"])
        self.num_updates = state["num_updates"]
        if self.config.normalise_obs:
            self.obs_moments = Moments(**state["obs_moments"]).to(self.obs_moments.mean.device)
