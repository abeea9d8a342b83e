"""The one exception type that commands turn into a line for the user instead of a traceback."""


class UserError(Exception):
    """Something the user can put right. The message is one line: what, where, and what to do about it."""
