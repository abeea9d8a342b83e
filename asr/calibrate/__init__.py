"""Fitting a bundle's decoding settings on development data: `asr calibrate`."""
