"""Every task family as a Gymnasium environment: one numpy environment, or the fast vector one.

    import envs
    env = gymnasium.make("metarl/HalfCheetahVel-v0", task={"velocity": 1.5})
    many = gymnasium.make_vec("envs:metarl/HalfCheetahVel-v0", num_envs=64)

`task` is a dict with the fields of the family's task record (see `metarl list families` and the family's module).
Without it a task is sampled whenever `reset` is called, from the environment's own seeded generator;
`reset(options={"task": {...}})` sets one until the next reset. Other keywords are fields of the family, e.g.
`horizon=100`. Episodes end at the family's horizon, without a `TimeLimit` wrapper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs.catalog import make
from envs.rows import close
from metarl.protocols import Measures, Renders, Split, TaskFamily, VectorEnv
from metarl.records import Record, Step


class GymnasiumEnv(gymnasium.Env[NDArray[Any], Any]):
    """One row of a task family: observations [O] float32, actions an int or [A] float32.

    `reset` reports the task under "task". Families that render do so with `render_mode="rgb_array"`.
    """

    # Metadata of the class, for `gymnasium.make`; an instance whose family does not render declares no mode.
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012, as Gymnasium has it

    def __init__(
        self,
        family: str | TaskFamily,
        task: Mapping[str, Any] | None = None,
        split: Split = "train",
        render_mode: str | None = None,
        **variant: Any,
    ) -> None:
        """One environment of `family`: a catalog name with fields of its class, or a family instance.

        Raises:
            ValueError: for an unknown family, field, split, field of a task or render mode.
        """
        self.family = _family(family, variant)
        self.split: Split = split
        self.observation_space = self.family.observation_space
        self.action_space = self.family.action_space
        self._generator = torch.Generator()
        self._env = self.family.make_env(1, self._generator)
        self._fixed = None if task is None else _as_tasks(self.family, task)
        self._seeded, self._ended = False, True
        self._visible = self._env if isinstance(self._env, Renders) else None
        if self._visible is None:
            self.metadata = {"render_modes": []}
        else:
            self.metadata = {**self.metadata, "render_fps": round(1 / self._visible.seconds_per_step)}
        if render_mode not in (None, *self.metadata["render_modes"]):
            allowed = "None" if self._visible is None else "'rgb_array' or None"
            raise ValueError(f"render_mode is {render_mode!r}; must be {allowed} for {self.family.name}")
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode in `options["task"]`, in the task given at construction, or in a sampled one."""
        super().reset(seed=seed)
        if seed is not None or not self._seeded:
            self._generator.manual_seed(_new_seed(self.np_random))
            self._seeded = True
        tasks = _tasks_for(self.family, 1, self.split, self._fixed, options, self._generator)
        step = self._env.reset(tasks)
        self._ended = False
        return step.obs[0].numpy(), {"task": {name: value[0].numpy().copy() for name, value in vars(tasks).items()}}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """One step; after an episode's end, call `reset` first. `info` has the family's metrics of this step.

        Raises:
            gymnasium.error.ResetNeeded: after the end of an episode.
        """
        if self._ended:
            raise gymnasium.error.ResetNeeded("step was called after the episode's end: call reset first")
        step = self._env.step(_as_actions(self.action_space, np.asarray(action)[None]))
        self._ended = bool(step.episode_end[0])
        obs = step.next_obs[0].numpy()
        metrics = metrics_by_name(self._env, step)
        info = {name: float(value[0]) for name, value in metrics.items() if not np.isnan(value[0])}
        return obs, float(step.reward[0]), bool(step.terminated[0]), bool(step.truncated[0]), info

    def render(self) -> NDArray[np.uint8] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """An image [H, W, 3] uint8 of the state after the last step, with the task's target."""
        if self.render_mode is None or self._visible is None:
            gymnasium.logger.warn("render was called, but the environment was made without render_mode='rgb_array'")
            return None
        return self._visible.render()

    def close(self) -> None:
        close(self._env)


class GymnasiumVectorEnv(gymnasium.vector.VectorEnv[NDArray[Any], Any, NDArray[Any]]):
    """B rows of a task family stepped together: observations [B, O] float32, rewards [B] float64.

    An episode that ends is followed by the next one in the same task within the same call (same-step autoreset): the
    last observation is in `infos["final_obs"]`, as Gymnasium documents. Tasks, one per row, change at `reset` only.
    """

    def __init__(
        self,
        family: str | TaskFamily,
        num_envs: int = 1,
        task: Mapping[str, Any] | None = None,
        split: Split = "train",
        render_mode: str | None = None,
        **variant: Any,
    ) -> None:
        """`num_envs` rows of `family`, all in `task`, or each in its own task.

        Raises:
            ValueError: for an unknown family, field, split or field of a task, or a render mode.
        """
        self.family = _family(family, variant)
        if render_mode is not None:
            raise ValueError(f"render_mode is {render_mode!r}; must be None for a vector environment")
        self.render_mode = None
        self.metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}
        self.split: Split = split
        self.num_envs = num_envs
        self.single_observation_space = self.family.observation_space
        self.single_action_space = self.family.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generator = torch.Generator()
        self._env: VectorEnv = self.family.make_env(num_envs, self._generator)
        self._fixed = None if task is None else _as_tasks(self.family, task)
        self._seeded = False

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode in every row, in `options["task"]`, in the task given at construction, or in sampled ones.

        Raises:
            ValueError: for a list of seeds, because all rows share one generator, or an unknown option.
        """
        if isinstance(seed, list):
            raise ValueError("seed is a list; must be one integer or None")
        super().reset(seed=seed)
        if seed is not None or not self._seeded:
            self._generator.manual_seed(_new_seed(self.np_random))
            self._seeded = True
        tasks = _tasks_for(self.family, self.num_envs, self.split, self._fixed, options, self._generator)
        every_row = np.ones(self.num_envs, dtype=bool)
        copies = self.num_envs // len(tasks)
        task = {name: value.numpy().repeat(copies, axis=0) for name, value in vars(tasks).items()}
        task |= {f"_{name}": every_row.copy() for name in task}
        return self._env.reset(tasks).obs.numpy(), {"task": task, "_task": every_row}

    def step(
        self, actions: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One step of every row; `infos` has the family's metrics, if there are any."""
        step = self._env.step(_as_actions(self.single_action_space, np.asarray(actions)))
        reward = step.reward.double().numpy()
        metrics = metrics_by_name(self._env, step)
        return step.obs.numpy(), reward, step.terminated.numpy(), step.truncated.numpy(), _infos(step, metrics)

    def close_extras(self, **kwargs: Any) -> None:
        """Release resources; called once by `close`."""
        close(self._env)


