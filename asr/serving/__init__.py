"""A server: many callers, one model. `asr serve`; docs/serving.md shows its protocols."""
