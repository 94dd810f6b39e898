"""Any task family as a Stable-Baselines3 VecEnv, on top of the fast vector environment: `as_vec_env(family, tasks)`.

SB3 has no notion of tasks: it resets an environment once, when `learn` begins, and rows that end an episode start the
next one in the same task. Tasks therefore change only when `reset` is called, which is at each call of `learn` without
`reset_num_timesteps=False`; or, with `fresh=True`, at the end of every episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import Wrapper, spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor
from torch.utils._pytree import tree_map

from envs.bridges.gymnasium_env import metrics_by_name
from envs.rows import close
from metarl.protocols import Restarts, Split, TaskFamily
from metarl.records import Record, Step, task_numbers


def as_vec_env(
    family: TaskFamily,
    tasks: Record | int,
    num_envs: int | None = None,
    *,
    split: Split | None = None,
    visible: bool = False,
    fresh: bool = False,
    seed: int = 0,
) -> FamilyVecEnv:
    """Rows of `family` in N tasks, B / N contiguous rows each; N divides `num_envs` (None: one row per task).

    tasks: a record of the family's tasks with leading axis N, which the rows keep permanently; or N itself, for N tasks
        sampled from `split` (default "train") at every `reset` and kept until the next.
    visible: append the task's parameters to the observation, which makes the learner an oracle.
    fresh: sample a new task from `split` for each row whose episode ends; needs as many tasks as rows.
    seed: seed of all randomness, including tasks, until `FamilyVecEnv.seed` sets another.

    Raises:
        ValueError: when N does not divide `num_envs`, `split` is not one of the family's or comes with given tasks;
            when `fresh` does, or comes with fewer tasks than rows, or with a family whose rows only change together.
    """
    if isinstance(tasks, Record) and split is not None:
        raise ValueError(f"split is {split!r}; must be None, because the tasks are given")
    num_tasks = len(tasks) if isinstance(tasks, Record) else tasks
    num_envs = num_tasks if num_envs is None else num_envs
    if fresh and (isinstance(tasks, Record) or num_envs != num_tasks):
        raise ValueError("fresh is True; tasks must then be a number, one per row")
    return FamilyVecEnv(family, tasks, num_envs, split or "train", visible, fresh, seed)


class FamilyVecEnv(VecEnv):
    """B rows in SB3's format: numpy, with `terminal_observation` and `TimeLimit.truncated` at the end of an episode.

    `tasks` holds the current tasks, [N].
    """

    def __init__(
        self,
        family: TaskFamily,
        tasks: Record | int,
        num_envs: int,
        split: Split,
        visible: bool,
        fresh: bool,
        seed: int,
    ) -> None:
        num_tasks = len(tasks) if isinstance(tasks, Record) else tasks
        if num_tasks < 1:
            raise ValueError(f"tasks is {num_tasks}; must be at least 1")
        if num_envs < 1 or num_envs % num_tasks:
            raise ValueError(f"num_envs is {num_envs}; must be a multiple of the {num_tasks} tasks")
        self.family, self.render_mode = family, None
        self._generator = torch.Generator().manual_seed(seed)
        self._split: Split | None = None if isinstance(tasks, Record) else split  # split to sample from at each reset
        # Sampled here too, to report a wrong split at once and to know the size of the visible task.
        self.tasks = tasks if isinstance(tasks, Record) else family.sample(num_tasks, split, self._generator)
        self._env: Any = family.make_env(num_envs, self._generator)  # a `VectorEnv`
        self._restarts: Restarts | None = None
        if fresh:
            if not isinstance(self._env, Restarts):
                raise ValueError(f"fresh is True; must be False, because rows of {family.name} change tasks together")
            self._restarts = self._env
        self._visible = task_numbers(self.tasks, num_envs) if visible else None  # [B, P]
        space = family.observation_space
        if self._visible is not None:
            limit = np.full(self._visible.shape[1], np.inf, dtype=np.float32)
            space = spaces.Box(np.concatenate([space.low, -limit]), np.concatenate([space.high, limit]))
        self._action: Tensor | None = None
        super().__init__(num_envs, space, family.action_space)

    def reset(self) -> NDArray[np.float32]:
        """Sample the tasks, if they were not given, and start an episode in every row.

        The seed set by `seed` is used once; of a list of seeds only the first counts, because rows share a generator.
        """
        if self._seeds[0] is not None:
            self._generator.manual_seed(self._seeds[0])
        self._reset_seeds()
        self._reset_options()
        if self._split is not None:
            self.tasks = self.family.sample(len(self.tasks), self._split, self._generator)
        if self._visible is not None:
            self._visible = task_numbers(self.tasks, self.num_envs)
        step = self._env.reset(self.tasks)
        self.reset_infos = [{} for _ in range(self.num_envs)]
        return self._seen(step.obs)

    def step_async(self, actions: NDArray[Any]) -> None:
        dtype = torch.int64 if isinstance(self.action_space, spaces.Discrete) else torch.float32
        self._action = torch.as_tensor(actions).to(dtype)

    def step_wait(self) -> Any:
        if self._action is None:
            raise RuntimeError("step_wait was called before step_async")
        step, self._action = self._env.step(self._action), None
        reports, obs = self._reports(step), step.obs
        if self._restarts is not None and bool(step.episode_end.any()):
            obs = self._draw_again(self._restarts, step.episode_end)
        return self._seen(obs), step.reward.numpy(), step.episode_end.numpy(), reports

    def _draw_again(self, env: Restarts, rows: Tensor) -> Tensor:
        """Start episodes in fresh tasks for `rows` [B] (bool); returns the observations to act on, [B, O]."""
        assert self._split is not None
        drawn = self.family.sample(int(rows.sum()), self._split, self._generator)

        def put(old: Any, new: Any) -> Any:
            return old.index_put((rows,), new) if isinstance(old, Tensor) else old

        self.tasks = tree_map(put, self.tasks, drawn)
        if self._visible is not None:
            self._visible = task_numbers(self.tasks, self.num_envs)
        return env.restart(self.tasks, rows)

    def _reports(self, step: Step) -> list[dict[str, Any]]:
        metrics = metrics_by_name(self._env, step)
        reports: list[dict[str, Any]] = [
            {name: float(value[row]) for name, value in metrics.items() if not np.isnan(value[row])}
            | {"TimeLimit.truncated": False}
            for row in range(self.num_envs)
        ]
        rows = step.episode_end.nonzero().flatten().tolist()
        last = self._seen(step.next_obs) if rows else None
        for row in rows:
            reports[row]["TimeLimit.truncated"] = bool(step.truncated[row] & ~step.terminated[row])
            reports[row]["terminal_observation"] = None if last is None else last[row]
        return reports

    def _seen(self, obs: Tensor) -> NDArray[np.float32]:
        return (obs if self._visible is None else torch.cat([obs, self._visible], 1)).numpy()

    def close(self) -> None:
        close(self._env)

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of this environment or of the family, shared by all rows, repeated once per row.

        Raises:
            AttributeError: when neither has it.
        """
        value = getattr(self if hasattr(self, attr_name) else self.family, attr_name)
        return [value for _ in self._rows(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of this environment, for all rows.

        Raises:
            ValueError: for a subset of the rows, because they share their attributes.
        """
        if len(self._rows(indices)) != self.num_envs:
            raise ValueError(f"indices is {indices!r}; must be None, because rows share their attributes")
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of the family once per row."""
        method = getattr(self.family, method_name)
        return [method(*method_args, **method_kwargs) for _ in self._rows(indices)]

    def env_is_wrapped(self, wrapper_class: type[Wrapper[Any, Any, Any, Any]], indices: Any = None) -> list[bool]:
        return [False for _ in self._rows(indices)]

    def _rows(self, indices: Any) -> Sequence[int]:
        return list(self._get_indices(indices))
