"""What is shown to the user as one line, without a traceback; apart from the rest, so that it imports nothing."""


class UserError(Exception):
    """The user asked for something that cannot be; the message is one line."""


class RunError(UserError):
    """Something is wrong with a run's directory or its disk."""
