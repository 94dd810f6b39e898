"""The task families' classes by name, as strings, so listing them imports no other module."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metarl.protocols import TaskFamily

FAMILIES: dict[str, str] = {
    "bernoulli_bandit": "envs.torch_families.bandits:BernoulliBandit",
    "gaussian_bandit": "envs.torch_families.bandits:GaussianBandit",
    "tabular_mdp": "envs.torch_families.tabular:TabularMDP",
    "grid_navi": "envs.torch_families.gridworld:GridNavi",
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
    family = load(name)
    unknown = sorted(set(variant) - set(family.__dataclass_fields__))
    if unknown:
        allowed = ", ".join(family.__dataclass_fields__)
        raise ValueError(f"{name} has no field {unknown[0]!r}; must be one of {allowed}")
    return family(**variant)
