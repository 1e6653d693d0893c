"""Random masks as a function of (seed, stream, place, step, row, unit): Philox4x32-10, the same as csrc/dropout.h.

The key is the seed. One counter makes the words of four units, and a unit is kept when its word is at least p * 2^32:

    counter = (unit // 4, row, step, stream * 2^28 + place), word = unit % 4

    stream           of                              row              step        unit       place
    0 output         y of a layer                    of the batch     t           of D*H     layer
    1 zoneout h      h [B,H] after every step        of the batch     t           of H       layer * D + direction
    2 zoneout c      c [B,H] after every step        of the batch     t           of H       layer * D + direction
    3 recurrent      h' as W_hh sees it, [B,H]       of the batch     0           of H       layer * D + direction
    4 drop connect   W_hh [4H,H]                     of W_hh          0           column     layer * D + direction

t is the index in the caller's x, in either direction and for ragged rows too. With a projection h and the columns of
W_hh are P wide. Counters are taken modulo 2^32; the masks of two streams never share one while place < 2^28.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Stream(IntEnum):
    """Which masks a counter belongs to."""

    output = 0
    zoneout_h = 1
    zoneout_c = 2
    recurrent = 3
    drop_connect = 4


def philox(seed: int, counter: Array) -> Array:
    """Philox4x32-10 (Salmon et al., 2011): four random 32-bit words [...,4] from four counter words [...,4]."""
    mask = np.uint64(0xFFFFFFFF)
    x0, x1, x2, x3 = np.moveaxis(np.asarray(counter, np.uint64), -1, 0)
    key_low, key_high = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        even, odd = np.uint64(0xD2511F53) * x0, np.uint64(0xCD9E8D57) * x2
        x0, x1 = (odd >> np.uint64(32)) ^ x1 ^ np.uint64(key_low), odd & mask
        x2, x3 = (even >> np.uint64(32)) ^ x3 ^ np.uint64(key_high), even & mask
        key_low, key_high = (key_low + 0x9E3779B9) & 0xFFFFFFFF, (key_high + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([x0, x1, x2, x3], axis=-1).astype(np.uint32)


def kept_units(stream: Stream, seed: int, place: int, shape: tuple[int, int, int], p: float) -> Array:
    """The mask of one stream, bool of this shape [steps,rows,units]: False with probability p."""
    steps, rows, units = shape
    t, row, quad = np.meshgrid(np.arange(steps), np.arange(rows), np.arange(-(-units // 4)), indexing="ij")
    words = philox(seed, np.stack([quad, row, t, np.full_like(t, (stream << 28) + place)], axis=-1))
    words = words.reshape(steps, rows, 4 * quad.shape[2])[..., :units]
    kept: Array = words.astype(np.uint64) >= np.uint64(int(p * 2**32))
    return kept


def dropout_scale(seed: int, layer: int, shape: tuple[int, int, int], p: float) -> Array:
    """What forward multiplies the output [T,B,D*H] of a layer by: 0 with probability p, else 1 / (1 - p)."""
    return np.where(kept_units(Stream.output, seed, layer, shape, p), 1 / (1 - p) if p < 1 else 0.0, 0.0)


class Zoneout(NamedTuple):
    """How one state is kept from the step before: new [B,H] where ``kept`` is True, else old.

    In evaluation ``kept`` is None, and the state is the mean of what training makes: rate * old + (1 - rate) * new.
    """

    rate: float
    kept: Array | None  # [T,B,H]

    def mix(self, new: Array, old: Array, t: int, rows: slice) -> Array:
        if self.kept is None:
            return self.rate * old + (1 - self.rate) * new
        return np.where(self.kept[t, rows], new, old)

    def split(self, gradient: Array, t: int, rows: slice) -> tuple[Array, Array]:
        """The gradients of new and of old, from that of the mixture."""
        if self.kept is None:
            return (1 - self.rate) * gradient, self.rate * gradient
        kept = self.kept[t, rows]
        return np.where(kept, gradient, 0), np.where(kept, 0, gradient)
