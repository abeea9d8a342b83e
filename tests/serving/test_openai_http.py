"""The `openai` package transcribes recordings with this server as with OpenAI's."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
import soundfile
from numpy.typing import NDArray
from openai import OpenAI

from asr import formats
from asr.bundle import Bundle
from asr.decoding.config import DecodingConfig
from asr.decoding.hotwords import Hotword
from asr.serving.config import BatcherConfig, ServeConfig
from asr.transcript import Transcript
from tests.serving.conftest import Running, alone, running


def client_of(server: Running, key: str = "none", retries: int = 0) -> OpenAI:
    return OpenAI(api_key=key, base_url=f"http://{server.host}/v1", max_retries=retries)


@pytest.fixture
def client(server: Running) -> Iterator[OpenAI]:
    with client_of(server) as client:
        yield client


def file_of(samples: NDArray[np.float32], format: str = "WAV", rate: int = 16000) -> tuple[str, bytes]:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format)
    return f"speech.{format.lower()}", file.getvalue()


@pytest.fixture(scope="module")
def recording(speech: NDArray[np.float32]) -> tuple[str, bytes]:
    return file_of(speech)


@pytest.fixture(scope="module")
def expected(babbler: Bundle, speech: NDArray[np.float32]) -> Transcript:
    transcript = alone(babbler, speech)
    assert len(transcript.segments) == 2
    return transcript


def test_json_has_the_words_of_the_stream(
    client: OpenAI, recording: tuple[str, bytes], expected: Transcript, speech: NDArray[np.float32]
) -> None:
    answer = client.audio.transcriptions.create(model="whisper-1", file=recording)
    assert answer.text == expected.text
    assert answer.usage and answer.usage.type == "duration"
    assert answer.usage.seconds == pytest.approx(len(speech) / 16000, abs=1e-3)


@pytest.mark.parametrize("format", ["text", "srt", "vtt"])
def test_texts_are_those_of_asr_transcribe(
    client: OpenAI, recording: tuple[str, bytes], expected: Transcript, format: str
) -> None:
    answer = client.audio.transcriptions.create(model="any", file=recording, response_format=format)
    assert answer == formats.render(expected, format)


def test_verbose_json_has_words_and_segments_with_times(
    client: OpenAI, recording: tuple[str, bytes], expected: Transcript, speech: NDArray[np.float32]
) -> None:
    answer = client.audio.transcriptions.create(
        model="whisper-1",
        file=recording,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert (answer.text, answer.language) == (expected.text, "en")
    assert answer.duration == pytest.approx(len(speech) / 16000, abs=1e-3)
    assert [(word.word, word.start, word.end) for word in answer.words or ()] == [
        (word.text, round(word.start, 3), round(word.end, 3)) for word in expected.words
    ]
    assert [(each.id, each.start, each.text) for each in answer.segments or ()] == [
        (number, round(words[0].start, 3), " ".join(word.text for word in words))
        for number, words in enumerate(expected.segments)
    ]
    assert all(each.avg_logprob < 0 for each in answer.segments or ())


def test_verbose_json_has_segments_alone_where_nothing_else_is_asked_for(
    client: OpenAI, recording: tuple[str, bytes]
) -> None:
    answer = client.audio.transcriptions.create(
        model="whisper-1", file=recording, response_format="verbose_json"
    )
    assert answer.words is None and len(answer.segments or ()) == 2


def test_a_stream_of_deltas_is_the_text(
    client: OpenAI, recording: tuple[str, bytes], expected: Transcript
) -> None:
    events = list(client.audio.transcriptions.create(model="any", file=recording, stream=True))
    *deltas, done = events
    assert len(deltas) > 1
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert "".join(event.delta for event in deltas if event.type == "transcript.text.delta") == expected.text
    assert done.type == "transcript.text.done" and done.text == expected.text


def test_logprobs_are_of_words_and_their_tokens_the_text(
    client: OpenAI, recording: tuple[str, bytes], expected: Transcript
) -> None:
    wanted = {"model": "any", "file": recording, "include": ["logprobs"]}
    whole = client.audio.transcriptions.create(**wanted).logprobs
    streamed = [
        logprob
        for event in client.audio.transcriptions.create(**wanted, stream=True)
        if event.type == "transcript.text.delta"
        for logprob in event.logprobs or ()
    ]
    for logprobs in (whole, streamed):
        assert "".join(each.token for each in logprobs) == expected.text
        assert all(each.logprob <= 0 for each in logprobs)


@pytest.mark.parametrize(("format", "rate"), [("FLAC", 16000), ("OGG", 48000), ("MP3", 44100), ("WAV", 8000)])
def test_files_of_other_formats_and_rates_are_heard(
    client: OpenAI, speech: NDArray[np.float32], format: str, rate: int
) -> None:
    samples = np.interp(np.arange(0, len(speech), 16000 / rate), np.arange(len(speech)), speech)
    stereo = np.stack([samples, samples], 1)
    assert client.audio.transcriptions.create(model="any", file=file_of(stereo, format, rate)).text


@pytest.mark.parametrize(
    "given", [{"keywords": ["jump", "lazy dog"]}, {"prompt": "Jump, lazy dog, \u4f60\u597d"}]
)
def test_keywords_and_a_prompt_are_hotwords(
    client: OpenAI, babbler: Bundle, recording: tuple[str, bytes], speech: NDArray[np.float32], given: dict
) -> None:
    expected = alone(babbler, speech, [Hotword("jump"), Hotword("lazy dog")]).text
    assert expected != alone(babbler, speech).text
    assert client.audio.transcriptions.create(model="any", file=recording, **given).text == expected


def test_a_prompt_of_sentences_changes_nothing(
    client: OpenAI, recording: tuple[str, bytes], expected: Transcript
) -> None:
    prompt = "The following is a conversation about jumping over a lazy dog."
    assert (
        client.audio.transcriptions.create(model="any", file=recording, prompt=prompt).text == expected.text
    )


@pytest.mark.parametrize(
    ("given", "param", "message"),
    [
        ({"file": ("notes.txt", b"no audio at all")}, "file", "notes.txt: cannot be read as audio"),
        ({"file": ("empty.wav", b"")}, "file", "is empty"),
        ({"response_format": "diarized_json"}, "response_format", "json, text, srt"),
        (
            {"response_format": "verbose_json", "timestamp_granularities": ["day"]},
            "timestamp_granularities",
            "word",
        ),
        ({"keywords": ["\u4f60\u597d"]}, None, "is in no piece of the tokenizer"),
        ({"extra_body": {"stream": "perhaps"}}, "stream", "neither true nor false"),
    ],
)
def test_what_is_wrong_is_an_error_of_its_parameter(
    client: OpenAI, recording: tuple[str, bytes], given: dict, param: str | None, message: str
) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.audio.transcriptions.create(**{"model": "any", "file": recording, **given})
    assert error.value.type == "invalid_request_error" and error.value.param == param
    assert message in error.value.message and "/tmp" not in error.value.message


@pytest.mark.parametrize("stream", [False, True])
def test_a_damaged_file_is_an_error_and_not_half_a_text(
    client: OpenAI, speech: NDArray[np.float32], stream: bool
) -> None:
    name, data = file_of(speech, "FLAC")
    damaged = data[: len(data) // 2] + bytes(2000) + data[len(data) // 2 + 2000 :]
    with pytest.raises(openai.APIError, match=r"speech\.flac: truncated or damaged"):
        list(client.audio.transcriptions.create(model="any", file=(name, damaged), stream=stream))


@pytest.mark.parametrize(
    "content",
    [
        {"content": b"{garbage", "headers": {"content-type": "application/json"}},
        {"content": b"--x\r\ngarbage", "headers": {"content-type": "multipart/form-data; boundary=x"}},
        {"content": b"garbage", "headers": {"content-type": "multipart/form-data"}},
        {"data": {"file": "no file", "model": "any"}},
        {"files": [("file", ("a.wav", b"1")), ("file", ("b.wav", b"2"))]},
    ],
    ids=["json", "damaged", "no boundary", "a field", "two files"],
)
def test_what_is_no_form_with_a_file_is_a_bad_request(server: Running, content: dict) -> None:
    response = httpx.post(f"http://{server.host}/v1/audio/transcriptions", **content)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error" and error["message"]


def test_an_upload_has_to_fit(babbler: Bundle, recording: tuple[str, bytes]) -> None:
    with running(babbler, ServeConfig(max_upload=100_000)) as server, client_of(server) as client:
        with pytest.raises(openai.APIStatusError) as error:
            client.audio.transcriptions.create(model="any", file=recording)
        assert error.value.status_code == 413 and "100000 bytes" in error.value.message

        def pieces() -> Iterator[bytes]:  # whose length no header tells
            yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
            yield from [bytes(50_000)] * 3

        kind = {"content-type": "multipart/form-data; boundary=x"}
        url = f"http://{server.host}/v1/audio/transcriptions"
        response = httpx.post(url, content=pieces(), headers=kind)
        assert response.status_code == 413


def test_without_the_token_it_is_an_authentication_error(
    babbler: Bundle, recording: tuple[str, bytes]
) -> None:
    with running(babbler, ServeConfig(token="secret", model="flagship")) as server:
        with client_of(server, "wrong") as client:
            with pytest.raises(openai.AuthenticationError) as error:
                client.audio.transcriptions.create(model="any", file=recording)
            assert error.value.code == "invalid_api_key"
            with pytest.raises(openai.AuthenticationError):
                client.models.list()
        with client_of(server, "secret") as client:
            assert client.audio.transcriptions.create(model="any", file=recording).text
            assert [model.id for model in client.models.list()] == ["flagship"]


def test_who_finds_no_place_is_told_when_to_come_again(babbler: Bundle, recording: tuple[str, bytes]) -> None:
    config = ServeConfig(batcher=BatcherConfig(max_streams=0))
    with running(babbler, config) as server, client_of(server) as client:
        with pytest.raises(openai.InternalServerError) as error:
            client.audio.transcriptions.create(model="any", file=recording)
        assert error.value.status_code == 503 and error.value.type == "server_error"
        assert int(error.value.response.headers["retry-after"]) > 0


def test_a_model_without_a_beam_says_that_it_takes_no_keywords(
    babbler: Bundle, recording: tuple[str, bytes]
) -> None:
    greedy = replace(babbler, decoding=DecodingConfig(beam=1))
    with running(greedy) as server, client_of(server) as client:
        with pytest.raises(openai.BadRequestError, match="--beam"):
            client.audio.transcriptions.create(model="any", file=recording, keywords=["jump"])
        assert client.audio.transcriptions.create(model="any", file=recording, prompt="jump").text


def test_a_client_that_goes_amid_its_events_leaves_its_place(
    client: OpenAI, server: Running, recording: tuple[str, bytes]
) -> None:
    stream = client.audio.transcriptions.create(model="any", file=recording, stream=True)
    next(stream)
    stream.close()
    deadline = time.monotonic() + 30
    while server.service.sessions and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not server.service.sessions


def test_events_go_on_in_a_shutdown(
    babbler: Bundle, recording: tuple[str, bytes], expected: Transcript
) -> None:
    with running(babbler) as server, client_of(server) as client:
        stream = iter(client.audio.transcriptions.create(model="any", file=recording, stream=True))
        first = next(stream)
        asyncio.run_coroutine_threadsafe(server.service.drain(), server.loop)
        *_, done = first, *stream
        assert done.type == "transcript.text.done" and done.text == expected.text


def test_recordings_are_kept_no_longer_than_they_are_heard(
    client: OpenAI, recording: tuple[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert client.audio.transcriptions.create(model="any", file=recording).text
    assert list(client.audio.transcriptions.create(model="any", file=recording, stream=True))
    with pytest.raises(openai.BadRequestError):
        client.audio.transcriptions.create(model="any", file=("a.wav", b"garbage"))
    assert not list(tmp_path.iterdir())


def test_events_are_server_sent_events(server: Running, recording: tuple[str, bytes]) -> None:
    url, form = f"http://{server.host}/v1/audio/transcriptions", {"model": "any", "stream": "true"}
    with httpx.stream("POST", url, data=form, files={"file": recording}, timeout=60) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert json.loads(lines[-1][6:])["type"] == "transcript.text.done"
