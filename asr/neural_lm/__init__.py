"""Training of neural language models, which are mixed with one of n-grams (asr.decoding.neural_model)."""
