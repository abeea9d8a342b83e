"""Training with Lightning: the module, its schedule, callbacks, and `asr train`."""
