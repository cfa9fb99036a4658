"""The one exception that a user's mistake or a damaged file raises."""


class LaconicError(Exception):
    """What is wrong, where, and what to do, in one line.

    The command line prints it and exits with status 1; it never shows a traceback for it.
    """
