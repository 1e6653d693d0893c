"""PyTorch's own threads, for the kernels to run in.

After an operation of PyTorch its idle OpenMP threads spin for milliseconds, in which threads of ours would fight them
for the cores. Nothing is linked: the functions are looked up in what PyTorch has loaded.
"""

from __future__ import annotations

import ctypes
import os

import torch

from .. import _lstm_fast_core as _core

_FUNCTIONS = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")  # other OpenMP libraries have them, too


def borrow() -> bool:
    """Let calls from PyTorch run in its threads, if they are of OpenMP and can be found; else ours are used."""
    library = os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cpu.so")
    if not os.path.exists(library) or "ATen parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return False
    try:
        # Of a loaded library this is another reference; symbols are searched in it and in those that it needs.
        loaded = ctypes.CDLL(library)
        addresses = [ctypes.cast(getattr(loaded, name), ctypes.c_void_p).value or 0 for name in _FUNCTIONS]
    except (OSError, AttributeError):
        return False
    _core.set_lender(*addresses)
    return True
