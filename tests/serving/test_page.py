"""The page in a real browser: its microphone is a file, its server is ours or one that follows a script."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import uvicorn
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from asr import formats
from asr.bundle import Bundle
from asr.decoding.config import DecodingConfig
from asr.serving import page as module
from asr.serving.config import ServeConfig
from asr.serving.pcm import Pcm
from asr.serving.server import Service
from asr.transcript import Transcript, Word
from tests.serving.conftest import Running, alone, running

api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
expect, Page = api.expect, api.Page
expect.set_options(timeout=60_000)  # of a machine that has other work too
PLAIN = "page.test"  # a host that is no localhost: browsers hold it for insecure
WIDE, NARROW = {"width": 1000, "height": 760}, {"width": 320, "height": 640}


@pytest.fixture(scope="session")
def recording(speech: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "spoken.wav"
    soundfile.write(path, speech, 16000, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")  # playwright's event loop runs in this thread until it ends
def browser(recording: Path) -> Iterator[Any]:
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if not program:
        pytest.skip("needs Chromium: apt-get install chromium")
    switches = [
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={recording}",
        f"--host-resolver-rules=MAP {PLAIN} 127.0.0.1",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
    ]
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=switches)
        yield browser
        browser.close()


Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """Opens pages; in the end nothing may have failed in them, nor another host have been asked."""
    contexts, complaints, asked = [], [], []

    def visit(address: str, microphone: bool = True, before: str = "", **options: Any) -> Page:
        context = browser.new_context(permissions=["microphone"] if microphone else [], **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append((request.url, address)))
        if before:
            page.add_init_script(before)
        page.goto(f"http://{address}")
        return page

    yield visit
    for context in contexts:
        context.close()
    expected = (
        "WebSocket connection to",
        "ERR_CONNECTION_REFUSED",
        "example.invalid",
    )  # of servers that are gone
    assert not [text for text in complaints if not any(part in text for part in expected)]
    assert all(url.split("/")[2] == address.split("/")[0] for url, address in asked if url.startswith("http"))


# A server that follows a script


class Client:
    """The server's end of one websocket. `heard`: seconds of audio; `told`: other messages."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket, self.heard, self.told = socket, 0.0, []

    async def ready(self) -> None:
        self.rate = self.told[0]["rate"]
        await self.send("ready", rate=self.rate, chunk_ms=160, latency_ms=240, model="script")

    async def send(self, type: str, **fields: object) -> None:
        await self.socket.send_json({"type": type, **fields})

    async def next(self) -> None:
        message = await self.socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect
        if message.get("bytes"):
            self.heard += len(message["bytes"]) / 2 / self.rate
        else:
            self.told.append(json.loads(message["text"]))

    async def until(self, type: str) -> None:
        while self.told[-1:] == [] or self.told[-1]["type"] != type:
            await self.next()

    async def say(self, *words: Word, tentative: tuple[Word, ...] = (), ends: tuple[int, ...] = ()) -> None:
        await self.send("update", **self.fields(words, tentative, ends))

    async def finish(self, *words: Word) -> None:
        await self.until("finish")
        await self.send("finished", text="", **self.fields(words))
        await self.socket.close()

    def fields(
        self, words: tuple[Word, ...], tentative: tuple[Word, ...] = (), ends: tuple[int, ...] = ()
    ) -> dict[str, object]:
        return {
            "committed": " ".join(word.text for word in words),
            "words": [asdict(word) for word in words],
            "tentative": " ".join(word.text for word in tentative),
            "tentative_words": [asdict(word) for word in tentative],
            "endpoints": [{"time": 9.0, "reason": "silence", "words": end} for end in ends],
            "heard": self.heard,
            "lag": 0.05,
            "speech": True,
        }


Script = Callable[[Client], Awaitable[None]]


