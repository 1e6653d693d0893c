"""The built extension module seen by binutils: symbols, instructions, sections."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from dataclasses import dataclass

import pytest
from lstm_fast import _lstm_fast_core as core

PATH: str = core.__file__

# The kernels of an instruction set live in the unnamed part of its namespace; what may run on any CPU stands outside.
NAMESPACES = {"scalar": ("scalar", "scalar_fma"), "avx2": ("avx2",), "avx512": ("avx512",)}


def binutils(*command: str) -> str:
    """Output of a binutils program; skips the test where it is missing."""
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} (binutils) is not installed")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@dataclass(frozen=True)
class Symbol:
    name: str  # mangled
    address: int
    size: int
    kind: str  # as nm prints it

    def is_kernel_of(self, namespace: str) -> bool:
        """Compiled for that namespace: a member of its unnamed part, not merely a template over its types."""
        return re.match(rf"_ZNK?9lstm_fast{len(namespace)}{namespace}12_GLOBAL__N_1", self.name) is not None


@functools.cache
def symbols() -> tuple[Symbol, ...]:
    found = []
    for line in binutils("nm", "--defined-only", "--print-size", PATH).splitlines():
        match = re.fullmatch(r"([0-9a-f]+) (?:([0-9a-f]+) )?(\w) (\S+)", line)
        if match:
            found.append(Symbol(match[4], int(match[1], 16), int(match[2] or "0", 16), match[3]))
    if not any(symbol.is_kernel_of("scalar") for symbol in found):
        pytest.skip("the module is stripped of its symbols")
    return tuple(found)


def kernels(isa: str) -> list[Symbol]:
    """The functions compiled for an instruction set."""
    return [s for s in symbols() if s.kind in "tTwW" and s.size and any(map(s.is_kernel_of, NAMESPACES[isa]))]


@dataclass(frozen=True)
class Instruction:
    address: int
    mnemonic: str
    operands: str


@functools.cache
def functions() -> dict[str, tuple[Instruction, ...]]:
    """Instructions of every function, by mangled name."""
    found: dict[str, list[Instruction]] = {}
    body: list[Instruction] = []
    for line in binutils("objdump", "-d", "--no-show-raw-insn", "--section=.text", PATH).splitlines():
        if match := re.fullmatch(r"[0-9a-f]+ <(.*)>:", line):
            body = found.setdefault(match[1], [])
        elif match := re.match(r"\s*([0-9a-f]+):\s+(\S+)\s*([^#]*)", line):
            body.append(Instruction(int(match[1], 16), match[2], match[3].strip()))
    return {name: tuple(instructions) for name, instructions in found.items()}
