"""How a word is probably said that no lexicon has: espeak-ng's guess, where it is installed.

pip install espeakng-loader
"""

from __future__ import annotations

import ctypes
import functools
import threading

from asr.errors import UserError
from asr.phones import pronunciation

# Sounds of espeak-ng's en-us as phones of CMUdict; the longest match is taken
_SOUNDS = """
    b=B d=D f=F h=HH k=K l=L m=M n=N p=P s=S t=T v=V w=W z=Z j=Y r=R ɹ=R ɡ=G ɾ=T ʔ=T ŋ=NG θ=TH ð=DH ʃ=SH
    ʒ=ZH x=K ç=K ɬ=L tʃ=CH dʒ=JH n̩=AH+N əl=AH+L nʲ=N+Y i=IY iː=IY ɪ=IH ᵻ=IH e=EY eɪ=EY ɛ=EH æ=AE æ̃=AE+N
    ə=AH ɐ=AH ʌ=AH ɔ=AO ɔː=AO ɔ̃=AO+N ɑ=AA ɑː=AA ɑ̃=AA+N a=AA o=OW oʊ=OW u=UW uː=UW ʊ=UH ɚ=ER ɜ=ER ɜː=ER
    aɪ=AY aʊ=AW ɔɪ=OY iə=IY+AH aɪə=AY+AH aɪɚ=AY+ER
"""
ARPABET: dict[str, str] = {
    sound: phones.replace("+", " ") for sound, phones in (pair.split("=") for pair in _SOUNDS.split())
}


class UnknownSound(UserError):
    """One that English has not."""


_ONE_AT_A_TIME = threading.Lock()


class Espeak:
    """The espeak-ng library of this process. One at a time: its state is global."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise UserError("espeak-ng is needed here: pip install espeakng-loader") from error
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        synchronous, no_exit = 2, 0x8000
        data = str(espeakng_loader.get_data_path()).encode()
        self.rate: int = self._library.espeak_Initialize(synchronous, 0, data, no_exit)
        if self.rate <= 0:
            raise UserError("espeak-ng does not start: install espeakng-loader again")

    def ipa(self, word: str, voice: str) -> str:
        """How the voice would say a word: IPA with stress marks, "_" between phonemes."""
        self._library.espeak_SetVoiceByName(voice.encode())
        utf8, ipa, separator = 1, 0x02, ord("_") << 8
        text = ctypes.c_char_p(word.encode())
        spoken = self._library.espeak_TextToPhonemes
        spoken.restype = ctypes.c_char_p
        return spoken(ctypes.byref(text), utf8, ipa | separator).decode()


def arpabet(ipa: str) -> str:
    """espeak-ng's IPA, "_" between phonemes -> CMUdict's phones. UnknownSound where one is none of them."""
    phones = []
    for phoneme in ipa.replace("ˈ", "").replace("ˌ", "").replace(" ", "_").split("_"):
        while phoneme:
            length = next((n for n in (3, 2, 1) if phoneme[:n] in ARPABET), 0)
            if not length:
                raise UnknownSound(f"no phone of CMUdict for {phoneme!r} in {ipa!r}; add it to ARPABET")
            phones.append(ARPABET[phoneme[:length]])
            phoneme = phoneme[length:].lstrip("ː")
    return " ".join(phones)


@functools.lru_cache(maxsize=100_000)
def guess(word: str) -> str:
    """A word as espeak-ng's American voice says it, in the letters of phones.

    Raises UserError where espeak-ng is missing, UnknownSound where it says what English has not.
    """
    with _ONE_AT_A_TIME:
        return pronunciation(arpabet(_espeak().ipa(word, "en-us")).split())


@functools.cache
def _espeak() -> Espeak:
    return Espeak()
