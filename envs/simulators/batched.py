"""Batched physics as seen by user functions: MuJoCo's data fields by attribute, joints and bodies by name."""

# MuJoCo's compiled module has no type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.simulators.rotations import about_vertical, rotate, rotate_back, yaw_of
from envs.simulators.timed_contacts import AIR_TIME

_NET_FORCE = 3  # MuJoCo's number of the reduction "netforce" of contact sensors

Frame = Literal["body", "heading", "world"]  # axes: the body's, those that only turn with it about the vertical, fixed


class Names:
    """Indices of a model's parts in its fields, by name, or by number for unnamed joints and bodies."""

    def __init__(self, model: mujoco.MjModel) -> None:
        joints, bodies = mujoco.mjtObj.mjOBJ_JOINT.value, mujoco.mjtObj.mjOBJ_BODY.value
        positions = [*map(int, model.jnt_qposadr), model.nq]
        velocities = [*map(int, model.jnt_dofadr), model.nv]
        self._joints = {
            mujoco.mj_id2name(model, joints, joint) or str(joint): (
                slice(positions[joint], positions[joint + 1]),
                slice(velocities[joint], velocities[joint + 1]),
            )
            for joint in range(model.njnt)
        }
        self._bodies = {mujoco.mj_id2name(model, bodies, body) or str(body): body for body in range(model.nbody)}
        self.root_of = model.body_rootid.tolist()
        self._sites = {model.site(site).name: site for site in range(model.nsite)}
        self._sensors = {
            model.sensor(sensor).name: slice(address, address + size)
            for sensor, (address, size) in enumerate(zip(model.sensor_adr, model.sensor_dim, strict=True))
        }
        self._contacts = dict(_contact_sensors(model))
        timed = {geom: found["found"].start for geom, found in self._contacts.items() if "found" in found}
        self.found = tuple(timed.values())  # places in sensordata that say whether a geom touches anything
        self._clocks = {geom: clock for clock, geom in enumerate(timed)}
        self._geoms = {model.geom(geom).name for geom in range(model.ngeom)} - {""}
        controls = torch.from_numpy(model.key_ctrl.copy())
        self._controls = {model.key(key).name: controls[key] for key in range(model.nkey)}
        self._copies: dict[Any, Tensor] = {}  # of controls, by keyframe, device and dtype

    def joint(self, name: str) -> tuple[slice, slice]:
        """A joint's slices of qpos and qvel; raises ValueError for one that the model lacks."""
        return _found("joint", name, self._joints)

    def body(self, name: str) -> int:
        """A body's number; raises ValueError for one that the model lacks."""
        return _found("body", name, self._bodies)

    def site(self, name: str) -> int:
        """A site's number; raises ValueError for one that the model lacks."""
        return _found("site", name, self._sites)

    def sensor(self, name: str) -> slice:
        """A sensor's slice of sensordata; raises ValueError for one that the model lacks."""
        return _found("sensor", name, self._sensors)

    def contact(self, geom: str, what: str) -> slice:
        """The slice of sensordata with "found" or "force" of a geom's contacts.

        Raises:
            ValueError: for a geom that the model lacks, or that has no sensor of it.
        """
        if geom not in self._geoms:
            raise ValueError(f"the model has no geom {geom!r}: it has {', '.join(map(repr, sorted(self._geoms)))}")
        if what not in self._contacts.get(geom, {}):
            sensor = f'<contact geom1="{geom}" data="found force" reduce="netforce"/>'
            raise ValueError(f"geom {geom!r} has no sensor of contacts; add {sensor} to the file's <sensor>")
        return self._contacts[geom][what]

    def clock(self, geom: str) -> int:
        """A geom's place in the field `AIR_TIME`; raises ValueError as `contact` does."""
        self.contact(geom, "found")
        return self._clocks[geom]

    def controls(self, keyframe: str, like: Tensor) -> Tensor:
        """The controls [nu] of a keyframe, where `like` is; raises ValueError for one that the model lacks."""
        key = (keyframe, like.device, like.dtype)
        if key not in self._copies:
            self._copies[key] = _found("keyframe", keyframe, self._controls).to(like)
        return self._copies[key]


