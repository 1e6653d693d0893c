"""Defects of single steps: weights read as the user has them, tensors that DLPack hands over."""

from __future__ import annotations

from .parts import DIRECT, DIRECT_BACKWARD, DLPACK, INFER, LAYERS_BACKWARD, LAYERS_FORWARD, SERIES, STACK, replaced

DEFECTS = [
    replaced(
        "d1",
        "a direct step without b_hh",
        DIRECT,
        "bias_of<Input, V>(weights.b_ih, weights.b_hh,",
        "bias_of<Input, V>(weights.b_ih, nullptr,",
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
        DIRECT_BACKWARD,
        "accumulate(acc, gradients, 0, stride, packed, N * V::lanes, 0, count);",
        "accumulate(acc, gradients, 0, stride, packed, N * V::lanes, 0, smaller(count, 1));",
    ),
    replaced(
        "d5",
        "direct weight gradients of one participant's units only",
        LAYERS_BACKWARD,
        "if (direct) kernels.direct_weight_gradient(",
        "if (direct && crew.leads()) kernels.direct_weight_gradient(",
    ),
    replaced(
        "d8",
        "a direct gradient without the last inputs",
        DIRECT_BACKWARD,
        "return wide_blocks() + ceil_div(K - wide_blocks() * wide * V::lanes, V::lanes);",
        "return wide_blocks() + (K - wide_blocks() * wide * V::lanes) / V::lanes;",
    ),
    replaced(
        "d9",
        "a cell's gradient through the weights of the inputs",
        DIRECT_BACKWARD,
        "dh{chunk, weights.w_hh, chunk.H,",
        "dh{chunk, weights.w_ih, chunk.I,",
    ),
    replaced(
        "d11",
        "participants pack their blocks in one place",
        LAYERS_FORWARD,
        "work.direct_panel + crew.id() * g.direct_panel()",
        "work.direct_panel + 0 * g.direct_panel()",
    ),
    replaced(
        "d12",
        "a packed block of the row before",
        DIRECT_BACKWARD,
        "block, packed);\n        for_vectors",
        "{block.first > 0 ? block.first - 1 : 0, block.vectors}, packed);\n        for_vectors",
    ),
    replaced("d10", "a single step wakes the team", SERIES, "length_ == long_enough &&", "length_ >= 0 &&"),
    replaced(
        "d6", "strides of a tensor overlooked", DLPACK, "tensor.strides[axis] != step", "tensor.strides[axis] == 0"
    ),
    replaced(
        "d7",
        "inference past NumPy with the states exchanged",
        INFER,
        "      .h0 = h0,\n      .c0 = c0,\n",
        "      .h0 = c0,\n      .c0 = h0,\n",
    ),
    replaced(
        "d13",
        "inference past NumPy takes w_ih of the first layer and direction for all",
        INFER,
        ".w_ih = tensors.dense(at, {4",
        ".w_ih = tensors.dense(at_weights, {4",
    ),
    replaced(
        "d14",
        "no initial state is what the memory held",
        STACK,
        "width, width, to) : to;",
        "width, width, to) : to + width;",
    ),
]
