"""Decoders: log-probabilities in, tokens with times out. Nothing here knows the acoustic model."""
