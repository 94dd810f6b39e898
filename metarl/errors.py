"""Errors shown to the user as one line, without a traceback; in a module without imports."""


class UserError(Exception):
    """An invalid request of the user; the message is one line."""


class RunError(UserError):
    """A problem with a run's directory or its disk."""
