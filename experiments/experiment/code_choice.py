"""The choice of the user's code that a run is read with; apart from the rest, as the command line parses it early."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.errors import UserError


@dataclass(frozen=True)
class CodeChoice:
    """Which code of the user's a run is read with."""

    recipe: str | None = None  # the name or path of the recipe to use in place of the one that the run names
    trust: bool = False  # whether to run code that the run names or keeps and that you have never run; prints its files
    as_trained: bool = False  # whether to use the copies of code and robots that the run keeps
    with_current: bool = False  # whether to continue with code, robots and images that have changed since training

    def check(self) -> None:
        """Check that the choices are consistent.

        Raises:
            UserError: when two of them exclude each other.
        """
        if self.as_trained and (self.with_current or self.recipe is not None):
            other = "--with-current" if self.with_current else "--recipe"
            raise UserError(f"--as-trained and {other} exclude each other; leave one of them out")
