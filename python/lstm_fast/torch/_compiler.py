"""Lets torch.compile trace our modules.

It refuses every torch.nn.LSTM, GRU and RNN, subclasses too, unless torch._dynamo.config.allow_rnn is set, as
torch.export sets it. That module takes longer to import than PyTorch itself, so it is not imported for the setting: it
gets it when somebody does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_NAME = "torch._dynamo.config"


class _Once(MetaPathFinder):
    """Finds the module as everybody else does, and sets the option when it has run."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _NAME:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            run = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run(module)
                _allow(module)

            loader.exec_module = exec_module
        return spec


def _allow(config: Any) -> None:
    config.allow_rnn = True


def let_compilers_in() -> None:
    """Now, or when torch._dynamo is imported."""
    if _NAME in sys.modules:
        _allow(sys.modules[_NAME])
    else:
        sys.meta_path.insert(0, _Once())
