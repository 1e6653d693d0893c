"""What the measurement ran on: CPU, GPU, environment; and the thread counts of the other libraries."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from .. import __version__, get_num_threads, isa
from .. import _lstm_fast_core as core
from .. import threads as lstm_fast_threads
from .packages import installed, require, version

BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def cpu_model() -> str:
    """The CPU's name as the system gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment_variables() -> dict[str, str]:
    """The LSTM_FAST_* variables that are set."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith("LSTM_FAST_")}


def gpus() -> list[str]:
    """Names of the NVIDIA GPUs that the driver shows; empty without one. Asks the driver itself, no CUDA package."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    names = []
    for index in range(count.value):
        device, text = ctypes.c_int(), ctypes.create_string_buffer(256)
        if not driver.cuDeviceGet(ctypes.byref(device), index) and not driver.cuDeviceGetName(text, 256, device):
            names.append(text.value.decode(errors="replace"))
    return names


def describe() -> dict[str, object]:
    """What a figure depends on besides the problem; for the JSON file and the benches' extra_info."""
    return {
        "cpu": cpu_model(),
        "usable_cpus": usable_cpus(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "lstm_fast": __version__,
        "compiler": core.compiler(),
        "isa": isa(),
        "threads": get_num_threads(),
        "numpy": version("numpy"),
        "variables": environment_variables(),
    }


def _numpy_threads_from_environment() -> str:
    for name in BLAS_VARIABLES:
        if os.environ.get(name):
            return f"{os.environ[name]} ({name})"
    return f"not limited, up to {usable_cpus()}: pip install threadpoolctl, or set {BLAS_VARIABLES[0]}"


@contextlib.contextmanager
def engine_threads(threads: int) -> Iterator[dict[str, str]]:
    """Give lstm_fast, NumPy's BLAS and PyTorch ``threads`` threads; restores them. Yields what each runs with.

    ONNX Runtime, OpenVINO and JAX take the number for every engine that is made, or refuse.

    NumPy's BLAS reads its environment variable when it is loaded, which is too late here: without threadpoolctl it
    keeps its own number, and the text says so.
    """
    with lstm_fast_threads(threads), contextlib.ExitStack() as stack:
        used = {"lstm_fast": str(threads)}
        if installed("threadpoolctl"):
            stack.enter_context(require("threadpoolctl", "limiting BLAS").threadpool_limits(threads, user_api="blas"))
            used["numpy"] = f"{threads} (threadpoolctl)"
        else:
            used["numpy"] = _numpy_threads_from_environment()
        if installed("torch"):
            torch = require("torch", "the PyTorch peer")
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(threads)
            used["torch"] = str(torch.get_num_threads())
        used |= {name: str(threads) for name in ("onnxruntime", "openvino", "jax") if installed(name)}
        yield used


def command_line() -> str:
    """The command that is running, for the JSON file."""
    return " ".join(["lstm-fast", *sys.argv[1:]])
