"""The instruction set: forced, proven forced, from the environment, and what a wrong name gets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import lstm_fast as lf
import machine_code
import pytest
from lstm_fast import _lstm_fast_core as core

USABLE = core.isas_usable()
HERE = Path(__file__).parent
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")


def python(script, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LSTM_FAST_")}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, env=clean | environment, timeout=120)


def poisoned_run(poison, *, isa=None, forward=None, hide=(), **environment):
    """Runs poisoned_run.py with these instruction sets made deadly; its answer, or its exit status."""
    namespaces = [name for every in poison for name in machine_code.NAMESPACES.get(every, (every,))]
    kernels = [s for s in machine_code.symbols() if s.size and s.kind in "tT" and any(map(s.is_kernel_of, namespaces))]
    assert bool(kernels) == bool(poison)
    task = {"poison": [[s.address, s.size] for s in kernels], "isa": isa, "forward": forward, "hide": list(hide)}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LSTM_FAST_")}
    command = [sys.executable, "-X", "faulthandler=0", str(HERE / "poisoned_run.py")]
    environment = clean | environment
    done = subprocess.run(
        command, input=json.dumps(task), capture_output=True, text=True, env=environment, cwd=HERE, timeout=120
    )
    if done.returncode:
        assert done.returncode < 0, done.stderr
        return signal.Signals(-done.returncode)
    if done.stdout.strip() == "refused":
        pytest.skip("this system does not let a process write into its code")
    return json.loads(done.stdout)


def others(isa):
    return [name for name in USABLE if name != isa]


@pytest.fixture(scope="module")
def bits():
    """The hash of the healthy run."""
    return poisoned_run([])["bits"]


def test_lists_are_best_first():
    assert USABLE
    assert USABLE[-1] == "scalar"
    order = [name for name in ("avx512", "avx2", "scalar") if name in core.isas_built()]
    assert order == core.isas_built()
    assert [name for name in order if name in USABLE] == USABLE


def test_the_best_is_the_default():
    done = python("import lstm_fast as lf; print(lf.isa())")
    assert done.stdout.strip() == USABLE[0], done.stderr


@pytest.mark.parametrize("isa", USABLE)
def test_set_isa(isa):
    lf.set_isa(isa)
    assert lf.isa() == isa


@pytest.mark.parametrize("isa", USABLE)
def test_environment_variable(isa):
    done = python("import lstm_fast as lf; print(lf.isa())", LSTM_FAST_ISA=isa)
    assert done.stdout.strip() == isa, done.stderr


@pytest.mark.parametrize("value", ["garbage", "AVX512", " avx2", "sse9", "avx2,avx512", "\N{SNOWMAN}"])
def test_garbage_in_the_environment_is_an_error_at_first_use(value):
    """Never at import; the message names the variable, what it holds and the choices; set_isa is a way out."""
    script = """
import numpy as np
import lstm_fast as lf
layer = lf.LSTM(2, 3)
print("imported")
for use in (lf.isa, lambda: layer(np.zeros((1, 1, 2), np.float32)), lf.isa):
    try:
        use()
    except ValueError as error:
        print(ascii(str(error)))
