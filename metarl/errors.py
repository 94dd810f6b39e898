"""What is shown to the user as one line, without a traceback; apart from the rest, so that it imports nothing."""


class UserError(Exception):
    """The user asked for something that cannot be; the message is one line."""


class EnvironmentFailed(UserError):  # noqa: N818, it is what has happened
    """An environment, or a user's function in it, failed in mid-trial; the message names it, the step and the tasks."""


class RunError(UserError):
    """Something is wrong with a run's directory or its disk."""
