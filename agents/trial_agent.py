"""The common parts of agents that PPO trains on whole trials: normalised inputs, targets of critics, bonuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from gymnasium import spaces
from torch import Tensor, nn

from agents.hypernetwork_policy import POLICIES, HeadsConfig, HypernetworkPolicyConfig, PolicyConfig, WrittenNet
from agents.hyperx import BONUSES, HyperX, HyperXConfig, NoBonus
from agents.ppo import PPO, Evaluated, PPOBatch, PPOConfig, batch_of, past_returns
from metarl.checks import positive, widths
from metarl.nets.mlp import Activation, PolicyHead, mlp
from metarl.nets.moments import Moments
from metarl.optim import flat_gradient
from metarl.records import Record, Trajectory


@dataclass(frozen=True)
class TrialAgentConfig(PPOConfig):
    """The common settings of these agents."""

    head_sizes: tuple[int, ...] = (64,)  # hidden layers of the policy's and of the critic's head
    activation: Activation = "tanh"  # nonlinearity of the hidden layers
    init_std: float = 1.0  # initial standard deviation of continuous actions, with the box scaled to [-1, 1]
    normalise_obs: bool = True  # whether observations are normalised by running moments
    normalise_reward: bool = True  # whether rewards are normalised by running moments
    reward_input: bool = True  # whether the memory reads the rewards; if not, adaptation needs no reward

    def __post_init__(self) -> None:
        super().__post_init__()
        widths(self, "head_sizes")
        positive(self, "init_std")


FEW_STEPS: dict[str, Any] = {  # PPO for robots and a few million steps: large updates, and little noise from the start
    "init_std": 0.4,
    "gamma": 0.97,
    "learning_rate": 3e-3,
    "final_learning_rate": 1e-3,
    "entropy_coefficient": 0.0,
    "target_kl": 0.05,
}


@dataclass(frozen=True)
class LatentAgentConfig(TrialAgentConfig):
    """The common settings of agents whose policy reads a latent: what they know of the trial so far."""

    # policy and critic on the latent: heads that read it, or a hypernetwork that writes their weights from it
    policy: PolicyConfig = field(default_factory=HeadsConfig, metadata={"variants": POLICIES})
    bonus: NoBonus | HyperXConfig = field(  # exploration bonus in meta-training
        default_factory=NoBonus, metadata={"variants": BONUSES}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.policy, PolicyConfig):
            raise ValueError(f"policy is {self.policy!r}; must be a HeadsConfig or HypernetworkPolicyConfig")
        if not isinstance(self.bonus, (NoBonus, HyperXConfig)):
            raise ValueError(f"bonus is {self.bonus!r}; must be a NoBonus or HyperXConfig")

    @property
    def writer(self) -> HypernetworkPolicyConfig | None:
        """The settings of the hypernetwork that writes the policy; None: heads read the latent."""
        return self.policy if isinstance(self.policy, HypernetworkPolicyConfig) else None


def policy_and_critic(
    config: LatentAgentConfig,
    action_space: spaces.Box | spaces.Discrete,
    *,
    obs_size: int,
    latent_size: int,
    latent_first: bool,
    generator: torch.Generator,
    privileged_size: int = 0,
) -> tuple[PolicyHead, nn.Module]:
    """The policy and the critic, which read an observation and a latent, embedded or not, as one vector of features.

    latent_first: whether the features begin with the latent; if not, they end with it. privileged_size: how many
    numbers more the critic reads, after an observation that comes last.
    """
    writer = config.writer
    sizes = (obs_size + latent_size, *config.head_sizes) if writer is None else (obs_size, *writer.hidden_sizes)
    make: dict[str, Any] = {"activation": config.activation, "generator": generator}
    policy = PolicyHead(sizes, action_space, init_std=config.init_std, **make)
    critic = mlp((sizes[0] + privileged_size, *sizes[1:], 1), output_gain=1.0, **make)
    if writer is None:
        return policy, critic
    policy.net = WrittenNet(policy.net, writer, code_first=latent_first, generator=generator)
    return policy, WrittenNet(critic, writer, code_first=latent_first, generator=generator)


@dataclass(frozen=True)
class InputMoments(Record):
    """Running moments that normalise the networks' inputs."""

    obs: Moments  # of observations [O]
    reward: Moments  # of rewards []
    discounted_return: Moments  # of discounted sums of past rewards [], whose deviation scales the critic's targets

    @classmethod
    def empty(cls, *, device: torch.device, **sizes: int) -> Self:
        """The moments of no data; sizes: of the inputs that are vectors, by name."""
        vectors = {name: Moments.empty(size, device=device) for name, size in sizes.items()}
        return cls(reward=Moments.empty(device=device), discounted_return=Moments.empty(device=device), **vectors)

    def with_steps(self, trajectory: Trajectory[Any], **others: Tensor) -> Self:
        """These and the moments of a trajectory's valid steps, in all processes that share the tasks.

        others: further inputs [T, B, size], by name.
        """
        values = {"obs": trajectory.obs, "reward": trajectory.reward, **others}
        valid = trajectory.valid
        merged = {name: getattr(self, name).merge(Moments.of(value[valid]).of_all()) for name, value in values.items()}
        return replace(self, **merged)  # pyright: ignore[reportArgumentType], all are moments


