#!/usr/bin/env bash
# Ten minutes of your own recordings, and a model that knows your voice, your microphone and your words.
#
#   recipes/your_data/run.sh TABLE [DEV_TABLE]
#
# A table has the columns utt_id, path and text (and speaker, if you like), tab-separated; data_prep.tsv says
# more. Without DEV_TABLE every fifth row is kept for evaluation. Each stage skips what is there.
# Words that en-small's lexicon lacks need: pip install pocketsphinx espeakng-loader
set -euo pipefail
table=$(realpath "${1:?a TSV with the columns utt_id, path and text}")
dev_table=${2:+$(realpath "$2")}
cd "$(dirname "$0")/../.."
data=data/your_data exp=exp/your_data
export OMP_WAIT_POLICY=passive
mkdir -p $data $exp

# 1. Manifests
if [ ! -f $data/dev.jsonl.gz ]; then
    train_table=$table
    if [ -z "$dev_table" ]; then
        train_table=$data/train.tsv dev_table=$data/dev.tsv
        awk 'NR == 1 || NR % 5' "$table" >$train_table
        awk 'NR == 1 || NR % 5 == 0' "$table" >$dev_table
    fi
    # exit status 1: some rows were bad, were named, and are left out
    python -m data_prep.tsv "$train_table" --audio-root "$(dirname "$table")" --output $data/train.jsonl.gz || [ $? = 1 ]
    python -m data_prep.tsv "$dev_table" --audio-root "$(dirname "$table")" --output $data/dev.jsonl.gz || [ $? = 1 ]
fi

# 2. How your words are pronounced. Those that en-small does not know, its language model does not know either:
#    they are hotwords
words() { cut -d ' ' -f 1 "$1" | sort -u; }
if [ ! -f $exp/hotwords.txt ]; then
    python -m data_prep.lexicon --known asr/models/en-small/lexicon.txt --cuts $data/train.jsonl.gz --output $exp/ways.txt
    comm -13 <(words asr/models/en-small/lexicon.txt) <(words $exp/ways.txt) >$exp/hotwords.txt
fi

# 3. In which of their ways they were said, as en-small hears it, and how often: "a" the letter is not the article
if [ ! -f $exp/lexicon.txt ]; then
    python -m data_prep.phone_alignment --model asr/models/en-small --lexicon $exp/ways.txt --cuts $data/{train,dev}.jsonl.gz \
        --output $exp/phones.ctm
    python -m data_prep.pronunciation_shares --lexicon $exp/ways.txt --cuts $data/train.jsonl.gz --phones $exp/phones.ctm \
        --output $exp/lexicon.txt
fi

# 4. What the model of the package makes of it
[ -d $exp/before ] || asr evaluate --cuts $data/dev.jsonl.gz --output-dir $exp/before

# 5. Fine-tuning, minutes
[ -d $exp/bundle ] || asr train --config configs/your-data.yaml --ckpt_path last

# 6. Settings of decoding and language models of the model that it comes from, and one of your sentences alone
[ -f $exp/bundle/lm.bin ] || cp asr/models/en-small/{lm.bin,neural-lm.safetensors,decoding.yaml} $exp/bundle/
[ -f $exp/own.bin ] || python -m data_prep.texts $data/train.jsonl.gz | asr lm - --order 3 --output $exp/own.bin

# 7. What it was worth, and what the second language model makes of it, which knows no other words than yours
after() { asr evaluate --model $exp/bundle --cuts $data/dev.jsonl.gz --output-dir "$exp/$1" "${@:2}"; }
after after --hotwords $exp/hotwords.txt
after own --lm $exp/own.bin
asr evaluate --compare $exp/before $exp/after
asr evaluate --compare $exp/after $exp/own
