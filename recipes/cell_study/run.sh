#!/usr/bin/env bash
# What the gates are worth: recurrent cells and front-ends of like size, trained alike, from corpora to table and pictures.
#
#   recipes/cell_study/run.sh CORPORA [OPTIONS]     a directory with LibriSpeech/ (train-clean-5, dev-clean) and fsdd/
#
# It needs PocketSphinx for the alignment: pip install pocketsphinx. Each stage skips what is there; OPTIONS are those of
# recipes.cell_study.study (--jobs 2 --steps 1500).
set -euo pipefail
corpora=$(realpath "${1:?a directory of corpora; see recipes/cell_study/README.md}")
cd "$(dirname "$0")/../.."
data=data/cell-study exp=exp/cell-study
unheard='nicolas|theo' # of the six speakers of fsdd
export OMP_WAIT_POLICY=passive
mkdir -p $data $exp

# 1. Manifests
if [ ! -f $data/digits-dev.jsonl.gz ]; then
    python -m data_prep.librispeech --parts train-clean-5 dev-clean --corpus-dir "$corpora" --output-dir $data
    cp $data/dev-clean.jsonl.gz $data/speech-dev.jsonl.gz
    cp $data/train-clean-5.jsonl.gz $data/speech-train.jsonl.gz
    words=(zero one two three four five six seven eight nine)
    for set in train dev; do
        printf 'utt_id\tspeaker\tpath\ttext\n' >$data/$set.tsv
    done
    find "$corpora/fsdd" \( -name '[0-9]_*_*.wav' -o -name '[0-9]_*_*.flac' \) | sort | while read -r path; do
        name=$(basename "${path%.*}") # DIGIT_SPEAKER_NUMBER
        speaker=${name#?_} speaker=${speaker%_*}
        [[ $speaker =~ ^($unheard)$ ]] && set=dev || set=train
        printf '%s\t%s\t%s\t%s\n' "$name" "$speaker" "$path" "${words[${name%%_*}]}" >>$data/$set.tsv
    done
    for set in train dev; do
        python -m data_prep.tsv $data/$set.tsv --output $data/digits-$set.jsonl.gz
    done
fi

# 2. When the phones were said, by PocketSphinx: a minute for half an hour of speech
for set in speech-train speech-dev digits-train digits-dev; do
    [ -f $exp/$set.phones.ctm ] || python -m data_prep.reference_alignment --cuts $data/$set.jsonl.gz \
        --output $exp/$set.ctm --phones $exp/$set.phones.ctm
done

# 3. What decodes them: en-small's lexicon and language model; for digits ten words, each as likely as the others
if [ ! -f $exp/digits.lm.bin ]; then
    cp asr/models/en-small/lexicon.txt $exp/speech.lexicon.txt
    cp asr/models/en-small/lm.bin $exp/speech.lm.bin
    grep -E '^(zero|one|two|three|four|five|six|seven|eight|nine) ' $exp/speech.lexicon.txt >$exp/digits.lexicon.txt
    cut -f 4 $data/train.tsv | tail -n +2 >$data/digits.txt
    asr lm $data/digits.txt --order 1 --output $exp/digits.lm.bin
fi

# 4. Features and labels, once for all
for task in speech digits; do
    [ -f $exp/$task.npz ] || python -m recipes.cell_study.corpus --train $data/$task-train.jsonl.gz \
        --dev $data/$task-dev.jsonl.gz --phones $exp/$task-train.phones.ctm $exp/$task-dev.phones.ctm --output $exp/$task.npz
done

# 5. The trainings, what they recognise, and how long a step takes
python -m recipes.cell_study.study --directory $exp "${@:2}"
[ -f $exp/speed.json ] || python -m recipes.cell_study.speed --output $exp/speed.json

# 6. Table and pictures
python -m recipes.cell_study.table --directory $exp --pictures recipes/cell_study