class BatchedPhysics:
    """B simulations of one model at one moment.

    `physics.qpos` [B, nq], `physics.qvel` [B, nv], `physics.xpos` [B, nbody, 3], `physics.sensordata` [B, n] and other
    fields of MuJoCo's data have the engine's dtype and are live: copy values to keep them. As after MuJoCo's own step,
    fields derived from positions and velocities are one substep behind these two.
    """

    def __init__(self, state: Any, before: Any, dt: float, names: Names) -> None:
        self.dt = dt  # duration of a step, in seconds
        self._state, self._before, self._names = state, before, names

    def __getattr__(self, field: str) -> Tensor:
        if field.startswith("_"):  # never a data field; copying looks up such names
            raise AttributeError(field)
        return getattr(self._state, field)

    @property
    def before(self) -> Any:
        """The fields before the last step; for `reward` and `metrics`.

        Raises:
            ValueError: elsewhere, because there is no step before an episode's start.
        """
        if self._before is None:
            raise ValueError("physics.before is available in reward and metrics only")
        return self._before

    def position(self, joint: str) -> Tensor:
        """A joint's position: [B] m or rad for a slide or a hinge, [B, 4] for a ball, [B, 7] for a free joint.

        Raises:
            ValueError: for a joint that the model lacks.
        """
        return _squeezed(self.qpos[:, self._names.joint(joint)[0]])

    def velocity(self, joint: str) -> Tensor:
        """A joint's velocity: [B] m/s or rad/s, [B, 3] for a ball, [B, 6] for a free joint.

        Raises:
            ValueError: for a joint that the model lacks.
        """
        return _squeezed(self.qvel[:, self._names.joint(joint)[1]])

    def body(self, body: str) -> Tensor:
        """The position of a body's frame in the world, [B, 3] m.

        Raises:
            ValueError: for a body that the model lacks.
        """
        return self.xpos[:, self._names.body(body)]

    def site(self, site: str) -> Tensor:
        """The position of a site in the world, [B, 3] m.

        Raises:
            ValueError: for a site that the model lacks.
        """
        return self.site_xpos[:, self._names.site(site)]

    def sensor(self, sensor: str) -> Tensor:
        """What a sensor measures: [B], or [B, n] for one of several numbers.

        Raises:
            ValueError: for a sensor that the model lacks.
        """
        return _squeezed(self.sensordata[:, self._names.sensor(sensor)])

    def controls(self, keyframe: str) -> Tensor:
        """The controls of a keyframe of the file, [nu].

        Raises:
            ValueError: for a keyframe that the model lacks.
        """
        return self._names.controls(keyframe, self.qpos)

    # --- bodies and their frames ---------------------------------------------------------------------------------

    def orientation(self, body: str) -> Tensor:
        """A body's orientation in the world as a unit quaternion, [B, 4]; see `envs.simulators.rotations`."""
        return self.xquat[:, self._names.body(body)]

    def heading(self, body: str) -> Tensor:
        """The direction of a body's x axis over the ground, [B] rad from -pi to pi."""
        return yaw_of(self.orientation(body))

    def in_frame(self, vector: Tensor, body: str, frame: Frame = "body") -> Tensor:
        """Vectors [B, 3] of the world in a frame's axes."""
        return vector if frame == "world" else rotate_back(self._rotation(body, frame), vector)

    def in_world(self, vector: Tensor, body: str, frame: Frame = "body") -> Tensor:
        """Vectors [B, 3] of a frame's axes in those of the world: the inverse of `in_frame`."""
        return vector if frame == "world" else rotate(self._rotation(body, frame), vector)

    def projected_gravity(self, body: str) -> Tensor:
        """The unit vector that points down, in a body's axes: [B, 3]; (0, 0, -1) for one that is upright."""
        w, x, y, z = self.orientation(body).unbind(-1)
        return -torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1)

    def angular_velocity(self, body: str, frame: Frame = "body") -> Tensor:
        """A body's angular velocity, [B, 3] rad/s in the frame's axes."""
        return self.in_frame(self.cvel[:, self._names.body(body), :3], body, frame)

    def linear_velocity(self, body: str, frame: Frame = "body") -> Tensor:
        """The velocity of the origin of a body's frame, [B, 3] m/s in the frame's axes."""
        index = self._names.body(body)
        turning, moving = self.cvel[:, index].split(3, dim=1)  # of the point that `subtree_com` names
        arm = self.xpos[:, index] - self.subtree_com[:, self._names.root_of[index]]
        return self.in_frame(moving + torch.linalg.cross(turning, arm), body, frame)

    def _rotation(self, body: str, frame: Frame) -> Tensor:
        return self.orientation(body) if frame == "body" else about_vertical(self.heading(body))

    # --- contacts ------------------------------------------------------------------------------------------------

    def touches(self, geom: str) -> Tensor:
        """Whether a geom touches anything, [B] bool.

        Raises:
            ValueError: for a geom that the model lacks, or one without a sensor of contacts, as the message shows it.
        """
        return self.sensordata[:, self._names.contact(geom, "found")][:, 0] > 0

    def contact_force(self, geom: str) -> Tensor:
        """The sum of the contact forces on a geom, [B, 3] N in the world's axes; upward where it stands on the floor.

        Raises:
            ValueError: as `touches`.
        """
        return -self.sensordata[:, self._names.contact(geom, "force")]  # the sensor measures what the geom exerts

    def air_time(self, geom: str) -> Tensor:
        """The time for which a geom has touched nothing, [B] s; zero while it touches, and at an episode's start.

        Raises:
            ValueError: as `touches`.
        """
        return getattr(self, AIR_TIME)[:, self._names.clock(geom)]

    def landed_after(self, geom: str) -> Tensor:
        """The time for which a geom had touched nothing when it touched down in this step, [B] s; else zero.

        For `reward` and `metrics`.

        Raises:
            ValueError: as `touches` and `before`.
        """
        before = getattr(self.before, AIR_TIME)[:, self._names.clock(geom)]
        return torch.where(self.touches(geom) & (before > 0), before + self.dt, 0.0)


