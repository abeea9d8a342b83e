"""Loading the C++ library of the decoders; what is in it, their modules know."""

from __future__ import annotations

import ctypes
import functools

from asr import native
from asr.errors import UserError


@functools.cache
def library() -> ctypes.CDLL:
    """The library, compiled at the first call where it did not come with the wheel. Raises UserError."""
    try:
        return ctypes.CDLL(str(native.find_or_build(native.DECODER)))
    except (native.BuildError, OSError) as error:
        raise UserError(
            f"the beam search and the language model need a C++ library, which is missing ({error});"
            " install g++, or decode with --beam 1 and no language model"
        ) from error
