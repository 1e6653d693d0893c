"""Controls: the instruction set, the number of threads, and what this installation is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from . import _lstm_fast_core as _core
from ._arguments import integer, require_in_scope


def isa() -> str:
    """The instruction set in use: ``LSTM_FAST_ISA``, else the best that this CPU runs.

    ValueError at first use if the variable names none that is available.
    """
    return _core.isa()


def set_isa(name: str) -> None:
    """Use another instruction set from now on: ``scalar``, ``avx2`` or ``avx512``. All results keep their bits.

    ValueError if this CPU or this build has no such set. Reserves made before keep theirs.
    """
    if not isinstance(name, str):
        raise TypeError(f"name: expected a string, got {type(name).__name__}")
    _core.set_isa(name)


def get_num_threads() -> int:
    """The number of threads that a call may use."""
    return 1


def set_num_threads(n: int) -> None:
    """Set the number of threads. This version runs on the calling thread alone: NotImplementedError for n > 1.

    TypeError if n is not an integer, ValueError if it is below 1.
    """
    require_in_scope(num_threads=integer(n, "n", 1))


@contextmanager
def threads(n: int) -> Iterator[None]:
    """``with lstm_fast.threads(n):`` sets the number of threads inside the block."""
    before = get_num_threads()
    set_num_threads(n)
    try:
        yield
    finally:
        set_num_threads(before)


def show_config() -> None:
    """Print the version, the compiler, the instruction sets and the number of threads."""
    from . import __version__

    print(f"lstm_fast {__version__}, NumPy {np.__version__}")
    print(f"compiler: {_core.compiler()}")
    built, usable = ", ".join(_core.isas_built()), ", ".join(_core.isas_usable())
    print(f"instruction sets: built {built}; usable {usable}; chosen {isa()}")
    print(f"threads: {get_num_threads()}")
