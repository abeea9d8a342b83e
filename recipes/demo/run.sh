#!/usr/bin/env bash
# The main job in six minutes on two cores, with nothing from outside: speech, tokenizer, training, word error
# rate, and a recording streamed as if it were live. Everything is made under data/demo and exp/demo.
set -euo pipefail
cd "$(dirname "$0")/../.."
export OMP_WAIT_POLICY=passive # threads that spin at barriers starve the data loader

echo "== 1/5  speech: espeak-ng says sentences of a small grammar, some voices only for the test"
python -m data_prep.demo --output-dir data/demo

echo "== 2/5  tokenizer"
asr tokenizer --cuts data/demo/train-clean-demo.jsonl.gz --vocabulary 100 --output exp/demo/tokenizer.model

echo "== 3/5  training"
asr train --config configs/demo.yaml

echo "== 4/5  word error rate on voices that were never heard"
asr evaluate --model exp/demo/bundle --cuts data/demo/dev-clean-demo.jsonl.gz --output-dir exp/demo/dev

echo "== 5/5  live: a recording of such a voice, at the pace of speech; what may still change is in brackets"
recording=$(find data/demo/LibriSpeech/dev-clean-demo -name '*.flac' | sort | tail -n 1)
asr transcribe --model exp/demo/bundle --pace --chunk 160 --partials lines "$recording"
