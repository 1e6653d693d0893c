"""The thread team under ThreadSanitizer: a program of its own, since the interpreter would not stand it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ["tests/stress_threads.cpp", "csrc/forward.cpp", "csrc/backward.cpp", "csrc/stream.cpp"]
SOURCES += ["csrc/threads.cpp", "csrc/memory.cpp", "csrc/isa/scalar.cpp"]
FLAGS = ["-std=c++20", "-O0", "-ffp-contract=off", "-fsanitize=thread", "-pthread", "-Icsrc"]
COMPILER = shutil.which(os.environ.get("CXX", "g++"))


def run(*command, **variables):
    environment = os.environ | variables
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


@pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="the tests run without the source tree")
@pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")
def test_no_data_race(tmp_path):
    """Barriers, directions in crews, chunks of ragged batches, streams, several callers: no race, and the same bits."""
    (tmp_path / "empty.cpp").write_text("int main() {}\n")
    probe = run(COMPILER, "-fsanitize=thread", str(tmp_path / "empty.cpp"), "-o", str(tmp_path / "empty"))
    if probe.returncode or run(str(tmp_path / "empty")).returncode:
        pytest.skip("ThreadSanitizer does not work here")
    program = str(tmp_path / "stress")
    built = run(COMPILER, *FLAGS, *SOURCES, "-o", program)
    assert built.returncode == 0, built.stderr
    done = run(program, TSAN_OPTIONS="halt_on_error=1")
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stdout + done.stderr
