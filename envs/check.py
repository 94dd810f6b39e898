"""The laws that every task family must satisfy, as one function to call on your own family: `check_family(family)`.

It samples tasks, steps small batches for about two episodes and raises on the first violated law. Laws that compare two
runs are checked bit for bit; those that apply only without randomness (a frozen row continues unchanged, episodes are
independent) are checked on families that turn out to be deterministic.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NoReturn, get_args

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.utils import _pytree as pytree

from metarl.protocols import Split, TaskFamily, VectorEnv
from metarl.records import Record, Step, cat, stack

MAX_STEPS = 1000  # limit of one rollout; longer episodes are not followed to their second time limit


def check_family(
    family: TaskFamily, *, num_tasks: int = 3, copies: int = 2, seed: int = 0, device: torch.device | str = "cpu"
) -> None:
    """Check all laws on `num_tasks` tasks with `copies` rows each, on one device.

    A family may have a method `in_training_range(tasks) -> Tensor` [N] bool; if so, tasks of the split "ood" must lie
    outside and all others inside.

    Raises:
        AssertionError: for the first violated law; the message names the family, the law and the finding.
        ValueError: when `num_tasks` or `copies` is below 2, because most laws concern more than one row.
    """
    for argument, value in (("num_tasks", num_tasks), ("copies", copies)):
        if value < 2:
            raise ValueError(f"{argument} is {value}; must be at least 2")
    check = _Check(family, num_tasks, copies, seed, torch.device(device))
    global_randomness = _global_randomness()
    check.declarations()
    check.sampling()
    check.training_range()
    check.reset()
    check.rollouts()
    check.every_split_runs()
    check.copies_are_contiguous()
    check.tasks_are_isolated()
    check.actions_are_clipped()
    check.bounds()
    if _global_randomness() != global_randomness:
        check.fail("randomness", "sampling or stepping has advanced a global random number generator")


@dataclass(frozen=True)
class _Rollout:
    """A few episodes of B rows."""

    first: Step  # [B]
    steps: Step  # [T, B]
    active: Tensor  # [T, B] bool
    elapsed: Tensor  # [T, B] int64: steps taken in the episode before this one


@dataclass(frozen=True)
class _Check:
    """The family under test and the size of the test."""

    family: TaskFamily
    num_tasks: int
    num_copies: int
    seed: int
    device: torch.device

    def fail(self, law: str, finding: str) -> NoReturn:
        raise AssertionError(f"{self.family.name}: {law}: {finding}")

    def require(self, condition: Any, law: str, finding: str) -> None:
        if not bool(condition):
            self.fail(law, finding)

    def generator(self, offset: int = 0) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(self.seed + offset)

    def tasks(self, offset: int = 0) -> Record:
        return self.family.sample(self.num_tasks, "train", self.generator(offset))

    @property
    def num_rows(self) -> int:
        return self.num_tasks * self.num_copies

    # What the family says about itself

    def declarations(self) -> None:
        family = self.family
        for field in ("horizon", "num_episodes"):
            value = getattr(family, field)
            self.require(isinstance(value, int) and value >= 1, field, f"is {value!r}, not an integer from 1")
        observation_space, action_space = family.observation_space, family.action_space
        flat = isinstance(observation_space, spaces.Box) and len(observation_space.shape) == 1
        self.require(flat and observation_space.dtype == np.float32, "observation_space", "is not a flat float32 Box")
        if not isinstance(action_space, spaces.Discrete):
            flat = isinstance(action_space, spaces.Box) and len(action_space.shape) == 1
            self.require(flat, "action_space", "is neither Discrete nor a flat Box")

    def sampling(self) -> None:
        for split in get_args(Split):
            tasks = self._sample_if_declared(split)
            if tasks is None:
                self.require(split != "train", "splits", "the split 'train' raises ValueError: it must exist")
                continue
            law = f"sample(split={split!r})"
            self.require(isinstance(tasks, Record), law, f"gives {type(tasks).__name__}, not a Record")
            for name, value in _named_tensors(tasks):
                self.require(value.shape[:1] == (64,), law, f"64 tasks have {name} of shape {tuple(value.shape)}")
                self.require(value.device.type == self.device.type, law, f"{name} is on {value.device}")
                self.require(value.isfinite().all(), law, f"{name} is not finite")
            again = self.family.sample(64, split, self.generator())
            self.require(_same(tasks, again), law, "the same seed gives other tasks")
            other = self.family.sample(64, split, self.generator(1))
            self.require(not _same(tasks, other), law, "another seed gives the same 64 tasks")
        try:
            self.family.sample(2, "no_such_split", self.generator())  # pyright: ignore[reportArgumentType]
        except ValueError:
            return
        self.fail("splits", "sampling the split 'no_such_split' raises no ValueError")

    def training_range(self) -> None:
        in_training_range: Callable[[Record], Tensor] | None = getattr(self.family, "in_training_range", None)
        if in_training_range is None:
            return
        for split in get_args(Split):
            tasks = self._sample_if_declared(split)
            if tasks is None:
                continue
            inside = in_training_range(tasks)
            law = f"in_training_range of split {split!r}"
            self.require(inside.shape == (64,) and inside.dtype == torch.bool, law, "is not a bool for each task")
            wrong = int((inside if split == "ood" else ~inside).sum())
            place = "inside" if split == "ood" else "outside"
            self.require(wrong == 0, law, f"{wrong} of 64 tasks lie {place} the training range")

    def bounds(self) -> None:
        tasks = self.tasks()
        for name, values in self.family.bounds(tasks, 3).items():
            law = f"bounds[{name!r}]"
            known = torch.as_tensor(values)
            self.require(len(known) == 3, law, f"has {len(known)} entries for 3 episodes")
            per_task = known.ndim == 1 or known.shape[1:] == (len(tasks),)
            self.require(per_task, law, f"has shape {list(known.shape)}; must be [3, {len(tasks)}], or [3] for means")
            finite = known.is_floating_point() and bool(known.isfinite().all())
            self.require(finite, law, f"{values} are not all finite floats")

    # What its environment does

    def reset(self) -> None:
        env = self._env()
        tasks = self.tasks()
        self.require(isinstance(env, VectorEnv), "make_env", "gives no VectorEnv")
        self.require(env.num_rows == self.num_rows, "num_rows", f"is {env.num_rows} where {self.num_rows} were asked")
        step = env.reset(tasks)
        self._check_step(step, "reset")
        self.require(torch.equal(step.obs, step.next_obs), "reset", "obs and next_obs differ")
        self.require(not step.reward.any(), "reset", "the reward is not zero")
        self.require(not step.episode_end.any(), "reset", "an episode has ended")
        try:
            self.family.make_env(self.num_rows + 1, self.generator()).reset(tasks)
        except ValueError:
            return
        self.fail("reset", f"{self.num_rows + 1} rows for {self.num_tasks} tasks raise no ValueError")

    def rollouts(self) -> None:
        tasks = self.tasks()
        plain = self._rollout(tasks)
        self._check_ends(plain)
        self.require(_same(plain.steps, self._rollout(tasks).steps), "seeding", "the same seed gives another rollout")
        other = self._rollout(tasks, seed_offset=1)
        fixed_start = torch.equal(plain.first.obs, other.first.obs)
        self._check_starts(plain, fixed_start)
        staggered = self._rollout(tasks, staggered=True)
        self._check_frozen(staggered)
        self._check_ends(staggered)
        if fixed_start and _same(plain.steps, other.steps):
            self._check_replay(plain, plain, "autoreset", "an episode depends on the one before it")
            self._check_replay(plain, staggered, "active", "a row goes on differently after it was not active")

    def every_split_runs(self) -> None:
        for split in get_args(Split):
            tasks = self._sample_if_declared(split)
            if tasks is not None:
                self._rollout(tasks[: self.num_tasks], num_steps=5)  # which checks every step

    def copies_are_contiguous(self) -> None:
        tasks = self.tasks()
        num_steps = min(self.family.horizon, 10)
        ours = self._rollout(tasks, num_steps=num_steps).steps
        spelt_out = self._rollout(tasks.repeat_interleave(self.num_copies), num_steps=num_steps).steps
        self.require(_same(ours, spelt_out), "reset", "the copies of a task are not in contiguous rows")

    def tasks_are_isolated(self) -> None:
        tasks, other = self.tasks(), self.tasks(1)
        mixed = cat([tasks[:1], other[1:]])
        ours, theirs = self._rollout(tasks).steps, self._rollout(mixed).steps
        # Once an episode of other rows ends at a different time, the generator's numbers differ.
        parted = (ours.episode_end != theirs.episode_end).any(1).long()
        num_steps = int(parted.argmax()) if parted.any() else len(ours)
        first = (slice(0, num_steps), slice(0, self.num_copies))
        same = _same(ours.map(lambda value: value[first]), theirs.map(lambda value: value[first]))
        self.require(same, "isolation", "rows of one task change with the tasks of other rows")

    def actions_are_clipped(self) -> None:
        space = self.family.action_space
        if not isinstance(space, spaces.Box):
            return
        limit = torch.as_tensor(space.high, device=self.device).expand(self.num_rows, -1)
        if not limit.isfinite().all():
            return
        steps = []
        for action in (limit, limit + 1):
            env = self._env()
            env.reset(self.tasks())
            steps.append(env.step(action.clone()))
        self.require(_same(*steps), "clipping", "an action outside the Box is not taken as the nearest inside")

    # The parts of these laws

    def _sample_if_declared(self, split: Split) -> Record | None:
        try:
            return self.family.sample(64, split, self.generator())
        except ValueError:
            return None

    def _env(self, seed_offset: int = 0) -> VectorEnv:
        return self.family.make_env(self.num_rows, self.generator(100 + seed_offset))

    def _actions(self, num_steps: int) -> Tensor:
        """Random actions [T, B] or [T, B, A]."""
        generator, space = self.generator(200), self.family.action_space
        shape = (num_steps, self.num_rows)
        if isinstance(space, spaces.Discrete):
            return torch.randint(int(space.n), shape, generator=generator, device=self.device)
        uniform = torch.rand(*shape, *space.shape, generator=generator, device=self.device)
        low, high = (torch.as_tensor(limit, device=self.device).clamp(-1e3, 1e3) for limit in (space.low, space.high))
        return low + (high - low) * uniform

    def _rollout(
        self, tasks: Record, staggered: bool = False, seed_offset: int = 0, num_steps: int | None = None
    ) -> _Rollout:
        """Slightly more than two episodes, with the same actions in each; staggered: rows pause at random."""
        env, horizon = self._env(seed_offset), self.family.horizon
        num_steps = num_steps or min(2 * horizon + 3, MAX_STEPS)
        actions, rows = self._actions(min(horizon, MAX_STEPS)), torch.arange(self.num_rows, device=self.device)
        pauses = torch.rand(num_steps, self.num_rows, generator=self.generator(300), device=self.device) < 0.25
        elapsed = torch.zeros_like(rows)
        first = env.reset(tasks)
        kept, copied, actives, counts = [first], [first.map(torch.clone)], [], []
        for index in range(num_steps):
            active = ~pauses[index] if staggered else torch.ones_like(pauses[index])
            # A family that exceeds its time limit should be reported by a law, not by an index error.
            action = actions[elapsed.clamp(max=len(actions) - 1), rows]
            step = env.step(action, active if staggered else None)
            self._check_step(step, f"step {index}")
            kept.append(step)
            copied.append(step.map(torch.clone))
            actives.append(active)
            counts.append(elapsed)
            elapsed = (elapsed + active.long()).masked_fill(step.episode_end, 0)
        unchanged = all(map(_same, kept, copied))
        self.require(unchanged, "step", "tensors that were returned earlier have changed since")
        return _Rollout(first, stack(kept[1:]), torch.stack(actives), torch.stack(counts))

    def _check_step(self, step: Step, moment: str) -> None:
        space = self.family.observation_space
        vector, matrix = (self.num_rows,), (self.num_rows, *space.shape)
        expected = {
            "obs": (matrix, torch.float32),
            "next_obs": (matrix, torch.float32),
            "reward": (vector, torch.float32),
            "terminated": (vector, torch.bool),
            "truncated": (vector, torch.bool),
        }
        if size := getattr(self.family, "privileged_size", 0):
            self.require(step.privileged is not None, moment, "there are no privileged observations")
            expected["privileged"] = ((self.num_rows, size), torch.float32)
        for name, (shape, dtype) in expected.items():
            value = getattr(step, name)
            found = f"{name} is {value.dtype} of shape {tuple(value.shape)} on {value.device}"
            right = value.shape == shape and value.dtype == dtype and value.device.type == self.device.type
            self.require(right, moment, f"{found}, not {dtype} of shape {shape} on {self.device}")
            self.require(value.isfinite().all(), moment, f"{name} is not finite")
        low, high = (torch.as_tensor(limit, device=self.device) for limit in (space.low, space.high))
        for obs in (step.obs, step.next_obs):
            inside = ((obs >= low) & (obs <= high)).all()
            self.require(inside, moment, "an observation is outside observation_space")

    def _check_ends(self, rollout: _Rollout) -> None:
        steps, horizon = rollout.steps, self.family.horizon
        at_limit = rollout.active & (rollout.elapsed + 1 >= horizon)
        late = at_limit & ~steps.episode_end
        self.require(not late.any(), "horizon", f"an episode goes on after {horizon} steps")
        early = steps.truncated & ~at_limit
        self.require(not early.any(), "horizon", f"an episode is truncated before {horizon} steps")
        differs = (steps.obs != steps.next_obs).any(-1) & ~steps.episode_end
        self.require(not differs.any(), "autoreset", "obs and next_obs differ though no episode has ended")

    def _check_starts(self, rollout: _Rollout, fixed_start: bool) -> None:
        steps, ended = rollout.steps, rollout.steps.episode_end
        if fixed_start:
            start = rollout.first.obs.expand_as(steps.obs)
            right = torch.equal(steps.obs[ended], start[ended])
            self.require(right, "autoreset", "obs after the end of an episode is not that of a reset")
        elif ended.any():
            moved = (steps.obs != steps.next_obs).any(-1)
            self.require(moved[ended].any(), "autoreset", "obs is never that of a new episode after an end")

    def _check_frozen(self, rollout: _Rollout) -> None:
        steps, frozen = rollout.steps, ~rollout.active
        before = torch.cat([rollout.first.obs[None], steps.obs[:-1]])
        same = torch.equal(steps.obs[frozen], before[frozen]) and torch.equal(steps.next_obs[frozen], before[frozen])
        self.require(same, "active", "a row that is not active changes its observation")
        self.require(not steps.reward[frozen].any(), "active", "a row that is not active has a reward")
        self.require(not steps.episode_end[frozen].any(), "active", "a row that is not active ends an episode")

    def _check_replay(self, reference: _Rollout, rollout: _Rollout, law: str, finding: str) -> None:
        """Without randomness, the result of a step depends only on its index in the episode, because actions repeat."""
        length = min(self.family.horizon, len(reference.steps))
        episode = reference.steps[:length]
        rows = torch.arange(self.num_rows, device=self.device).expand_as(rollout.elapsed)
        index = (rollout.elapsed.clamp(max=length - 1), rows)
        active = rollout.active
        for name in ("next_obs", "reward", "terminated", "truncated"):
            expected, found = getattr(episode, name)[index], getattr(rollout.steps, name)
            self.require(_equal(found[active], expected[active]), law, f"{finding} ({name})")


def _same(a: Record, b: Record) -> bool:
    return all(map(_equal, pytree.tree_leaves(a), pytree.tree_leaves(b)))


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same, where metrics that were not measured, NaN, are alike."""
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def _named_tensors(tasks: Any) -> list[tuple[str, Tensor]]:
    named = [(field.name, leaf) for field in fields(tasks) for leaf in pytree.tree_leaves(getattr(tasks, field.name))]
    return [(name, leaf) for name, leaf in named if isinstance(leaf, Tensor)]


def _global_randomness() -> tuple[Any, ...]:
    kind, keys, *rest = np.random.get_state(legacy=True)
    return torch.get_rng_state().numpy().tobytes(), kind, np.asarray(keys).tobytes(), *rest, random.getstate()