@contextmanager
def scripted(bundle: Bundle, script: Script) -> Iterator[str]:
    """Its address. The script begins when a client's first message is there."""

    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        client = Client(socket)
        try:
            await client.next()
            await script(client)
        except WebSocketDisconnect:
            pass

    service = Service(bundle, ServeConfig(model="script"))
    application = Starlette(routes=[*module.routes(service), WebSocketRoute("/v1/stream", talk)])
    server = uvicorn.Server(
        uvicorn.Config(application, port=0, log_config=None, timeout_graceful_shutdown=1, lifespan="off")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        threading.Event().wait(0.01)
    try:
        yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


def word(text: str, start: float = 0.0, confidence: float = 0.9) -> Word:
    return Word(text, start, start + 0.2, confidence)


def spoken(page: Page) -> list[str]:
    """The committed words of each paragraph."""
    return page.eval_on_selector_all(
        "#transcript p",
        "all => all.map(p => [...p.querySelectorAll('.word')].map(w => w.textContent).join(' '))",
    )


def start(page: Page) -> None:
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()


def stop(page: Page) -> None:
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Start")).to_be_visible()


def wait(page: Page, until: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end, "nothing came"
        page.wait_for_timeout(50)


# With the server


def test_what_the_microphone_hears_is_on_the_page_as_the_recogniser_says_it(
    server: Running, babbler: Bundle, visit: Visit
) -> None:
    page = visit(server.host)
    sent: list[bytes | str] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
    start(page)
    expect(page.locator("#transcript .word").nth(3)).to_be_visible()
    expect(page.locator("#latency-text")).to_have_text(re.compile(r"\d\.\d\d s"))
    expect(page.locator("#level-text")).to_have_text(re.compile(r"-\d+ dB"))
    stop(page)
    first, *audio = sent
    last = audio.pop()
    assert json.loads(first)["type"] == "start" and json.loads(last) == {"type": "finish"}
    pcm = Pcm(json.loads(first)["rate"], 16000)
    samples = np.concatenate([*map(pcm.accept, audio), pcm.finish()])
    assert np.abs(samples).max() > 0.1
    assert " ".join(spoken(page)) == alone(babbler, samples).text != ""
    expect(page.locator("#problem")).to_be_empty()


@pytest.mark.parametrize("way", ["chosen", "dropped"])
def test_a_file_is_read_as_from_the_command_line(
    server: Running,
    babbler: Bundle,
    visit: Visit,
    recording: Path,
    speech: NDArray[np.float32],
    way: str,
) -> None:
    page = visit(server.host, microphone=False)
    if way == "chosen":
        page.set_input_files("#file", recording)
    else:
        files = page.evaluate_handle(
            """bytes => { const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "spoken.wav")); return data; }""",
            list(recording.read_bytes()),
        )
        page.dispatch_event("#transcript", "drop", {"dataTransfer": files})
    expect(page.locator("#progress-text")).to_have_text(re.compile(r"^(\d+:\d\d) of \1$"))
    expect(page.get_by_role("button", name="Start")).to_be_visible()
    said = alone(babbler, speech)
    assert spoken(page) == [" ".join(word.text for word in segment) for segment in said.segments]
    assert len(said.segments) > 1


def test_the_token_is_asked_for_where_there_is_one(babbler: Bundle, visit: Visit) -> None:
    with running(babbler, ServeConfig(token="s3cret")) as server:
        page = visit(server.host)
        token, problem = page.get_by_label("Token"), page.get_by_role("alert")
        page.get_by_role("button", name="Start").click()
        expect(problem).to_have_text("This server wants a token: enter it, then press Start.")
        expect(token).to_be_focused()
        for wrong in ("no token!", "wrong"):
            token.fill(wrong)
            token.press("Enter")
            expect(problem).to_contain_text("wants a token")
        token.fill("s3cret")
        start(page)
        expect(page.locator("#transcript .word").first).to_be_visible()
        stop(page)
        expect(problem).to_be_empty()
        link = visit(f"{server.host}/#token=s3cret")
        assert "s3cret" not in link.url
        start(link)
        expect(link.locator("#transcript .word").first).to_be_visible()
        stop(link)


def test_a_limit_of_the_server_is_told_with_its_last_words(babbler: Bundle, visit: Visit) -> None:
    with running(babbler, ServeConfig(session=5)) as server:
        page = visit(server.host)
        start(page)
        expect(page.get_by_role("button", name="Start")).to_be_visible()
        expect(page.get_by_role("alert")).to_contain_text("What was said is kept.")
        assert len(" ".join(spoken(page))) > 0
        expect(page.get_by_role("button", name="Download as text")).to_be_enabled()


def test_no_token_is_asked_for_where_there_is_none(server: Running, visit: Visit) -> None:
    expect(visit(server.host).get_by_label("Token")).to_be_hidden()


# With the script


def test_committed_words_are_solid_tentative_ones_grey_and_endpoints_paragraphs(
    babbler: Bundle, visit: Visit
) -> None:
    async def script(client: Client) -> None:
        await client.ready()
        await client.say(tentative=(word("good"),))
        await client.say(word("good"), word("boats", 0.3, confidence=0.31), tentative=(word("fl"),))
        await client.say(word("float", 0.6), word("jump", 2.5), tentative=(word("high", 2.8),), ends=(3,))
        await client.finish(word("high", 2.8))

    with scripted(babbler, script) as host:
        page = visit(host)
        start(page)
        expect(page.locator("#transcript p")).to_have_count(2)
        assert spoken(page) == ["good boats float", "jump"]
        expect(page.locator("#transcript .tentative")).to_have_text("high")
        styles = page.evaluate(
            """() => ['.word:not(.unsure)', '.unsure', '.tentative'].map(name => {
              const style = getComputedStyle(document.querySelector('#transcript ' + name));
              return [style.color, style.fontStyle, style.textDecorationLine]; })"""
        )
        assert [style[1:] for style in styles] == [
            ["normal", "none"],
            ["normal", "underline"],
            ["italic", "none"],
        ]
        assert len({style[0] for style in styles[:2]}) == 2
        expect(page.locator("#transcript .unsure")).to_have_attribute("title", "31 % sure, at 0:00")
        stop(page)
        assert spoken(page) == ["good boats float", "jump high"]
        expect(page.locator("#transcript .tentative")).to_have_count(0)


def test_a_screen_reader_is_told_segments_that_are_committed_and_nothing_else(
    babbler: Bundle, visit: Visit
) -> None:
    async def script(client: Client) -> None:
        await client.ready()
        await client.say(word("good"), tentative=(word("bots"),))
        await client.until("hotwords")
        await client.say(word("boats"), ends=(2,))
        await client.say(tentative=(word("float"),))
        await client.finish(word("jump"))

    with scripted(babbler, script) as host:
        page = visit(host)
        start(page)
        expect(page.locator("#transcript .tentative")).to_have_text("bots")
        live = page.locator("[aria-live=polite]")
        expect(live).to_be_empty()
        page.get_by_text("Hotwords").click()
        page.get_by_label("one a line").fill("boats")
        expect(live).to_have_text("good boats")
        expect(page.locator("#transcript .tentative")).to_have_text("float")
        expect(live).to_have_text("good boats")
        stop(page)
        expect(live).to_have_text("jump")


def test_hotwords_go_with_the_start_and_whenever_they_change(babbler: Bundle, visit: Visit) -> None:
    clients: list[Client] = []

    async def script(client: Client) -> None:
        clients.append(client)
        await client.ready()
        await client.finish()

    with scripted(babbler, script) as host:
        page = visit(host)
        page.get_by_text("Hotwords").click()
        box = page.get_by_label("one a line")
        box.fill(" new york \n\no'brien")
        start(page)
        box.fill("zebra")
        wait(page, lambda: len(clients[0].told) > 1)
        stop(page)
    first, *more = clients[0].told
    assert first["hotwords"] == ["new york", "o'brien"]
    assert more == [{"type": "hotwords", "hotwords": ["zebra"]}, {"type": "finish"}]


def test_hotwords_are_not_offered_by_a_server_that_cannot_use_them(
    tokenizer: Any, babbler: Bundle, visit: Visit
) -> None:
    with running(Bundle(babbler.model, tokenizer, DecodingConfig(beam=1))) as server:
        expect(visit(server.host).get_by_text("Hotwords")).to_be_hidden()


def test_a_busy_server_says_when_to_come_again(babbler: Bundle, visit: Visit) -> None:
    async def script(client: Client) -> None:
        await client.send("error", code="busy", message="no room", retry_after=2.4)
        await client.socket.close(1013)

    with scripted(babbler, script) as host:
        page = visit(host)
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("alert")).to_have_text("The server is busy: press Start again in 3 s.")
        expect(page.get_by_role("button", name="Start")).to_be_visible()


def test_what_the_server_refuses_is_told_in_its_words(babbler: Bundle, visit: Visit) -> None:
    async def script(client: Client) -> None:
        await client.ready()
        await client.send("error", code="too_long", message="a session lasts 4 h: connect again")

    with scripted(babbler, script) as host:
        page = visit(host)
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("alert")).to_have_text("A session lasts 4 h: connect again")


