#!/usr/bin/env bash
# LibriSpeech, by how much of it: train-clean-5, train-clean-100, train-clean-460 or librispeech-960.
#
#   recipes/librispeech/run.sh train-clean-100          downloads what it needs from OpenSLR
#   recipes/librispeech/run.sh train-clean-100 TREE     takes TREE/LibriSpeech/train-clean-100, dev-clean, ...
#
# Each stage skips what is there, and training goes on where it was stopped.
set -euo pipefail
cd "$(dirname "$0")/../.."
config=${1:?one of train-clean-5, train-clean-100, train-clean-460, librispeech-960}
tree=${2:-}
data=data/librispeech exp=exp/$config dev=dev-clean vocabulary=500
export OMP_WAIT_POLICY=passive
case $config in
train-clean-5) parts=train-clean-5 dev=dev-clean-2 vocabulary=256 ;;
train-clean-100) parts=train-clean-100 ;;
train-clean-460) parts='train-clean-100 train-clean-360' ;;
librispeech-960) parts='train-clean-100 train-clean-360 train-other-500' ;;
*) echo "$config: no such size; train-clean-5, train-clean-100, train-clean-460 or librispeech-960" >&2 && exit 2 ;;
esac
[ -n "$tree" ] && source="--corpus-dir $tree" dev=dev-clean || source="--download-dir data/download"

# 1. Manifests
python -m data_prep.librispeech --parts $parts $dev $source --output-dir $data
train=$(printf "$data/%s.jsonl.gz," $parts)

# 2. Tokenizer
[ -f $exp/tokenizer.model ] || asr tokenizer --cuts ${train//,/ } --vocabulary $vocabulary --output $exp/tokenizer.model

# 3. Training
asr train --config configs/$config.yaml --data.train "[${train%,}]" --data.dev "[$data/$dev.jsonl.gz]" --ckpt_path last

# 4. Language model: LibriSpeech's own, pruned
[ -f data/lm/3-gram.pruned.3e-7.bin ] || python -m data_prep.librispeech_lm 3-gram.pruned.3e-7 --output-dir data/lm
[ -f $exp/bundle/lm.bin ] || asr calibrate --model $exp/bundle --cuts $data/$dev.jsonl.gz --lm data/lm/3-gram.pruned.3e-7.bin --install-lm

# 5. Word error rate, streaming, greedy and with all
asr evaluate --model $exp/bundle --cuts $data/$dev.jsonl.gz --beam 1 --output-dir $exp/dev-greedy
asr evaluate --model $exp/bundle --cuts $data/$dev.jsonl.gz --output-dir $exp/dev-lm