class RestingState:
    """B rows of a model at rest, on which functions are tried out; records the fields that they read.

    start: fields of the data to start from, each without the axis of rows; default: the model's own position.
    """

    def __init__(self, model: mujoco.MjModel, num_rows: int, start: Mapping[str, Any] | None = None) -> None:
        self.used: set[str] = set()  # fields that were read
        self._num_rows, self._num_clocks = num_rows, len(Names(model).found)
        self._data = mujoco.MjData(model)
        for name, value in (start or {}).items():
            getattr(self._data, name)[...] = value
        mujoco.mj_forward(model, self._data)

    def __getattr__(self, field: str) -> Tensor:
        if field == AIR_TIME:
            self.used.add(field)
            return torch.zeros(self._num_rows, self._num_clocks)
        value = getattr(self._data, field, None)
        if not isinstance(value, np.ndarray) or value.dtype != np.float64:
            fields = [name for name in dir(self._data) if isinstance(getattr(self._data, name, None), np.ndarray)]
            near = difflib.get_close_matches(field, fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "use a name such as 'xpos' or 'sensordata'"
            raise ValueError(f"{field!r} is not a field of MuJoCo's data: {hint}")
        self.used.add(field)
        return torch.from_numpy(value.copy()).expand(self._num_rows, *value.shape).clone()


def _contact_sensors(model: mujoco.MjModel) -> Iterator[tuple[str, dict[str, slice]]]:
    """Of each geom that has a sensor of its net contact force: the slices of "found" and "force" in sensordata."""
    sizes = {"found": 1, "force": 3}  # the first of what such a sensor can measure, in order
    for sensor in range(model.nsensor):
        of_geom = model.sensor_objtype[sensor] == mujoco.mjtObj.mjOBJ_GEOM
        measured, reduction, _ = model.sensor_intprm[sensor, :3]
        if not of_geom or model.sensor_type[sensor] != mujoco.mjtSensor.mjSENS_CONTACT or reduction != _NET_FORCE:
            continue
        found, address = {}, int(model.sensor_adr[sensor])
        for bit, (name, size) in enumerate(sizes.items()):
            if measured & 1 << bit:
                found[name] = slice(address, address + size)
                address += size
        yield model.geom(int(model.sensor_objid[sensor])).name, found


def _found(kind: str, name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        raise ValueError(f"the model has no {kind} {name!r}: it has {', '.join(map(repr, known))}")
    return known[name]


def _squeezed(values: Tensor) -> Tensor:
    return values[:, 0] if values.shape[1] == 1 else values
