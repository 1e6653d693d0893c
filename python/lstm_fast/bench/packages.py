"""Optional packages: which are installed, in which version, and a clear message when one is missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from typing import Any

# Import name -> the extra of lstm_fast that brings it.
EXTRAS = {
    "rich": "bench",
    "matplotlib": "bench",
    "pytest_benchmark": "bench",
    "torch": "peers",
    "onnxruntime": "peers",
    "onnx": "peers",
}
# Shown by `lstm-fast info` beside those: useful when present, asked for by no extra of this version's commands.
ALSO_SHOWN = ("threadpoolctl", "numba_cuda")


class MissingPackageError(Exception):
    """An optional package is needed and not installed; the message has the pip command."""


def version(name: str) -> str | None:
    """Installed version of the distribution that provides the import ``name``, or None; imports nothing."""
    try:
        return importlib.metadata.version(name.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return None


def installed(name: str) -> bool:
    """Whether ``import name`` would find a module; imports nothing."""
    return importlib.util.find_spec(name) is not None


def pip_command(*names: str) -> str:
    """What installs these imports: our extras where they bring them, else the packages themselves."""
    wanted = dict.fromkeys(f"'lstm_fast[{EXTRAS[n]}]'" if n in EXTRAS else n for n in names)
    return f"pip install {' '.join(wanted)}"


def require(name: str, purpose: str) -> Any:
    """Import ``name`` (a dotted module is fine) or raise :class:`MissingPackageError`, which says how to get it.

    ``purpose`` is the subject of the message: what needs the package.
    """
    top = name.partition(".")[0]
    if not installed(top):
        raise MissingPackageError(f"{purpose} needs {top}, which is not installed: {pip_command(top)}")
    return importlib.import_module(name)


def optional_versions() -> dict[str, str | None]:
    """Every optional package -> version, None where it is not installed."""
    return {name: version(name) for name in (*EXTRAS, *ALSO_SHOWN)}
