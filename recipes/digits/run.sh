#!/usr/bin/env bash
# The Free Spoken Digit Dataset: ten words, six speakers, of whom two are kept for evaluation.
#
#   git clone https://github.com/Jakobovski/free-spoken-digit-dataset
#   recipes/digits/run.sh free-spoken-digit-dataset
#
# Each stage skips what is there, and training goes on where it was stopped. UNHEARD='george|lucas' keeps others, where
# data/digits and exp/digits are not there yet.
set -euo pipefail
corpus=$(realpath "${1:?the directory of the dataset, with recordings/ in it}")
cd "$(dirname "$0")/../.."
data=data/digits exp=exp/digits
unheard=${UNHEARD:-nicolas|theo} # of the six speakers
export OMP_WAIT_POLICY=passive
mkdir -p $data

# 1. Tables and manifests; recordings are called DIGIT_SPEAKER_NUMBER
if [ ! -f $data/dev.jsonl.gz ]; then
    words=(zero one two three four five six seven eight nine)
    for set in train dev; do
        printf 'utt_id\tspeaker\tpath\ttext\n' >$data/$set.tsv
    done
    find "$corpus" \( -name '[0-9]_*_*.wav' -o -name '[0-9]_*_*.flac' \) | sort | while read -r path; do
        name=$(basename "${path%.*}")
        speaker=${name#?_} speaker=${speaker%_*}
        [[ $speaker =~ ^($unheard)$ ]] && set=dev || set=train
        printf '%s\t%s\t%s\t%s\n' "$name" "$speaker" "$path" "${words[${name%%_*}]}" >>$data/$set.tsv
    done
    for set in train dev; do
        python -m data_prep.tsv $data/$set.tsv --output $data/$set.jsonl.gz
    done
fi

# 2. The model of the package, fine-tuned, with a lexicon of ten words
grep -E '^(zero|one|two|three|four|five|six|seven|eight|nine) ' asr/models/en-small/lexicon.txt >$data/lexicon.txt
[ -d $exp/bundle ] || asr train --config configs/digits.yaml --ckpt_path last

# 3. A language model of recordings that are one word each, as likely as the others, and how much to believe it. Ten words
# are few: hypotheses that a noisy frame makes unlikely can stay
if [ ! -f $exp/bundle/lm.bin ]; then
    cut -f 4 $data/train.tsv | tail -n +2 >$data/train.txt
    asr lm $data/train.txt --order 2 --output $exp/lm.bin
    sed -e 's/^token_threshold: .*/token_threshold: 20.0/' -e 's/^threshold: .*/threshold: 60.0/' \
        $exp/bundle/decoding.yaml >$exp/decoding.yaml
    mv $exp/decoding.yaml $exp/bundle/
    asr calibrate --model $exp/bundle --cuts $data/train.jsonl.gz --limit 400 --beam 64 --lm $exp/lm.bin --install-lm
fi

# 4. Word errors of speakers that were never heard
asr evaluate --model $exp/bundle --cuts $data/dev.jsonl.gz --vad off --jobs 2 --output-dir $exp/dev