def test_a_lost_connection_keeps_what_was_said_and_speaking_goes_on_after_it(
    babbler: Bundle, visit: Visit
) -> None:
    clients: list[Client] = []

    async def script(client: Client) -> None:
        clients.append(client)
        await client.ready()
        while client.heard < 1:
            await client.next()
        await client.say(word("good", 0.2), tentative=(word("boats", 0.5),), ends=(1,) * (len(clients) - 1))
        if len(clients) == 1:
            await client.socket.close(1011)
        else:
            await client.finish()

    with scripted(babbler, script) as host:
        page = visit(host)
        page.get_by_role("button", name="Start").click()
        alert = page.get_by_role("alert")
        expect(alert).to_have_text("The connection to the server was lost (1011). What was said is kept.")
        assert spoken(page) == ["good boats"]
        start(page)
        expect(alert).to_be_empty()
        expect(page.locator("#transcript p")).to_have_count(3)
        stop(page)
        assert spoken(page) == ["good boats", "good"]  # the third was tentative, and taken back
        times = page.eval_on_selector_all("time", "times => times.map(time => time.innerText)")
        assert times == ["0:00", "0:01"]


def test_a_server_that_is_gone_is_told(babbler: Bundle, visit: Visit) -> None:
    async def script(client: Client) -> None:
        raise AssertionError("nobody comes")

    with scripted(babbler, script) as host:
        page = visit(host)
        expect(page.locator("#about")).to_have_text("script")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached")
    expect(page.get_by_role("button", name="Start")).to_be_visible()


