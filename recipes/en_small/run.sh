#!/usr/bin/env bash
# The model that comes with the package, from corpora to bundle: 18 hours of speech, a lexicon, and text.
#
#   recipes/en_small/run.sh CORPORA [OPTIONS]      a directory with LibriSpeech/, commonvoice1/, ..., noise/, and lm/
#
# OPTIONS are those of asr train, for both trainings. UNTIL=3 ends before them and UNTIL=6 behind them: the README says how
# they are carried to another machine. ONLY=train-clean-5 makes a model of that corpus alone, to compare: nothing goes into the
# package, whose language models and settings of decoding it takes.
#
# It needs PocketSphinx for the lexicon and the first alignment, pyroomacoustics for rooms, and from SymSpell how frequent words
# are outside of books: pip install pocketsphinx pyroomacoustics symspellpy. Each stage skips what is there, and training goes on
# where it was stopped. On two CPU cores the two trainings take about eight hours, five with AMX: 13,000 steps.
set -euo pipefail
cd "$(dirname "$0")/../.."
corpora=${1:?a directory of corpora; see recipes/en_small/README.md}
options=("${@:2}") until=${UNTIL:-9}
only=${ONLY:-} data=data/en-small exp=exp/en-small${ONLY:+-$ONLY}
export OMP_WAIT_POLICY=passive # threads that spin at barriers starve the data loader
mkdir -p $data $exp

# 1. Manifests: speech, sounds without words and rooms (the last fold of ESC-10 and measured rooms are kept for evaluation)
if [ ! -f $data/rooms-made.jsonl.gz ]; then
    python -m data_prep.librispeech --parts train-clean-5 train-clean-100 dev-clean --corpus-dir "$corpora" --output-dir $data
    for corpus in commonvoice1 speechocean762 ljspeech-part vctk-p239; do
        # exit status 1: some rows were bad, were named, and are left out
        python -m data_prep.tsv "$corpora/$corpus/transcripts.tsv" --output $data/train-$corpus.jsonl.gz || [ $? = 1 ]
    done
    python -m data_prep.sounds "$corpora/noise/clips.tsv" --audio-root "$corpora/noise/audio" --only 1- 2- 3- 4- \
        --output $data/sounds.jsonl.gz
    python -m data_prep.sounds "$corpora/noise/clips.tsv" --audio-root "$corpora/noise/audio" --only 5- \
        --output $data/sounds-unheard.jsonl.gz
    python -m data_prep.sounds "$corpora/noise/rirs.tsv" --audio-root "$corpora/noise/rir" --output $data/rooms.jsonl.gz
    python -m data_prep.rooms --output $data/rooms-made.jsonl.gz
fi
speech=$(echo $data/${only:-train-*}.jsonl.gz)
dev=$data/dev-clean.jsonl.gz

# 2. Text, and how its words and all that are said are pronounced: what the model's tokens spell
if [ ! -f $exp/lexicon.txt ]; then
    xz -dc "$corpora/lm/train-clean-100.transcripts.tsv.xz" | tail -n +2 | cut -f 3 >$data/transcripts.txt
    cp "$corpora/lm/books.txt.xz" $data/books.txt.xz
    python -m data_prep.lexicon --text $data/transcripts.txt $data/books.txt.xz --cuts $speech --whole-dictionary \
        --output $exp/lexicon.txt
fi

# 3. When the phones were said, by PocketSphinx: a minute of one core for half an hour of speech
for set in train dev; do
    [ $set = train ] && cuts=$speech || cuts=$dev
    [ -f $exp/$set.phones.ctm ] || python -m data_prep.reference_alignment --cuts $cuts --output $exp/$set.ctm \
        --phones $exp/$set.phones.ctm
done
[ "$until" -gt 3 ] || exit 0

