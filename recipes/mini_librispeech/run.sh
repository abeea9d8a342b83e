#!/usr/bin/env bash
# Five hours of LibriSpeech (train-clean-5) and whatever lies beside it, on a laptop.
#
#   recipes/mini_librispeech/run.sh                 downloads train-clean-5, dev-clean-2 and LibriSpeech's 3-gram
#   recipes/mini_librispeech/run.sh TREE TEXT...    takes TREE/LibriSpeech/{train-*,dev-*}, and TREE/commonvoice1,
#                                                   and makes the language model of TEXT (.txt, .gz, .xz)
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

python recipes/mini_librispeech/plot_curve.py $exp/curve.jsonl recipes/mini_librispeech/curve.png

# 4. Language model, at most 20 MB
if [ ! -f $exp/lm.bin ]; then
    if [ $# -gt 1 ]; then
        asr lm "${@:2}" --prune 1 0 0 0 --prune-entropy 7e-8 --output $exp/lm.bin
    else
        python -m data_prep.librispeech_lm 3-gram.pruned.3e-7 --output-dir data/lm
        cp data/lm/3-gram.pruned.3e-7.bin $exp/lm.bin
    fi
fi

# 5. When the words of the dev set were said, by another recogniser where there is one (pip install pocketsphinx)
alignments=
if python -c 'import pocketsphinx' 2>/dev/null; then
    alignments="--alignments $exp/dev.ctm"
    [ -f $exp/dev.ctm ] || python -m data_prep.reference_alignment --cuts $dev --output $exp/dev.ctm
fi

# 6. Settings of decoding; the language model goes into the bundle
[ -f $exp/bundle/lm.bin ] || asr calibrate --model $exp/bundle --cuts $dev --lm $exp/lm.bin --install-lm $alignments \
    --plot recipes/mini_librispeech/reliability.png

# 7. Word error rate, delays and confidences, streaming
asr evaluate --model $exp/bundle --cuts $dev $alignments --beam 1 --output-dir $exp/dev-greedy
asr evaluate --model $exp/bundle --cuts $dev $alignments --lm none --output-dir $exp/dev-beam
asr evaluate --model $exp/bundle --cuts $dev $alignments --output-dir $exp/dev-lm

# 8. Hotwords: the rare words of each utterance, listed among 100 others
if [ $# -gt 1 ]; then
    python -m benchmarks.emissions --model $exp/bundle --cuts $dev --output $exp/dev.npz
    python -m benchmarks.biasing --emissions $exp/dev.npz --text "$2" --lm $exp/lm.bin --lists $exp/lists
    asr evaluate --model $exp/bundle --cuts $dev $alignments --hotwords-per-utterance $exp/lists/100.tsv \
        --output-dir $exp/dev-hotwords
fi
