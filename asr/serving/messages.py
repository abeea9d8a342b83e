"""Messages that clients send as JSON: an object, or a refusal that says why not."""

from __future__ import annotations

import json

from asr.serving.refusal import Refusal


def json_object(message: str | bytes) -> dict:
    """Raises Refusal ("bad_message")."""
    try:
        value = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise Refusal("bad_message", f"not JSON ({error})") from error
    if not isinstance(value, dict):
        raise Refusal("bad_message", "not a JSON object")
    return value
