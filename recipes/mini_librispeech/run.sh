#!/usr/bin/env bash
# Five hours of LibriSpeech (train-clean-5) and whatever lies beside it, on a laptop.
#
#   recipes/mini_librispeech/run.sh              downloads train-clean-5 and dev-clean-2
#   recipes/mini_librispeech/run.sh TREE         takes TREE/LibriSpeech/{train-*,dev-*}, and TREE/commonvoice1
#
# Each stage skips what is there, and training goes on where it was stopped.
set -euo pipefail
cd "$(dirname "$0")/../.."
tree=${1:-}
data=data/mini_librispeech exp=exp/mini_librispeech
export OMP_WAIT_POLICY=passive # threads that spin at barriers starve the data loader

# 1. Manifests
if [ -z "$tree" ]; then
    parts="train-clean-5 dev-clean-2"
    python -m data_prep.librispeech --parts $parts --download-dir data/download --output-dir $data
else
    parts=$(cd "$tree/LibriSpeech" && ls -d train-clean-* dev-clean*)
    python -m data_prep.librispeech --parts $parts --corpus-dir "$tree" --output-dir $data
    if [ -d "$tree/commonvoice1" ] && [ ! -f $data/train-commonvoice1.jsonl.gz ]; then
        # exit status 1: some rows were bad, were named, and are left out
        python -m data_prep.tsv "$tree/commonvoice1/transcripts.tsv" --output $data/train-commonvoice1.jsonl.gz || [ $? = 1 ]
    fi
fi
train=$(echo $data/train-*.jsonl.gz)
dev=$(echo $data/dev-*.jsonl.gz)

# 2. Tokenizer
[ -f $exp/tokenizer.model ] || asr tokenizer --cuts $train --vocabulary 256 --output $exp/tokenizer.model

# 3. Training
asr train --config configs/train-clean-5.yaml --model.tokenizer $exp/tokenizer.model \
    --data.train "[${train// /,}]" --data.dev "[${dev// /,}]" --trainer.default_root_dir $exp --ckpt_path last

# 4. Word error rate, streaming, and the learning curve
asr evaluate --model $exp/bundle --cuts $dev --output-dir $exp/dev
python recipes/mini_librispeech/plot_curve.py $exp/curve.jsonl recipes/mini_librispeech/curve.png
