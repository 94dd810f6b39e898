"""Teacher and student: a policy that sees the task is learned first, and then imitated by one that does not.

Kumar, Fu, Pathak, Malik. RMA: rapid motor adaptation for legged robots (2021).
Ross, Gordon, Bagnell. A reduction of imitation learning and structured prediction to no-regret online learning (2011).
Schwarke et al. RSL-RL: a learning library for robotics research (2025), its student-teacher distillation.

In the first phase the teacher learns by PPO. It reads the observation and a latent of a few numbers, which a net
encodes from the task's parameters. In the second the student acts, and the teacher, now frozen, labels every step that
the student reaches. The student reads what RL2's memory reads: observations, and previous actions, rewards and ends.
It imitates

- the latent, as in RMA: it infers the teacher's latent and acts by the teacher's policy; with the memory `window` from
  the last 50 steps,
- or the action, as in RSL-RL: it has a policy of its own, which reads its memory.

The state is the student's memory, which is reset between trials only. The task is not needed any more.

Deviations from RMA: 1. the latent is inferred at every step, and not ten times a second. 2. the teacher's policy does
not read the previous action. 3. the student also reads the ends of episodes, and with `reward_input` the rewards.
Deviations from RSL-RL: 4. the student's gradient flows through whole trials instead of 15 steps. 5. its actions have
the teacher's standard deviation. For both: 6. observations and rewards are normalised by running moments of the first
phase. 7. a choice among discrete actions is imitated by the KL divergence from the teacher's, instead of the squared
error of mean actions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from gymnasium import spaces
from torch import Tensor, nn

from agents.ppo import PPO, Evaluated, minibatches
from agents.trial_agent import FEW_STEPS, InputMoments, TrialAgent, TrialAgentConfig, memory_item, one_later
from metarl.adaptation.recurrent import RecurrentConfig
from metarl.adaptation.sequence import SequenceBelief, SequenceState
from metarl.adaptation.window import WindowConfig
from metarl.checks import at_least, in_range, not_negative, positive, rounds, widths
from metarl.deployment import DeployedAgent, StepInputs
from metarl.nets.distributions import Categorical, DiagonalGaussian
from metarl.nets.mlp import PolicyHead, mlp
from metarl.nets.moments import Moments
from metarl.optim import flat_gradient, gradient_step, load_adam
from metarl.parallel import total
from metarl.protocols import TaskFamily
from metarl.records import ActorCriticDecision, SampledDecision, Step, Trajectory
from metarl.rl.losses import mean_where
from metarl.rl.visible_task import VisibleTaskSource
from metarl.source import TrainConfig

STUDENT_MEMORIES = {  # the student's memories by the names that the command line takes
    "gru": RecurrentConfig("gru"),
    "lstm": RecurrentConfig("lstm"),
    "window": WindowConfig(),
}


@dataclass(frozen=True)
class TeacherStudentConfig(TrialAgentConfig):
    """Teacher and student: PPO that sees the task, then a student with a memory that imitates it."""

    teacher_fraction: float = 0.5  # fraction of the iterations in which the teacher learns, before the student does
    latent_size: int = 8  # size of the teacher's latent, its view of the task
    task_encoder_sizes: tuple[int, ...] = (64,)  # hidden layers between the task's parameters and the latent
    imitates: Literal["latent", "action"] = "action"  # target of the student: the teacher's latent or its actions
    memory: RecurrentConfig | WindowConfig = field(  # student's memory of the trial so far
        default_factory=RecurrentConfig, metadata={"variants": STUDENT_MEMORIES}
    )
    hidden_size: int = 128  # size of the memory's output
    encoder_sizes: tuple[int, ...] = ()  # hidden layers between the inputs and the memory
    student_learning_rate: float = 1e-3  # initial learning rate of the student's Adam
    final_student_learning_rate: float = 1e-4  # learning rate of the student at the last iteration, reached linearly
    num_student_epochs: int = 5  # number of the student's passes over each batch
    num_student_minibatches: int = 8  # number of the student's minibatches of whole trials per epoch

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range(self, 0, 1, "teacher_fraction", open_ends=True)
        widths(self, "latent_size", "task_encoder_sizes", "hidden_size", "encoder_sizes")
        rounds(self, "num_student_epochs")
        at_least(self, 1, "num_student_minibatches")
        positive(self, "student_learning_rate")
        not_negative(self, "final_student_learning_rate")
        if not isinstance(self.memory, (RecurrentConfig, WindowConfig)):
            raise ValueError(f"memory is {self.memory!r}; must be a RecurrentConfig or WindowConfig")

    def make_source(
        self, family: TaskFamily, train: TrainConfig, generators: Mapping[str, torch.Generator]
    ) -> VisibleTaskSource:
        """Trials in fresh tasks, which the teacher sees."""
        return VisibleTaskSource(self, family, train, generators)

    def make(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        *,
        num_iterations: int,
        generator: torch.Generator,
        task_size: int = 0,
    ) -> TeacherStudent:
        """A fresh agent; task_size: number of parameters of a task; zero: a teacher that sees none."""
        return TeacherStudent(
            self, observation_space, action_space, task_size, num_iterations=num_iterations, generator=generator
        )


TEACHER_STUDENT_ROBOT = TeacherStudentConfig(  # base settings of the robot recipes, for two cores
    teacher_fraction=0.67,
    imitates="latent",
    memory=RecurrentConfig(span=100),
    hidden_size=64,
    head_sizes=(64, 64),
    num_epochs=8,
    num_minibatches=16,
    num_student_epochs=8,
    **FEW_STEPS,
)
RMA_ROBOT = replace(TEACHER_STUDENT_ROBOT, memory=WindowConfig(), reward_input=False)  # the last 50 steps, no reward

Experience = Trajectory[Any]


@dataclass(frozen=True)
class TeacherMoments(InputMoments):
    """Running moments that normalise the networks' inputs."""

    task: Moments  # of the tasks' parameters [P]


