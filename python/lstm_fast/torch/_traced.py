"""Questions that torch.compile must not trace: answered while it traces, and constants of the graph from then on.

Imported under the compiler only: this imports it.
"""

from __future__ import annotations

import torch

from . import _call, _counters


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def unsupported() -> str | None:
    """As in _call: what it reads is PyTorch's own state, which changes in the middle of a trace.

    Of that at its start, the compiler's guards are to see that a graph is used under no other.
    """
    return _call.unsupported()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def note(where: str, reason: str) -> None:
    """Count once for the graph: a count that is part of it is one of its guards, and no call equals the one before."""
    _counters.count(where, reason)
