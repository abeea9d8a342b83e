"""OpenAI's `POST /v1/audio/transcriptions`: a recording as a form, its text at once or as server-sent events.

What asks for other things than this recogniser does is passed over where it changes nothing (model,
temperature, language, chunking_strategy), and an error where it would (diarized_json). The recording goes
through a stream as everybody's: live callers do not wait for it.
"""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import tempfile
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from asr import audio, formats
from asr.decoding.hotwords import Hotword
from asr.errors import UserError
from asr.serving.batcher import Stream
from asr.serving.openai_shapes import Invalid, Json, delta, error_shape, hotwords_of, logprobs
from asr.serving.refusal import Refusal
from asr.serving.server import Service, Session
from asr.serving.sockets import address, retry
from asr.transcript import Transcript, Word, join

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
GRANULARITIES = {"word", "segment"}
FIELDS, FIELD = 100, 1 << 16  # of a form beside its keywords, and bytes of one
BLOCK = 1.0  # seconds of a recording that are decoded at once


def routes(service: Service) -> list[BaseRoute]:
    async def transcriptions(request: Request) -> Response:
        try:
            service.authorise(request)
            async with AsyncExitStack() as stack:
                session = await stack.enter_async_context(service.admit(address(request), "openai"))
                return await answer(service, session, request, stack)
        except UserError as error:
            return failure(error)

    async def models(request: Request) -> Response:
        try:
            service.authorise(request)
        except Refusal as refusal:
            return failure(refusal)
        model = {"id": service.config.model, "object": "model", "created": 0, "owned_by": "asr"}
        return JSONResponse({"object": "list", "data": [model]})

    return [
        Route("/v1/audio/transcriptions", transcriptions, methods=["POST"]),
        Route("/v1/models", models),
    ]


def failure(error: UserError) -> Response:
    refusal = error if isinstance(error, Refusal) else Invalid(str(error))
    return JSONResponse({"error": error_shape(refusal)}, refusal.status, headers=retry(refusal))


@dataclass(frozen=True)
class Wanted:
    """What a form asks for."""

    format: str
    stream: bool
    granularities: frozenset[str]
    logprobs: bool
    hotwords: tuple[Hotword, ...]

    @classmethod
    def of(cls, form: FormData, service: Service) -> Wanted:
        """Raises UserError."""
        granularities = frozenset(_list(form, "timestamp_granularities")) or frozenset(["segment"])
        if not granularities <= GRANULARITIES:
            raise Invalid("granularities are word and segment", "timestamp_granularities")
        format = _text(form, "response_format", "json")
        if format not in FORMATS:
            raise Invalid(f"{format!r} is not one of {', '.join(FORMATS)}", "response_format")
        stream = _text(form, "stream", "false").lower()
        if stream not in ("true", "false"):
            raise Invalid(f"{stream!r} is neither true nor false", "stream")
        hotwords = hotwords_of(service, _list(form, "keywords"), _text(form, "prompt", ""))
        return cls(format, stream == "true", granularities, "logprobs" in _list(form, "include"), hotwords)


async def answer(service: Service, session: Session, request: Request, stack: AsyncExitStack) -> Response:
    form = await uploaded(session, request, service.config.max_upload)
    stack.push_async_callback(form.close)
    upload = form.get("file")
    if not isinstance(upload, UploadFile):
        raise Invalid(
            "a form with the recording as its file is missing", "file", "missing_required_parameter"
        )
    wanted = Wanted.of(form, service)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    recording = await asyncio.to_thread(Recording.keep, upload.file, folder, upload.filename or "the file")
    stream = session.open(wanted.hotwords)
    if wanted.stream:
        return Events(events(recording, stream, wanted), stack.pop_all())
    seconds = await recording.play(stream, request.is_disconnected)
    return rendered((await stream.finish()).transcript, seconds, wanted, service.config.language)


async def uploaded(session: Session, request: Request, most: int) -> FormData:
    """The form of a request of at most so many bytes. Raises Refusal."""
    received, too_large = 0, Refusal("too_large", f"more than {most} bytes: cut it, or send it compressed")

    async def receive() -> MutableMapping[str, Any]:
        nonlocal received
        message = await session.wait(request.receive())
        received += len(message.get("body", b""))
        if received > most:
            raise too_large
        return message

    if int(request.headers.get("content-length", 0)) > most:
        raise too_large
    fields = FIELDS + session.service.config.max_hotwords
    try:
        return await Request(request.scope, receive).form(max_files=1, max_fields=fields, max_part_size=FIELD)
    except HTTPException as error:
        raise Invalid(f"not a form that can be read ({error.detail}): send multipart/form-data") from error


