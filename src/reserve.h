// What a training forward keeps for backward, as Python holds it.
#pragma once

#include <optional>
#include <string>

#include "arrays.h"

namespace lstm_fast::python {

// A cell as Python names it.
struct CellKind {
  const char* name;
  Cell cell;
  Activation activation;
};

inline constexpr CellKind cell_kinds[] = {
    {"lstm", Cell::lstm, Activation::tanh},          {"gru", Cell::gru, Activation::tanh},
    {"rnn_tanh", Cell::rnn, Activation::tanh},       {"rnn_relu", Cell::rnn, Activation::relu},
    {"rnn_sigmoid", Cell::rnn, Activation::sigmoid}, {"rnn_identity", Cell::rnn, Activation::identity},
};

inline const CellKind& cell_named(const std::string& name) {
  for (const CellKind& kind : cell_kinds) {
    if (name == kind.name) return kind;
  }
  throw py::value_error("cell: expected the name of a cell, got '" + name + "'");
}

// How a call shapes its arrays.
enum class Form {
  layer,   // ops.lstm_forward: x [T,B,I], states [B,H]
  stack,   // layers.LSTM: x [T,B,I], states [L*D,B,H]
  packed,  // x [N,I] as in PyTorch's PackedSequence, states [L*D,B,H]
  cell,    // ops.lstm_cell: x [B,I], states [B,H]
};

// Whether x and its like have one dimension for steps and rows of the batch together.
inline bool is_flat(Form form) { return form == Form::packed || form == Form::cell; }

// Whether states are [L*D,B,.], and may be None for zeros.
inline bool is_stacked(Form form) { return form == Form::stack || form == Form::packed; }

inline index hidden(const Shape& shape) { return shape.P > 0 ? shape.P : shape.H; }

inline Dims state_dims(Form form, const Shape& shape, index width) {
  return is_stacked(form) ? Dims{shape.layers * shape.directions, shape.B, width} : Dims{shape.B, width};
}

// The arrays that backward reads beside the incoming gradients. Never written.
struct Saved {
  py::array x;       // as given, or the dense copy of it
  py::array y;       // read-only
  py::array block;   // bytes
  py::list weights;  // as given to forward, if the shape says that backward gets them again
};

// Immutable but for release(): backward only reads it, so it can be used more than once.
struct Reserve {
  const Isa* isa;
  Shape shape;
  Dims lengths;  // empty: every row has T steps
  bool ragged;
  index rows;  // of x, if it has two dimensions
  Dropout dropout;
  char code;
  bool has_b_ih, has_b_hh;
  Form form;
  index truncate;  // as in Aids, and so on
  double grad_clip;
  std::optional<py::array> resets;
  std::optional<Saved> saved;

  Aids aids() const { return {truncate, grad_clip, data_of<std::uint8_t>(resets)}; }

  const index* lengths_or_null() const { return ragged ? lengths.data() : nullptr; }

  // Of an array as long as x.
  Dims sequence_dims(index width) const { return is_flat(form) ? Dims{rows, width} : Dims{shape.T, shape.B, width}; }
};

inline const std::byte* bytes_of(const py::array& block) { return static_cast<const std::byte*>(block.data()); }

}  // namespace lstm_fast::python