def test_a_refused_microphone_is_told(server: Running, visit: Visit) -> None:
    page = visit(server.host, microphone=False)
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("The microphone was refused: allow it")


def test_an_insecure_origin_is_told_and_files_are_still_read(
    server: Running, visit: Visit, recording: Path
) -> None:
    page = visit(f"{PLAIN}:{server.port}", microphone=False)
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("only to https:// and to localhost")
    page.set_input_files("#file", recording)
    expect(page.locator("#transcript .word").first).to_be_visible()
    expect(page.get_by_role("alert")).to_be_empty()


def test_what_is_no_recording_is_told(server: Running, visit: Visit) -> None:
    page = visit(server.host)
    page.set_input_files("#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"good boats"})
    expect(page.get_by_role("alert")).to_contain_text("notes.txt: no recording that this browser can read")


MUTED = """navigator.mediaDevices.getUserMedia = async () =>
  (window.media = new AudioContext().createMediaStreamDestination().stream);"""


def test_a_muted_microphone_and_one_that_goes_are_told(babbler: Bundle, visit: Visit) -> None:
    async def script(client: Client) -> None:
        await client.ready()
        await client.say(word("good"))
        await client.finish()

    with scripted(babbler, script) as host:
        page = visit(host, before=MUTED)
        start(page)
        expect(page.get_by_role("status")).to_have_text(
            "Nothing but silence comes from the microphone: is it muted?"
        )
        page.evaluate("media.getTracks()[0].dispatchEvent(new Event('ended'))")
        expect(page.get_by_role("button", name="Start")).to_be_visible()
        expect(page.get_by_role("alert")).to_contain_text("The microphone is gone")
        expect(page.get_by_role("status")).to_be_empty()
        assert spoken(page) == ["good"]


def test_speech_that_waits_to_be_sent_is_told_and_none_of_it_is_lost(babbler: Bundle, visit: Visit) -> None:
    clients: list[Client] = []
    go = threading.Event()

    async def script(client: Client) -> None:
        clients.append(client)
        while not go.is_set():
            await asyncio.sleep(0.01)
        await client.ready()
        await client.finish()

    with scripted(babbler, script) as host:
        page = visit(host)
        start(page)
        status = page.get_by_role("status")
        expect(status).to_contain_text("speech waits here to be sent")
        page.wait_for_timeout(1000)
        go.set()
        expect(status).to_be_empty()
        stop(page)
    assert clients[0].heard > 2.5


def test_all_of_it_works_by_keyboard_and_the_focus_stays(babbler: Bundle, visit: Visit) -> None:
    async def script(client: Client) -> None:
        await client.ready()
        await client.finish(word("good"))

    with scripted(babbler, script) as host:
        page = visit(host)
        keyboard = page.keyboard
        keyboard.press("Tab")
        expect(page.get_by_text("Hotwords")).to_be_focused()
        keyboard.press("Enter")
        keyboard.press("Tab")
        expect(page.get_by_label("one a line")).to_be_focused()
        keyboard.press("Tab")
        button = page.locator("#start")
        expect(button).to_be_focused()
        keyboard.press("Enter")
        expect(button).to_have_text("Stop")
        keyboard.press("Space")
        expect(button).to_have_text("Start")
        expect(button).to_be_focused()
        keyboard.press("Tab")
        expect(page.get_by_role("button", name="Open file")).to_be_focused()
        for name in ("Clear", "Download as JSON", "Download as SRT", "Download as text", "Copy"):
            expect(page.get_by_role("button", name=name)).to_be_enabled()


def test_clear_can_be_undone(babbler: Bundle, visit: Visit) -> None:
    async def script(client: Client) -> None:
        await client.ready()
        await client.finish(word("good"))

    with scripted(babbler, script) as host:
        page = visit(host)
        start(page)
        stop(page)
        page.get_by_role("button", name="Clear").click()
        assert spoken(page) == []
        expect(page.get_by_role("button", name="Download as text")).to_be_disabled()
        page.get_by_role("button", name="Undo").click()
        assert spoken(page) == ["good"]


def test_downloads_hold_what_is_on_the_page(babbler: Bundle, visit: Visit) -> None:
    words = [word("good", 0.5), word("boats", 0.8, 0.25), word("float", 3.0)]

    async def script(client: Client) -> None:
        await client.ready()
        await client.say(*words, ends=(2,))
        await client.finish()

    with scripted(babbler, script) as host:
        page = visit(host)
        start(page)
        stop(page)
        files = {}
        for format, name in (("txt", "text"), ("srt", "SRT"), ("json", "JSON")):
            with page.expect_download() as download:
                page.get_by_role("button", name=f"Download as {name}").click()
            assert download.value.suggested_filename.endswith(f".{format}")
            files[format] = Path(download.value.path()).read_text(encoding="utf-8")
    transcript = Transcript.of(words, ends=[2])
    assert files["txt"] == "good boats\nfloat\n"
    assert files["srt"] == formats.render(transcript, "srt")
    assert json.loads(files["json"]) == json.loads(formats.render(transcript, "json"))


def test_subtitles_are_cut_as_the_command_line_cuts_them(server: Running, visit: Visit) -> None:
    """Any words: long, touching, overlapping into the next caption's time, of letters beyond 16 bit."""
    random = np.random.default_rng(5)
    page = visit(server.host)
    for _ in range(30):
        words, now = [], 0.0
        for _ in range(random.integers(1, 80)):
            now += random.choice([0.0, 0.05, 0.3, 0.9], p=[0.5, 0.3, 0.1, 0.1])
            text = "".join(
                random.choice(list("ab\U0001d4ea"), random.choice([1, 4, 9, 50], p=[0.3, 0.4, 0.28, 0.02]))
            )
            words.append(Word(text, now, now := now + random.random(), float(random.random())))
        ends = sorted(random.integers(1, len(words) + 1, 3).tolist())
        transcript = Transcript.of(words, ends=ends)
        segments = [[asdict(word) for word in segment] for segment in transcript.segments]
        got = page.evaluate(
            "async segments => (await import('/page/transcript.js')).RENDER.srt(segments)", segments
        )
        assert got == formats.render(transcript, "srt")


# How it looks

TEXTS = "h1, #about, .word, .tentative, time, button:enabled, summary, label, .figure, [role]"
CONTRAST = """names => {
  const curve = c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) =>
    0.2126 * curve(r / 255) + 0.7152 * curve(g / 255) + 0.0722 * curve(b / 255);
  const context = new OffscreenCanvas(1, 1).getContext('2d');
  const pixel = colour => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const under = element => {
    const colour = getComputedStyle(element).backgroundColor;
    return pixel(colour)[3] ? colour : under(element.parentElement);
  };
  const texts = [...document.querySelectorAll(names)].filter(e => e.checkVisibility() && e.innerText);
  return texts.map(e => {
    const pair = [getComputedStyle(e).color, under(e)].map(colour => luminance(pixel(colour)));
    return [e.outerHTML.slice(0, 80), (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05)];
  });
}"""  # of text on what is under it: WCAG 2.2, 1.4.3


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_all_text_can_be_read_and_nothing_sticks_out(
    babbler: Bundle, visit: Visit, scheme: str, size: dict[str, int]
) -> None:
    async def script(client: Client) -> None:
        await client.ready()
        await client.say(word("good"), word("b" * 60, confidence=0.0), tentative=(word("float"),))
        await client.send("error", code="internal", message="something " * 12)

    with scripted(babbler, script) as host:
        page = visit(host, color_scheme=scheme, viewport=size)
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("alert")).to_contain_text("Something")
        contrasts = page.evaluate(CONTRAST, TEXTS)
        assert len(contrasts) > 12
        assert not [(what, ratio) for what, ratio in contrasts if ratio < 4.5]
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def test_the_page_may_do_nothing_but_speak_to_its_server(server: Running, visit: Visit) -> None:
    page = visit(server.host)
    policy = page.request.get(f"http://{server.host}/").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    tried = page.evaluate(
        "() => fetch('https://example.invalid/').then(() => 'reached', error => error.name)"
    )
    assert tried == "TypeError"
