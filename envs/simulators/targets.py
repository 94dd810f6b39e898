"""What a task parameter sets: parts of the fields of MuJoCo's model, or of fields of ours."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Target:
    """A part of a field that a parameter changes."""

    field: str  # MuJoCo's name, or that of a field of ours
    rows: tuple[int, ...] | None  # rows of the field that are set; None: the whole field
    value_of_row: tuple[int, ...] = ()  # index of the value for each of these rows
    column: int | None = None  # column of these rows that is set; None: all
    sign: float = 1.0  # sign of values that replace the model's own
    shape: tuple[int, ...] | None = None  # shape of a field of ours, zero without the parameter; None: MuJoCo's field

    def apply(self, current: Tensor, values: Tensor, scale: bool) -> Tensor:
        """The field of B tasks, [B, ...], from what it is without this parameter and the values [B, n]."""
        field = current.clone()
        if self.rows is None:
            values = values.reshape(-1, *(1,) * (field.ndim - 1))
            return field * values if scale else values.expand_as(field).clone()
        rows, values = list(self.rows), values[:, list(self.value_of_row)]
        if self.column is not None:
            field[:, rows, self.column] = field[:, rows, self.column] * values if scale else self.sign * values
            return field
        values = values.reshape(*values.shape, *(1,) * (field.ndim - 2))
        field[:, rows] = field[:, rows] * values if scale else values.expand_as(field[:, rows])
        return field


@dataclass(frozen=True)
class ModelParameter:
    """A parameter that changes the simulation."""

    name: str
    targets: tuple[Target, ...]
    num_values: int
    scale: bool
