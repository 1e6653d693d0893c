"""Controls: the instruction set, the number of threads, the memory kept, and what this installation is."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from . import _lstm_fast_core as _core
from ._arguments import integer
from ._cpus import available_cpus


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
    """The number of threads that a call may use.

    What :func:`set_num_threads` said, else ``LSTM_FAST_NUM_THREADS``, else ``OMP_NUM_THREADS``, else the CPUs that
    affinity and the cgroup leave to this process. Inside ``with`` :func:`threads`, what that said.
    """
    return _core.num_threads()


def set_num_threads(n: int) -> None:
    """Let every call from now on use up to n threads, the caller included.

    Small problems still run on the caller alone. The bits of all results stay the same.

    TypeError if n is not an integer, ValueError if it is below 1.
    """
    _core.set_num_threads(_thread_count(n))


def _thread_count(n: int) -> int:
    return min(integer(n, "n", 1), _core.most_threads())


def threads_and_source() -> tuple[int, str]:
    """The number of threads that holds until :func:`set_num_threads` is called, and where it came from.

    Warns, naming the variable, and goes on without it, when it holds no number above 0.
    """
    for variable in ("LSTM_FAST_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(variable, "")
        if not text:
            continue
        # OMP_NUM_THREADS may be a list, one number for each level of nesting.
        first = text.split(",")[0].strip()
        if first.isdecimal() and len(first) < 10 and int(first) > 0:
            return _thread_count(int(first)), variable
        warnings.warn(f"{variable}: expected a number above 0, got {text!r}; ignored", stacklevel=2)
    return _thread_count(available_cpus()), "available CPUs"


@contextmanager
def threads(n: int) -> Iterator[None]:
    """``with lstm_fast.threads(n):`` sets the number of threads inside the block, for calls of this Python thread only.

    :func:`set_num_threads` in the block holds after it. Errors as there.
    """
    before = _core.own_num_threads()
    _core.set_own_num_threads(_thread_count(n))
    try:
        yield
    finally:
        _core.set_own_num_threads(before)


def set_spare_memory(nbytes: int) -> None:
    """Keep at most nbytes of the memory that calls give back for the next calls; 0 keeps nothing.

    Until then ``LSTM_FAST_SPARE_MB`` MiB, else 256 MiB. Fresh memory from the system takes time. TypeError if nbytes is
    not an integer, ValueError if it is below 0.
    """
    _core.set_spare_memory_limit(integer(nbytes, "nbytes", 0, 2**63 - 1))


def show_config() -> None:
    """Print the version, the compiler, the instruction sets and the number of threads."""
    from . import __version__

    print(f"lstm_fast {__version__}, NumPy {np.__version__}")
    print(f"compiler: {_core.compiler()}")
    built, usable = ", ".join(_core.isas_built()), ", ".join(_core.isas_usable())
    print(f"instruction sets: built {built}; usable {usable}; chosen {isa()}")
    print(f"threads: {get_num_threads()}")
    print(f"spare memory: at most {_core.spare_memory_limit() / 2**20:g} MiB, now {_core.spare_memory() / 2**20:.1f}")


def _set_up_spare_memory() -> None:
    text = os.environ.get("LSTM_FAST_SPARE_MB", "").strip()
    if text.isdecimal() and len(text) < 10:
        _core.set_spare_memory_limit(int(text) << 20)
    elif text:
        warnings.warn(f"LSTM_FAST_SPARE_MB: expected a number of MiB, got {text!r}; ignored", stacklevel=2)


_core.set_num_threads(threads_and_source()[0])
_set_up_spare_memory()
