"""Gymnasium environments of others, in worker processes."""


class CrashedTooOften(RuntimeError):  # noqa: N818, it is what has happened
    """An environment does nothing but crash; the message names the row, the task and the last reason in one line."""
