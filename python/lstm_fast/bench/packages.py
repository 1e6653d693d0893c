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
    "openvino": "peers",
    "jax": "peers",
    "sklearn": "demos",
}
DISTRIBUTIONS = {"sklearn": "scikit-learn"}  # where the name differs from the import's by more than _ and -
# Shown by `lstm-fast info` beside those: useful when present, asked for by no extra of this version's commands.
ALSO_SHOWN = ("threadpoolctl", "numba_cuda")


class MissingPackageError(Exception):
    """An optional package is needed and not installed; the message has the pip command."""


def version(name: str) -> str | None:
    """Installed version of the distribution that provides the import ``name``, or None; imports nothing."""
    try:
        return importlib.metadata.version(DISTRIBUTIONS.get(name, name.replace("_", "-")))
    except importlib.metadata.PackageNotFoundError:
        return None


def installed(name: str) -> bool:
    """Whether ``import name`` would find a module; imports nothing."""
    return importlib.util.find_spec(name) is not None


def pip_command(*names: str) -> str:
    """What installs these imports: our extras where they bring them, else the packages themselves."""
    wanted = dict.fromkeys(f"'lstm_fast[{EXTRAS[n]}]'" if n in EXTRAS else n for n in names)
    return f"pip install {' '.join(wanted)}"


def require(name: str, purpose: str, extra: str | None = None) -> Any:
    """Import ``name`` (a dotted module is fine) or raise :class:`MissingPackageError`, which says how to get it.

    ``purpose`` is the subject of the message: what needs the package. ``extra``: the one that brings all that the
    purpose needs, where that is not the package's own in EXTRAS.
    """
    top = name.partition(".")[0]
    if not installed(top):
        command = f"pip install 'lstm_fast[{extra}]'" if extra else pip_command(top)
        raise MissingPackageError(f"{purpose} needs {DISTRIBUTIONS.get(top, top)}, which is not installed: {command}")
    return importlib.import_module(name)


def optional_versions() -> dict[str, str | None]:
    """Every optional package -> version, None where it is not installed."""
    return {name: version(name) for name in (*EXTRAS, *ALSO_SHOWN)}
