"""The settings of a Realtime transcription session: reading `session.update`, showing what holds.

Only what is in an update changes. What does not exist here (noise reduction) is passed over, and is not in
what is shown; what would change the audio or its items is an error.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from asr.endpoint import EndpointConfig
from asr.serving.openai_shapes import Invalid, Json
from asr.serving.pcm import Format
from asr.vad import VadConfig

FORMATS: dict[str, tuple[Format, int]] = {  # coding and rate
    "audio/pcm": ("s16le", 24000),
    "audio/pcmu": ("ulaw", 8000),
    "audio/pcma": ("alaw", 8000),
}
BETA_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
LOGPROBS = "item.input_audio_transcription.logprobs"
LONGEST = 60_000  # milliseconds of silence


@dataclass(frozen=True)
class ServerVad:
    """Where items end; times in milliseconds. OpenAI's defaults."""

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500

    def endpoints(self, configured: EndpointConfig | None) -> EndpointConfig:
        rules = configured or EndpointConfig(max_length=None)
        return replace(rules, silence=self.silence_duration_ms / 1000, no_speech=None)

    def gate(self, configured: VadConfig | None) -> VadConfig | None:
        """None where the server has its VAD turned off."""
        if configured is None:
            return None
        hysteresis = min(configured.hysteresis, self.threshold / 2)  # or speech would never end
        return replace(configured, threshold=self.threshold, hysteresis=hysteresis)


@dataclass(frozen=True)
class Settings:
    """vad: None leaves it to the client to commit."""

    format: str = "audio/pcm"
    language: str = ""
    prompt: str = ""
    keywords: tuple[str, ...] = ()
    vad: ServerVad | None = ServerVad()
    logprobs: bool = False


def updated(settings: Settings, session: object) -> Settings:
    """With what a client's `session` sets. Raises Invalid."""
    tree = _object(session, "session")
    if tree.get("type", "transcription") != "transcription":
        raise Invalid("this server transcribes: the type has to be transcription", "session.type")
    audio = _object(tree.get("audio") or {}, "session.audio")
    given = _object(audio.get("input") or {}, "session.audio.input")
    if "format" in given:
        settings = replace(settings, format=_format(given["format"]))
    if "transcription" in given:
        settings = _transcription(settings, given["transcription"] or {})
    if "turn_detection" in given:
        settings = replace(settings, vad=_vad(settings.vad or ServerVad(), given["turn_detection"]))
    if "include" in tree:
        settings = replace(settings, logprobs=LOGPROBS in _strings(tree["include"] or [], "session.include"))
    return settings


def beta_update(session: object) -> Json:
    """A session of the beta's, as one of today's."""
    tree = _object(session, "session")
    given: Json = {}
    if "input_audio_format" in tree:
        name = tree["input_audio_format"]
        given["format"] = {"type": BETA_FORMATS.get(str(name), name)}
    if "input_audio_transcription" in tree:
        given["transcription"] = tree["input_audio_transcription"]
    if "turn_detection" in tree:
        given["turn_detection"] = tree["turn_detection"]
    return {"audio": {"input": given}} | {key: tree[key] for key in ("include",) if key in tree}


def shown(settings: Settings, id: str, model: str, beta: bool) -> Json:
    """What holds, as `session.created` and `session.updated` tell it."""
    vad = settings.vad
    detection = None if vad is None else {"type": "server_vad", **vars(vad)}
    transcription: Json = {"model": model, "language": settings.language or None, "prompt": settings.prompt}
    include = [LOGPROBS] if settings.logprobs else None
    if beta:
        names = {new: old for old, new in BETA_FORMATS.items()}
        return {
            "id": id,
            "object": "realtime.transcription_session",
            "input_audio_format": names[settings.format],
            "input_audio_transcription": transcription,
            "input_audio_noise_reduction": None,
            "turn_detection": detection,
            "include": include,
        }
    format: Json = {"type": settings.format}
    if settings.format == "audio/pcm":  # the others have one rate
        format["rate"] = FORMATS["audio/pcm"][1]
    return {
        "id": id,
        "object": "realtime.transcription_session",
        "type": "transcription",
        "audio": {
            "input": {
                "format": format,
                "transcription": transcription | {"keywords": list(settings.keywords)},
                "noise_reduction": None,
                "turn_detection": detection,
            }
        },
        "include": include,
    }


def _format(given: object) -> str:
    tree = _object(given, "session.audio.input.format")
    name = tree.get("type", "audio/pcm")
    if not isinstance(name, str) or name not in FORMATS:
        raise Invalid(f"{name!r} is not one of {', '.join(FORMATS)}", "session.audio.input.format.type")
    rate = FORMATS[name][1]
    if tree.get("rate") not in (None, rate):
        message = f"{name} has {rate} samples a second, not {tree['rate']!r}: resample it"
        raise Invalid(message, "session.audio.input.format.rate")
    return name


def _transcription(settings: Settings, given: object) -> Settings:
    param = "session.audio.input.transcription"
    tree = _object(given, param)
    if "keywords" in tree:
        settings = replace(settings, keywords=tuple(_strings(tree["keywords"] or [], f"{param}.keywords")))
    language, prompt = tree.get("language", settings.language), tree.get("prompt", settings.prompt)
    if not isinstance(language or "", str) or not isinstance(prompt or "", str):
        raise Invalid("language and prompt have to be strings", param)
    return replace(settings, language=str(language or ""), prompt=str(prompt or ""))


def _vad(before: ServerVad, given: object) -> ServerVad | None:
    param = "session.audio.input.turn_detection"
    if given is None:
        return None
    tree = _object(given, param)
    if tree.get("type", "server_vad") != "server_vad":
        raise Invalid("turn detection is server_vad or null", f"{param}.type")
    values = vars(before)
    bounds = {"threshold": (0.01, 1), "prefix_padding_ms": (0, LONGEST), "silence_duration_ms": (1, LONGEST)}
    for name, (least, most) in bounds.items():
        value = tree.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            raise Invalid(f"{name} has to be {least:g} to {most:g}, not {value!r}", f"{param}.{name}")
        values = values | {name: value}
    return ServerVad(**values)


def _object(value: object, param: str) -> Json:
    if not isinstance(value, dict):
        raise Invalid("has to be an object", param)
    return value


def _strings(value: object, param: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Invalid("has to be a list of strings", param)
    return value
