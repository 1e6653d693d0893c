"""Defects of the GRU, of the RNN, and of the aids that training has in every cell."""

from __future__ import annotations

from .parts import BACKWARD, FORWARD, LAYERS_BACKWARD, replaced

GRU, RNN, CELL_ROWS = "csrc/cells/gru-inl.h", "csrc/cells/rnn-inl.h", "csrc/cell-inl.h"

DEFECTS = [
    replaced(
        "g1", "the update gate keeps the candidate", GRU, "fma(z, sub(h_prev, n), n)", "fma(z, sub(n, h_prev), h_prev)"
    ),
    replaced("g2", "the reset gate multiplies all of n", GRU, "tanh(fma(r, n_h, n_x))", "tanh(mul(r, add(n_h, n_x)))"),
    replaced(
        "g3", "n gets no gradient through the reset gate", GRU, "mul(da_n, r)}, mul(dh, z)}", "da_n}, mul(dh, z)}"
    ),
    replaced("g4", "h gets no gradient past the gates", GRU, "mul(da_n, r)}, mul(dh, z)}", "mul(da_n, r)}, V::set(0)}"),
    replaced(
        "g5",
        "gates over x in the order of those over h",
        CELL_ROWS,
        "from_x ? (of_gates - of_apart) % of_gates : 0>;",
        "0>;",
    ),
    replaced("r1", "the slope of relu is 1", RNN, "return where_positive(h, dh);", "return dh;"),
    replaced(
        "r2",
        "the slope of sigmoid is that of tanh",
        RNN,
        "mul(dh, mul(h, sub(one, h)))",
        "mul(dh, fma(neg(h), h, one))",
    ),
    replaced(
        "a1", "a reset keeps what is carried", FORWARD, "if (!resets || !resets[m * row_step]) carried", "carried"
    ),
    replaced("a2", "a reset passes the gradient on", LAYERS_BACKWARD, "reset || truncated;", "truncated;"),
    replaced(
        "a3", "cut a step late", LAYERS_BACKWARD, "step % args_.aids.truncate == 0", "step % args_.aids.truncate == 1"
    ),
    replaced("a4", "dh is clipped from above only", BACKWARD, "max(V::set(-bound), gradient)", "gradient"),
]
