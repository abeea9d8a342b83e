"""A streaming speech recogniser: minimal gated units, CTC, and one forward path for offline and live."""

__version__ = "0.1.0"
