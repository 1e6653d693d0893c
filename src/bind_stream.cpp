// Weights that stay packed, and streams: a stack of layers one step at a time, with such weights and states of its own.
#include <pybind11/stl.h>

#include <atomic>
#include <memory>

#include "bindings.h"
#include "series.h"
#include "stream.h"
#include "weights.h"
#include "without_gil.h"

namespace lstm_fast::python {
namespace {

// Our own threads spin for 50 microseconds before they sleep.
constexpr std::chrono::microseconds awake{40};

// Says that somebody is inside a stream, which serves one caller at a time.
class Inside {
 public:
  explicit Inside(std::atomic_flag& busy) : busy_(busy) {
    if (busy_.test_and_set(std::memory_order_acquire)) {
      throw std::runtime_error("stream: expected one caller at a time, got two; give every thread a stream of its own");
    }
  }
  ~Inside() { busy_.clear(std::memory_order_release); }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  std::atomic_flag& busy_;
};

// The bytes from an array's first element to its last.
std::pair<const std::byte*, const std::byte*> span_of(const py::array& array) {
  const auto* first = static_cast<const std::byte*>(array.data());
  if (array.size() == 0) return {first, first};
  const std::byte* end = first + array.itemsize();
  for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) {
    const py::ssize_t reach = array.strides(axis) * (array.shape(axis) - 1);
    (reach < 0 ? first : end) += reach;
  }
  return {first, end};
}

bool overlap(const py::array& a, const py::array& b) {
  const auto [a_first, a_end] = span_of(a);
  const auto [b_first, b_end] = span_of(b);
  return a_first < b_end && b_first < a_end;
}

template <class T>
class OpenStream {
 public:
  OpenStream(const Isa& isa, const Shape& shape, const Weights<T>* weights)
      : stream_(isa, shape, weights),
        x_dims_{shape.B, shape.I},
        y_dims_{shape.B, hidden(shape)},
        one_x_{shape.I},
        one_y_{hidden(shape)},
        flops_(2 * gates_of(shape.cell) * static_cast<double>(shape.B * shape.H) *
               static_cast<double>(shape.I + (2 * shape.layers - 1) * hidden(shape))) {}

  py::array step(const py::handle& x_given, const py::handle& out) {
    const bool one = stream_.shape().B == 1 && py::isinstance<py::array>(x_given) &&
                     py::reinterpret_borrow<py::array>(x_given).ndim() == 1;
    const py::array x = require(x_given, "x", one ? one_x_ : x_dims_, code, "the stream", false);
    const py::array y = out.is_none() ? empty_array(code, one ? one_y_ : y_dims_) : output(out, one, x);
    const Inside inside(busy_);
    Threads threads = threads_of_call(0);
    threads.awake = series_.goes_on() || threads.least_flops == 0;
    {
      const WithoutGil released;
      stream_.step(data_of<T>(x), one ? 0 : x.strides(0) / static_cast<py::ssize_t>(sizeof(T)), data_of<T>(y), threads);
    }
    series_.step(flops_, threads.used->threads);
    return y;
  }

  py::tuple state() {
    const Shape& s = stream_.shape();
    const py::array h = empty_array(code, {s.layers, s.B, hidden(s)});
    const auto c = has_c(s.cell) ? std::optional(empty_array(code, {s.layers, s.B, s.H})) : std::nullopt;
    const Inside inside(busy_);
    stream_.get_state(data_of<T>(h), data_of<T>(c));
    return py::make_tuple(h, c);
  }

  void set_state(const py::handle& h_given, const py::handle& c_given) {
    const Shape& s = stream_.shape();
    const py::array h = require(h_given, "h", {s.layers, s.B, hidden(s)}, code, "the stream", true);
    const auto c = has_c(s.cell) ? std::optional(require(c_given, "c", {s.layers, s.B, s.H}, code, "the stream", true))
                                 : std::nullopt;
    const Inside inside(busy_);
    stream_.set_state(data_of<T>(h), data_of<T>(c));
  }

 private:
  static constexpr char code = code_of<T>();

  py::array output(const py::handle& out, bool one, const py::array& x) {
    const py::array y = require(out, "out", one ? one_y_ : y_dims_, code, "the stream", true);
    if (y.ptr() != out.ptr() || !y.writeable()) {
      throw py::value_error("out: expected a dense, aligned, writable array, got another one");
    }
    if (overlap(x, y)) throw py::value_error("out: expected memory of its own, got some of x");
    return y;
  }

  Stream<T> stream_;
  Series series_{awake};
  std::atomic_flag busy_;
  const Dims x_dims_, y_dims_, one_x_, one_y_;
  const double flops_;
};

template <class T>
py::object open_of(const CellKind& kind, const py::list& weights_given, index batch, int layers) {
  Shape shape = shape_of_weights<T>(kind, weights_given, layers, 1);
  shape.B = batch;
  const StackWeights<T> weights(weights_given, shape);
  return py::cast(std::make_unique<OpenStream<T>>(active_isa(), shape, weights.data()));
}

template <class T>
py::object packed_of(const CellKind& kind, const py::list& weights_given, int layers, int directions) {
  const Shape shape = shape_of_weights<T>(kind, weights_given, layers, directions);
  const StackWeights<T> weights(weights_given, shape);
  return py::cast(std::make_unique<PackedWeights<T>>(active_isa(), shape, weights.data()));
}

char dtype_of(const py::list& weights) { return float_dtype(py::tuple(weights[0])[0], "w_ih"); }

// For tuples (w_ih, w_hh, b_ih, b_hh, w_hr) of the layers.
py::object open_stream(const std::string& cell, const py::list& weights, index batch, int layers) {
  return (dtype_of(weights) == 'f' ? open_of<float> : open_of<double>)(cell_named(cell), weights, batch, layers);
}

// The weights of layers and directions as forward of the set in use reads them.
py::object pack_weights(const std::string& cell, const py::list& weights, int layers, int directions) {
  return (dtype_of(weights) == 'f' ? packed_of<float> : packed_of<double>)(cell_named(cell), weights, layers,
                                                                           directions);
}

template <class T>
void bind(py::module_& module, const char* name) {
  py::class_<OpenStream<T>>(module, name)
      .def("step", &OpenStream<T>::step, py::arg("x"), py::arg("out") = py::none())
      .def("state", &OpenStream<T>::state)
      .def("set_state", &OpenStream<T>::set_state, py::arg("h"), py::arg("c"));
}

}  // namespace

void bind_stream(py::module_& module) {
  bind<float>(module, "StreamF32");
  bind<double>(module, "StreamF64");
  py::class_<PackedWeights<float>>(module, "PackedF32");
  py::class_<PackedWeights<double>>(module, "PackedF64");
  module.def("pack_weights", pack_weights, py::arg("cell"), py::arg("weights"), py::arg("layers"),
             py::arg("directions"));
  module.def("open_stream", open_stream, py::arg("cell"), py::arg("weights"), py::arg("batch"), py::arg("layers"));
}

}  // namespace lstm_fast::python
