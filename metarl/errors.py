"""What is shown to the user as one line, without a traceback; apart from the rest, so that it imports nothing heavy."""

import shlex
from pathlib import Path


class UserError(Exception):
    """The user asked for something that cannot be; the message is one line."""


class RunError(UserError):
    """Something is wrong with a run's directory or its disk."""


def shell_command(*words: str | Path) -> str:
    """A command line that can be pasted into a shell, whatever characters its paths have."""
    return shlex.join(map(str, words))
