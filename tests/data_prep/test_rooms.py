"""data_prep.rooms: impulse responses that begin with the direct sound and fade."""

from pathlib import Path

import numpy as np
import pytest

from asr.data.manifest import load_audio, load_cuts
from asr.errors import UserError
from data_prep import rooms
from data_prep.rooms import DECAY, DISTANCE, RATE, response

pytest.importorskip("pyroomacoustics", reason="computes rooms; pip install pyroomacoustics")


def decay(heard: np.ndarray) -> float:
    """Seconds for 60 dB, by the line from 5 to 25 dB below the beginning (Schroeder 1965)."""
    left = np.cumsum(np.square(heard, dtype=np.float64)[::-1])[::-1]
    early, late = (int(np.count_nonzero(left > left[0] * 10 ** (-level / 10))) for level in (5, 25))
    return 3 * (late - early) / RATE


def test_a_room_begins_with_the_direct_sound_and_fades() -> None:
    import pyroomacoustics

    decays = []
    for seed in range(8):
        heard = response(np.random.default_rng(seed), pyroomacoustics, DECAY, DISTANCE)
        assert heard.dtype == np.float32 and np.isfinite(heard).all()
        assert np.abs(heard).argmax() == 0 and abs(heard[0]) == pytest.approx(0.5)
        half = len(heard) // 2
        assert np.square(heard[half:]).sum() < 0.1 * np.square(heard[:half]).sum()
        decays.append(decay(heard))
    assert min(decays) < 0.35 < max(decays) < 1.5 * DECAY[1]


def test_the_manifest_names_as_many_rooms_as_were_asked_for_the_same_for_a_seed(tmp_path: Path) -> None:
    output = tmp_path / "rooms.jsonl.gz"
    assert rooms.main(["--count", "2", "--seed", "7", "--output", str(output)]) == 0
    cuts = list(load_cuts([output], check_audio=True))
    assert [cut.id for cut in cuts] == ["room-7-0000", "room-7-0001"]
    first, second = map(load_audio, cuts)
    assert len(first) != len(second) or not np.array_equal(first, second)
    again = tmp_path / "again.jsonl.gz"
    rooms.main(["--count", "1", "--seed", "7", "--output", str(again)])
    assert np.array_equal(load_audio(next(iter(load_cuts([again])))), first)


def test_what_decays_longer_and_is_further_away_has_more_echo() -> None:
    """Energy after the first 50 ms, as a share."""
    import pyroomacoustics

    shares = []
    for decay_, distance in (((0.2, 0.3), (0.3, 0.5)), ((0.8, 1.0), (2.0, 3.0))):
        echoes = [
            response(np.random.default_rng(seed), pyroomacoustics, decay_, distance) for seed in range(4)
        ]
        shares.append([float(np.square(each[800:]).sum() / np.square(each).sum()) for each in echoes])
    assert max(shares[0]) < min(shares[1])


def test_a_room_that_cannot_be_is_said_to_be_none() -> None:
    import pyroomacoustics

    for wrong in (((0.2, 0.3), (20.0, 30.0)), ((0.001, 0.002), (0.3, 0.5))):
        with pytest.raises(UserError, match=r"--decay or --distance"):
            response(np.random.default_rng(0), pyroomacoustics, *wrong)
