"""Where episodes of locomotion start: the body's own position, a keyframe or what a function says, with noise."""

# MuJoCo's compiled module has no type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from envs.simulators import INPUTS

Start = Callable[[Any], Tensor | Mapping[str, Tensor]]  # (task) -> qpos [B, nq], or values [B, ...] by `START_FIELDS`

START_FIELDS = ("qpos", "qvel", *INPUTS)
OWN_POSITION = "qpos0"


@dataclass(frozen=True)
class StartNoise:
    """Noise on every coordinate: uniform within ± `scale`, but for velocities drawn from N(0, scale²) if `gaussian`.

    It is drawn in float64 on every engine, so all of them start alike from one seed on one device.
    """

    scale: float
    gaussian: bool = False

    def add(self, qpos: Tensor, qvel: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Positions [B, nq] and velocities [B, nv] with noise."""
        draw = torch.randn if self.gaussian else _uniform
        position = _uniform(qpos.shape, generator=generator, dtype=torch.float64, device=qpos.device)
        velocity = draw(qvel.shape, generator=generator, dtype=torch.float64, device=qvel.device)
        return qpos + (self.scale * position).to(qpos.dtype), qvel + (self.scale * velocity).to(qvel.dtype)


@dataclass(frozen=True)
class JointNoise:
    """Uniform noise within ± a scale of its own on each coordinate; of as many random numbers as `StartNoise`."""

    position: Tensor  # [nq], the scales
    velocity: Tensor  # [nv]

    def add(self, qpos: Tensor, qvel: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Positions [B, nq] and velocities [B, nv] with noise."""
        position, velocity = StartNoise(1.0).add(torch.zeros_like(qpos), torch.zeros_like(qvel), generator)
        return qpos + self.position.to(qpos) * position, qvel + self.velocity.to(qvel) * velocity


def noise_by_joint(names: Any, model: Any, scale: float, of_joints: Mapping[str, float]) -> StartNoise | JointNoise:
    """Noise of one scale on all coordinates but those of some joints, which have their own.

    names: the model's `envs.simulators.batched.Names`.

    Raises:
        ValueError: for a joint that the model lacks, or a scale that is negative.
    """
    if not of_joints:
        return StartNoise(scale)
    position, velocity = torch.full((model.nq,), float(scale)), torch.full((model.nv,), float(scale))
    for joint, own in of_joints.items():
        if isinstance(own, bool) or not isinstance(own, (int, float)) or not 0 <= own < math.inf:
            raise ValueError(f"joint_noise of {joint!r} is {own!r}; must be zero or positive, and finite")
        try:
            in_qpos, in_qvel = names.joint(joint)
        except ValueError as error:
            raise ValueError(f"joint_noise: {error}") from error
        position[in_qpos], velocity[in_qvel] = own, own
    return JointNoise(position, velocity)


class Starts:
    """What episodes start with: values by the names in `START_FIELDS`, without noise."""

    def __init__(self, model: Any, start: str | Mapping[str, float] | Start) -> None:
        """
        start: the name of a keyframe, positions by joint, see `_pose`, or a function.

        Raises:
            ValueError: for a keyframe or a joint that the model lacks, or something else.
        """
        self._shapes = _shapes(model)
        self._start = start
        self._keyframe: dict[str, Tensor] = {}
        if isinstance(start, str):
            self._keyframe = _keyframe(model, start) if start not in ("", OWN_POSITION) else {}
        elif isinstance(start, Mapping):
            self._keyframe = _pose(model, start)
        elif not callable(start):
            raise ValueError(f"start is {start!r}; must be the name of a keyframe, positions by joint, or a function")

    def __call__(self, tasks: Any) -> Mapping[str, Tensor]:
        """Values [B, ...] for B tasks; those that are not there are as the model has them."""
        if isinstance(self._start, (str, Mapping)):
            return {name: value.expand(len(tasks), *value.shape) for name, value in self._keyframe.items()}
        start = self._start(tasks)
        return start if isinstance(start, Mapping) else {"qpos": start}

    def tried(self, tasks: Any) -> Mapping[str, Tensor]:
        """The same, after a check of what a function gives.

        Raises:
            ValueError: when it fails, or gives something else than it must.
        """
        try:
            start = self(tasks)
        except Exception as error:  # whatever the user's function raises
            raise ValueError(f"start fails: {type(error).__name__}: {error}") from error
        check_values("start", start, {name: (len(tasks), *shape) for name, shape in self._shapes.items()})
        return start


def check_values(what: str, values: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check what a function of the user's gives by name.

    Raises:
        ValueError: naming the function, for an unknown name, or values of another shape or not finite.
    """
    for name, value in values.items():
        if name not in shapes:
            raise ValueError(f"{what} gives {name!r}; must be among {', '.join(shapes)}")
        if not isinstance(value, Tensor):
            raise ValueError(f"{what} gives {type(value).__name__} for {name}; must be a tensor")
        if tuple(value.shape) != shapes[name]:
            raise ValueError(f"{what} gives {name} of shape {tuple(value.shape)}; must be {shapes[name]}")
        if not bool(value.isfinite().all()):
            raise ValueError(f"{what} gives {name} that is not finite")


def has_home(model: Any) -> bool:
    """Whether a file has a pose that its robot is meant to start in."""
    return "home" in _keyframe_names(model)


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Of the fields in `START_FIELDS` that a model has, without the axis of rows."""
    places = {"mocap_pos": (model.nmocap, 3), "mocap_quat": (model.nmocap, 4)} if model.nmocap else {}
    shapes = {"qpos": (model.nq,), "qvel": (model.nv,), "ctrl": (model.nu,), "act": (model.na,), **places}
    return {name: shape for name, shape in shapes.items() if shape[0]}


def _keyframe(model: Any, name: str) -> dict[str, Tensor]:
    names = _keyframe_names(model)
    if name not in names:
        has = f"the model has {', '.join(map(repr, filter(None, names)))}" if any(names) else "the model has none"
        near = difflib.get_close_matches(name, names, n=1)
        raise ValueError(f"start is {name!r}; must be a keyframe: {f'did you mean {near[0]!r}?' if near else has}")
    key = model.key(names.index(name))
    values = {"mocap_pos": key.mpos, "mocap_quat": key.mquat}
    values |= {field: getattr(key, field) for field in ("qpos", "qvel", "ctrl", "act")}
    shapes = _shapes(model)
    return {field: torch.from_numpy(values[field].reshape(shape).copy()) for field, shape in shapes.items()}


def _pose(model: Any, positions: Mapping[str, float]) -> dict[str, Tensor]:
    """The model's own position with some joints elsewhere, which position servos hold.

    positions: rad or m by hinge or slide; a name may be a pattern, of which the first that fits a joint counts. A base
        that moves freely is raised or lowered by as much as the lowest point of the robot's shapes falls or rises.

    Raises:
        ValueError: for a pattern that fits no joint, or a position that is not a finite number.
    """
    from envs.simulators.actuators import servo_controls  # here, as most families start without MuJoCo
    from envs.simulators.robot_fields import one_coordinate
    from envs.simulators.robot_model import lowest_point

    joints = [
        model.joint(index) for index in range(model.njnt) if one_coordinate(model, index) and model.joint(index).name
    ]
    for pattern, position in positions.items():
        if isinstance(position, bool) or not isinstance(position, (int, float)) or not math.isfinite(position):
            raise ValueError(f"start of {pattern!r} is {position!r}; must be a finite number")
        if not any(fnmatchcase(joint.name, pattern) for joint in joints):
            known = ", ".join(repr(joint.name) for joint in joints) or "none"
            raise ValueError(f"start has {pattern!r}; must be a hinge or a slide, or a pattern of them: {known}")
    qpos = model.qpos0.copy()
    for joint in joints:
        fitting = [position for pattern, position in positions.items() if fnmatchcase(joint.name, pattern)]
        if fitting:
            qpos[model.jnt_qposadr[joint.id]] = fitting[0]
    if model.njnt and int(model.jnt_type[0]) == 0:  # a free joint
        qpos[2] += lowest_point(model, model.qpos0) - lowest_point(model, qpos)
    return {"qpos": torch.from_numpy(qpos), "ctrl": torch.from_numpy(servo_controls(model, qpos))}


def _keyframe_names(model: Any) -> list[str]:
    return [model.key(index).name for index in range(model.nkey)]


def _uniform(shape: torch.Size, *, generator: torch.Generator, dtype: torch.dtype, device: torch.device) -> Tensor:
    return 2 * torch.rand(shape, generator=generator, dtype=dtype, device=device) - 1
