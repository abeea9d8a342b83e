"""From a corpus on disk to batches of audio and tokens. Lhotse and Lightning: only here and in training."""
