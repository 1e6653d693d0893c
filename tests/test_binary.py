"""Facts about the built module that no result shows: which instructions stand where, what it needs and exports."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap

import machine_code
import pytest
from lstm_fast import _lstm_fast_core as core

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the module is examined as an ELF file")

AVX512 = re.compile(r"%zmm|%[xy]mm(1[6-9]|2\d|3[01])\b|%k[0-7]\b")


@pytest.fixture(autouse=True)
def _x86_only():
    if "avx2" not in core.isas_built():
        pytest.skip("the module was not built for x86-64")


def namespace_of(name: str) -> str | None:
    names = [name for every in machine_code.NAMESPACES.values() for name in every]
    symbol = machine_code.Symbol(name, 0, 0, "t")
    return next((namespace for namespace in names if symbol.is_kernel_of(namespace)), None)


def test_every_instruction_set_has_kernels():
    for isa in core.isas_built():
        assert len(machine_code.kernels(isa)) >= 20, isa


def test_avx512_only_in_its_namespace():
    """One template copy that the linker keeps from the wrong file, and the module dies on an older CPU."""
    users = {name for name, body in machine_code.functions().items() if any(AVX512.search(i.operands) for i in body)}
    assert users, "the search finds nothing at all"
    assert {namespace_of(name) for name in users} == {"avx512"}, [n for n in users if namespace_of(n) != "avx512"]


def test_vector_extensions_only_in_their_namespaces():
    """VEX instructions (AVX, AVX2, FMA) stand where the CPU was asked first; all else is plain x86-64."""
    users = {n for n, body in machine_code.functions().items() if any(re.match(r"v[a-z]", i.mnemonic) for i in body)}
    allowed = {"scalar_fma", "avx2", "avx512"}
    assert {namespace_of(name) for name in users} == allowed, [n for n in users if namespace_of(n) not in allowed]


def test_each_set_uses_its_own_instructions():
    """The kernels are what they are called: fused multiply-adds in zmm, in ymm, in libm or in single elements.

    GCC may put four of the last, of an RNN's four units, into one register.
    """
    expected = {"avx512": r"%zmm", "avx2": r"%ymm", "scalar_fma": r"%[xy]mm"}
    for namespace, register in expected.items():
        steps = [
            b for n, b in machine_code.functions().items() if namespace_of(n) == namespace and "ForwardStepJob" in n
        ]
        assert steps
        for body in steps:
            assert any(i.mnemonic.startswith("vfmadd") and re.search(register, i.operands) for i in body)


def innermost_loops(body):
    """Instruction ranges closed by a jump backwards that hold no other such range."""
    addresses = [instruction.address for instruction in body]
    loops = []
    for end, instruction in enumerate(body):
        match = re.match(r"([0-9a-f]+) ", instruction.operands) if instruction.mnemonic.startswith("j") else None
        if match and (start := int(match[1], 16)) <= instruction.address and start in addresses:
            loops.append((addresses.index(start), end))
    return [body[a : b + 1] for a, b in loops if not any((c, d) != (a, b) and a <= c and d <= b for c, d in loops)]


def tile_loops():
    """(function, loop) of every product in the kernels of AVX2 and AVX-512."""
    found = []
    for name, body in machine_code.functions().items():
        if namespace_of(name) not in ("avx2", "avx512") or "Job" not in name:
            continue
        for loop in innermost_loops(body):
            mnemonics = [i.mnemonic for i in loop]
            # Not if it is the cell behind a product.
            if sum(m.startswith("vfmadd") for m in mnemonics) >= 4 and not any("div" in m for m in mnemonics):
                found.append((name, loop))
    assert len(found) >= 30, "the search finds no tiles"
    return found


def test_no_sum_of_the_tile_is_spilled():
    """A tile one register too large stores a sum to the stack in every k step, and runs at half the speed."""
    if not core.compiler().startswith("GCC"):
        pytest.skip(f"the register allocation was examined for GCC, not for {core.compiler()}")
    for name, loop in tile_loops():
        stored = [i for i in loop if re.fullmatch(r"%[yz]mm\d+,-?(0x[0-9a-f]+)?\(%r[sb]p\)", i.operands)]
        sums = 12 if namespace_of(name) == "avx2" else 24  # of a full tile: fewer stores than k steps are no sums
        fmas = sum(i.mnemonic.startswith("vfmadd") for i in loop)
        assert len(stored) * sums <= fmas, f"{name}: {len(stored)} stores to the stack beside {fmas} fma"


def test_tiles_compute_whole_vectors():
    """Weights come in whole vectors, values of rows by broadcast; a sum of single elements would be a slow one."""
    for name, loop in tile_loops():
        single = [i.mnemonic for i in loop if re.fullmatch(r"v(?!broadcast).*s[sd]|v.*gather.*", i.mnemonic)]
        assert not single, f"{name}: {single}"


def test_floating_point_mode_is_never_loaded():
    """No ldmxcsr, no crtfastmath: import cannot switch subnormals off for the process."""
    assert not [n for n, body in machine_code.functions().items() if any(i.mnemonic.endswith("ldmxcsr") for i in body)]
    assert not [s.name for s in machine_code.symbols() if "fast_math" in s.name]


def test_mxcsr_is_unchanged_by_import_and_use():
    """Rounding, exception masks, flush-to-zero and denormals-are-zero, read by fegetenv before and after."""
    script = """
        import ctypes, ctypes.util
        import numpy as np
        libm = ctypes.CDLL(ctypes.util.find_library("m"))
        def control():
            environment = (ctypes.c_uint32 * 16)()
            assert libm.fegetenv(environment) == 0
            return environment[7] & 0xFFC0  # x86-64 fenv_t: mxcsr stands at byte 28; the low bits are sticky flags
        before = control()
        assert before == 0x1F80, hex(before)
        import lstm_fast as lf
        assert control() == before, "changed by import"
        layer = lf.LSTM(3, 17)
        y, _, reserve = layer.forward(np.full((5, 7, 3), 1e-40, np.float32))
        layer.backward(reserve, np.ones_like(y))
        assert control() == before, "changed by a call"
        print("unchanged")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "unchanged", done.stderr


