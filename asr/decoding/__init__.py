"""Decoders: log-probabilities in, tokens with times out. Nothing here knows the model or the spelling."""
