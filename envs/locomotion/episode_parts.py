"""What the episodes of a batch add up from: the sums of their rewards' terms, and the reasons for which they end."""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from envs.locomotion.reward_terms import part_names
from envs.simulators.state import State


@runtime_checkable
class HasParts(Protocol):
    """What a family has whose rewards add up from named terms, or whose episodes end for named reasons.

    Without names, the family's own `reward` or `terminated` is asked instead.
    """

    @property
    def term_names(self) -> tuple[str, ...]: ...

    @property
    def reason_names(self) -> tuple[str, ...]: ...

    def terms(self, before: State, after: State, action: Tensor, tasks: Any, dt: float) -> Tensor:
        """The weighted terms [B, terms] float32, whose sum is the reward."""
        ...

    def reasons(self, state: State, tasks: Any) -> Tensor:
        """Which reasons hold, [B, reasons] bool; any of them ends the episode."""
        ...


class EpisodeParts:
    """Asks a family for rewards and ends, and measures by episode what they are made of, if the family says it.

    These metrics are measured at an episode's end: "reward_NAME", the sum of a weighted term over the episode, and
    "ended_by_NAME", one where that reason held and else zero.
    """

    def __init__(self, family: Any, num_rows: int, device: torch.device) -> None:
        """family: an `envs.locomotion.mujoco_env.Locomotion`."""
        self._family = family
        terms, reasons = (family.term_names, family.reason_names) if isinstance(family, HasParts) else ((), ())
        self._has_terms, self._has_reasons = bool(terms), bool(reasons)
        self.names = part_names(terms, reasons)
        self._terms = self._sums = torch.zeros(num_rows, len(terms), device=device)  # of the last step, of the episodes
        self._reasons = torch.zeros(num_rows, len(reasons), dtype=torch.bool, device=device)

    def reward(self, before: State, after: State, action: Tensor, tasks: Any, dt: float) -> Tensor:
        """[B] float32"""
        if not self._has_terms:
            return self._family.reward(before, after, action, tasks, dt)
        self._terms = self._family.terms(before, after, action, tasks, dt)
        return self._terms.sum(1)

    def terminated(self, state: State, tasks: Any) -> Tensor | None:
        """[B] bool, or None where the task never ends an episode."""
        if not self._has_reasons:
            return self._family.terminated(state, tasks)
        self._reasons = self._family.reasons(state, tasks)
        return self._reasons.any(1)

    def restart(self, rows: Tensor | None) -> None:
        """Start an episode in all rows, or where `rows` [B] is true."""
        self._sums = torch.zeros_like(self._sums) if rows is None else self._sums.masked_fill(rows[:, None], 0.0)

    def count(self, active: Tensor | None, diverged: Tensor | None) -> None:
        """Count the last step of the rows that are active [B], if their simulation has not diverged."""
        for left_out in (None if active is None else ~active, diverged):
            if left_out is not None:
                self._terms = self._terms.masked_fill(left_out[:, None], 0.0)
                self._reasons = self._reasons & ~left_out[:, None]
        if self._has_terms:
            self._sums = self._sums + self._terms

    def with_parts(self, metrics: Tensor | None, ended: Tensor | None) -> Tensor | None:
        """A family's metrics [B, M] and those of the episodes that have ended, NaN in other rows.

        ended: [B] bool; None: no row.
        """
        if not self.names:
            return metrics
        if ended is None:
            parts = self._sums.new_full((len(self._sums), len(self.names)), math.nan)
        else:
            parts = torch.where(ended[:, None], torch.cat([self._sums, self._reasons.float()], 1), math.nan)
        return parts if metrics is None else torch.cat([metrics, parts], 1)