train() { # STAGE, what differs from the config
    [ -d $exp/$1/bundle ] || asr train --config configs/en-small.yaml --trainer.default_root_dir $exp/$1 --ckpt_path last \
        --model.tokenizer $exp/lexicon.txt --data.train "[${speech// /,},$data/sounds.jsonl.gz]" "${@:2}" "${options[@]}"
}

# 4. The phones, frame by frame
train phones --data.phones "[$exp/train.phones.ctm,$exp/dev.phones.ctm]" --model.init_from null --model.objective.ctc 0 \
    --model.objective.denominator 0 --model.objective.frames 1 --model.optimiser.rate 4e-3 --data.augmentation.splice_share 0 \
    --data.augmentation.noise_share 0.1 --data.augmentation.hiss_share 0.1 --data.augmentation.room_share 0.05 \
    --data.augmentation.telephone_share 0 --trainer.max_steps 7000

# 5. The phones of what PocketSphinx could not align, by what it has taught
[ -f $exp/more.phones.ctm ] || python -m data_prep.phone_alignment --model $exp/phones/bundle --cuts $speech \
    --known $exp/train.phones.ctm --output $exp/more.phones.ctm

# 6. Sequences of phones: the right one against its rivals
train mmi --model.init_from $exp/phones/bundle --data.phones "[$exp/train.phones.ctm,$exp/more.phones.ctm,$exp/dev.phones.ctm]"
[ "$until" -gt 6 ] || exit 0
python -m data_prep.pronunciation_shares --lexicon $exp/lexicon.txt --cuts $speech --phones $exp/{train,more}.phones.ctm \
    --output $exp/mmi/bundle/lexicon.txt
if [ -n "$only" ]; then
    cp asr/models/en-small/{lm.bin,neural-lm.safetensors,decoding.yaml} $exp/mmi/bundle/
    asr evaluate --model $exp/mmi/bundle --cuts $dev --output-dir $exp/dev
    exit
fi

# 7. Language models, of n-grams and neural, and the settings of decoding
cut -d ' ' -f 1 $exp/lexicon.txt | uniq >$exp/words.txt
if [ ! -f $exp/lm.bin ]; then
    python -m data_prep.texts $data/train-{commonvoice1,speechocean762,vctk-p239,ljspeech-part}.jsonl.gz >$exp/said.txt
    symspell=$(python -c 'from importlib.resources import files; print(files("symspellpy"))')
    asr lm $data/transcripts.txt $data/books.txt.xz $exp/said.txt --vocabulary $exp/words.txt \
        --frequencies "$symspell/frequency_dictionary_en_82_765.txt" --prune-entropy 1.1e-7 --output $exp/lm.bin
fi
[ -f $exp/dev.txt ] || python -m data_prep.texts $dev >$exp/dev.txt
[ -f $exp/neural-lm.safetensors ] || asr neural-lm $data/transcripts.txt $data/books.txt.xz --lm $exp/lm.bin \
    --dev $exp/dev.txt --epochs 1.75 --rate 3e-3 --output $exp/neural-lm.safetensors
[ -f $exp/mmi/bundle/lm.bin ] || asr calibrate --model $exp/mmi/bundle --cuts $dev --lm $exp/lm.bin \
    --neural-lm $exp/neural-lm.safetensors --install-lm --alignments $exp/dev.ctm --plot recipes/en_small/reliability.png

# 8. Into the package
asr pack --model $exp/mmi/bundle --output asr/models/en-small

# 9. What it is worth
python recipes/en_small/plot_curve.py $exp/phones/curve.jsonl $exp/mmi/curve.jsonl recipes/en_small/curve.png
asr evaluate --cuts $dev --alignments $exp/dev.ctm --output-dir $exp/dev
python -m benchmarks.peers --cuts $dev --limit 200
python -m benchmarks.conditions --cuts $dev --limit 60 --noises $data/sounds-unheard.jsonl.gz --rooms $data/rooms.jsonl.gz
python -m benchmarks.nonspeech --model en-small --clips "$corpora/noise/clips.tsv"