class TeacherNetwork(nn.Module):
    """The encoder of the task with the policy and the critic that read its latent."""

    def __init__(
        self,
        config: TeacherStudentConfig,
        obs_size: int,
        task_size: int,
        action_space: spaces.Box | spaces.Discrete,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        make = {"activation": config.activation, "generator": generator}
        self.encoder = mlp((task_size, *config.task_encoder_sizes, config.latent_size), output_gain=1.0, **make)
        head_sizes = (config.latent_size + obs_size, *config.head_sizes)
        self.policy = PolicyHead(head_sizes, action_space, init_std=config.init_std, **make)
        self.critic = mlp((*head_sizes, 1), output_gain=1.0, **make)


class StudentNetwork(nn.Module):
    """The memory, and a head for what is imitated: the latent, or the policy's output with the observation as input."""

    def __init__(
        self, config: TeacherStudentConfig, obs_size: int, num_actions: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        make = {"activation": config.activation, "generator": generator}
        sizes = (obs_size + num_actions + config.reward_input + 1, *config.encoder_sizes)
        encoder = mlp(sizes, **make)
        memory: Any = config.memory.make(sizes[-1], config.hidden_size, generator=generator)
        self.memory: SequenceBelief[Any] = SequenceBelief(encoder, memory)
        if config.imitates == "latent":
            self.head = mlp((config.hidden_size, config.latent_size), output_gain=1.0, **make)
        else:
            head_sizes = (config.hidden_size + obs_size, *config.head_sizes, num_actions)
            self.head = mlp(head_sizes, output_gain=0.01, **make)


class Teacher:
    """The teacher as an agent: it acts on observations that end in the task's parameters, and has no state."""

    block: int | None = None
    training_blocks: int | None = None

    def __init__(self, agent: TeacherStudent) -> None:
        self._agent = agent

    def prior(self, num_tasks: int, copies: int = 1) -> None:
        return None

    def observe(self, state: None, action: Tensor | None, step: Step) -> None:
        return None

    def adapt(self, state: None, trajectory: Experience) -> None:
        return None

    def act(self, state: None, obs: Tensor, generator: torch.Generator | None) -> ActorCriticDecision:
        """A decision for obs [B, O + P]."""
        net, features = self._agent.teacher_net, self._agent.teacher_features(obs)
        distribution = net.policy(features)
        action = distribution.mode if generator is None else distribution.sample(generator)
        log_prob, value = distribution.log_prob(action), net.critic(features).squeeze(-1)
        return ActorCriticDecision(net.policy.to_env(action), log_prob, value)


class TeacherStudent(TrialAgent):
    """The agent, which is the student: `observe` writes to its memory, `act` reads it.

    `update` runs PPO on the teacher's trials first; then it lets the student imitate the teacher on its own trials.
    """

    def __init__(
        self,
        config: TeacherStudentConfig,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete,
        task_size: int,
        *,
        num_iterations: int,
        generator: torch.Generator,
    ) -> None:
        self.config = config
        self.obs_size = observation_space.shape[0]
        self.teacher_net = TeacherNetwork(config, self.obs_size, task_size, action_space, generator)
        self.student_net = StudentNetwork(config, self.obs_size, self.policy.num_actions, generator)
        self.teacher = Teacher(self)
        self.teacher_iterations = max(1, int(config.teacher_fraction * num_iterations))
        self.student_iterations = num_iterations - self.teacher_iterations
        self.ppo = PPO(config, self.teacher_net, self.teacher_iterations)
        self.student_optimizer = torch.optim.Adam(
            self.student_net.parameters(), lr=config.student_learning_rate, fused=True
        )
        self.student_iteration = 0
        self.moments = TeacherMoments.empty(device=generator.device, obs=self.obs_size, task=task_size)

    @property
    def policy(self) -> PolicyHead:
        """The teacher's policy, whose conversion of actions and standard deviation are the student's too."""
        return self.teacher_net.policy

    @property
    def is_teaching(self) -> bool:
        """Whether the teacher has learned: the student acts and learns."""
        return self.ppo.iteration >= self.teacher_iterations

    # --- acting: the student ----------------------------------------------------------------------------------

    def prior(self, num_tasks: int, copies: int = 1) -> SequenceState:
        return self.student_net.memory.prior(num_tasks * copies)

    def observe(self, state: SequenceState, action: Tensor | None, step: Step) -> SequenceState:
        """The memory after one more observation, without the task where it is visible."""
        return self._read(state, None if action is None else self.policy.encode(action), step)

    def _read(self, state: SequenceState, encoded: Tensor | None, step: Step) -> SequenceState:
        """The memory after a step and the encoded action [B, A] that led to it; None at a trial's start."""
        obs = self._seen(step.obs)
        if encoded is None:
            encoded = obs.new_zeros(len(obs), self.policy.num_actions)
        return self.student_net.memory.absorb(state, self._item(obs, encoded, step.reward, step.episode_end))

    def act(self, state: SequenceState, obs: Tensor, generator: torch.Generator | None) -> SampledDecision:
        """A decision for obs [B, O], the last observation read by the memory."""
        distribution = self._distribution(self._imitation(state.hidden, self._seen(obs)), self._seen(obs))
        action = distribution.mode if generator is None else distribution.sample(generator)
        return SampledDecision(self.policy.to_env(action), distribution.log_prob(action))

    def state_vectors(self, state: SequenceState) -> Tensor:
        """The student's memory [B, H]."""
        return state.hidden

    def deployed(self, num_steps: int) -> DeployedAgent:
        """The student's step: a robot has no teacher."""

        def step(state: SequenceState, inputs: StepInputs) -> tuple[Tensor, SequenceState]:
            encoded = torch.where(inputs.new_task[:, None], 0.0, self.policy.encode(inputs.action))
            state = self._read(state, encoded, inputs.step)
            return self.act(state, inputs.obs, None).action, state

        memory = self.student_net.memory.fixed_prior(1, num_steps)
        reads = ("action", *(("reward",) if self.config.reward_input else ()), "episode_end")
        return DeployedAgent(step, memory, reads, max_items=memory.max_items)

    def _imitation(self, hidden: Tensor, obs: Tensor) -> Tensor:
        """The inferred latent [..., L], or the policy's output [..., A]."""
        if self.config.imitates == "latent":
            return self.student_net.head(hidden)
        return self.student_net.head(torch.cat([hidden, obs], -1))

    def _distribution(self, imitation: Tensor, obs: Tensor) -> Categorical | DiagonalGaussian:
        if self.config.imitates == "latent":
            return self.policy(torch.cat([imitation, obs], -1))
        return self.policy.distribution(imitation)

    # --- learning ---------------------------------------------------------------------------------------------

    def update(self, trial: Sequence[Experience], generator: torch.Generator) -> dict[str, float]:
        """The teacher's or the student's update on one batch of trials, whose observations end in the task.

        Raises:
            FloatingPointError: when a parameter is no longer finite; the agent is unusable then.
        """
        (trajectory,) = trial
        update = self._update_student if self.is_teaching else self._update_teacher
        return {f"train/{name}": value for name, value in update(trajectory, generator).items()}

    def _update_teacher(self, trajectory: Experience, generator: torch.Generator) -> dict[str, float]:
        """PPO on whole trials in which the teacher acted."""
        self._see_returns(trajectory)
        decision = trajectory.decision

        def evaluate(rows: Tensor) -> Evaluated:
            features = self.teacher_features(trajectory.obs.index_select(1, rows))
            distribution = self.policy(features)
            log_prob = distribution.log_prob(self.policy.from_env(decision.action.index_select(1, rows)))
            return Evaluated(log_prob, self.teacher_net.critic(features).squeeze(-1), distribution.entropy())

        metrics = self._update_head(self.policy, trajectory, evaluate, generator)
        obs, task = trajectory.obs.tensor_split([self.obs_size], -1)
        self.moments = self.moments.with_steps(replace(trajectory, obs=obs), task=task)  # at the end, as in RL2
        return metrics

    def _update_student(self, trajectory: Experience, generator: torch.Generator) -> dict[str, float]:
        """Gradient steps towards what the teacher would do in the student's own trials."""
        config, valid = self.config, trajectory.valid
        obs, items, target = self._seen(trajectory.obs), self._items(trajectory), self._target(trajectory.obs)
        learning_rate = self._student_learning_rate()
        losses: list[Tensor] = []
        epochs, count = config.num_student_epochs, config.num_student_minibatches
        for rows, weight in minibatches(valid, epochs, count, generator):
            loss = obs.new_zeros(()).requires_grad_()  # where all rows of the minibatch are other processes'
            if len(rows):
                error = self._student_error(*(value.index_select(1, rows) for value in (items, obs, target)))
                loss = mean_where(error, valid[:, rows]) * (1.0 if weight is None else weight)
            gradient_step(self.student_optimizer, loss, max_norm=config.max_grad_norm, learning_rate=learning_rate)
            losses.append(loss.detach())
        self.student_iteration += 1
        mean_loss = total(torch.stack(losses).mean())
        return {"student_loss": float(mean_loss), "student_learning_rate": learning_rate}

    def task_gradients(self, trial: Sequence[Experience], num_tasks: int, generator: torch.Generator) -> Tensor:
        """The gradients of the student's imitation of the teacher, as that now is: [num_tasks, P].

        Observations end in the task, as for `update`.
        """
        (trajectory,) = trial
        obs, items, target = self._seen(trajectory.obs), self._items(trajectory), self._target(trajectory.obs)
        valid, parameters, gradients = trajectory.valid, list(self.student_net.parameters()), []
        for rows in torch.arange(valid.shape[1], device=valid.device).chunk(num_tasks):
            error = self._student_error(*(value.index_select(1, rows) for value in (items, obs, target)))
            gradients.append(flat_gradient(mean_where(error, valid[:, rows]), parameters))
        return torch.stack(gradients)

    def _student_error(self, items: Tensor, obs: Tensor, target: Tensor) -> Tensor:
        """What the student, which reads items [T, B, item], misses of its target at each step: [T, B]."""
        hidden = self.student_net.memory.unroll(self.student_net.memory.prior(items.shape[1]), items)
        return self._error(self._imitation(hidden, obs), target)

    @torch.no_grad()
    def _target(self, obs: Tensor) -> Tensor:
        """What to imitate, for obs [T, B, O + P]: the teacher's latent, or the output of its policy."""
        features = self.teacher_features(obs)
        if self.config.imitates == "latent":
            return features[..., : self.config.latent_size]
        return self.policy.net(features)

    def _error(self, imitation: Tensor, target: Tensor) -> Tensor:
        """The squared error [...], or the divergence of discrete choices from the teacher's."""
        if self.config.imitates == "action" and self.policy.is_discrete:
            return Categorical(target).kl(Categorical(imitation))
        return (imitation - target).square().mean(-1)

    def _student_learning_rate(self) -> float:
        """The rate, which goes linearly from the first to the final one over the student's iterations."""
        start, end = self.config.student_learning_rate, self.config.final_student_learning_rate
        return start + (end - start) * min(self.student_iteration / max(self.student_iterations - 1, 1), 1.0)

    # --- inputs -----------------------------------------------------------------------------------------------

    def teacher_features(self, obs: Tensor) -> Tensor:
        """The inputs of the teacher's heads, latent and observation [..., L + O], from obs [..., O + P]."""
        latent = self.teacher_net.encoder(self.moments.task.standardise(obs[..., self.obs_size :]))
        return torch.cat([latent, self._seen(obs)], -1)

    def _seen(self, obs: Tensor) -> Tensor:
        """What the student sees of observations [..., O] or, with the task, [..., O + P]: normalised, [..., O]."""
        return self._normalised_obs(obs[..., : self.obs_size])

    def _items(self, trajectory: Experience) -> Tensor:
        """The memory's inputs at each step [T, B, item]."""
        action = self.policy.encode(trajectory.decision.action)
        before = (one_later(value) for value in (action, trajectory.reward, trajectory.episode_end))
        return self._item(self._seen(trajectory.obs), *before)

    def _item(self, obs: Tensor, action: Tensor, reward: Tensor, episode_end: Tensor) -> Tensor:
        scaled = self._scaled_reward(reward) if self.config.reward_input else None
        return memory_item(obs, action, scaled, episode_end)

    # --- saving -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "teacher": self.teacher_net.state_dict(),
            "student": self.student_net.state_dict(),
            "student_optimizer": self.student_optimizer.state_dict(),
            "student_iteration": self.student_iteration,
            **super().state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.teacher_net.load_state_dict(state["teacher"])
        self.student_net.load_state_dict(state["student"])
        load_adam(self.student_optimizer, state["student_optimizer"])
        self.student_iteration = state["student_iteration"]
        super().load_state_dict(state)
