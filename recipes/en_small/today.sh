#!/usr/bin/env bash
# How en-small hears words of today, which books of the nineteenth century lack: 40 sentences, read by three of
# flite's voices.
#
#   apt-get install flite
#   recipes/en_small/today.sh [OPTIONS]      those of asr evaluate
set -euo pipefail
cd "$(dirname "$0")/../.."
data=data/today
mkdir -p $data
printf 'utt_id\tspeaker\tpath\ttext\n' >$data/today.tsv
for voice in slt rms awb; do
    number=0
    while read -r text; do
        name=$voice-$((++number))
        [ -f $data/$name.wav ] || flite -voice $voice -t "$text" -o $data/$name.wav
        printf '%s\t%s\t%s\t%s\n' $name $voice $name.wav "$text" >>$data/today.tsv
    done <recipes/en_small/today.txt
done
python -m data_prep.tsv $data/today.tsv --output $data/today.jsonl.gz
asr evaluate --cuts $data/today.jsonl.gz --output-dir exp/today "$@"
