"""The phones of CMUdict without stress, and silence: what a phone layer tells apart."""

from __future__ import annotations

_SILENCE, _VOWELS = "SIL", "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
_CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"

PHONES = (_SILENCE, *sorted(f"{_VOWELS} {_CONSONANTS}".split()))
SILENCE = 0
INDEX = {phone: index for index, phone in enumerate(PHONES)}
UNKNOWN = -1  # of a stretch of audio, as a target: not trained on
