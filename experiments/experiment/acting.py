"""A trained agent in the user's own loop, and a trained few-shot learner on the user's own examples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.errors import UserError
from metarl.fewshot.episode import FewShotEpisode
from metarl.fewshot.problem import Classification
from metarl.protocols import Agent, PosteriorSampling
from metarl.records import Decision, Examples, Step, Trajectory, stack
from metarl.trainer import Trainer


class _Transition(NamedTuple):
    """A step of all rows, as the user reported it."""

    obs: Tensor  # [B, O]
    decision: Decision
    reward: Tensor  # [B]
    next_obs: Tensor  # [B, O] what the action led to
    terminated: Tensor  # [B] bool
    truncated: Tensor  # [B] bool


class ActingAgent:
    """An agent that acts and adapts in environments that the user steps.

        agent.reset(num_envs=8)  # leave the number out for a single environment, whose arrays have no leading axis
        action = agent.act(obs)
        agent.observe(next_obs, action, reward, terminated, truncated)

    `observe` takes the result of the action: at the end of an episode, that is its last observation, and the next `act`
    gets the first one of the next episode. Each environment has one task; `new_task` forgets what was learned about it.
    Numpy arrays in give numpy arrays out, and tensors give tensors. Continuous actions are not clipped; clip them if
    the environment does not.

    An agent that adapts after blocks of episodes does so automatically once every environment has run its episodes;
    further episodes of environments that finished earlier are not part of the block.
    """

    def __init__(self, trainer: Trainer, *, deterministic: bool = False, seed: int = 0) -> None:
        """deterministic: act by the policy's mode. seed: seed of all randomness in acting."""
        self.agent: Agent[Any, Any] = trainer.agent
        self.observation_space: spaces.Box = trainer.family.observation_space
        self.action_space: spaces.Box | spaces.Discrete = trainer.family.action_space
        self.device = torch.device(trainer.device)
        self.deterministic = deterministic
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.reset()

    def reset(self, num_envs: int | None = None, *, envs_per_task: int = 1) -> None:
        """Start from the prior, in one environment or in `num_envs` of them.

        envs_per_task: the number of neighbouring environments that have the same task and share the adaptation, for
        agents that adapt after blocks of episodes.

        Raises:
            UserError: when the numbers do not divide.
        """
        rows = 1 if num_envs is None else num_envs
        if rows < 1 or envs_per_task < 1 or rows % envs_per_task:
            raise UserError(f"num_envs is {num_envs} and envs_per_task {envs_per_task}; the former must be a multiple")
        if self.agent.block is not None and self.agent.block % envs_per_task:
            raise UserError(f"envs_per_task is {envs_per_task}; must divide the block of {self.agent.block} episodes")
        self._num_envs, self._rows, self._envs_per_task = num_envs, rows, envs_per_task
        self.new_task()

    def new_task(self) -> None:
        """Forget everything about the current task, or tasks; the next `act` gets a first observation."""
        self._block_state = self._state = self.agent.prior(self._rows // self._envs_per_task, self._envs_per_task)
        self.num_adaptations = 0  # blocks absorbed so far in this task
        self._begin_block()
        self._acted: tuple[Tensor, Decision] | None = None
        self._pending: _Transition | None = None

    def act(self, obs: Any, *, deterministic: bool | None = None) -> Any:
        """The action for an observation [O], or one per environment [B, O]; deterministic: None for the default.

        An agent that acts on a sample of its posterior takes the posterior's mean in an episode whose first action is
        deterministic.

        Raises:
            UserError: when the observation has another shape than the agent's.
        """
        rows = self._tensor(obs, "obs", self.observation_space.shape, torch.float32)
        with torch.no_grad():
            plain = self.deterministic if deterministic is None else deterministic
            generator = None if plain else self.generator
            self._absorb(rows, generator)
            decision = self.agent.act(self._state, rows, generator)
        self._acted = (rows, decision)
        action = decision.action if self._num_envs is not None else decision.action[0]
        return action if isinstance(obs, Tensor) else action.cpu().numpy()[()]

    def observe(self, obs: Any, action: Any, reward: Any, terminated: Any, truncated: Any) -> None:
        """Report the result of `action`; the agent absorbs it at the next `act`, once the next observation is known.

        Raises:
            UserError: when `act` was not called before, or something has another shape than the agent's.
        """
        if self._acted is None:
            raise UserError("observe was called without a call of act before it")
        acted_on, decision = self._acted
        like = decision.action
        taken = self._tensor(action, "action", tuple(like.shape[1:]), like.dtype)
        self._pending = _Transition(
            acted_on,
            replace(decision, action=taken),
            self._tensor(reward, "reward", (), torch.float32),
            self._tensor(obs, "obs", self.observation_space.shape, torch.float32),
            self._tensor(terminated, "terminated", (), torch.bool),
            self._tensor(truncated, "truncated", (), torch.bool),
        )
        self._acted = None

    def _tensor(self, value: Any, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A copy [B, ...] of the user's value."""
        given = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
        wanted = shape if self._num_envs is None else (self._num_envs, *shape)
        if tuple(given.shape) != wanted:
            raise UserError(f"{name} has shape {list(given.shape)}; must be {list(wanted)}")
        copied = torch.empty(given.shape, dtype=dtype, device=self.device).copy_(given)
        return copied.unsqueeze(0) if self._num_envs is None else copied

    # --- learning from what was reported -----------------------------------------------------------------------

    def _absorb(self, obs: Tensor, generator: torch.Generator | None) -> None:
        """Take in the step that was reported last, now that what is acted on after it is known.

        generator: for the posterior samples of episodes that start; None: the posterior's mean.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            reported = (pending.next_obs, pending.reward, pending.terminated, pending.truncated)
            step = Step(obs, *reported)
            self._state = self.agent.observe(self._state, pending.decision.action, step)
            self._remember(pending, step.episode_end)
            if self._block_is_complete:
                trajectory = self._trajectory()
                self._block_state = self._state = self.agent.adapt(self._block_state, trajectory)
                self.num_adaptations += 1
                self._begin_block(starting=step.episode_end)
            else:
                self._draw(step.episode_end, generator)
                return
        elif self._has_begun:
            return
        zeros = obs.new_zeros(self._rows)
        first = Step(obs, obs, zeros, zeros.bool(), zeros.bool())
        self._state = self.agent.observe(self._state, None, first)
        self._draw(torch.ones_like(first.terminated), generator)
        self._has_begun = True

    def _draw(self, episode_start: Tensor, generator: torch.Generator | None) -> None:
        """A new posterior sample where an episode starts, for agents that act on one."""
        if isinstance(self.agent, PosteriorSampling) and bool(episode_start.any()):
            self._state = self.agent.resample_latent(self._state, episode_start, generator)

    def _begin_block(self, starting: Tensor | None = None) -> None:
        """starting: [B] where an episode begins now; elsewhere the block begins with the next one. None: everywhere."""
        self._has_begun = False
        self._steps: list[tuple[_Transition, Tensor, Tensor]] = []  # with what counts, and where episodes start
        everywhere = torch.ones(self._rows, dtype=torch.bool, device=self.device)
        self._starting = everywhere if starting is None else starting
        self._inside = self._starting.clone()  # [B] whether the episode under way belongs to the block
        block = self.agent.block
        self._episodes_left = everywhere.long() * (0 if block is None else block // self._envs_per_task)

    def _remember(self, transition: _Transition, episode_end: Tensor) -> None:
        if self.agent.block is None:
            return
        self._steps.append((transition, self._inside, self._starting & self._inside))
        self._episodes_left = self._episodes_left - (episode_end & self._inside).long()
        self._starting = episode_end
        self._inside = (self._inside | episode_end) & (self._episodes_left > 0)

    @property
    def _block_is_complete(self) -> bool:
        return self.agent.block is not None and bool((self._episodes_left == 0).all())

    def _trajectory(self) -> Trajectory[Any]:
        """The block's steps: each row's own from index 0 on, then padding that is not valid."""
        transitions = [transition for transition, _, _ in self._steps]
        counted = torch.stack([inside for _, inside, _ in self._steps])  # [T, B]
        order = torch.argsort((~counted).to(torch.int8), dim=0, stable=True)[: int(counted.sum(0).max())]
        columns = torch.arange(self._rows, device=self.device).expand_as(order)

        def taken(values: Tensor) -> Tensor:  # [T, B, ...]
            return values[order, columns]

        valid = taken(counted)
        trial_start = torch.zeros_like(valid)
        trial_start[0] = True
        return Trajectory(
            obs=taken(torch.stack([step.obs for step in transitions])),
            decision=stack([step.decision for step in transitions]).map(taken),
            reward=taken(torch.stack([step.reward for step in transitions])),
            next_obs=taken(torch.stack([step.next_obs for step in transitions])),
            terminated=taken(torch.stack([step.terminated for step in transitions])),
            truncated=taken(torch.stack([step.truncated for step in transitions])),
            episode_start=taken(torch.stack([start for _, _, start in self._steps])) & valid,
            trial_start=trial_start,
            valid=valid,
        )


class Predictor:
    """A few-shot learner that predicts from examples of the user's own."""

    def __init__(self, trainer: Trainer) -> None:
        self.learner: Any = trainer.agent
        self.problem = trainer.source.problem  # pyright: ignore[reportAttributeAccessIssue], of few-shot sources
        self.num_steps = trainer.num_points
        self.varies: bool = trainer.family.varies
        self.device = torch.device(trainer.device)

    def predict(self, support: tuple[Any, Any], query: Any, *, steps: int | None = None) -> Any:
        """Predictions for the inputs `query` after adapting to `support`, its inputs and its targets.

        One task has x [K, ...], y [K, out] (numbers) or [K] (classes from 0 on) and query [Q, ...]; N tasks at once
        have one more axis in front. The result [Q, out] has numbers, or a logit for each class; a tensor for a tensor
        query, otherwise a numpy array. steps: of adaptation, for learners that take steps; None for the run's number.

        Raises:
            UserError: when something has another shape than the learner's.
        """
        inputs = tuple(self.problem.input_shape)
        classes = isinstance(self.problem, Classification)
        x, asked = self._tensor(support[0], torch.float32), self._tensor(query, torch.float32)
        y = self._tensor(support[1], torch.int64 if classes else torch.float32)
        is_one = x.ndim == len(inputs) + 1
        if is_one:
            x, y, asked = x[None], y[None], asked[None]
        wanted = (*x.shape[:2], *(() if classes else (self.problem.output_size,)))
        for name, value, shape in (
            ("support x", x, (*x.shape[:2], *inputs)),
            ("support y", y, wanted),
            ("query", asked, (len(x), *asked.shape[1:2], *inputs)),
        ):
            if tuple(value.shape) != shape:
                raise UserError(f"{name} has shape {list(value.shape)[is_one:]}; must be {list(shape)[is_one:]}")
        if classes:
            x, y = _shot_after_shot(x, y)
        blank = torch.zeros((*asked.shape[:2], *y.shape[2:]), dtype=y.dtype, device=self.device)  # unknown
        episode = FewShotEpisode(Examples(x, y), Examples(asked, blank))
        try:
            result = self.learner.predictions(episode, self.points_of(y, steps))[-1].detach()
        except ValueError as error:
            raise UserError(str(error)) from error
        result = result[0] if is_one else result
        return result if isinstance(query, Tensor) else result.cpu().numpy()

    def _tensor(self, value: Any, dtype: torch.dtype) -> Tensor:
        given = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
        return given.to(self.device, dtype)

    def points_of(self, y: Tensor, steps: int | None = None) -> int:
        """The points of adaptation after which the whole support has been used."""
        if self.learner.point == "step":
            return self.num_steps if steps is None else steps
        if steps is not None:
            point = self.learner.point
            raise UserError(f"steps is {steps}; this learner takes no steps: it absorbs its support {point} by {point}")
        if self.varies:
            return 1
        ways = int(y.max()) + 1 if y.dtype == torch.int64 else 1
        return max(1, y.shape[1] // ways)


def _shot_after_shot(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The examples in the order that learners expect: one of every class, then another one of every class, ..."""
    same = y[:, :, None] == y[:, None, :]  # [N, K, K]
    rank = same.tril(-1).sum(-1)  # [N, K] earlier examples of the same class
    order = torch.argsort(rank * (int(y.max()) + 1) + y, dim=1, stable=True)
    tasks = torch.arange(len(y), device=y.device)[:, None]
    return x[tasks, order], y[tasks, order]
