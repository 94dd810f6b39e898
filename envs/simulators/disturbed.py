"""Simulated robots that are pushed, and whose actuators and sensors are late and inexact.

Latencies are rounded to whole substeps, of which an environment step has several: controls that arrive between two
steps take effect between them, and what is sensed is what was there that long ago. Until the first controls arrive,
actuators have those that the episode started with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from envs.delay_line import DelayLine
from envs.rows import where_row
from envs.simulators import Physics
from envs.simulators.physics_around import PhysicsAround
from envs.simulators.robot_fields import DISTURBANCES, PUSH_INTERVAL, encoders


class DisturbedPhysics(PhysicsAround):
    """Another engine's simulations with disturbances; implements `envs.simulators.Physics`.

    `data` is what is; `sensors.data` is what the robot measures. `set_fields` takes the fields in `DISTURBANCES` too:
    latencies [B] in ms; impulses of pushes [B, bodies] in N s, horizontal, at random times, each spread over one step;
    the mean time between them [B] in s; the standard deviation of each reading's noise and its bias [B, readings];
    offsets of the joints' encoders [B, nq].
    """

    def __init__(
        self, physics: Physics, model: Any, num_substeps: int, generator: torch.Generator, *, in_common: bool = False
    ) -> None:
        """
        num_substeps: substeps of one environment step.
        generator: seeds the disturbances when all rows are reset after `set_fields`.
        in_common: whether all rows have the same pushes and noise, so that only their physics differ.
        """
        super().__init__(physics)
        self._num_substeps = num_substeps
        self._duration = num_substeps * physics.timestep  # of a step, s
        self._source, self._generator = generator, torch.Generator(generator.device)
        self._num_draws = 1 if in_common else physics.num_rows
        self._num_controls, self._num_readings, self._num_bodies = model.nu, model.nsensordata, model.nbody
        self._encoders = torch.from_numpy(encoders(model)).to(physics.device)
        self._values: dict[str, Tensor] = {}  # the rows' values of DISTURBANCES
        self._is_fresh = True  # whether there was no reset since they were set
        self._late_controls = _Latency(physics, num_substeps)
        self._late_data = _Latency(physics, num_substeps)
        self._controls: DelayLine | None = None  # [B, nu]
        self._sensed: dict[str, Tensor] = {}  # fields of the data as measured, live
        self._lines: dict[str, DelayLine] = {}  # of these fields, where they are late
        self._next_noise: Tensor | None = None  # [B, readings], of episodes that start now
        self.sensors = _Sensors(self)

    def set_fields(self, fields: Mapping[str, Tensor]) -> None:
        """Give each row its own values [B, ...] of fields of MuJoCo's model and of disturbances."""
        own = {name: value for name, value in fields.items() if name in DISTURBANCES}
        self._physics.set_fields({name: value for name, value in fields.items() if name not in own})
        self._values |= own
        self._is_fresh = True
        every = torch.ones(self.num_rows, dtype=torch.bool, device=self.device)
        for latency, name, lines in (
            (self._late_controls, "action_latency", [self._controls]),
            (self._late_data, "obs_latency", list(self._lines.values())),
        ):
            if name in own:
                latency.set(own[name])
                for line in lines:
                    if line is not None:
                        line.set_lengths(latency.steps, every)

    def reset(
        self, qpos: Tensor, qvel: Tensor, rows: Tensor | None = None, inputs: Mapping[str, Tensor] | None = None
    ) -> None:
        """Reset all rows, or those where `rows` [B] is true; nothing that was sent or measured before stays."""
        self._physics.reset(qpos, qvel, rows, inputs)
        if rows is None and self._is_fresh:  # and not where all episodes happen to end together
            self._generator.manual_seed(int(torch.randint(2**63 - 1, (), generator=self._source, device=self.device)))
            self._next_noise = None
        self._is_fresh = False
        if "action_latency" in self._values:
            controls = (inputs or {}).get("ctrl")
            if controls is None:
                controls = torch.zeros(self.num_rows, self._num_controls, device=self.device)
            self._controls = _restarted(self._controls, self._late_controls.steps, controls, rows)
        if "obs_latency" in self._values:
            for name in self._sensed:
                start = self._physics.data(name)
                self._lines[name] = _restarted(self._lines.get(name), self._late_data.steps, start, rows)
        self._measure(rows, self._next_noise if self._next_noise is not None else self._draw_noise())

    def step(
        self, ctrl: Tensor, num_substeps: int, rows: Tensor | None = None, inputs: Mapping[str, Tensor] | None = None
    ) -> Tensor | None:
        """Advance all rows, or those where `rows` [B] is true; returns the rows that diverged, [B] bool, or None.

        Raises:
            ValueError: for another number of substeps than that of an environment step.
        """
        if num_substeps != self._num_substeps:
            raise ValueError(f"num_substeps is {num_substeps}; must be {self._num_substeps}")
        inputs = {**(inputs or {}), **self._push()}
        before, arrived = None, ctrl
        if self._controls is not None:
            before = self._controls.latest()
            arrived = self._controls.push(ctrl, rows)
        late = {name: self._physics.data(name).clone() for name in self._lines}  # [B, ...]
        diverged: Tensor | None = None
        ends = sorted({*self._late_controls.switches, *self._late_data.snapshots, num_substeps})
        begin = 0
        for end in ends:
            controls = arrived if before is None else where_row(self._late_controls.substeps <= begin, arrived, before)
            found = self._physics.step(controls, end - begin, rows, inputs)
            diverged = found if diverged is None or found is None else diverged | found
            for name, value in late.items():
                is_due = self._late_data.snapshot == end
                late[name] = where_row(is_due, self._physics.data(name), value)
            begin, inputs = end, {}
        for name, line in self._lines.items():
            line.push(late[name], rows)
        noise, self._next_noise = self._draw_noise(), self._draw_noise()  # always as many, whatever episodes end
        self._measure(rows, noise)
        return diverged

    def sensed(self, name: str) -> Tensor:
        """A field of the data as the robot measures it [B, ...], live; current from the next `reset` or `step` on."""
        if name not in self._sensed:
            self._sensed[name] = self._physics.data(name).clone()
        return self._sensed[name]

    def _push(self) -> dict[str, Tensor]:
        """The force on each body during a step, as an input of the simulation."""
        impulse = self._values.get("push")
        if impulse is None:
            return {}
        shape, random = (self._num_draws, self._num_bodies), {"generator": self._generator, "device": self.device}
        when, angle = torch.rand(shape, **random), 2 * math.pi * torch.rand(shape, **random)
        interval = self._values.get("push_interval")
        every = torch.full_like(impulse[:, 0], PUSH_INTERVAL) if interval is None else interval
        size = torch.where(when * every[:, None] < self._duration, impulse / self._duration, 0.0)
        force = torch.zeros(*impulse.shape, 6, dtype=impulse.dtype, device=self.device)
        force[..., 0], force[..., 1] = size * angle.cos(), size * angle.sin()
        return {"xfrc_applied": force}

    def _draw_noise(self) -> Tensor | None:
        """Noise of all readings, [B, readings]; None where there is none."""
        scale = self._values.get("sensor_noise")
        if scale is None:
            return None
        shape = (self._num_draws, self._num_readings)
        return scale * torch.randn(shape, generator=self._generator, device=self.device)

    def _measure(self, rows: Tensor | None, noise: Tensor | None) -> None:
        """Write what is measured into the fields of `sensed`, in all rows or where `rows` [B] is true."""
        offset, bias = self._values.get("joint_offset"), self._values.get("sensor_bias")
        for name, sensed in self._sensed.items():
            value = self._lines[name].latest() if name in self._lines else self._physics.data(name)
            if name == "qpos" and offset is not None:
                value = value + offset
            if name == "sensordata":
                if offset is not None:
                    value = value + torch.where(self._encoders >= 0, offset[:, self._encoders], 0.0)
                value = value if bias is None else value + bias
                value = value if noise is None else value + noise
            sensed.copy_(value if rows is None else where_row(rows, value.to(sensed), sensed))


