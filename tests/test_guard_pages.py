"""No kernel touches a byte outside its arrays: inputs, outputs, reserve and workspace stand against closed pages."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from lstm_fast import _lstm_fast_core as core

HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the pages are closed with Linux's mmap and mprotect")


def run(isa, at, library=""):
    environment = dict(os.environ)
    if library:
        environment["LD_PRELOAD"] = library
    command = [sys.executable, str(HERE / "guarded_run.py"), isa, at, library]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    last = done.stdout.splitlines()[-1] if done.stdout else "before the first problem"
    return done.returncode, last, done.stderr


@pytest.fixture(scope="module")
def guard_malloc(tmp_path_factory):
    """guard_malloc.c as a library to preload."""
    library = tmp_path_factory.mktemp("guard") / "guard_malloc.so"
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    command = [
        *compiler,
        "-O1",
        "-Wall",
        "-Werror",
        "-shared",
        "-fPIC",
        "-o",
        str(library),
        str(HERE / "guard_malloc.c"),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip(f"no C compiler ({compiler[0]}) for the guarding allocator")
    assert done.returncode == 0, done.stderr
    if subprocess.run([sys.executable, "-c", ""], env={**os.environ, "LD_PRELOAD": str(library)}).returncode:
        pytest.skip("this C library does not let its allocator be replaced")
    return str(library)


@pytest.mark.parametrize("at", ["end", "start"])
@pytest.mark.parametrize("isa", core.isas_usable())
def test_inputs(isa, at):
    code, last, errors = run(isa, at)
    assert (code, last) == (0, "survived"), errors


@pytest.mark.parametrize("at", ["end", "start"])
@pytest.mark.parametrize("isa", core.isas_usable())
def test_every_allocation(isa, at, guard_malloc):
    """Outputs, reserve and workspace too, all of them NaN before the kernel writes."""
    code, last, errors = run(isa, at, guard_malloc)
    assert (code, last) == (0, "survived"), errors


@pytest.mark.parametrize("at", ["end", "start"])
def test_the_guards_guard(at, guard_malloc):
    """One element past the edge ends the process: of a guarded input, and of an array from the preloaded malloc."""
    script = f"""
import ctypes, sys
import numpy as np
import guarded_run
library, past = sys.argv[1], sys.argv[2]
step = 4 if {at!r} == "end" else -4
if past == "input":
    array = guarded_run.guarded(np.ones(1000, np.float32), {at!r})
else:
    with guarded_run.GuardMalloc(library, {at!r}):
        array = np.empty(1000, np.float32)
    assert np.isnan(array).all()
edge = array.ctypes.data + (999 * 4 if step > 0 else 0)
ctypes.c_float.from_address(edge).value
print("inside", flush=True)
ctypes.c_float.from_address(edge + step).value
print("outside", flush=True)
"""
    environment = {**os.environ, "LD_PRELOAD": guard_malloc}
    for past in ("input", "output"):
        command = [sys.executable, "-c", script, guard_malloc, past]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=HERE, timeout=60)
        assert (done.returncode, done.stdout.strip()) == (-11, "inside"), done.stderr
