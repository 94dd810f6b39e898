"""The robots, and the base class of their task families.

A family defines its robot, its tasks, its reward and, for robots that fall, the end of the episode. Mechanics, start
and observation are those of Gymnasium's v5 environments, by default without contact forces: with MuJoCo 2, used for
most published results, these were zero. The ant and the humanoid support `contact_forces=True`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar, get_args

import torch
from gymnasium import spaces
from torch import Tensor

from envs.locomotion.contacts import FIELD, Contacts
from envs.locomotion.mujoco_env import Locomotion, MujocoEnv
from envs.locomotion.start import StartNoise
from envs.simulators import Engine, make_physics
from envs.simulators.state import State
from metarl.checks import at_least
from metarl.records import Record

T = TypeVar("T", bound=Record)


@dataclass(frozen=True)
class Robot:
    """A body, with its actuation and observation as in Gymnasium."""

    file: str  # in bodies/
    num_positions: int  # nq
    num_velocities: int  # nv
    num_actions: int  # nu
    frame_skip: int  # simulation steps per environment step
    num_hidden: int  # number of leading positions (the robot's location) excluded from observations
    noise: StartNoise  # noise on the initial state
    action_limit: float = 1.0  # bound on the absolute value of each action
    velocity_limit: float | None = None  # limit to which observed velocities are clipped; None: no limit
    fields: tuple[str, ...] = ()  # fields of MuJoCo's data that its families read
    num_observed: int = 0  # entries of an observation besides positions and velocities

    @property
    def body(self) -> Path:
        return Path(__file__).parent / "bodies" / self.file


HALF_CHEETAH = Robot("half_cheetah.xml", 9, 9, 6, 5, 1, StartNoise(0.1, gaussian=True))
ANT = Robot("ant.xml", 15, 14, 8, 5, 2, StartNoise(0.1, gaussian=True), fields=("xpos",))
HUMANOID = Robot(
    "humanoid.xml",
    24,
    23,
    17,
    5,
    2,
    StartNoise(0.01),
    action_limit=0.4,
    fields=("subtree_com", "cinert", "cvel", "qfrc_actuator"),
    num_observed=13 * 10 + 13 * 6 + 17,
)
WALKER2D = Robot("walker2d.xml", 9, 9, 6, 4, 1, StartNoise(0.005), velocity_limit=10.0)
HOPPER = Robot("hopper.xml", 6, 6, 3, 4, 1, StartNoise(0.005), velocity_limit=10.0)
SWIMMER = Robot("swimmer.xml", 5, 5, 2, 4, 2, StartNoise(0.1))


@dataclass(frozen=True)
class RobotFamily(Generic[T]):
    """Base class of all robots' families."""

    horizon: int = 200  # number of steps per episode
    control_cost: float = 0.0  # weight of the squared norm of the action in the cost

    name = ""  # set by each family
    robot: ClassVar[Robot]
    contacts: ClassVar[Contacts | None] = None  # contact forces, for robots that have the choice
    engines: ClassVar[tuple[Engine, ...]] = get_args(Engine)  # engines that can simulate it

    def __post_init__(self) -> None:
        at_least(self, 1, "horizon", "frame_skip")
        at_least(self, 0, "control_cost")

    @property
    def num_episodes(self) -> int:
        return 2

    @property
    def body(self) -> Path:
        return self.robot.body

    @property
    def frame_skip(self) -> int:
        return self.robot.frame_skip

    @property
    def observation_space(self) -> spaces.Box:
        robot = self.robot
        size = robot.num_positions - robot.num_hidden + robot.num_velocities + robot.num_observed
        size += 0 if self.observed_contacts is None else self.observed_contacts.num_observed
        return spaces.Box(-float("inf"), float("inf"), (size,))

    @property
    def observation_names(self) -> list[str] | None:
        """Names of the observed numbers; None for robots that observe more than positions and velocities."""
        if self.robot.num_observed or self.observed_contacts is not None:
            return None
        from envs.simulators.model import coordinate_names, load_model  # here, as tasks can be sampled without MuJoCo

        positions, velocities = coordinate_names(load_model(self.body))
        return [*positions[self.robot.num_hidden :], *velocities]

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-self.robot.action_limit, self.robot.action_limit, (self.robot.num_actions,))

    @property
    def fields(self) -> tuple[str, ...]:
        return self.robot.fields if self.observed_contacts is None else (*self.robot.fields, FIELD)

    @property
    def observed_contacts(self) -> Contacts | None:
        """The use of contact forces; None, the default, to leave them out."""
        return self.contacts if getattr(self, "contact_forces", False) else None

    def contact_cost(self, after: State) -> Tensor | float:
        """The cost of contact forces [B]; zero if they are left out."""
        return 0.0 if self.observed_contacts is None else self.observed_contacts.cost(after)

    def with_contacts(self, obs: Tensor, state: State) -> Tensor:
        """An observation [B, O] with contact forces appended, if they are observed."""
        return (
            obs if self.observed_contacts is None else torch.cat((obs, self.observed_contacts.observed(state)), dim=1)
        )

    @property
    def fields_before(self) -> tuple[str, ...]:
        return ("qpos",)

    def make_env(
        self: Locomotion[T], num_rows: int, generator: torch.Generator, engine: Engine | None = None
    ) -> MujocoEnv[T]:
        """`num_rows` simulations on the generator's device; raises what `make_physics` does."""
        contact_forces = FIELD in self.fields
        physics = make_physics(self.body, num_rows, generator.device, contact_forces=contact_forces, engine=engine)
        return MujocoEnv(self, physics, generator)

    def physics(self, tasks: T, nominal: Callable[[str], Tensor]) -> Mapping[str, Tensor]:
        return {}

    def initial_state(self, tasks: T, qpos: Tensor, qvel: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self.robot.noise.add(qpos, qvel, generator)

    def observation(self, state: State, tasks: T) -> Tensor:
        """Positions without the robot's location, then all velocities: [B, O] float32."""
        qvel, limit = state.qvel, self.robot.velocity_limit
        if limit is not None:
            qvel = qvel.clamp(-limit, limit)
        return self.with_contacts(torch.cat((state.qpos[:, self.robot.num_hidden :], qvel), dim=1), state).float()

    def terminated(self, state: State, tasks: T) -> Tensor | None:
        return None

    def robot_velocity(self, before: State, after: State, dt: float) -> Tensor:
        """The velocity that the task is about, along x and, for robots that turn, y: [B, 1] or [B, 2] m/s."""
        return x_velocity(before, after, dt)[:, None]

    def bounds(self, tasks: T, num_episodes: int) -> dict[str, Tensor]:
        """Empty: no expected return of any policy is known exactly."""
        return {}


def x_velocity(before: State, after: State, dt: float) -> Tensor:
    """The root's velocity along x, [B] m/s."""
    return (after.qpos[:, 0] - before.qpos[:, 0]) / dt


def squared(action: Tensor) -> Tensor:
    """|a|² of actions [B, A]: [B]."""
    return action.square().sum(dim=1)


def cosine(velocity: Tensor, direction: Tensor) -> Tensor:
    """The cosine [B] between a velocity and a direction (unit vectors), both [B, 2]."""
    return (velocity * direction).sum(dim=1) / velocity.norm(dim=1).clamp(min=1e-6)