class _Sensors:
    """The data as a robot measures it, in the place of a `Physics`."""

    def __init__(self, physics: DisturbedPhysics) -> None:
        self._physics = physics

    def data(self, name: str) -> Tensor:
        return self._physics.sensed(name)


class _Latency:
    """A latency of each row, as whole steps and the substeps that remain."""

    def __init__(self, physics: Physics, num_substeps: int) -> None:
        self._timestep, self._num_substeps = physics.timestep, num_substeps
        zeros = torch.zeros(physics.num_rows, dtype=torch.int64, device=physics.device)
        self.steps, self.substeps = zeros, zeros  # [B]
        self.snapshot = zeros + num_substeps  # [B], the substep of a step at which what is late by that much is seen
        self.switches: Sequence[int] = ()  # substeps at which some row changes its controls
        self.snapshots: Sequence[int] = ()  # substeps at which some row sees

    def set(self, milliseconds: Tensor) -> None:
        """Set the rows' latencies [B]; waits for the device."""
        total = (milliseconds / (1000 * self._timestep)).round().clamp(min=0).long()
        self.steps, self.substeps = total // self._num_substeps, total % self._num_substeps
        self.snapshot = self._num_substeps - self.substeps
        substeps = self.substeps.unique().tolist()
        self.switches = [substep for substep in substeps if substep]
        self.snapshots = [self._num_substeps - substep for substep in self.switches]


def _restarted(line: DelayLine | None, lengths: Tensor, start: Tensor, rows: Tensor | None) -> DelayLine:
    """A line that is filled anew with `start` [B, ...], in all rows or where `rows` [B] is true."""
    if line is None or rows is None:
        return DelayLine(lengths, start)
    line.restart(start, rows)
    return line
