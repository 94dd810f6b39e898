"""Errors shown to the user as one line, without a traceback; in a module that imports nothing heavy."""

import shlex
from pathlib import Path


class UserError(Exception):
    """An invalid request of the user; the message is one line, or empty if another process prints it."""

    exit_status = 2


class EnvironmentFailed(UserError):  # noqa: N818, it is what has happened
    """An environment, or a user's function in it, failed in mid-trial; the message names it, the step and the tasks."""


class RunError(UserError):
    """A problem with a run's directory or its disk."""


def shell_command(*words: str | Path) -> str:
    """A command line that can be pasted into a shell, whatever characters its paths have."""
    return shlex.join(map(str, words))
