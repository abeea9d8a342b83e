"""How good is a model, and how sure are we: error rates, confidence intervals, reports, `asr evaluate`."""
