#!/usr/bin/env bash
# Mozilla Common Voice, any language whose letters the normalisation keeps.
#
#   recipes/commonvoice/run.sh cv-corpus-NN/en      the unpacked folder of a language, with train.tsv and clips/
#
# Common Voice asks for a consent before it is downloaded, so this recipe begins with the unpacked archive. Each
# stage skips what is there, and training goes on where it was stopped.
set -euo pipefail
corpus=$(realpath "${1:?the folder of a language, with train.tsv and clips/}")
cd "$(dirname "$0")/../.."
data=data/commonvoice exp=exp/commonvoice
export OMP_WAIT_POLICY=passive
mkdir -p $data

# 1. Tables with the columns that data_prep.tsv knows, and manifests
for set in train dev; do
    [ -f $data/$set.jsonl.gz ] && continue
    awk -F'\t' -v OFS='\t' '
        NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; print "speaker", "path", "text"; next }
        { print substr($column["client_id"], 1, 16), "clips/" $column["path"], $column["sentence"] }
    ' "$corpus/$set.tsv" >$data/$set.tsv
    # exit status 1: some rows were bad, were named, and are left out
    python -m data_prep.tsv $data/$set.tsv --audio-root "$corpus" --output $data/$set.jsonl.gz || [ $? = 1 ]
done

# 2. Tokenizer, training
[ -f $exp/tokenizer.model ] || asr tokenizer --cuts $data/train.jsonl.gz --vocabulary 500 --output $exp/tokenizer.model
asr train --config configs/train-clean-100.yaml --model.tokenizer $exp/tokenizer.model \
    --data.train "[$data/train.jsonl.gz]" --data.dev "[$data/dev.jsonl.gz]" --trainer.default_root_dir $exp --ckpt_path last

# 3. A language model of the sentences themselves, for want of other text; settings of decoding
if [ ! -f $exp/bundle/lm.bin ]; then
    cut -f 3 $data/train.tsv | tail -n +2 >$data/train.txt
    asr lm $data/train.txt --output $exp/lm.bin
    asr calibrate --model $exp/bundle --cuts $data/dev.jsonl.gz --lm $exp/lm.bin --install-lm
fi

# 4. Word error rate, streaming
asr evaluate --model $exp/bundle --cuts $data/dev.jsonl.gz --output-dir $exp/dev
