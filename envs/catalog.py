"""The task families' classes by name, as strings, so listing them imports no other module."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metarl.protocols import TaskFamily

FAMILIES: dict[str, str] = {
    "bernoulli_bandit": "envs.torch_families.bandits:BernoulliBandit",
    "gaussian_bandit": "envs.torch_families.bandits:GaussianBandit",
    "tabular_mdp": "envs.torch_families.tabular:TabularMDP",
    "grid_navi": "envs.torch_families.gridworld:GridNavi",
    "dark_room": "envs.torch_families.dark_room:DarkRoom",
    "point_navigation": "envs.torch_families.navigation:PointNavigation",
    "semicircle": "envs.torch_families.navigation:Semicircle",
    "wind": "envs.torch_families.navigation:Wind",
    "half_cheetah_vel": "envs.locomotion.half_cheetah:HalfCheetahVel",
    "half_cheetah_dir": "envs.locomotion.half_cheetah:HalfCheetahDir",
    "half_cheetah_rand_params": "envs.locomotion.half_cheetah:HalfCheetahRandParams",
    "half_cheetah_dynamics": "envs.locomotion.dynamics:HalfCheetahDynamics",
    "ant_dynamics": "envs.locomotion.dynamics:AntDynamics",
    "humanoid_dynamics": "envs.locomotion.dynamics:HumanoidDynamics",
    "ant_dir": "envs.locomotion.ant:AntDir",
    "ant_goal": "envs.locomotion.ant:AntGoal",
    "ant_vel": "envs.locomotion.ant:AntVel",
    "humanoid_dir": "envs.locomotion.humanoid:HumanoidDir",
    "walker2d_rand_params": "envs.locomotion.walkers:Walker2dRandParams",
    "walker2d_vel": "envs.locomotion.walkers:Walker2dVel",
    "hopper_rand_params": "envs.locomotion.walkers:HopperRandParams",
    "swimmer_vel": "envs.locomotion.swimmer:SwimmerVel",
    "quadruped_vel": "envs.locomotion.quadruped:QuadrupedVel",
    "arm_reach": "envs.locomotion.arm:ArmReach",
    "metaworld": "envs.external.metaworld.family:Metaworld",
}

_VELOCITY = {"max_velocity": ("velocity.high",), "ood": ("velocity.ood",)}
_ELEMENTS = ("body_mass", "body_inertia", "dof_damping", "geom_friction")
_PHYSICS = {
    "log_scale_limit": tuple(f"{name}.exponent" for name in _ELEMENTS),
    "ood": tuple(f"{name}.ood" for name in _ELEMENTS),
}
_DYNAMICS = {
    "max_scale": ("mass.base", "damping.base", "friction.base"),
    "max_limb_scale": ("limb_length.base",),
    "ood": tuple(f"{name}.ood" for name in ("mass", "damping", "friction", "limb_length")),
}

FORMER_FIELDS: dict[str, Mapping[str, tuple[str, ...]]] = {
    # Fields that families had before their ranges were samplers, and the samplers' fields that hold the value now.
    "half_cheetah_vel": _VELOCITY,
    "ant_vel": _VELOCITY,
    "walker2d_vel": _VELOCITY,
    "swimmer_vel": {"min_velocity": ("velocity.low",), **_VELOCITY},
    "ant_goal": {"radius": ("goal.radius",), "ood": ("goal.ood",)},
    "half_cheetah_rand_params": {
        "log_scale_limit": ("body_mass.exponent", "dof_damping.exponent", "geom_friction.exponent")
    },
    "walker2d_rand_params": _PHYSICS,
    "hopper_rand_params": _PHYSICS,
    "half_cheetah_dynamics": _DYNAMICS,
    "ant_dynamics": _DYNAMICS,
    "humanoid_dynamics": _DYNAMICS,
}


def load(name: str) -> type[Any]:
    """The class of a task family; call it with any of its fields to get a family.

    Raises:
        ValueError: for an unknown name, with the nearest known one.
    """
    if name not in FAMILIES:
        near = difflib.get_close_matches(name, FAMILIES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"must be one of {', '.join(FAMILIES)}"
        raise ValueError(f"unknown task family {name!r}; {hint}")
    module, class_name = FAMILIES[name].split(":")
    return getattr(importlib.import_module(module), class_name)


def make(name: str, **variant: Any) -> TaskFamily:
    """A task family by name; variant: values for fields of its class.

    Raises:
        ValueError: for an unknown name, an unknown field or a value that is not allowed.
    """
    return with_fields(name, load(name), variant)


def with_fields(name: str, family: type[Any], values: Mapping[str, Any]) -> Any:
    """An instance of a family's class; the name is for messages.

    Raises:
        ValueError: for an unknown field, or a value that is not allowed.
    """
    fields = family.__dataclass_fields__
    unknown = next((field for field in sorted(values) if field not in fields), None)
    if unknown is not None:
        hint = f"must be one of {', '.join(fields)}"
        if now := FORMER_FIELDS.get(name, {}).get(unknown):
            samplers = [f"{place.partition('.')[0]}={fields[place.partition('.')[0]].default!r}" for place in now]
            hint = f"set {now[0].partition('.')[2]} of {', '.join(samplers)}"
        raise ValueError(f"{name} has no field {unknown!r}; {hint}")
    return family(**values)
