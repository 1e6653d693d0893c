"""Defects of stacks: directions, ragged batches, projection, dropout, the states of all steps."""

from __future__ import annotations

from .parts import BACKWARD, DROPOUT, LAYERS_BACKWARD, LAYERS_FORWARD, LAYOUT, PLAN, STACK, STREAM, Defect, replaced

# The state after the last step of the batch, not of the row.
LAST_C_ROW = """    const index length = plan_.schedule.length(b);
    if (!keeps_gates() || length == 0) return b;
"""
LAST_OF_ALL = """    const index length = plan_.schedule.length(0);
    if (!keeps_gates() || length == 0) return b;
"""

COPY_HN = "std::copy_n(work.h[length % 2] + b * g.h_stride, g.Ho, args_.hn + out * g.Ho);"

COPY_HN_OF_ALL = COPY_HN.replace("length % 2", "schedule.length(0) % 2")

DEFECTS = [
    replaced(
        "s1",
        "a stream's layers do not wait for each other",
        STREAM,
        "if (&chunk != layers_.data()) crew.wait();",
        "",
    ),
    replaced(
        "s3",
        "a stream's barrier has the counts of steps with fewer participants",
        STREAM,
        "  crew.start(met_);  // a step may have more participants than those before\n",
        "",
    ),
    replaced("s2", "a stream forgets h", STREAM, "    std::swap(chunk.h[0], chunk.h[1]);\n", ""),
    replaced(
        "15",
        "reverse direction not reversed",
        PLAN,
        "return direction == 1 || shape.reverse;",
        "return direction > 1 || (shape.reverse && shape.T < 0);",
    ),
    replaced(
        "16",
        "reverse starts at T, not at the row's length",
        PLAN,
        "reversed(direction) ? schedule.length(row) - 1 - step",
        "reversed(direction) ? schedule.T() - 1 - step + 0 * row",
    ),
    replaced(
        "17",
        "length off by one",
        LAYOUT,
        "lengths_.push_back(lengths[row]);",
        "lengths_.push_back(lengths[row] > 1 ? lengths[row] - 1 : lengths[row]);",
    ),
    Defect(
        "18",
        "final state taken at T",
        (
            (LAYERS_FORWARD, COPY_HN, COPY_HN_OF_ALL),
            (LAYERS_FORWARD, LAST_C_ROW, LAST_OF_ALL),
        ),
    ),
    replaced("18b", "final h of the last step's parity", LAYERS_FORWARD, COPY_HN, COPY_HN_OF_ALL),
    replaced(
        "19",
        "output beyond the length not cleared",
        LAYERS_FORWARD,
        "    clear_padding(plan_.schedule, everybody, args_.y, plan_.width);",
        "    if (plan_.shape.T < 0) clear_padding(plan_.schedule, everybody, args_.y, plan_.width);",
    ),
    replaced(
        "19b",
        "dx beyond the length not cleared",
        LAYERS_BACKWARD,
        "if (args_.dx) clear_padding",
        "if (args_.dx && plan_.shape.T < 0) clear_padding",
    ),
    replaced(
        "20",
        "layer 2 fed by one direction only",
        LAYERS_FORWARD,
        "    return plan_.sequence(saves() ? reserve_.dropped[below] : y_[below]);",
        "    const T* data = saves() ? reserve_.dropped[below] : y_[below];\n"
        "    const index Ho = plan_.Ho;\n    if (plan_.shape.directions == 2)\n"
        "      for (index row = 0; row < plan_.schedule.sequence_rows(); ++row)\n"
        "        std::copy_n(data + row * plan_.width, Ho, const_cast<T*>(data + row * plan_.width) + Ho);\n"
        "    return plan_.sequence(data);",
    ),
    Defect(
        "21",
        "directions concatenated in the wrong order",
        (
            (LAYERS_FORWARD, "] + direction * g.Ho,", "] + (plan_.shape.directions - 1 - direction) * g.Ho,"),
            (
                LAYERS_BACKWARD,
                "output(args_.y, layer) + direction * g.Ho,",
                "output(args_.y, layer) + (plan_.shape.directions - 1 - direction) * g.Ho,",
            ),
            (
                LAYERS_BACKWARD,
                "schedule.find(place.dy, t, original) + place.direction * plan_.Ho",
                "schedule.find(place.dy, t, original) + (plan_.shape.directions - 1 - place.direction) * plan_.Ho",
            ),
        ),
    ),
    replaced("22", "dropout mask not rescaled", DROPOUT, "static_cast<T>(1 / (1 - dropout.p))", "T(1)"),
    replaced(
        "23",
        "dropout applied after the last layer",
        LAYERS_FORWARD,
        "    clear_padding(plan_.schedule, everybody, args_.y, plan_.width);",
        "    if (dropout_) for_valid_rows(plan_.schedule, everybody, [&](index t, index row) {\n"
        "      T* const own = args_.y + (t * plan_.shape.B + row) * plan_.width;\n"
        "      drop_row(args_.dropout, plan_.shape.layers - 1, t, row, own, plan_.width, own);\n"
        "    });\n"
        "    clear_padding(plan_.schedule, everybody, args_.y, plan_.width);",
    ),
    replaced(
        "23b",
        "dropout masks by the sorted row",
        STACK,
        "t < schedule.length(row); ++t) f(t, schedule.original(row));",
        "t < schedule.length(row); ++t) f(t, row);",
    ),
    replaced(
        "23c",
        "gradient of dropout without the mask",
        LAYERS_BACKWARD,
        "if (dropout_ && layer > 0) drop_row",
        "if (dropout_ && layer > 1) drop_row",
    ),
    replaced("23d", "nine rounds of Philox", DROPOUT, "round < 10", "round < 9"),
    replaced(
        "33",
        "lengths permuted but not restored in hn",
        LAYERS_FORWARD,
        "const index out = state * g.B + schedule.original(b);",
        "const index out = state * g.B + b;",
    ),
    replaced(
        "33b",
        "lengths permuted but not restored in dh0",
        LAYERS_BACKWARD,
        "const index out = state * g.B + schedule.original(b);",
        "const index out = state * g.B + b;",
    ),
    replaced(
        "34",
        "projection gradient taken before the gradient of y",
        BACKWARD,
        "if (dy) sum = add(sum, load_valid<V>(dy + k, chunk.Ho - k));",
        "if (dy) sum = load_valid<V>(dy + k, chunk.Ho - k);",
    ),
    replaced(
        "34b",
        "gradient of w_hr from the h that left the projection",
        BACKWARD,
        "if (u) Cell::output(activated, after).store(u + unit);",
        "if (u) tanh(after).store(u + unit);",
    ),
    # --- packed ---
    replaced(
        "p1",
        "rows of a packed step counted from the batch",
        LAYOUT,
        "return packed_ ? packed_step(t) + b : t * B_ + b;",
        "return packed_ ? t * B_ / 2 + b : t * B_ + b;",
    ),
    replaced(
        "p2",
        "a packed row has the length of the batch",
        "src/arrays.cpp",
        "std::for_each_n(lengths.begin(), size, [](index& length) { ++length; });",
        "std::for_each_n(lengths.begin(), sizes[0], [](index& length) { ++length; });",
    ),
    # --- cells ---
    replaced(
        "c1",
        "gradient of the cells of another step",
        BACKWARD,
        "chunk.dc_rows[chunk.first_row[step] + row]",
        "chunk.dc_rows[row]",
    ),
    replaced(
        "c2",
        "cells of the reverse direction in the order of its steps",
        LAYERS_FORWARD,
        "schedule.sequence_row(plan_.time(direction, first + s, b), schedule.original(b))",
        "schedule.sequence_row(direction < 2 ? first + s : 0, schedule.original(b))",
    ),
]