class TrialAgent:
    """Base class of agents whose state adapts at every step, and whose policy learns from whole trials by PPO."""

    block: int | None = None  # the state adapts at every step
    training_blocks: int | None = None

    config: Any  # a `TrialAgentConfig`
    moments: Any  # an `InputMoments`
    ppo: PPO
    hyperx: HyperX | None = None

    def adapt(self, state: Any, trajectory: Trajectory[Any]) -> Any:
        """The unchanged state: it has already absorbed every step."""
        return state

    def states_of(self, state: Any, tasks: Tensor) -> Any:
        """The state for M tasks that have the states of these tasks [M]; each task is one row."""
        return state[tasks]

    # --- learning ---------------------------------------------------------------------------------------------

    def _reached(self, trajectory: Trajectory[Any], generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """What HyperX reads: next observations with the beliefs that hold them [T, B, input], and errors [T, B]."""
        raise NotImplementedError

    def _bonus(self, trajectory: Trajectory[Any], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """What HyperX adds to the rewards [T, B], and metrics; its predictor then learns from the same steps."""
        if self.hyperx is None:
            return torch.zeros_like(trajectory.reward), {}
        with torch.no_grad():
            reached, error = self._reached(trajectory, generator)
        valid, remaining = trajectory.valid, self.ppo.scheduled(1.0, 0.0)
        bonus = self.hyperx.bonus(reached, error, trajectory.trial_start, valid, remaining)
        self.hyperx.learn(reached, valid, generator)
        return bonus

    def _see_returns(self, trajectory: Trajectory[Any]) -> None:
        """Let the scale of the critic's targets follow the returns, before they are computed."""
        if self.config.normalise_reward:
            merged = self.moments.discounted_return.merge(past_returns(trajectory, self.config.gamma))
            self.moments = replace(self.moments, discounted_return=merged)

    def _batch(self, trajectory: Trajectory[Any]) -> PPOBatch:
        """The data for PPO; with normalisation, rewards are divided by the returns' standard deviation."""
        scale = self.moments.discounted_return.std.float() if self.config.normalise_reward else 1.0
        return batch_of(trajectory, self.config, scale)

    def _update_head(
        self,
        head: PolicyHead,
        trajectory: Trajectory[Any],
        evaluate: Callable[[Tensor], Evaluated],
        generator: torch.Generator,
    ) -> dict[str, float]:
        """PPO on a batch of whole trials, with the policy's standard deviation among its metrics."""
        metrics = self.ppo.update(self._batch(trajectory), evaluate, generator)
        if not head.is_discrete:
            metrics["std"] = float(head.log_std.detach().exp().mean())
        return metrics

    def _policy_gradients(
        self,
        parameters: Sequence[Tensor],
        trajectory: Trajectory[Any],
        evaluate: Callable[[Tensor], Evaluated],
        num_tasks: int,
    ) -> Tensor:
        """The gradients of PPO's loss, without bonus, on the whole trials of each task: [num_tasks, P]."""
        batch = self._batch(trajectory)
        rows_of_tasks = torch.arange(trajectory.valid.shape[1], device=trajectory.valid.device).chunk(num_tasks)
        losses = (self.ppo.loss(batch.rows(rows), evaluate(rows)) for rows in rows_of_tasks)
        return torch.stack([flat_gradient(loss, parameters) for loss in losses])

    # --- inputs -----------------------------------------------------------------------------------------------

    def _normalised_obs(self, obs: Tensor) -> Tensor:
        return self.moments.obs.standardise(obs) if self.config.normalise_obs else obs

    def _scaled_reward(self, reward: Tensor) -> Tensor:
        return reward / self.moments.reward.std.float() if self.config.normalise_reward else reward

    # --- saving -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            **self.ppo.state_dict(),
            "moments": {name: vars(moments) for name, moments in vars(self.moments).items()},
            **({} if self.hyperx is None else {"hyperx": self.hyperx.state_dict()}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.ppo.load_state_dict(state)
        if self.hyperx is not None:
            self.hyperx.load_state_dict(state["hyperx"])
        device, kind = self.moments.obs.mean.device, type(self.moments)
        self.moments = kind(**{name: Moments(**value) for name, value in state["moments"].items()}).to(device)


def memory_item(obs: Tensor, action: Tensor, reward: Tensor | None, episode_end: Tensor) -> Tensor:
    """What a memory reads at a step [..., item]: the observation, and the previous step's action, reward and end.

    obs [..., O], normalised; action [..., A], encoded; reward [...], scaled; None: without it; episode_end [...] bool.
    """
    rewards = [] if reward is None else [reward.unsqueeze(-1)]
    return torch.cat([obs, action, *rewards, episode_end.unsqueeze(-1).to(obs.dtype)], -1)


def one_later(values: Tensor) -> Tensor:
    """Values [T, ...] shifted by one step; zero at the first."""
    return torch.cat([torch.zeros_like(values[:1]), values[:-1]])