def metrics_by_name(env: VectorEnv, step: Step) -> dict[str, NDArray[np.float32]]:
    """An environment's metrics of a step, [B] by name, NaN where they are not measured; empty without any."""
    if step.metrics is None or not isinstance(env, Measures):
        return {}
    return dict(zip(env.metric_names, step.metrics.T.numpy(), strict=True))


def _infos(step: Step, metrics: Mapping[str, NDArray[np.float32]]) -> dict[str, Any]:
    """Metrics as Gymnasium's vector environments have them, and what its same-step autoreset reports of ended episodes.

    The last observations are an object array with None in other rows; metrics of a row that has ended belong there too.
    """
    ended = step.episode_end.numpy()
    infos = _where(~ended, metrics)
    if not ended.any():
        return infos
    final_obs = np.full(len(ended), None, dtype=object)
    for row in np.flatnonzero(ended):
        final_obs[row] = step.next_obs[row].numpy()
    return infos | {
        "final_obs": final_obs,
        "_final_obs": ended,
        "final_info": _where(ended, metrics),
        "_final_info": ended.copy(),
    }


def _where(rows: NDArray[np.bool_], metrics: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
    """Metrics of some rows [B] as Gymnasium has them: zero elsewhere, and by "_NAME" where they are measured."""
    found: dict[str, NDArray[Any]] = {}
    for name, value in metrics.items():
        measured = rows & ~np.isnan(value)
        found |= {name: np.where(measured, value, 0), f"_{name}": measured}
    return found


def _family(family: str | TaskFamily, variant: Mapping[str, Any]) -> TaskFamily:
    if isinstance(family, str):
        return make(family, **variant)
    if variant:
        raise ValueError(f"{next(iter(variant))} is given with a family instance; set it there")
    return family


def _new_seed(source: np.random.Generator) -> int:
    return int(source.integers(2**63 - 1))


def _tasks_for(
    family: TaskFamily,
    num_rows: int,
    split: Split,
    fixed: Record | None,
    options: Mapping[str, Any] | None,
    generator: torch.Generator,
) -> Record:
    """The tasks of an episode: from the options, as fixed at construction, or sampled."""
    unknown = set(options or {}) - {"task"}
    if unknown:
        raise ValueError(f"options has the key {sorted(unknown)[0]!r}; must have only 'task'")
    if options and options.get("task") is not None:
        return _as_tasks(family, options["task"])
    return family.sample(num_rows, split, generator) if fixed is None else fixed


def _as_tasks(family: TaskFamily, task: Mapping[str, Any]) -> Record:
    """A task record with leading axis 1 from plain numbers.

    Raises:
        ValueError: for a missing or unknown field, a wrong shape, or a value that is not finite.
    """
    example = family.sample(1, "train", torch.Generator().manual_seed(0))
    allowed = [field.name for field in fields(example)]  # pyright: ignore[reportArgumentType], records are dataclasses
    if not isinstance(task, Mapping):
        raise ValueError(f"task is {task!r}; must be a dict with {', '.join(allowed)} for {family.name}")
    for name in task:
        if name not in allowed:
            raise ValueError(f"task has the field {name!r}; must be one of {', '.join(allowed)} for {family.name}")
    values = {}
    for name in allowed:
        if name not in task:
            raise ValueError(f"task lacks the field {name!r}; must have {', '.join(allowed)} for {family.name}")
        expected = getattr(example, name)[0]
        try:
            value = torch.as_tensor(np.asarray(task[name], dtype=np.float64)).to(expected.dtype)
        except (TypeError, ValueError):
            raise ValueError(f"{name} is {task[name]!r}; must be a number") from None
        if value.shape != expected.shape or not bool(value.isfinite().all()):
            shape = tuple(expected.shape)
            raise ValueError(f"{name} is {task[name]!r}; must be finite numbers of shape {shape}")
        values[name] = value[None]
    return type(example)(**values)


def _as_actions(space: spaces.Space[Any], actions: NDArray[Any]) -> torch.Tensor:
    dtype = torch.int64 if isinstance(space, spaces.Discrete) else torch.float32
    return torch.as_tensor(actions).to(dtype)
