"""The phones of CMUdict without stress, and silence; each has a name and, for spelling with it, one letter.

The letters are those of the one-letter ARPABET of the ARPA Speech Understanding Project (1971-1976).
"""

from __future__ import annotations

from collections.abc import Sequence

_SILENCE, _VOWELS = "SIL", "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
_CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"

PHONES = (_SILENCE, *sorted(f"{_VOWELS} {_CONSONANTS}".split()))
SILENCE = 0
INDEX = {phone: index for index, phone in enumerate(PHONES)}
UNKNOWN = -1  # of a stretch of audio, as a target: not trained on

# Of AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH
LETTERS = dict(zip(PHONES[1:], "a@AcWYbCdDERefghIiJklmnGoOprsStTUuvwyzZ", strict=True))
NAMES = {letter: phone for phone, letter in LETTERS.items()}


def pronunciation(phones: Sequence[str]) -> str:
    """Names of phones -> their letters; ValueError for what is no phone."""
    try:
        return "".join([LETTERS[phone] for phone in phones])
    except KeyError as error:
        raise ValueError(f"{error} is no phone; there are {' '.join(LETTERS)}") from None


def names(way: str) -> str:
    """The letters of phones -> their names, with spaces between them."""
    return " ".join(NAMES[letter] for letter in way)
