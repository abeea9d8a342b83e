"""When was each word of a known text said: CTC forced alignment, its formats, `asr align`."""
