"""Builds the one extension, lstm_fast._lstm_fast_core. Everything else stands in pyproject.toml.

Environment: LSTM_FAST_WERROR=1 turns the warnings of our own C++ into errors (CI does).
"""

import os
import shutil
import sys
from glob import glob

import pybind11
from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import setup
from setuptools.errors import CompileError

WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion"]


class BuildExt(build_ext):
    """Says what is missing when there is no C++ compiler."""

    def build_extensions(self) -> None:
        """Build, or fail with one clear sentence before anything is compiled."""
        compiler = self.compiler.compiler_cxx[0]
        if shutil.which(compiler) is None:
            raise CompileError(
                f"lstm_fast needs a C++20 compiler (GCC 11, Clang 14 or later); there is no {compiler!r}. "
                "On Debian or Ubuntu: apt-get install g++ python3-dev. Set CXX to choose another compiler."
            )
        super().build_extensions()


extension = Pybind11Extension(
    "lstm_fast._lstm_fast_core",
    sorted(glob("src/*.cpp") + glob("csrc/*.cpp") + glob("csrc/isa/*.cpp")),
    include_dirs=["csrc"],
    cxx_std=20,
    # No -march, no fast-math, no contraction: the same bits on every machine. -O3 unrolls the tile.
    extra_compile_args=[
        "-O3",
        "-pthread",
        "-ffp-contract=off",
        "-fno-math-errno",
        *WARNINGS,
        *(["-Werror"] if os.environ.get("LSTM_FAST_WERROR") == "1" else []),
    ],
    # Templates of the C++ library would be visible otherwise, and another module's could stand in for them.
    extra_link_args=["-pthread", "-Wl,--version-script=src/exports.map"] if sys.platform == "linux" else [],
    depends=sorted(["src/exports.map", *glob("src/*.h"), *glob("csrc/**/*.h", recursive=True)]),
)
# pybind11's own headers do not pass our warnings.
extension.include_dirs.remove(pybind11.get_include())
extension.extra_compile_args += ["-isystem", pybind11.get_include()]
ParallelCompile("LSTM_FAST_BUILD_JOBS", default=0).install()
setup(ext_modules=[extension], cmdclass={"build_ext": BuildExt})
