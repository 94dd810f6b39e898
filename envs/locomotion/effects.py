"""Whether a robot's parameters have any effect: what is asked of a task, and what simulations make of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import torch

from envs.locomotion.contacts import FIELD
from envs.samplers import attribute
from envs.simulators import Physics
from envs.simulators.cpu import CpuPhysics
from envs.simulators.model import model_field
from envs.simulators.state import State
from envs.simulators.targets import ModelParameter
from metarl.records import Record

if TYPE_CHECKING:
    from envs.locomotion.custom_robot import CustomDynamics

_LONGEST = 1000  # steps until a difference has to show


def noting(task: Record) -> tuple[Any, set[str]]:
    """A task that notes which of its fields are asked for, and what it has noted."""
    names, asked = {field.name for field in fields(task)}, set()  # pyright: ignore[reportArgumentType]

    class Noting(type(task)):
        def __getattribute__(self, name: str) -> Any:
            asked.update(names if name == "__dict__" else {name} & names)
            return super().__getattribute__(name)

        def __len__(self) -> int:
            return len(task)

    Noting.__name__ = type(task).__name__
    return Noting(**vars(task)), asked


def check_effects(
    model: Any, dynamics: CustomDynamics, tasks: Record, parameters: Mapping[str, ModelParameter]
) -> None:
    """Simulate two tasks that differ in one parameter alone, for each of them, from one start with one row of actions.

    tasks: some that differ, of which the first is compared with one other.

    Raises:
        ValueError: naming a parameter whose values MuJoCo replaces, or for which both went alike to the last bit.
    """
    pairs = {name: _two_values(getattr(tasks, attribute(name))) for name in parameters}
    changing = [name for name, (one, other) in pairs.items() if not torch.equal(one, other)]
    if not changing:
        return
    rows = tasks[:1].repeat_interleave(1 + len(changing))
    for row, name in enumerate(changing, start=1):
        values = getattr(rows, attribute(name)).clone()
        values[row] = pairs[name][1]
        rows = replace(rows, **{attribute(name): values})  # pyright: ignore[reportArgumentType], a dataclass
    engine = CpuPhysics(model, len(rows), num_threads=1, contact_forces=FIELD in dynamics.fields)
    physics = dynamics.disturbed(engine, torch.Generator().manual_seed(0), in_common=True)
    changed = dynamics.physics(rows, physics.field)
    physics.set_fields(changed)
    for row, name in enumerate(changing, start=1):
        simulated, _ = engine.copy_row(row)
        for target in parameters[name].targets:
            if target.shape is not None:  # a field of ours
                continue
            if not torch.equal(torch.as_tensor(model_field(simulated, target.field)), changed[target.field][row]):
                raise ValueError(f"task {name!r} has no effect: MuJoCo computes {target.field!r} from other fields")
    alike, num_steps = _alike(dynamics, physics, rows)
    for row, name in enumerate(changing, start=1):
        if alike[row]:
            one, other = (_text(value) for value in pairs[name])
            raise ValueError(
                f"task {name!r} has no effect: {num_steps} random steps with {one} and with {other} are the same; "
                f"leave it out, or, if its effect is rare or late, set unchecked=({name!r},)"
            )


def _two_values(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first of some values [N, ...], and the one that is farthest from it."""
    distance = (values - values[0]).abs().reshape(len(values), -1).sum(dim=1)
    return values[0], values[int(distance.argmax())]


def _alike(dynamics: CustomDynamics, physics: Physics, tasks: Record) -> tuple[torch.Tensor, int]:
    """Rows that did what the first did, step for step: [B] bool, after so many steps."""
    generator = torch.Generator().manual_seed(0)
    num_rows, first = physics.num_rows, tasks[:1]
    qpos, qvel = physics.initial_qpos[None], torch.zeros(1, physics.qvel.shape[1], dtype=physics.qvel.dtype)
    sensed = State.of(getattr(physics, "sensors", physics), dynamics.fields)
    qpos, qvel = dynamics.initial_state(first, qpos, qvel, generator)
    inputs = {name: value.expand(num_rows, *value.shape[1:]) for name, value in dynamics.initial_inputs(first).items()}
    physics.reset(qpos.expand(num_rows, -1), qvel.expand(num_rows, -1), None, inputs)
    state, box = State.of(physics, dynamics.fields), dynamics.action_space
    low, high = torch.from_numpy(box.low), torch.from_numpy(box.high)
    alike, num_steps = torch.ones(num_rows, dtype=torch.bool), min(dynamics.horizon, _LONGEST)
    for step in range(1, num_steps + 1):
        action = low + (high - low) * torch.rand(low.shape, generator=generator)
        inputs = dict(dynamics.inputs(state, action.expand(num_rows, -1), tasks))
        diverged = physics.step(inputs.pop("ctrl"), dynamics.frame_skip, None, inputs)
        alike &= _equal_to_first(
            getattr(seen, name) for seen in (state, sensed) for name in ("qpos", "qvel", *dynamics.fields)
        )
        if diverged is not None or not alike[1:].any():
            return alike, step
    return alike, num_steps


def _equal_to_first(values: Iterable[torch.Tensor]) -> torch.Tensor:
    """Rows in which all values [B, ...] are those of the first: [B] bool."""
    flat = torch.cat([value.reshape(len(value), -1).double() for value in values], dim=1)
    return (flat == flat[:1]).all(dim=1)


def _text(value: torch.Tensor) -> str:
    return f"{float(value.flatten()[0]):.3g}"