@dataclass(frozen=True)
class Recording:
    """A file as it was sent, under the name that the client gave it."""

    path: Path
    name: str

    @classmethod
    def keep(cls, file: BinaryIO, folder: Path, name: str) -> Recording:
        """Raises UserError where it is no audio."""
        recording = cls(folder / "recording", name)
        with open(recording.path, "wb") as target:
            shutil.copyfileobj(file, target)
        try:
            audio.info(recording.path)
        except UserError as error:
            raise recording.named(error) from error
        return recording

    async def play(self, stream: Stream, gone: Callable[[], Awaitable[bool]] | None = None) -> float:
        """Through the stream, as quickly as that goes; its seconds. Raises UserError, for damage too."""
        blocks, samples = audio.blocks(self.path, BLOCK, stream.rate), 0
        try:
            while (block := await asyncio.to_thread(next, blocks, None)) is not None:
                if gone and await gone():
                    raise Refusal("idle", "the client has gone")
                await stream.send(block)
                samples += len(block)
        except Refusal:
            raise
        except UserError as error:
            raise self.named(error) from error
        return samples / stream.rate

    def named(self, error: UserError) -> Invalid:
        return Invalid(str(error).replace(str(self.path), self.name), "file", "invalid_audio")


def rendered(transcript: Transcript, seconds: float, wanted: Wanted, language: str) -> Response:
    if wanted.format in ("text", "srt", "vtt"):
        return PlainTextResponse(formats.render(transcript, wanted.format))
    usage = {"type": "duration", "seconds": round(seconds, 3)}
    if wanted.format == "json":
        document: Json = {"text": transcript.text, "usage": usage}
        if wanted.logprobs:
            document["logprobs"] = logprobs(transcript.words, first=True)
        return JSONResponse(document)
    document = {"task": "transcribe", "language": language, "duration": round(seconds, 3)}
    document |= {"text": transcript.text, "usage": usage}
    if "word" in wanted.granularities:
        document["words"] = [_word(word) for word in transcript.words]
    if "segment" in wanted.granularities:
        document["segments"] = [_segment(*each) for each in enumerate(transcript.segments)]
    return JSONResponse(document)


def _word(word: Word) -> Json:
    return {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}


def _segment(number: int, words: tuple[Word, ...]) -> Json:
    text = join(words)
    data = text.encode()
    return {
        "id": number,
        "seek": 0,  # as all that is of Whisper's windows and retries, which there are none of here
        "start": round(words[0].start, 3),
        "end": round(words[-1].end, 3),
        "text": text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(sum(math.log(max(word.confidence, 1e-9)) for word in words) / len(words), 4),
        "compression_ratio": round(len(data) / len(zlib.compress(data)), 4),
        "no_speech_prob": 0.0,
    }


class Events(StreamingResponse):
    """Server-sent events; what they need is given back however the response ends, begun or not."""

    def __init__(self, lines: AsyncGenerator[str, None], needed: AsyncExitStack) -> None:
        super().__init__(lines, media_type="text/event-stream", headers={"cache-control": "no-store"})
        self.needed = needed
        needed.push_async_callback(lines.aclose)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self.needed:
            with suppress(ClientDisconnect):
                await super().__call__(scope, receive, send)


async def events(recording: Recording, stream: Stream, wanted: Wanted) -> AsyncGenerator[str, None]:
    """Deltas of committed text, then all of it; an error amid them is the last."""

    async def play() -> None:
        await recording.play(stream)
        await stream.finish()

    playing, told = asyncio.ensure_future(play()), 0
    playing.add_done_callback(lambda task: stream.close() if task.cancelled() or task.exception() else None)
    try:
        transcript = None
        async for update in stream.updates():
            transcript, first = update.transcript, told == 0
            words = transcript.record.words[told : transcript.count]
            told = transcript.count
            if words:
                event: Json = {"type": "transcript.text.delta", "delta": delta(words, first)}
                yield _line(event | ({"logprobs": logprobs(words, first)} if wanted.logprobs else {}))
        await playing
        done: Json = {"type": "transcript.text.done", "text": transcript.text if transcript else ""}
        if wanted.logprobs and transcript:
            done["logprobs"] = logprobs(transcript.words, first=True)
        yield _line(done)
    except UserError as error:  # of the stream, which ends because the recording did
        cause = playing.exception() if playing.done() and not playing.cancelled() else None
        yield _line({"error": error_shape(cause if isinstance(cause, UserError) else error)})
    finally:
        playing.cancel()


def _line(event: Json) -> str:
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n"


def _text(form: FormData, name: str, default: str) -> str:
    value = form.get(name, default)
    if not isinstance(value, str):
        raise Invalid("a file where text is meant", name)
    return value


def _list(form: FormData, name: str) -> list[str]:
    """A list is a field for each element, `name[]` or `name`."""
    return [value for key in (f"{name}[]", name) for value in form.getlist(key) if isinstance(value, str)]
