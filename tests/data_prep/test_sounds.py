"""data_prep.sounds and data_prep.lexicon."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.data.manifest import load_cuts
from asr.errors import UserError
from asr.lexicon import Lexicon, names
from data_prep import lexicon, sounds


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "audio").mkdir()
    lines = ["clip_id\tclass\tpath"]
    for name in ("1-10", "2-20", "5-50"):
        soundfile.write(tmp_path / "audio" / f"{name}.wav", np.full(8000, 0.1), 16000)
        lines.append(f"{name}\train\taudio/{name}.wav")
    path = tmp_path / "clips.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_sounds_are_utterances_without_words(table: Path, tmp_path: Path) -> None:
    output = tmp_path / "sounds.jsonl.gz"
    assert sounds.main([str(table), "--output", str(output)]) == 0
    cuts = list(load_cuts([output], check_audio=True))
    assert [cut.id for cut in cuts] == ["sound-1-10", "sound-2-20", "sound-5-50"]
    assert [cut.supervisions[0].text for cut in cuts] == [""] * 3
    assert cuts[0].duration == 0.5


def test_a_fold_can_be_kept_for_evaluation(table: Path, tmp_path: Path) -> None:
    output = tmp_path / "sounds.jsonl.gz"
    sounds.main([str(table), "--only", "1-", "2-", "--output", str(output)])
    assert [cut.id for cut in load_cuts([output])] == ["sound-1-10", "sound-2-20"]
    with pytest.raises(UserError, match="no clip begins with 9-"):
        sounds.main([str(table), "--only", "9-", "--output", str(output)])


def test_a_table_without_paths_is_named(tmp_path: Path) -> None:
    path = tmp_path / "clips.tsv"
    path.write_text("name\nx\n")
    with pytest.raises(UserError, match=r"clips\.tsv: has no rows with a column `path`"):
        sounds.main([str(path), "--output", str(tmp_path / "sounds.jsonl.gz")])


def test_a_lexicon_has_every_way_of_a_word_and_guesses_what_the_dictionary_lacks(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("espeakng_loader")
    text, output = tmp_path / "text.txt", tmp_path / "lexicon.txt"
    text.write_text("The cat, the cat!\nfloopity floopity zzyzxq\n")
    assert lexicon.main(["--text", str(text), "--output", str(output), "--least", "2"]) == 0
    spoken = {word: [names(way) for way in ways] for word, ways in Lexicon.load(output).ways.items()}
    assert set(spoken) == {"the", "cat", "floopity"}  # "zzyzxq" occurs once
    assert spoken["cat"] == ["K AE T"]
    assert {"DH AH", "DH IY"} <= set(spoken["the"])
    assert spoken["floopity"][0].startswith("F L UW P")
