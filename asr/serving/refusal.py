"""What the server says no to: one code, one line and what it is in HTTP and in a websocket's close frame.

Every protocol puts it into its own shape of an error. Knows no protocol.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from asr.errors import UserError

Code = Literal["busy", "unauthorised", "too_large", "idle", "too_long", "bad_message", "shutdown", "internal"]


class Meaning(NamedTuple):
    http: int  # status
    close: int  # of a websocket


MEANINGS: dict[Code, Meaning] = {
    "busy": Meaning(503, 1013),
    "unauthorised": Meaning(401, 4401),
    "too_large": Meaning(413, 1009),
    "idle": Meaning(408, 1008),
    "too_long": Meaning(413, 1008),
    "bad_message": Meaning(400, 1008),
    "shutdown": Meaning(503, 1012),
    "internal": Meaning(500, 1011),
}


class Refusal(UserError):
    """The message is one line for whoever called: what, and what to do about it.

    retry_after: seconds after which it may be otherwise, where waiting helps.
    """

    def __init__(self, code: Code, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code: Code = code
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        """Of an HTTP response."""
        return MEANINGS[self.code].http

    @property
    def close_code(self) -> int:
        """Of a websocket."""
        return MEANINGS[self.code].close


class Busy(Refusal):
    """There is no room for another stream now; `retry_after` says when to ask again."""

    retry_after: float

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__("busy", message, retry_after)
