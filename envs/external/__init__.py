"""Gymnasium environments of others, in worker processes."""

from metarl.errors import EnvironmentFailed


class CrashedTooOften(EnvironmentFailed):
    """An environment does nothing but crash, or its worker does not start; the message has the reason in one line."""
