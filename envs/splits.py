"""The splits that task families have."""

from __future__ import annotations

SPLITS = ("train", "test", "ood")


def check_split(family: str, split: str, *, has_ood: bool = True, reason: str = "") -> None:
    """Check that a split is "train", "test" or, where the family has tasks outside its training range, "ood".

    family: the family's name, for the message; reason: why it has no split "ood", for the message.

    Raises:
        ValueError: when the split is not one of these.
    """
    allowed = SPLITS if has_ood else ("train", "test")
    if split not in allowed:
        because = f" ({reason})" if reason else ""
        raise ValueError(f"split is {split!r}; must be one of {', '.join(allowed)} for {family}{because}")
