"""Any task family as a Stable-Baselines3 VecEnv, on top of the fast vector environment: `as_vec_env(family, tasks)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import Wrapper, spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from metarl.protocols import TaskFamily
from metarl.records import Record, Step


def as_vec_env(
    family: TaskFamily, tasks: Record, num_envs: int | None = None, *, visible: bool = False, seed: int = 0
) -> FamilyVecEnv:
    """Rows of `family` that stay in `tasks` (leading axis N, which divides `num_envs`; None: one row a task).

    visible: append the task's own numbers to the observation, which makes an oracle of the learner.

    Raises:
        ValueError: when N does not divide `num_envs`.
    """
    return FamilyVecEnv(family, tasks, len(tasks) if num_envs is None else num_envs, visible, seed)


class FamilyVecEnv(VecEnv):
    """B rows as SB3 wants them: numpy, `terminal_observation` and `TimeLimit.truncated` where an episode has ended."""

    def __init__(self, family: TaskFamily, tasks: Record, num_envs: int, visible: bool, seed: int) -> None:
        if num_envs < 1 or len(tasks) == 0 or num_envs % len(tasks):
            raise ValueError(f"num_envs is {num_envs}: allowed are multiples of the {len(tasks)} tasks")
        self.family, self.tasks, self.render_mode = family, tasks, None
        self._generator = torch.Generator().manual_seed(seed)
        self._env = family.make_env(num_envs, self._generator)
        self._visible = _numbers(tasks.repeat_interleave(num_envs // len(tasks))) if visible else None  # [B, P]
        space = family.observation_space
        if self._visible is not None:
            limit = np.full(self._visible.shape[1], np.inf, dtype=np.float32)
            space = spaces.Box(np.concatenate([space.low, -limit]), np.concatenate([space.high, limit]))
        self._action: Tensor | None = None
        super().__init__(num_envs, space, family.action_space)

    def reset(self) -> NDArray[np.float32]:
        """Start an episode in every row; seeds that `seed` has set are used once."""
        if self._seeds[0] is not None:
            self._generator.manual_seed(self._seeds[0])
        self._reset_seeds()
        self._reset_options()
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
        reports = self._reports(step)
        return self._seen(step.obs), step.reward.numpy(), step.episode_end.numpy(), reports

    def _reports(self, step: Step) -> list[dict[str, Any]]:
        reports: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        rows = step.episode_end.nonzero().flatten().tolist()
        last = self._seen(step.next_obs) if rows else None
        for row in rows:
            reports[row]["TimeLimit.truncated"] = bool(step.truncated[row] & ~step.terminated[row])
            reports[row]["terminal_observation"] = None if last is None else last[row]
        return reports

    def _seen(self, obs: Tensor) -> NDArray[np.float32]:
        return (obs if self._visible is None else torch.cat([obs, self._visible], 1)).numpy()

    def close(self) -> None:
        close = getattr(self._env, "close", None)  # of environments that hold more than memory
        if close is not None:
            close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute that all rows share, once for each of them."""
        return [getattr(self, attr_name) for _ in self._rows(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """
        Raises:
            ValueError: for some of the rows only, as they share their attributes.
        """
        if len(self._rows(indices)) != self.num_envs:
            raise ValueError(f"indices of set_attr is {indices!r}: allowed is None, as rows share their attributes")
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """A method of the family, called once for each row."""
        method = getattr(self.family, method_name)
        return [method(*method_args, **method_kwargs) for _ in self._rows(indices)]

    def env_is_wrapped(self, wrapper_class: type[Wrapper[Any, Any, Any, Any]], indices: Any = None) -> list[bool]:
        return [False for _ in self._rows(indices)]

    def _rows(self, indices: Any) -> Sequence[int]:
        return list(self._get_indices(indices))


def _numbers(tasks: Record) -> Tensor:
    """All numbers of each task, [B, P] float32."""
    values = [value for value in vars(tasks).values() if isinstance(value, Tensor)]
    return torch.cat([value.reshape(len(value), -1).float() for value in values], dim=1)
