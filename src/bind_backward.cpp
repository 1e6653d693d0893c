// backward: check, unpack, release the GIL, call.
#include <cstring>

#include "arrays.h"
#include "bindings.h"
#include "weights.h"
#include "without_gil.h"

namespace lstm_fast::python {
namespace {

// Which gradients the caller wants.
struct Wants {
  bool x = true, h0 = true, c0 = true;
  py::object weights = py::none();  // None: all; else a list of (w_ih, w_hh, b, w_hr) of bool

  explicit Wants(const py::object& given) {
    if (given.is_none()) return;
    const py::tuple flags = given;
    x = py::cast<bool>(flags[0]);
    h0 = py::cast<bool>(flags[1]);
    c0 = py::cast<bool>(flags[2]);
    weights = flags[3];
  }

  bool weight(int at, int kind) const {
    return weights.is_none() ||
           py::cast<bool>(py::tuple(py::list(weights)[static_cast<std::size_t>(at)])[static_cast<std::size_t>(kind)]);
  }
};

// An array for a gradient, or None, and where it stands.
template <class T>
struct Gradient {
  py::object array = py::none();
  T* data = nullptr;

  Gradient(bool wanted, char code, const Dims& dims) {
    if (!wanted) return;
    const py::array made = empty_array(code, dims);
    data = data_of<T>(made);
    array = made;
  }
};

template <class T>
py::tuple backward_of(const Reserve& reserve, const Saved& saved, const py::object& dy, const py::object& dhn,
                      const py::object& dcn, const py::object& dcells, const Wants& wants, int threads) {
  const Shape& shape = reserve.shape;
  const char code = reserve.code;
  const index Ho = hidden(shape);
  const Dims h_dims = state_dims(reserve.form, shape, Ho);
  const Dims c_dims = state_dims(reserve.form, shape, shape.H);
  const auto dy_rows = require_optional(dy, "dy", reserve.sequence_dims(shape.directions * Ho), code, "x", false);
  const auto dhn_rows = require_optional(dhn, "dhn", h_dims, code, "x", true);
  if (!has_c(shape.cell) && !dcn.is_none()) {
    throw py::value_error("dcn: expected None, since only an LSTM has c, got an array");
  }
  const auto dcn_rows = require_optional(dcn, "dcn", c_dims, code, "x", true);
  const auto dcells_rows =
      require_optional(dcells, "dcells", reserve.sequence_dims(shape.directions * shape.H), code, "x", false);

  const Gradient<T> dx(wants.x, code, reserve.sequence_dims(shape.I));
  const Gradient<T> dh0(wants.h0, code, h_dims);
  const Gradient<T> dc0(wants.c0 && has_c(shape.cell), code, c_dims);
  const index rows = gates_of(shape.cell) * shape.H;
  const bool biased = reserve.has_b_ih || reserve.has_b_hh;
  py::list found;
  std::vector<WeightGradients<T>> weights;
  for (int at = 0; at < shape.layers * shape.directions; ++at) {
    const index inputs = at < shape.directions ? shape.I : shape.directions * Ho;
    const Gradient<T> w_ih(wants.weight(at, 0), code, {rows, inputs});
    const Gradient<T> w_hh(wants.weight(at, 1), code, {rows, Ho});
    const bool wants_b = biased && wants.weight(at, 2);
    const Gradient<T> b(wants_b, code, {rows});
    const Gradient<T> b_hh(wants_b && has_two_biases(shape.cell), code, {rows});
    const Gradient<T> w_hr(shape.P > 0 && wants.weight(at, 3), code, {shape.P, shape.H});
    weights.push_back({.w_ih = w_ih.data, .w_hh = w_hh.data, .b = b.data, .w_hr = w_hr.data, .b_hh = b_hh.data});
    found.append(py::make_tuple(w_ih.array, w_hh.array, b.array, w_hr.array, b_hh.array));
  }
  const StackWeights<T> again(saved.weights, shape);
  BackwardArgs<T> args{
      .shape = shape,
      .x = sequence_of<T>(saved.x),
      .y = data_of<T>(saved.y),
      .reserve = bytes_of(saved.block),
      .lengths = reserve.lengths_or_null(),
      .dy = dy_rows ? sequence_of<T>(*dy_rows) : Sequence<T>{nullptr, 0, 0},
      .dhn = data_of<T>(dhn_rows),
      .dcn = data_of<T>(dcn_rows),
      .dx = dx.data,
      .dh0 = dh0.data,
      .dc0 = dc0.data,
      .weights = weights.data(),
      .dropout = reserve.dropout,
      .threads = threads_of_call(threads),
      .poll = {},
      .dcells = dcells_rows ? sequence_of<T>(*dcells_rows) : Sequence<T>{nullptr, 0, 0},
      .weights_again = again.data(),
      .aids = reserve.aids(),
  };
  bool done;
  {
    WithoutGil released;
    args.poll = released.poll();
    done = backward(*reserve.isa, args);
  }
  if (!done) throw py::error_already_set();
  return py::make_tuple(dx.array, dh0.array, dc0.array, found);
}

// What release() gave away, as the caller gives it back: the same values, wherever they stand now.
Saved taken_back(const Reserve& reserve, const py::object& saved) {
  const py::tuple given = saved;
  const Shape& shape = reserve.shape;
  const std::size_t wanted = shape.weights_again ? 4 : 3;
  if (given.size() != wanted) {
    throw py::value_error("saved: expected " + std::to_string(wanted) +
                          " of what forward had and release() gave, got " + std::to_string(given.size()));
  }
  py::array block = given[2];
  if (reinterpret_cast<std::uintptr_t>(block.data()) % reserve_alignment != 0) {
    const py::array aligned = empty_bytes(static_cast<std::size_t>(block.nbytes()));
    std::memcpy(data_of<std::byte>(aligned), block.data(), static_cast<std::size_t>(block.nbytes()));
    block = aligned;
  }
  const py::list weights = shape.weights_again ? py::list(given[3]) : py::list();
  if (shape.weights_again && weights.size() != static_cast<std::size_t>(shape.layers * shape.directions)) {
    throw py::value_error("saved: expected the weights of " + std::to_string(shape.layers * shape.directions) +
                          " layers and directions, got " + std::to_string(weights.size()));
  }
  return {
      require(given[0], "x", reserve.sequence_dims(shape.I), reserve.code, "x", false),
      require(given[1], "y", reserve.sequence_dims(shape.directions * hidden(shape)), reserve.code, "x", true),
      block,
      weights,
  };
}

py::tuple backward_by(const Reserve& reserve, const py::object& dy, const py::object& dhn, const py::object& dcn,
                      const py::object& wants, const py::object& saved, int threads, const py::object& dcells) {
  if (!reserve.saved && saved.is_none()) {
    throw py::value_error("saved: expected what release() gave, since the reserve no longer has it, got None");
  }
  const auto run = reserve.code == 'f' ? backward_of<float> : backward_of<double>;
  return run(reserve, saved.is_none() ? *reserve.saved : taken_back(reserve, saved), dy, dhn, dcn, dcells, Wants(wants),
             threads);
}

}  // namespace

void bind_backward(py::module_& module) {
  module.def("backward", backward_by, py::arg("reserve"), py::arg("dy"), py::arg("dhn"), py::arg("dcn"),
             py::arg("wants") = py::none(), py::arg("saved") = py::none(), py::arg("threads") = 0,
             py::arg("dcells") = py::none());
}

}  // namespace lstm_fast::python
