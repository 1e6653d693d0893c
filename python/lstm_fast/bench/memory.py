"""How much memory of its own a call of lstm_fast takes at most."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from .. import _lstm_fast_core as core
from .engines import PASSES, LstmFast
from .problems import Array

EVERYTHING = 2**62  # a limit that no block exceeds


@contextlib.contextmanager
def _nothing_kept() -> Iterator[None]:
    """Every block that is given back meanwhile is kept, and none from before."""
    limit = core.spare_memory_limit()
    core.set_spare_memory_limit(0)
    core.set_spare_memory_limit(EVERYTHING)
    try:
        yield
    finally:
        core.set_spare_memory_limit(0)
        core.set_spare_memory_limit(limit)


def own_bytes(engine: LstmFast, dy: Array) -> dict[str, int]:
    """Pass -> the most bytes that the kernels have allocated at any time, beyond inputs and outputs.

    Inference: the workspace. Training: the reserve and the larger of the workspaces of forward and backward. Read from
    the allocator: all that a call allocates in C++ is a workspace or a reserve, and what it gives back is kept and
    counted. A process has to spare this much, whatever its allocator does.
    """
    with _nothing_kept():
        results = engine.forward()  # held until the reading: outputs can be made of such memory, too
        inference = core.spare_memory()
        del results
    with _nothing_kept():
        *outputs, reserve = engine.saving_forward()
        forward = core.spare_memory()
        core.set_spare_memory_limit(0)
        core.set_spare_memory_limit(EVERYTHING)
        grads = engine.gradients(reserve, dy)
        backward = core.spare_memory()
        del reserve
        saved = core.spare_memory() - backward
        del outputs, grads
    return dict(zip(PASSES, (inference, saved + max(forward, backward)), strict=True))
