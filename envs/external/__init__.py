"""Gymnasium environments of others, in worker processes."""


class CrashedTooOften(RuntimeError):  # noqa: N818, it is what has happened
    """An environment does nothing but crash, or its worker does not start; the message has the reason in one line."""
