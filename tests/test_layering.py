"""The rules of the source tree, by grep: who may know whom, and what never stands where."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CSRC, SRC, PYTHON = ROOT / "csrc", ROOT / "src", ROOT / "python" / "lstm_fast"
INSTRUCTION_SETS = CSRC / "isa"

pytestmark = pytest.mark.skipif(not CSRC.is_dir(), reason="the tests run without the source tree")


def sources(*folders, suffixes=(".h", ".cpp")):
    return sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in suffixes)


def code(path):
    """The text of a C++ file with comments blanked, line numbers kept."""
    text = path.read_text()
    blank = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.S)
    return blank.sub(lambda match: match[0] if match[0].startswith('"') else re.sub(r"[^\n]", " ", match[0]), text)


def hits(pattern, paths):
    """Where a pattern occurs, as file:line: text."""
    found = []
    for path in paths:
        for number, line in enumerate(code(path).splitlines(), 1):
            if re.search(pattern, line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    return found


# What is compiled inside a target region: once per instruction set.
INSIDE = [*sources(CSRC, suffixes=(".h",))]
INSIDE = [path for path in INSIDE if path.name.endswith("-inl.h")]


def test_there_is_something_to_search():
    assert len(sources(CSRC)) >= 8
    assert len(sources(SRC)) >= 3
    assert {"forward-inl.h", "backward-inl.h", "gemm-inl.h", "math-inl.h", "lstm-inl.h"} <= {p.name for p in INSIDE}


def test_kernels_know_no_python():
    assert not hits(r"(?i)python|pybind|numpy|\bpy::|PyObject|\bPy_?[A-Z]", sources(CSRC))


def test_kernels_include_only_themselves_and_the_standard_library():
    for path in sources(CSRC):
        for name in re.findall(r'#include\s+"([^"]+)"', path.read_text()):
            assert (path.parent / name).exists() or (CSRC / name).exists(), f"{path}: {name}"
        for name in re.findall(r"#include\s+<([^>]+)>", path.read_text()):
            assert "/" not in name or name == "sys/mman.h", f"{path}: {name}"
            # Of the system's own headers, what C++ has no name for: fork and signal masks, and large pages.
            of_the_system = {("threads.cpp", "pthread.h"), ("memory.cpp", "sys/mman.h")}
            allowed = path.parent == INSTRUCTION_SETS or (path.name, name) in of_the_system
            assert not name.endswith(".h") or allowed, f"{path}: {name}"


def test_intrinsics_only_in_isa():
    outside = [path for path in sources(CSRC, SRC) if path.parent != INSTRUCTION_SETS]
    pattern = r"\b_mm\d*_|\b__m(64|128|256|512)|\b__mmask|immintrin|arm_neon|\bv(ld|st)1q?_|__builtin_ia32|\basm\b"
    assert not hits(pattern, outside)
    assert hits(pattern, sources(INSTRUCTION_SETS))


def test_instruction_sets_are_named_in_isa_and_dispatch_only():
    outside = [p for p in sources(CSRC) if p.parent != INSTRUCTION_SETS and p.name not in ("dispatch.cpp", "kernels.h")]
    assert not hits(r"(?i)avx|\bsse|neon", [*outside, *sources(SRC)])


def test_target_regions_hold_no_lambda_and_no_std():
    """Each would leave a copy compiled for one CPU that the linker may give to code for every CPU."""
    inside = [*INSIDE, *sources(INSTRUCTION_SETS)]
    assert not hits(r"\[[&=\w, ]*\]\s*\([^)]*\)\s*(mutable\s*|noexcept\s*|->\s*\w+\s*)*\{", inside)
    assert not hits(r"\bstd::(?!u?int(8|16|32|64)_t|size_t|ptrdiff_t)\w+", inside)
    assert not hits(r"#include\s*<", INSIDE)
    assert not hits(r"^\s*static\s+(?!constexpr|LF_INLINE|inline)", inside)
    assert not hits(r"\b(thread_local|virtual|dynamic_cast|typeid)\b", inside)


def test_standard_headers_come_before_the_region():
    for path in sources(INSTRUCTION_SETS, suffixes=(".cpp",)):
        text = code(path)
        headers = [match.start() for match in re.finditer(r"#include\s*<", text)]
        region = text.find("LF_BEGIN_TARGET")
        assert region < 0 or all(place < region for place in headers), path
        assert text.count("LF_BEGIN_TARGET") == text.count("LF_END_TARGET"), path


def test_target_regions_hold_no_allocation_lock_or_throw():
    assert not hits(
        r"\b(new|delete|malloc|calloc|free|throw|try|catch|mutex|lock_guard|atomic|vector|string)\b", INSIDE
    )


def test_cells_hold_mathematics_only():
    for path in sources(CSRC / "cells"):
        # Brackets only where an array gets names.
        assert not hits(r"\bfor\b|\bwhile\b|(?<!auto& )\[[^\]]|\*\s*\(|->|\bstride", [path])


def test_bindings_hold_no_arithmetic():
    assert not hits(r"\bstd::(exp|tanh|fma|sqrt|inner_product|accumulate|transform)\b|\bfma\w*\(\s*\w+,", sources(SRC))
    # Loops over axes, sizes, steps of batch_sizes, layers and directions (at), cells; none runs over elements.
    loops = hits(r"\bfor\s*\(", sources(SRC))
    assert all(re.search(r"\baxis\b|\bat\b|\bsize : (dims|sizes)\b|\bkind : cell_kinds\b", line) for line in loops), (
        loops
    )


def test_module_is_a_table_of_contents():
    assert len((SRC / "module.cpp").read_text().splitlines()) <= 40


def test_no_flag_that_changes_numbers():
    build = (ROOT / "setup.py").read_text() + (ROOT / "pyproject.toml").read_text()
    switches = re.findall(r"""["'](-[^"'\s]+)["']""", build)
    assert "-ffp-contract=off" in switches
    numbers = "fast-math|openmp|unsafe|associative|reciprocal|finite|no-signed-zeros"
    forbidden = rf"-Ofast|-f({numbers})|-m(arch|tune|avx|fma|cpu)"
    assert not [switch for switch in switches if re.match(forbidden, switch)]
    assert not hits(r"#pragma\s+(omp|STDC\s+FP_CONTRACT|GCC\s+(optimize|ivdep))|fast.?math|_MM_SET", sources(CSRC, SRC))


def test_index_arithmetic_is_64_bits():
    """A product of sizes in int is wrong beyond 2^31; int counts lanes, gates, and rows and vectors of a tile only."""
    names = ("forward.cpp", "backward.cpp", "layout.h", "stack.h", "forward-inl.h", "backward-inl.h")
    names += ("states.cpp", "recompute.h", "recompute-inl.h")
    wide = [path for path in sources(CSRC, SRC) if path.name in names]
    assert len(wide) == len(names)
    assert not hits(r"\b(int|unsigned)\s+(t|b|step|steps|batch|row|rows|unit|units|k|T|B|I|H|stride|offset)\b", wide)
    # The number of threads, at most wanted.most, is an int as well.
    assert not hits(r"static_cast<(int|unsigned)>\((?!cell|std::min<double>\(wanted\.most,)", wide)


def test_no_vague_names():
    vague = re.compile(r"^(tmp|data|helpers?|utils?|common|misc)\b")
    folders = [ROOT / name for name in ("csrc", "src", "python", "benches", "tests")]
    every = [p for folder in folders for p in folder.rglob("*") if p.suffix in (".h", ".cpp", ".py", ".c")]
    assert len(every) > 30
    assert not [str(path) for path in every if vague.match(path.stem)]


def imported_by(statement):
    script = f"import sys, numpy; before = set(sys.modules); {statement}; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


HEAVY = {
    "torch",
    "numba",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "jax",
    "tensorflow",
    "scipy",
    "pandas",
    "rich",
    "pytest",
}
HEAVY |= {"argparse", "importlib.metadata", "asyncio", "email", "multiprocessing", "http", "ssl", "unittest"}


def test_import_is_light():
    modules = imported_by("import lstm_fast")
    assert "lstm_fast" in modules
    assert not modules & HEAVY


def test_import_leaves_the_bench_the_demos_and_the_command_line_alone():
    modules = imported_by("import lstm_fast")
    assert not {name for name in modules if re.match(r"lstm_fast\.(bench|demos|cli|torch|cuda|onnx)\b", name)}


def test_only_numpy_is_needed():
    """Every import at the top of a module of the package itself is NumPy, the package or the standard library."""
    allowed = {"numpy", "lstm_fast", "__future__", *sys.stdlib_module_names}
    for path in [*PYTHON.glob("*.py"), *PYTHON.glob("reference/*.py")]:
        for name in re.findall(r"^(?:import|from)\s+([A-Za-z_]\w*)", path.read_text(), re.M):
            assert name in allowed, f"{path.name}: {name}"


def test_the_package_is_typed():
    assert (PYTHON / "py.typed").exists()
    stub = (PYTHON / "_lstm_fast_core.pyi").read_text()
    from lstm_fast import _lstm_fast_core as core

    for name in dir(core):
        if not name.startswith("__"):
            assert re.search(rf"^((def|class) {name}\b|{name} = )", stub, re.M), f"{name} is not in the stub"
