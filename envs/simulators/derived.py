"""Fields of MuJoCo's model that follow from others: inertias, loads on bodies, and servos with shifted encoders."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Fields = dict[str, Tensor]  # values [B, ...] by name
Nominal = Callable[[str], Tensor]  # the model's own value of a field


def derive(fields: Fields, nominal: Nominal) -> None:
    """Complete what parameters have set; loads and servos' offsets are replaced by what they make of the model."""
    if "body_mass" in fields and "body_inertia" not in fields:
        mass = nominal("body_mass")
        ratio = torch.where(mass > 0, fields["body_mass"] / mass.clamp(min=1e-300), 1.0)  # [B, bodies]
        fields["body_inertia"] = nominal("body_inertia") * ratio[:, :, None]
    load, offset = fields.pop("payload", None), fields.pop("payload_offset", None)
    if load is not None:
        _add_load(fields, nominal, load, offset)
    shift = fields.pop("servo_offset", None)
    if shift is not None:
        _shift_servos(fields, nominal, shift)


def _add_load(fields: Fields, nominal: Nominal, load: Tensor, offset: Tensor | None) -> None:
    """Fix point masses `load` [B, bodies] to bodies, at `offset` [B, bodies, 3] from their centres of mass.

    The offset is along the axes of the body's frame; None: at the centre of mass, which moves no axis.
    """

    mass, count = current(fields, nominal, "body_mass", len(load)), len(load)
    total = mass + load
    fields["body_mass"] = total
    if offset is None:
        return
    inertia, center, frame = (
        current(fields, nominal, name, count) for name in ("body_inertia", "body_ipos", "body_iquat")
    )
    axes = matrix(frame)
    share = load / total.clamp(min=1e-300)  # of the mass that the load is, [B, bodies]
    fields["body_ipos"] = center + share[..., None] * offset
    # Two bodies about their common centre of mass turn like one of their reduced mass at the distance between them.
    square = offset.square().sum(-1)[..., None, None] * torch.eye(3, dtype=offset.dtype, device=offset.device)
    added = (mass * share)[..., None, None] * (square - offset[..., :, None] * offset[..., None, :])
    loaded = axes @ torch.diag_embed(inertia) @ axes.mT + added
    values, vectors = torch.linalg.eigh(loaded)
    vectors = vectors * torch.linalg.det(vectors)[..., None, None]  # a rotation: no reflection (3 columns)
    has_load = (load > 0)[..., None]
    fields["body_inertia"] = torch.where(has_load, values, inertia)
    fields["body_iquat"] = torch.where(has_load, _quaternion(vectors), frame)


def _shift_servos(fields: Fields, nominal: Nominal, shift: Tensor) -> None:
    """Let servos measure their joints' positions with an offset `shift` [B, actuators]."""
    bias = current(fields, nominal, "actuator_biasprm", len(shift)).clone()
    gear = current(fields, nominal, "actuator_gear", len(shift))[..., 0]
    bias[..., 0] += bias[..., 1] * gear * shift
    fields["actuator_biasprm"] = bias


def current(fields: Fields, nominal: Nominal, name: str, count: int) -> Tensor:
    """A field as parameters have left it, [B, ...]."""
    own = nominal(name)
    return fields.get(name, own.expand(count, *own.shape))


def matrix(quaternion: Tensor) -> Tensor:
    """Rotations [..., 3, 3] of unit quaternions [..., 4] in MuJoCo's order, w first."""
    w, x, y, z = quaternion.unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def _quaternion(rotation: Tensor) -> Tensor:
    """Unit quaternions [..., 4], w first, of rotations [..., 3, 3]."""
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in rotation.unbind(-2))
    products = (  # four times the products of the quaternion's numbers
        (1 + a + e + i, h - f, c - g, d - b),
        (h - f, 1 + a - e - i, b + d, c + g),
        (c - g, b + d, 1 - a + e - i, f + h),
        (d - b, c + g, f + h, 1 - a - e + i),
    )
    table = torch.stack([torch.stack(row, -1) for row in products], -2)  # [..., 4, 4]
    largest = table.diagonal(dim1=-2, dim2=-1).argmax(-1)  # the row that is farthest from zero
    row = torch.take_along_dim(table, largest[..., None, None], dim=-2).squeeze(-2)
    return row / row.norm(dim=-1, keepdim=True)
