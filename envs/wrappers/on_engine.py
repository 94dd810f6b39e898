"""Another physics engine for the same family: sim-to-sim transfer before a robot is at hand."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from envs.simulators import Engine, check_installed
from envs.wrappers.wrapped import SameTask
from metarl.protocols import VectorEnv


@dataclass(frozen=True)
class OnEngine(SameTask):
    """Simulates a robot's family on another engine; tasks, rewards, observations and the name stay the family's own.

    mujoco: MuJoCo's C engine. mujoco_warp: the GPU's engine, in float32, on the CPU too (slowly; extra `gpu`).
    gymnasium: Gymnasium's own environment of the robot, for those that it has.
    """

    engine: Engine = "mujoco"  # name of the engine

    def __post_init__(self) -> None:
        super().__post_init__()
        engines = getattr(self.family, "engines", ())
        if not engines:
            raise ValueError(f"engine is {self.engine!r}, but {self.family.name} is not simulated by MuJoCo")
        if self.engine not in engines:
            raise ValueError(f"engine is {self.engine!r}; must be one of {', '.join(engines)} for {self.family.name}")
        check_installed(self.engine, f"engine is {self.engine!r}")

    def make_env(self, num_rows: int, generator: torch.Generator) -> VectorEnv:
        """`num_rows` simulations; raises what `envs.simulators.make_physics` does."""
        return self.family.make_env(num_rows, generator, self.engine)
