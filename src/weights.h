// The weights of a stack as Python gives them: a list of tuples (w_ih, w_hh, b_ih, b_hh, w_hr), one for each layer and
// direction.
#pragma once

#include <vector>

#include "reserve.h"

namespace lstm_fast::python {

// H and P, from the weights of the first layer.
template <class T>
void find_hidden_sizes(const py::list& weights, Shape* shape) {
  const py::tuple first = weights[0];
  const bool projected = !first[4].is_none();
  const py::array w_sizes = projected ? require(first[4], "w_hr", {-1, -1}, code_of<T>(), "x", false)
                                      : require(first[1], "w_hh", {-1, -1}, code_of<T>(), "x", false);
  shape->H = w_sizes.shape(1);
  if (projected) shape->P = w_sizes.shape(0);
  const int gates = gates_of(shape->cell);
  if (!projected && (shape->H < 1 || w_sizes.shape(0) != gates * shape->H)) {
    throw py::value_error("w_hh: expected shape (" + (gates > 1 ? std::to_string(gates) : "") +
                          "H, H) with H at least 1, got (" + std::to_string(w_sizes.shape(0)) + ", " +
                          std::to_string(shape->H) + ")");
  }
  if (projected && shape->cell != Cell::lstm) {
    throw py::value_error("w_hr: expected None, since only an LSTM has a projection, got an array");
  }
  if (projected && (shape->P < 1 || shape->P >= shape->H)) {
    throw py::value_error("w_hr: expected shape (P, H) with 0 < P < H, got (" + std::to_string(shape->P) + ", " +
                          std::to_string(shape->H) + ")");
  }
}

// I, H and P of a stack without input.
template <class T>
Shape shape_of_weights(const CellKind& kind, const py::list& weights, int layers, int directions) {
  const py::tuple first = weights[0];
  Shape shape{.cell = kind.cell,
              .T = 1,
              .B = 1,
              .I = 0,
              .H = 0,
              .P = 0,
              .layers = layers,
              .directions = directions,
              .activation = kind.activation};
  shape.I = require(first[0], "w_ih", {-1, -1}, code_of<T>(), "w_ih", false).shape(1);
  find_hidden_sizes<T>(weights, &shape);
  return shape;
}

// Checked, and the arrays that hold them.
template <class T>
class StackWeights {
 public:
  StackWeights(const py::list& given, const Shape& shape) {
    const index rows = gates_of(shape.cell) * shape.H;
    for (std::size_t at = 0; at < given.size(); ++at) {
      const py::tuple of = given[at];
      const index inputs = at < static_cast<std::size_t>(shape.directions) ? shape.I : shape.directions * hidden(shape);
      weights_.push_back({
          .w_ih = take(of[0], "w_ih", {rows, inputs}),
          .w_hh = take(of[1], "w_hh", {rows, hidden(shape)}),
          .b_ih = take(of[2], "b_ih", {rows}),
          .b_hh = take(of[3], "b_hh", {rows}),
          .w_hr = take(of[4], "w_hr", {shape.P, shape.H}),
      });
      if (!weights_.back().w_ih) throw py::type_error("w_ih: expected a numpy.ndarray, got None");
      if (!weights_.back().w_hh) throw py::type_error("w_hh: expected a numpy.ndarray, got None");
    }
  }

  const Weights<T>* data() const { return weights_.data(); }
  const Weights<T>& first() const { return weights_.front(); }

 private:
  const T* take(const py::handle& value, const char* name, const Dims& wanted) {
    if (value.is_none()) return nullptr;
    arrays_.push_back(require(value, name, wanted, code_of<T>(), "x", true));
    return data_of<T>(arrays_.back());
  }

  std::vector<py::array> arrays_;
  std::vector<Weights<T>> weights_;
};

}  // namespace lstm_fast::python
