"""Robots whose dynamics differ between tasks: mass, damping, friction and the length of limbs; all run forward.

After the families of Greenberg et al. 2023 (RoML), which multiply mass, damping and a length by 2^U(-1, 1). Each
multiplier applies to the whole robot; for multipliers per element, see the families named "rand_params".

Deviations and choices:
1. Friction and limbs are our additions. Limb lengths differ by a quarter at most, because these robots fall beyond
that. 2. The length is that of the limbs instead of the torso, and takes one of 48 values, evenly spaced on a
logarithmic
   scale; each is a model compiled once.
3. Rewards and ends are those of Gymnasium's v5 environments, except for the half cheetah's control cost of 0.05; RoML
   also rewards the half cheetah for its pitch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from envs.locomotion.ant import Ant
from envs.locomotion.ant import stands as ant_stands
from envs.locomotion.forward import ForwardFamily
from envs.locomotion.half_cheetah import HalfCheetah
from envs.locomotion.humanoid import FORWARD_WEIGHT, Humanoid
from envs.locomotion.humanoid import stands as humanoid_stands
from envs.locomotion.ranges import Multiplier
from envs.locomotion.robots import squared
from envs.samplers import all_inside, check_fields
from envs.simulators.state import State
from envs.splits import check_split
from metarl.checks import at_least
from metarl.protocols import Split
from metarl.records import Record

Quantity = Literal["mass", "damping", "friction", "limb_length"]

NUM_LENGTHS = 48  # number of lengths in the training range; a multiple of three, for "interpolation"


@dataclass(frozen=True)
class DynamicsTasks(Record):
    """Multipliers for the whole robot; one for quantities that do not vary."""

    mass: Tensor  # [N] float32, inertia follows
    damping: Tensor  # [N] float32, of all joints
    friction: Tensor  # [N] float32, of the floor and the robot
    limb_length: Tensor  # [N] float32


@dataclass(frozen=True)
class _Dynamics(ForwardFamily[DynamicsTasks]):
    """Base class of these families."""

    vary: tuple[Quantity, ...] = ("mass", "damping", "friction", "limb_length")  # quantities that differ between tasks
    mass: Multiplier = Multiplier(2.0)  # multipliers of all masses
    damping: Multiplier = Multiplier(2.0)  # multipliers of all joints' damping
    friction: Multiplier = Multiplier(2.0)  # multipliers of the friction of floor and robot
    limb_length: Multiplier = Multiplier(1.25, num_values=NUM_LENGTHS)  # multipliers of the limbs' length

    limbs: ClassVar[tuple[str, ...]]  # names of the limbs' bodies
    height: ClassVar[int]  # index of the robot's height in qpos
    leg_height: ClassVar[float]  # part of the torso's initial height that scales with the limbs, m

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, Multiplier, *get_args(Quantity))
        at_least(self.limb_length, 1, "num_values")
        if not self.vary or not set(self.vary) <= set(get_args(Quantity)):
            raise ValueError(f"vary is {self.vary!r}; must be one or more of {', '.join(get_args(Quantity))}")

    @property
    def samplers(self) -> Mapping[str, Multiplier]:
        """The sampler of each quantity that varies, in the order in which they are drawn."""
        return {name: getattr(self, name) for name in get_args(Quantity) if name in self.vary}

    def sample(self, num_tasks: int, split: Split, generator: torch.Generator) -> DynamicsTasks:
        check_split(self.name, split)
        ones = torch.ones(num_tasks, device=generator.device)
        drawn = {name: sampler.sample((num_tasks,), split, generator) for name, sampler in self.samplers.items()}
        return DynamicsTasks(**(dict.fromkeys(get_args(Quantity), ones) | drawn))

    def in_training_range(self, tasks: DynamicsTasks) -> Tensor:
        """Whether each task's multipliers can occur in training: [N] bool."""
        return all_inside(tasks, self.samplers)

    def models(self, tasks: DynamicsTasks) -> Sequence[Any] | None:
        """One model per row if limbs vary, else None; see `envs.locomotion.limbs`."""
        if "limb_length" not in self.vary:
            return None
        from envs.locomotion.limbs import model_with_limbs  # imported here: tasks can be sampled without a simulator

        return [model_with_limbs(self.body, self.limbs, round(scale, 6)) for scale in tasks.limb_length.tolist()]

    def physics(self, tasks: DynamicsTasks, nominal: Callable[[str], Tensor]) -> Mapping[str, Tensor]:
        fields: dict[str, Tensor] = {}
        own = self.models(tasks)

        def scaled(field: str, multiplier: Tensor) -> Tensor:
            value = nominal(field)
            if own is not None:  # a longer limb has a different mass
                rows = {id(model): torch.from_numpy(getattr(model, field)) for model in own}
                value = torch.stack([rows[id(model)] for model in own]).to(value.device)
            else:
                value = value.expand(len(tasks), *value.shape)
            return value * multiplier.double().view(-1, *(1,) * (value.ndim - 1))

        if "mass" in self.vary:
            fields["body_mass"] = scaled("body_mass", tasks.mass)
            fields["body_inertia"] = scaled("body_inertia", tasks.mass)
        if "damping" in self.vary:
            fields["dof_damping"] = scaled("dof_damping", tasks.damping)
        if "friction" in self.vary:
            fields["geom_friction"] = scaled("geom_friction", tasks.friction)
        return fields

    def initial_state(
        self, tasks: DynamicsTasks, qpos: Tensor, qvel: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The initial state with Gymnasium's noise, at the usual height of the feet above the floor."""
        qpos = qpos.clone()
        qpos[:, self.height] += self.leg_height * (tasks.limb_length.to(qpos.dtype) - 1)
        return self.robot.noise.add(qpos, qvel, generator)


@dataclass(frozen=True)
class HalfCheetahDynamics(HalfCheetah[DynamicsTasks], _Dynamics):
    """Run forward on a half cheetah whose mass, damping, friction or limbs differ; reward v - control_cost |a|².

    `vary` selects them; all others are the body's own. Multipliers are 2^U(-1, 1), and 1.25^U(-1, 1) for limbs.
    """

    limbs: ClassVar[tuple[str, ...]] = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")
    height: ClassVar[int] = 1
    leg_height: ClassVar[float] = 0.5775944642583938

    name = "half_cheetah_dynamics"


@dataclass(frozen=True)
class AntDynamics(Ant[DynamicsTasks], _Dynamics):
    """Run forward on an ant whose mass, damping, friction or legs differ, until it falls.

    Reward v - control_cost |a|² + alive_bonus. `vary` selects them; all others are the body's own. Multipliers are
    2^U(-1, 1), and 1.25^U(-1, 1) for limbs.
    """

    control_cost: float = 0.5  # weight of the squared norm of the action in the cost
    alive_bonus: float = 1.0  # reward per step in which the robot has not fallen

    limbs: ClassVar[tuple[str, ...]] = tuple(
        f"{side}_{part}"
        for side in ("front_left", "back_left", "back_right", "front_right")
        for part in ("hip", "thigh", "shin")
    )
    height: ClassVar[int] = 2
    leg_height: ClassVar[float] = 0.0  # the legs stick out initially

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "alive_bonus")

    name = "ant_dynamics"

    def reward(self, before: State, after: State, action: Tensor, tasks: DynamicsTasks, dt: float) -> Tensor:
        gain = self.robot_velocity(before, after, dt)[:, 0] + self.alive_bonus * ant_stands(after)
        return (gain - self.control_cost * squared(action) - self.contact_cost(after)).float()

    def terminated(self, state: State, tasks: DynamicsTasks) -> Tensor | None:
        return ~ant_stands(state)


@dataclass(frozen=True)
class HumanoidDynamics(Humanoid[DynamicsTasks], _Dynamics):
    """Run forward on a humanoid whose mass, damping, friction or limbs differ, until it falls.

    Reward 1.25 v - control_cost |a|² + alive_bonus. `vary` selects them; all others are the body's own. Multipliers are
    2^U(-1, 1), and 1.25^U(-1, 1) for limbs.
    """

    limbs: ClassVar[tuple[str, ...]] = tuple(
        f"{side}_{part}" for side in ("right", "left") for part in ("thigh", "shin", "foot", "upper_arm", "lower_arm")
    )
    height: ClassVar[int] = 2
    leg_height: ClassVar[float] = 0.7529759041927676

    name = "humanoid_dynamics"

    def reward(self, before: State, after: State, action: Tensor, tasks: DynamicsTasks, dt: float) -> Tensor:
        gain = FORWARD_WEIGHT * self.robot_velocity(before, after, dt)[:, 0] + self.alive_bonus * humanoid_stands(after)
        return (gain - self.control_cost * squared(action) - self.contact_cost(after)).float()