def test_needs_no_openmp_and_no_fast_math():
    needed = re.findall(r"NEEDED.*\[(.*)\]", machine_code.binutils("readelf", "-d", machine_code.PATH))
    assert any("libc.so" in name for name in needed)
    assert not [n for n in needed if re.search(r"gomp|iomp|libomp|blas|mkl|mvec|torch|python", n)]


def test_exports_only_the_module_initialiser():
    """Anything else could be taken by, or given to, another extension in the process."""
    listed = machine_code.binutils("nm", "--dynamic", "--defined-only", machine_code.PATH).split("\n")
    names = {line.split()[-1] for line in listed if line.strip()}
    assert names - {"_init", "_fini", "_edata", "_end", "__bss_start"} == {"PyInit__lstm_fast_core"}


def test_no_static_initialisers():
    """An initialiser compiled for an instruction set would run on every CPU at import."""
    sections = machine_code.binutils("readelf", "-WS", machine_code.PATH)
    match = re.search(r"\.init_array\s+INIT_ARRAY\s+([0-9a-f]+)\s+[0-9a-f]+\s+([0-9a-f]+)", sections)
    assert match, sections
    start, size = int(match[1], 16), int(match[2], 16)
    relocations = re.findall(
        r"^([0-9a-f]+)\s.*_RELATIVE\s+([0-9a-f]+)$", machine_code.binutils("readelf", "-Wr", machine_code.PATH), re.M
    )
    targets = {int(target, 16) for place, target in relocations if start <= int(place, 16) < start + size}
    assert len(targets) == size // 8
    by_address = {symbol.address: symbol.name for symbol in machine_code.symbols() if symbol.kind in "tT"}
    names = {by_address[target] for target in targets}
    # The compiler's own, for any CPU, and the fork handler of the thread team, outside every target region.
    assert names <= {"frame_dummy", "__cpu_indicator_init", "_GLOBAL__sub_I_threads.cpp"}, names
