#!/usr/bin/env bash
# The main job in six minutes on two cores, with nothing from outside: the model that comes along hears somebody
# read; then speech, tokenizer, training, word error rate, and a recording streamed as if it were live. Everything
# is made under data/demo and exp/demo.
set -euo pipefail
cd "$(dirname "$0")/../.."
export OMP_WAIT_POLICY=passive # threads that spin at barriers starve the data loader

echo "== 1/6  live: the model of the package hears a reader, at the pace of speech; what may still change is in brackets"
asr transcribe --pace --partials lines asr/models/reading.ogg

echo "== 2/6  speech: espeak-ng says sentences of a small grammar, some voices only for the test"
python -m data_prep.demo --output-dir data/demo

echo "== 3/6  tokenizer"
asr tokenizer --cuts data/demo/train-clean-demo.jsonl.gz --vocabulary 100 --output exp/demo/tokenizer.model

echo "== 4/6  training"
asr train --config configs/demo.yaml

echo "== 5/6  word error rate on voices that were never heard"
asr evaluate --model exp/demo/bundle --cuts data/demo/dev-clean-demo.jsonl.gz --output-dir exp/demo/dev

echo "== 6/6  live: a recording of such a voice"
recording=$(find data/demo/LibriSpeech/dev-clean-demo -name '*.flac' | sort | tail -n 1)
asr transcribe --model exp/demo/bundle --pace --chunk 160 --partials lines "$recording"
