"""Defects of single steps: weights read as the user has them, tensors that DLPack hands over."""

from __future__ import annotations

from .parts import DIRECT, DLPACK, LAYERS_BACKWARD, STEP, replaced

DEFECTS = [
    replaced(
        "d1",
        "a direct step without b_hh",
        DIRECT,
        "      if (weights.b_hh) bias = add(bias, load_valid<V>(weights.b_hh + first, valid));\n",
        "",
    ),
    replaced(
        "d2",
        "a direct step reads beyond the last unit",
        DIRECT,
        "lane < valid && k < count ? w[lane * K + k] : 0;",
        "k < count ? w[lane * K + k] : 0;",
    ),
    replaced(
        "d3",
        "a direct step leaves out the last inputs",
        DIRECT,
        "if (at + j >= count) break;",
        "if (at + j + 1 >= count) break;",
    ),
    replaced(
        "d4",
        "a direct weight gradient of one row only",
        DIRECT,
        "for (index row = 0; row < count; ++row) {\n      sum = fma",
        "for (index row = 0; row < smaller(count, 1); ++row) {\n      sum = fma",
    ),
    replaced(
        "d5",
        "direct weight gradients of one participant's units only",
        LAYERS_BACKWARD,
        "if (direct) kernels.direct_weight_gradient(chunk, dw, crew.share(g.H));",
        "if (direct && crew.leads()) kernels.direct_weight_gradient(chunk, dw, crew.share(g.H));",
    ),
    replaced(
        "d8",
        "a direct gradient without the last inputs",
        DIRECT,
        "for (; column < K; column += V::lanes) {",
        "for (; column + V::lanes <= K; column += V::lanes) {",
    ),
    replaced(
        "d9",
        "a cell's gradient through the weights of the inputs",
        DIRECT,
        "direct_product<gates, V>(chunk, weights.w_hh, chunk.H, chunk.dh_rows",
        "direct_product<gates, V>(chunk, weights.w_ih, chunk.I, chunk.dh_rows",
    ),
    replaced("d10", "a single step wakes the team", STEP, "length_ >= 4 && rest_ == 0", "length_ >= 0 && rest_ == 0"),
    replaced(
        "d6", "strides of a tensor overlooked", DLPACK, "tensor.strides[axis] != step", "tensor.strides[axis] == 0"
    ),
    replaced(
        "d7",
        "a step with the states exchanged",
        STEP,
        "      .h0 = h,\n      .c0 = c,\n",
        "      .h0 = c,\n      .c0 = h,\n",
    ),
]