lf.set_isa("scalar")
print(lf.isa(), layer(np.zeros((1, 1, 2), np.float32))[0].shape)
"""
    done = python(script, LSTM_FAST_ISA=value, PYTHONIOENCODING="utf-8", PYTHONUTF8="1")
    lines = done.stdout.splitlines()
    assert len(lines) == 5, done.stderr
    assert lines[0] == "imported"
    for message in lines[1:4]:
        assert "LSTM_FAST_ISA" in message
        assert ascii(value)[1:-1] in message
        for choice in USABLE:
            assert choice in message
    assert lines[4] == "scalar (1, 1, 3)"


def test_empty_environment_variable_is_none():
    done = python("import lstm_fast as lf; print(lf.isa())", LSTM_FAST_ISA="")
    assert done.stdout.strip() == USABLE[0], done.stderr


@pytest.mark.parametrize("name", ["garbage", "", "AVX512", "avx2 ", "native", "\N{SNOWMAN}", "a" * 10_000])
def test_unknown_instruction_set(name):
    before = lf.isa()
    with pytest.raises(ValueError, match=r"name|isa") as error:
        lf.set_isa(name)
    for choice in USABLE:
        assert choice in str(error.value)
    assert lf.isa() == before


@pytest.mark.parametrize("name", [None, 3, b"avx2", ["avx2"], True])
def test_name_must_be_a_string(name):
    with pytest.raises(TypeError, match=r"name|isa"):
        lf.set_isa(name)


def test_show_config_tells_the_set(capsys):
    lf.set_isa("scalar")
    lf.show_config()
    printed = capsys.readouterr().out
    for word in ("scalar", core.compiler(), *core.isas_built()):
        assert word in printed


# --- proven forced: with the kernels of the other sets overwritten the run survives, with its own it does not --------


@linux_only
@pytest.mark.parametrize("isa", USABLE)
def test_forced_set_is_all_that_runs(isa, bits):
    healthy = poisoned_run(others(isa), isa=isa)
    assert healthy == {"isa": isa, "usable": USABLE, "bits": bits}


@linux_only
@pytest.mark.parametrize("isa", USABLE)
def test_forced_set_is_what_runs(isa):
    assert poisoned_run([isa], isa=isa) == signal.SIGTRAP


@linux_only
@pytest.mark.parametrize("isa", USABLE)
def test_set_from_the_environment_is_what_runs(isa, bits):
    assert poisoned_run(others(isa), LSTM_FAST_ISA=isa) == {"isa": isa, "usable": USABLE, "bits": bits}
    assert poisoned_run([isa], LSTM_FAST_ISA=isa) == signal.SIGTRAP


@linux_only
def test_default_set_is_what_runs(bits):
    assert poisoned_run(others(USABLE[0])) == {"isa": USABLE[0], "usable": USABLE, "bits": bits}


@linux_only
@pytest.mark.parametrize("forward", USABLE)
def test_backward_runs_the_set_of_its_forward(forward):
    for now in others(forward):
        assert poisoned_run(others(forward), isa=now, forward=forward)["isa"] == now
        assert poisoned_run([forward], isa=now, forward=forward) == signal.SIGTRAP


@linux_only
def test_cpu_without_extensions_gets_plain_scalar(bits):
    """With the features that the compiler's runtime found set to 0, only x86-64 itself is left, with the same bits."""
    places = {s.name: s for s in machine_code.symbols() if s.name in ("__cpu_model", "__cpu_features2")}
    if "__cpu_model" not in places:
        pytest.skip("no __cpu_model: the compiler's runtime keeps the CPU's features elsewhere")
    model, more = places["__cpu_model"], places.get("__cpu_features2")
    hide = [model.address + 12]  # struct { vendor, type, subtype, features[1] }
    hide += [more.address + k for k in range(0, more.size, 4)] if more else []
    assert poisoned_run(["avx512", "avx2", "scalar_fma"], hide=hide) == {
        "isa": "scalar",
        "usable": ["scalar"],
        "bits": bits,
    }
    assert poisoned_run(["scalar_fma"], hide=hide, isa="scalar")["bits"] == bits


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("nbytes", [1, 1000, 1 << 20])
def test_rate_of_reading_is_measured_on_every_instruction_set(dtype, nbytes):
    before = lf.isa()
    try:
        for name in USABLE:
            lf.set_isa(name)
            assert 0 < core.read_rate(dtype, nbytes, 1e-3) < 1e5  # bytes/ns: caches give hundreds
    finally:
        lf.set_isa(before)


def test_rate_of_reading_refuses_other_dtypes():
    with pytest.raises(ValueError, match="dtype: expected 'float32' or 'float64', got 'float16'"):
        core.read_rate("float16", 1000, 1e-3)
