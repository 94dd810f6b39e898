"""Task families: distributions over tasks, and the vectorised environments they run in.

    from envs import Delayed, HalfCheetahVel, Uniform, make

Importing this package registers every family of `envs.catalog` with Gymnasium, as `metarl/<Class>-v0`, and imports
neither torch nor a simulator: each name's module is imported when the name is first used.
"""

from typing import TYPE_CHECKING

from envs.catalog import FAMILIES
from metarl._lazy import lazily

if TYPE_CHECKING:
    from envs.catalog import make
    from envs.check import check_family
    from envs.external.gymnasium_family import GymnasiumFamily
    from envs.external.metaworld.family import Metaworld
    from envs.locomotion.ant import AntDir, AntGoal, AntVel
    from envs.locomotion.arm import ArmReach
    from envs.locomotion.custom_robot import MujocoFamily
    from envs.locomotion.dynamics import AntDynamics, HalfCheetahDynamics, HumanoidDynamics
    from envs.locomotion.half_cheetah import HalfCheetahDir, HalfCheetahRandParams, HalfCheetahVel
    from envs.locomotion.humanoid import HumanoidDir
    from envs.locomotion.quadruped import QuadrupedVel
    from envs.locomotion.ranges import Disc, Multiplier
    from envs.locomotion.swimmer import SwimmerVel
    from envs.locomotion.walkers import HopperRandParams, Walker2dRandParams, Walker2dVel
    from envs.samplers import Choice, LogUniform, Normal, Range, Uniform
    from envs.torch_families.bandits import BernoulliBandit, GaussianBandit
    from envs.torch_families.dark_room import DarkRoom
    from envs.torch_families.gridworld import GridNavi
    from envs.torch_families.navigation import PointNavigation, Semicircle, Wind
    from envs.torch_families.tabular import TabularMDP
    from envs.wrappers import ActionRepeat, Delayed, History, Noisy, TimeAware

__all__ = [
    "ActionRepeat",
    "AntDir",
    "AntDynamics",
    "AntGoal",
    "AntVel",
    "ArmReach",
    "BernoulliBandit",
    "Choice",
    "DarkRoom",
    "Delayed",
    "Disc",
    "GaussianBandit",
    "GridNavi",
    "GymnasiumFamily",
    "HalfCheetahDir",
    "HalfCheetahDynamics",
    "HalfCheetahRandParams",
    "HalfCheetahVel",
    "History",
    "HopperRandParams",
    "HumanoidDir",
    "HumanoidDynamics",
    "LogUniform",
    "Metaworld",
    "MujocoFamily",
    "Multiplier",
    "Noisy",
    "Normal",
    "PointNavigation",
    "QuadrupedVel",
    "Range",
    "Semicircle",
    "SwimmerVel",
    "TabularMDP",
    "TimeAware",
    "Uniform",
    "Walker2dRandParams",
    "Walker2dVel",
    "Wind",
    "check_family",
    "make",
]

_OFFERED = {path.split(":")[1]: path for path in FAMILIES.values()} | {
    "ActionRepeat": "envs.wrappers:ActionRepeat",
    "Choice": "envs.samplers:Choice",
    "Delayed": "envs.wrappers:Delayed",
    "Disc": "envs.locomotion.ranges:Disc",
    "GymnasiumFamily": "envs.external.gymnasium_family:GymnasiumFamily",
    "History": "envs.wrappers:History",
    "LogUniform": "envs.samplers:LogUniform",
    "MujocoFamily": "envs.locomotion.custom_robot:MujocoFamily",
    "Multiplier": "envs.locomotion.ranges:Multiplier",
    "Noisy": "envs.wrappers:Noisy",
    "Normal": "envs.samplers:Normal",
    "Range": "envs.samplers:Range",
    "TimeAware": "envs.wrappers:TimeAware",
    "Uniform": "envs.samplers:Uniform",
    "check_family": "envs.check:check_family",
    "make": "envs.catalog:make",
}

__getattr__, __dir__ = lazily(__name__, _OFFERED)


def _register_families() -> None:
    """Register by strings, which delays the import of a family's module until an environment is made."""
    import gymnasium  # not at module level, where the name would be an attribute of this package

    for name, path in FAMILIES.items():
        environment = f"metarl/{path.split(':')[1]}-v0"
        if environment not in gymnasium.registry:
            gymnasium.register(
                environment,
                entry_point="envs.bridges.gymnasium_env:GymnasiumEnv",
                vector_entry_point="envs.bridges.gymnasium_env:GymnasiumVectorEnv",
                kwargs={"family": name},
            )


_register_families()
