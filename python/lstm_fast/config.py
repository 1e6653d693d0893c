"""Controls: the instruction set, the number of threads, and what this installation is."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from . import _lstm_fast_core as _core
from ._arguments import integer

MOST_THREADS = 256  # of the team


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
    affinity and the cgroup leave to this process.
    """
    return _core.num_threads()


def set_num_threads(n: int) -> None:
    """Let every call from now on use up to n threads, the caller included.

    Small problems still run on the caller alone. The bits of all results stay the same.

    TypeError if n is not an integer, ValueError if it is below 1.
    """
    _core.set_num_threads(min(integer(n, "n", 1), MOST_THREADS))


def available_cpus() -> int:
    """The CPUs that affinity and the cgroup's quota leave to this process, at least 1."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        if quota != "max":
            cpus = min(cpus, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no such cgroup: affinity alone counts
    return cpus


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
            return min(int(first), MOST_THREADS), variable
        warnings.warn(f"{variable}: expected a number above 0, got {text!r}; ignored", stacklevel=2)
    return min(available_cpus(), MOST_THREADS), "available CPUs"


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


_core.set_num_threads(threads_and_source()[0])
