"""The peers that lstm_fast is compared with; see :mod:`lstm_fast.bench.engines` for what an engine has to offer."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from ..baseline import NumpyBaseline
from ..engines import EngineClass, LstmFast, Named
from ..packages import installed, version
from .jax_scan import Jax
from .onnx_runtime import OnnxRuntime
from .openvino import OpenVino
from .pytorch import PyTorch

OWN: tuple[EngineClass, ...] = (LstmFast, NumpyBaseline)
PEERS: tuple[EngineClass, ...] = (PyTorch, OnnxRuntime, OpenVino, Jax)


def missing_packages(engine: EngineClass) -> list[str]:
    """Import names that the engine requires and that are not installed."""
    return [name for name in getattr(engine, "requires", ()) if not installed(name)]


def engine_version(engine: Named) -> str | None:
    """The class's ``version``, else that of its first requirement; None for a user's peer that names neither."""
    requires: Sequence[str] = getattr(engine, "requires", ())
    stated: str | None = getattr(engine, "version", None)
    return stated or (version(requires[0]) if requires else None)


def load_peer(spec: str) -> EngineClass:
    """The class behind "module:Class"; the working directory is searched too. ValueError says what is wrong."""
    module_name, _, class_name = spec.partition(":")
    if not module_name or not class_name:
        raise ValueError(f"--peer: expected module:Class, got {spec!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = getattr(importlib.import_module(module_name), class_name)
    except ModuleNotFoundError as problem:
        raise ValueError(f"--peer {spec}: {problem}") from problem
    except AttributeError:
        raise ValueError(f"--peer {spec}: module {module_name!r} has no {class_name!r}") from None
    for attribute in ("name", "forward"):
        if not hasattr(found, attribute):
            raise ValueError(f"--peer {spec}: {class_name} has no {attribute!r}; see lstm_fast.bench.engines")
    engine: EngineClass = found
    return engine


def all_engines(extra: Iterable[EngineClass] = ()) -> tuple[EngineClass, ...]:
    """lstm_fast first, then the NumPy baseline, the peers, and the user's own."""
    engines = (*OWN, *PEERS, *extra)
    names = [e.name for e in engines]
    if len(set(names)) != len(names):
        raise ValueError(f"--peer: two engines have the same name; got {', '.join(names)}")
    return engines
