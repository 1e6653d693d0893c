"""Defects of lean reserves: what they keep, and what backward computes again."""

from __future__ import annotations

from .parts import LAYERS_FORWARD, LAYOUT, RECOMPUTE, RECOMPUTE_CALLS, replaced

SUM_OF_H = """    accumulate(acc, a, 0, 1, w_hh, width, 0, chunk.Ho);
"""
SUM_OF_H_APART = """    V apart[M][G];
    LF_UNROLL for (int m = 0; m < M; ++m) { LF_UNROLL for (int n = 0; n < G; ++n) apart[m][n] = V::set(0); }
    accumulate(apart, a, 0, 1, w_hh, width, 0, chunk.Ho);
    LF_UNROLL for (int m = 0; m < M; ++m) {
      LF_UNROLL for (int n = 0; n < G; ++n) acc[m][n] = add(acc[m][n], apart[m][n]);
    }
"""

DEFECTS = [
    replaced("l1", "the sums over x and over h apart", RECOMPUTE, SUM_OF_H, SUM_OF_H_APART),
    replaced(
        "l2",
        "c before every chunk is c0",
        RECOMPUTE_CALLS,
        "copy_rows(reserve.c + span.first_kept * g.carry_stride,",
        "copy_rows(reserve.c,",
    ),
    replaced(
        "l3",
        "no barrier between the rows and the gates",
        RECOMPUTE_CALLS,
        "    if (!own_products) crew.wait();\n    index* const products",
        "    index* const products",
    ),
    replaced(
        "l4",
        "no barrier between the gates and c",
        RECOMPUTE_CALLS,
        "    if (!own_products) crew.wait();\n    plan.kernels.recompute_cells",
        "    plan.kernels.recompute_cells",
    ),
    replaced(
        "l5",
        "the gates kept all the same",
        LAYOUT,
        "gates(arena.take<T>({lean ? 0 : g.rows, g.gate_stride}))",
        "gates(arena.take<T>({g.rows, g.gate_stride}))",
    ),
    replaced(
        "l6",
        "cells of a step from the h before the last",
        LAYERS_FORWARD,
        "      std::swap(step.h[0], step.h[1]);\n",
        "",
    ),
]
