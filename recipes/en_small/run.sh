#!/usr/bin/env bash
# The model that comes with the package, from corpora to bundle: 19 hours of speech, and text.
#
#   recipes/en_small/run.sh CORPORA      a directory with LibriSpeech/, commonvoice1/, ..., noise/, and lm/
#
# It needs PocketSphinx for the first alignment: pip install pocketsphinx. Each stage skips what is there, and
# training goes on where it was stopped. On two CPU cores the three trainings take about two hours.
set -euo pipefail
cd "$(dirname "$0")/../.."
corpora=${1:?a directory of corpora; see recipes/en_small/README.md}
data=data/en-small exp=exp/en-small
export OMP_WAIT_POLICY=passive # threads that spin at barriers starve the data loader
mkdir -p $data $exp

# 1. Manifests: speech, sounds without words (the last fold of ESC-10 is kept for evaluation), rooms
if [ ! -f $data/rooms.jsonl.gz ]; then
    python -m data_prep.librispeech --parts train-clean-5 train-clean-100 dev-clean --corpus-dir "$corpora" --output-dir $data
    for corpus in commonvoice1 speechocean762 ljspeech-part vctk-p239; do
        # exit status 1: some rows were bad, were named, and are left out
        python -m data_prep.tsv "$corpora/$corpus/transcripts.tsv" --output $data/train-$corpus.jsonl.gz || [ $? = 1 ]
    done
    python -m data_prep.sounds "$corpora/noise/clips.tsv" --audio-root "$corpora/noise/audio" --only 1- 2- 3- 4- \
        --output $data/sounds.jsonl.gz
    python -m data_prep.sounds "$corpora/noise/rirs.tsv" --audio-root "$corpora/noise/rir" --output $data/rooms.jsonl.gz
fi
speech=$(echo $data/train-*.jsonl.gz)
dev=$data/dev-clean.jsonl.gz

# 2. Text, tokens, and how words are pronounced
if [ ! -f $exp/lexicon.txt ]; then
    xz -dc "$corpora/lm/train-clean-100.transcripts.tsv.xz" | tail -n +2 | cut -f 3 >$data/transcripts.txt
    cp "$corpora/lm/books.txt.xz" $data/books.txt.xz
    asr tokenizer --text $data/transcripts.txt $data/books.txt.xz --sentences 70000 --vocabulary 500 --output $exp/tokenizer.model
    python -m data_prep.lexicon --text $data/transcripts.txt $data/books.txt.xz --output $exp/lexicon.txt
fi

# 3. When the phones were said, by PocketSphinx; each 20 minutes of speech takes it one
for set in train dev; do
    [ $set = train ] && cuts=$speech || cuts=$dev
    [ -f $exp/$set.phones.ctm ] || python -m data_prep.reference_alignment --cuts $cuts --output $exp/$set.ctm \
        --phones $exp/$set.phones.ctm
done

train() { # STAGE, what differs from the config
    [ -d $exp/$1/bundle ] || asr train --config configs/en-small.yaml --trainer.default_root_dir $exp/$1 --ckpt_path last "${@:2}"
}

# 4. The blocks below the phone layer, on aligned speech
train phones --model.objective.ctc 0 --model.objective.phones 1 --data.text.share 0 --trainer.max_epochs 10 \
    --data.phones "[$exp/train.phones.ctm,$exp/dev.phones.ctm]" --model.optimiser.rate 2e-3

# 5. What they hear, to say text with; and the phones of what PocketSphinx could not align
[ -f $exp/bank.npz ] || python -m data_prep.phone_bank --model $exp/phones/bundle --cuts $speech \
    --phones $exp/train.phones.ctm --noises $data/sounds.jsonl.gz --limit 2 --output $exp/bank.npz
[ -f $exp/more.phones.ctm ] || python -m data_prep.phone_alignment --model $exp/phones/bundle --cuts $speech \
    --lexicon $exp/lexicon.txt --known $exp/train.phones.ctm --output $exp/more.phones.ctm

# 6. The blocks above, on text
train text --model.init_from $exp/phones/bundle --model.objective.phones 0 --data.text.share 1 --data.max_duration 120 \
    --model.optimiser.rate 2e-3 --trainer.max_steps 1500 --trainer.val_check_interval 500 --trainer.check_val_every_n_epoch null

# 7. Both
train joint --model.init_from $exp/text/bundle

# 8. Language model, at most 20 MB, and the settings of decoding
[ -f $exp/lm.bin ] || asr lm $data/transcripts.txt $data/books.txt.xz --prune 1 0 0 0 --prune-entropy 7e-8 \
    --output $exp/lm.bin
[ -f $exp/joint/bundle/lm.bin ] || asr calibrate --model $exp/joint/bundle --cuts $dev --lm $exp/lm.bin --install-lm \
    --alignments $exp/dev.ctm --plot recipes/en_small/reliability.png

# 9. Into the package
asr pack --model $exp/joint/bundle --output asr/models/en-small

# 10. What it is worth
python recipes/en_small/plot_curve.py $exp/phones/curve.jsonl $exp/joint/curve.jsonl recipes/en_small/curve.png
asr evaluate --cuts $dev --alignments $exp/dev.ctm --beam 1 --output-dir $exp/dev-greedy
asr evaluate --cuts $dev --alignments $exp/dev.ctm --output-dir $exp/dev-lm
python -m benchmarks.peers --cuts $dev --limit 200
python -m benchmarks.nonspeech --model en-small --clips "$corpora/noise/clips.tsv"
