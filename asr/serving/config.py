"""What an operator can set: the batcher's and the server's settings, each with its reason and unit."""

from __future__ import annotations

from dataclasses import dataclass, field

from asr.decoding.hotwords import Hotword
from asr.endpoint import EndpointConfig
from asr.streaming import ENDPOINTING, VAD
from asr.vad import VadConfig


@dataclass(frozen=True)
class BatcherConfig:
    """chunk_ms: audio that a stream is computed in. queue_seconds: audio that may wait in a stream before its
    sender does. max_streams: at once. max_tick: no stream is let in that would make a step of all of them
    longer than so many seconds; a chunk waits for up to two. hotwords: every stream's, beside its own.
    """

    chunk_ms: float = 160
    queue_seconds: float = 2.0
    max_streams: int = 200
    max_tick: float = 0.12
    hotwords: tuple[Hotword, ...] = ()


@dataclass(frozen=True)
class ServeConfig:
    """Sizes in bytes, times in seconds.

    token: what clients have to show; None lets everybody in. idle: without a message of the client. session:
    the longest, of wall time. grace: for clients to take their last words when the server shuts down.
    """

    model: str = "asr"  # its name, as clients see it
    language: str = "en"  # that it was trained for (ISO 639-1): told to clients that ask
    token: str | None = None
    max_message: int = 1 << 20  # of a websocket
    max_upload: int = 100 << 20  # of HTTP
    max_hotwords: int = 1000  # of a stream
    session: float = 4 * 3600
    idle: float = 60
    streams_per_client: int = 16  # at once, from one address
    grace: float = 10
    endpointing: EndpointConfig | None = ENDPOINTING  # where a client does not say
    vad: VadConfig | None = VAD  # likewise
    batcher: BatcherConfig = field(default_factory=BatcherConfig)
