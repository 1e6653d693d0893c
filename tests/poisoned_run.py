"""Run by test_dispatch.py in a process of its own: what runs is proved by making the rest of the kernels deadly.

Standard input, JSON: "poison" = [[address, size], ...] of functions in the module's file, overwritten with int3
(SIGTRAP) after the forward pass named by "forward" or before everything if that is null; "hide" = addresses of words
set to 0 before first use (the CPU's features as the compiler's runtime found them); "isa" = the set to choose, null for
none. Prints a hash of all bits.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import json
import mmap
import sys
from pathlib import Path

import lstm_fast as lf
from lstm_fast import _lstm_fast_core as core
from problems import draw, solve

READ_WRITE_EXECUTE = 7


def base_address() -> int:
    """Where the module's file was loaded."""
    path = str(Path(core.__file__).resolve())
    lines = Path("/proc/self/maps").read_text().splitlines()
    return min(int(line.split("-")[0], 16) for line in lines if line.endswith(path))


def poison(functions: list[list[int]], base: int) -> None:
    libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for address, size in functions:
        first = (base + address) // mmap.PAGESIZE * mmap.PAGESIZE
        if libc.mprotect(first, base + address + size - first, READ_WRITE_EXECUTE):
            print("refused")
            sys.exit()
        ctypes.memset(base + address, 0xCC, size)


def main() -> None:
    task = json.load(sys.stdin)
    base = base_address()
    for address in task["hide"]:
        ctypes.memset(base + address, 0, 4)
    digest = hashlib.sha256()
    problems = [draw(5, batch, 3, 33, dtype) for batch in (1, 7) for dtype in ("float32", "float64")]
    if task["forward"] is None:
        poison(task["poison"], base)
        if task["isa"]:
            lf.set_isa(task["isa"])
        for problem in problems:
            inferred = lf.ops.lstm_forward(**problem.forward, save=None)[:3]
            for value in (*solve(problem).values(), *solve(problem, save="lean").values(), *inferred):
                digest.update(value.tobytes())
    else:
        lf.set_isa(task["forward"])
        reserves = [lf.ops.lstm_forward(**problem.forward)[3] for problem in problems]
        lf.set_isa(task["isa"])
        poison(task["poison"], base)
        for problem, reserve in zip(problems, reserves, strict=True):
            for value in lf.ops.lstm_backward(reserve, **problem.backward).values():
                digest.update(value.tobytes())
    print(json.dumps({"isa": lf.isa(), "usable": core.isas_usable(), "bits": digest.hexdigest()}))


if __name__ == "__main__":
    main()
