// lstm_forward, lstm_backward and the reserve between them: check, unpack, release the GIL, call.
#include <algorithm>
#include <memory>

#include <pybind11/native_enum.h>

#include "arrays.h"
#include "bindings.h"
#include "without_gil.h"

namespace lstm_fast::python {
namespace {

// How a call shapes its arrays.
enum class Form {
  layer,  // ops.lstm_forward: x [T,B,I], states [B,H]
  stack,  // layers.LSTM: x [T,B,I], states [L*D,B,H]
  cell,   // ops.lstm_cell: x [B,I], states [B,H]
};

// What a training forward keeps. Immutable: backward only reads it, so it can be used more than once.
struct Reserve {
  const Isa* isa;
  Shape shape;
  Dims lengths;  // empty: every row has T steps
  bool ragged;
  Dropout dropout;
  char code;
  bool has_b_ih, has_b_hh;
  Form form;
  py::array x;  // as given, or the dense copy of it
  py::array y;  // read-only
  Block block;

  const index* lengths_or_null() const { return ragged ? lengths.data() : nullptr; }
};

template <class T>
char code_of() {
  return sizeof(T) == 4 ? 'f' : 'd';
}

template <class T>
py::array empty(const Dims& dims) {
  std::size_t bytes = sizeof(T);
  for (const index size : dims) {
    if (__builtin_mul_overflow(bytes, static_cast<std::size_t>(size), &bytes) || bytes > PTRDIFF_MAX)
      throw std::bad_alloc();
  }
  return py::array_t<T>(std::vector<py::ssize_t>(dims.begin(), dims.end()));
}

Dims state_dims(Form form, const Shape& shape, index width) {
  return form == Form::stack ? Dims{shape.layers * shape.directions, shape.B, width} : Dims{shape.B, width};
}

index hidden(const Shape& shape) { return shape.P > 0 ? shape.P : shape.H; }

// The weights of one layer and direction, and the arrays that hold them.
template <class T>
struct LayerWeights {
  std::vector<py::array> arrays;
  Weights<T> weights{};

  const T* take(const py::handle& value, const char* name, const Dims& wanted) {
    if (value.is_none()) return nullptr;
    arrays.push_back(require(value, name, wanted, code_of<T>(), "x", true));
    return data_of<T>(arrays.back());
  }
};

// How the arrays of a call are shaped and what it asks for, as Python gives it.
struct Request {
  py::object x, h0, c0;
  py::list weights;  // tuples (w_ih, w_hh, b_ih, b_hh, w_hr) of the layers and directions
  py::object lengths;
  int layers, directions;
  bool reverse, save;
  Dropout dropout;
  Form form;
};

template <class T>
py::tuple forward_of(const Request& request) {
  const char code = code_of<T>();
  const Form form = request.form;
  const bool cell = form == Form::cell;
  const py::array x = require(request.x, "x", cell ? Dims{-1, -1} : Dims{-1, -1, -1}, code, "x", false);
  const py::ssize_t rank = x.ndim();
  Shape shape{
      .T = cell ? 1 : x.shape(0),
      .B = x.shape(rank - 2),
      .I = x.shape(rank - 1),
      .H = 0,
      .P = 0,
      .layers = request.layers,
      .directions = request.directions,
      .reverse = request.reverse,
  };
  const py::tuple first = request.weights[0];
  const bool projected = !first[4].is_none();
  const py::array w_sizes = projected ? require(first[4], "w_hr", {-1, -1}, code, "x", false)
                                      : require(first[1], "w_hh", {-1, -1}, code, "x", false);
  shape.H = w_sizes.shape(1);
  if (projected) shape.P = w_sizes.shape(0);
  if (!projected && (shape.H < 1 || w_sizes.shape(0) != 4 * shape.H)) {
    throw py::value_error("w_hh: expected shape (4H, H) with H at least 1, got (" + std::to_string(w_sizes.shape(0)) +
                          ", " + std::to_string(shape.H) + ")");
  }
  if (projected && (shape.P < 1 || shape.P >= shape.H)) {
    throw py::value_error("w_hr: expected shape (P, H) with 0 < P < H, got (" + std::to_string(shape.P) + ", " +
                          std::to_string(shape.H) + ")");
  }
  std::vector<LayerWeights<T>> layers(request.weights.size());
  std::vector<Weights<T>> weights;
  for (std::size_t at = 0; at < layers.size(); ++at) {
    const py::tuple given = request.weights[at];
    const index inputs = at < static_cast<std::size_t>(shape.directions) ? shape.I : shape.directions * hidden(shape);
    weights.push_back({
        .w_ih = layers[at].take(given[0], "w_ih", {4 * shape.H, inputs}),
        .w_hh = layers[at].take(given[1], "w_hh", {4 * shape.H, hidden(shape)}),
        .b_ih = layers[at].take(given[2], "b_ih", {4 * shape.H}),
        .b_hh = layers[at].take(given[3], "b_hh", {4 * shape.H}),
        .w_hr = layers[at].take(given[4], "w_hr", {shape.P, shape.H}),
    });
    if (!weights.back().w_ih) throw py::type_error("w_ih: expected a numpy.ndarray, got None");
    if (!weights.back().w_hh) throw py::type_error("w_hh: expected a numpy.ndarray, got None");
  }
  const Dims h_dims = state_dims(form, shape, hidden(shape));
  const Dims c_dims = state_dims(form, shape, shape.H);
  const py::array h0 = require(request.h0, cell ? "h" : "h0", h_dims, code, "x", true);
  const py::array c0 = require(request.c0, cell ? "c" : "c0", c_dims, code, "x", true);
  const bool ragged = !request.lengths.is_none();
  Dims lengths = ragged ? require_lengths(request.lengths, shape.B, shape.T) : Dims{};

  const Isa& isa = active_isa();
  const py::array y = empty<T>({shape.T, shape.B, shape.directions * hidden(shape)});
  const py::array hn = empty<T>(h_dims);
  const py::array cn = empty<T>(c_dims);
  const Dropout dropout = request.save ? request.dropout : Dropout{};
  std::unique_ptr<Reserve> reserve;
  if (request.save) {
    const std::size_t bytes =
        reserve_bytes<T>(isa, Cell::lstm, shape, ragged ? lengths.data() : nullptr, dropout.p > 0);
    reserve.reset(new Reserve{
        .isa = &isa,
        .shape = shape,
        .lengths = lengths,
        .ragged = ragged,
        .dropout = dropout,
        .code = code,
        .has_b_ih = weights[0].b_ih != nullptr,
        .has_b_hh = weights[0].b_hh != nullptr,
        .form = form,
        .x = x,
        .y = y,
        .block = Block(bytes),
    });
  }
  ForwardArgs<T> args{
      .shape = shape,
      .x = sequence_of<T>(x),
      .h0 = data_of<T>(h0),
      .c0 = data_of<T>(c0),
      .weights = weights.data(),
      .lengths = ragged ? lengths.data() : nullptr,
      .y = data_of<T>(y),
      .hn = data_of<T>(hn),
      .cn = data_of<T>(cn),
      .reserve = reserve ? reserve->block.data() : nullptr,
      .dropout = dropout,
      .threads = threads_of_call(),
      .poll = {},
  };
  bool done;
  {
    WithoutGil released;
    args.poll = released.poll();
    done = forward(isa, Cell::lstm, args);
  }
  if (!done) throw py::error_already_set();
  if (!reserve) return py::make_tuple(y, hn, cn, py::none());
  y.attr("setflags")(py::arg("write") = false);
  return py::make_tuple(y.attr("view")(), hn, cn, std::move(reserve));
}

py::tuple bind_forward(const py::object& x, const py::object& h0, const py::object& c0, const py::list& weights,
                       const py::object& lengths, int layers, int directions, bool reverse, bool save, double dropout,
                       std::uint64_t seed, Form form) {
  const auto run = float_dtype(x, "x") == 'f' ? forward_of<float> : forward_of<double>;
  return run({x, h0, c0, weights, lengths, layers, directions, reverse, save, {dropout, seed}, form});
}

template <class T>
py::tuple backward_of(const Reserve& reserve, const py::object& dy, const py::object& dhn, const py::object& dcn) {
  const Shape& shape = reserve.shape;
  const index Ho = hidden(shape);
  const Dims h_dims = state_dims(reserve.form, shape, Ho);
  const Dims c_dims = state_dims(reserve.form, shape, shape.H);
  const auto dy_rows = require_optional(dy, "dy", {shape.T, shape.B, shape.directions * Ho}, reserve.code, "x", false);
  const auto dhn_rows = require_optional(dhn, "dhn", h_dims, reserve.code, "x", true);
  const auto dcn_rows = require_optional(dcn, "dcn", c_dims, reserve.code, "x", true);

  const py::array dx = empty<T>({shape.T, shape.B, shape.I});
  const py::array dh0 = empty<T>(h_dims);
  const py::array dc0 = empty<T>(c_dims);
  py::list found;
  std::vector<WeightGradients<T>> weights;
  for (int at = 0; at < shape.layers * shape.directions; ++at) {
    const py::array w_ih = empty<T>({4 * shape.H, at < shape.directions ? shape.I : shape.directions * Ho});
    const py::array w_hh = empty<T>({4 * shape.H, Ho});
    const py::object b = reserve.has_b_ih || reserve.has_b_hh ? py::object(empty<T>({4 * shape.H})) : py::none();
    const py::object w_hr = shape.P > 0 ? py::object(empty<T>({shape.P, shape.H})) : py::none();
    weights.push_back({
        .w_ih = data_of<T>(w_ih),
        .w_hh = data_of<T>(w_hh),
        .b = b.is_none() ? nullptr : data_of<T>(py::array(b)),
        .w_hr = w_hr.is_none() ? nullptr : data_of<T>(py::array(w_hr)),
    });
    found.append(py::make_tuple(w_ih, w_hh, b, w_hr));
  }
  BackwardArgs<T> args{
      .shape = shape,
      .x = sequence_of<T>(reserve.x),
      .y = data_of<T>(reserve.y),
      .reserve = reserve.block.data(),
      .lengths = reserve.lengths_or_null(),
      .dy = dy_rows ? sequence_of<T>(*dy_rows) : Sequence<T>{nullptr, 0, 0},
      .dhn = data_of<T>(dhn_rows),
      .dcn = data_of<T>(dcn_rows),
      .dx = data_of<T>(dx),
      .dh0 = data_of<T>(dh0),
      .dc0 = data_of<T>(dc0),
      .weights = weights.data(),
      .dropout = reserve.dropout,
      .threads = threads_of_call(),
      .poll = {},
  };
  bool done;
  {
    WithoutGil released;
    args.poll = released.poll();
    done = backward(*reserve.isa, Cell::lstm, args);
  }
  if (!done) throw py::error_already_set();
  return py::make_tuple(dx, dh0, dc0, found);
}

py::tuple bind_backward(const Reserve& reserve, const py::object& dy, const py::object& dhn, const py::object& dcn) {
  return (reserve.code == 'f' ? backward_of<float> : backward_of<double>)(reserve, dy, dhn, dcn);
}

template <class T>
py::tuple states_of(const Reserve& reserve, int layer, int direction) {
  const Shape& shape = reserve.shape;
  const py::array gates = empty<T>({4, shape.T, shape.B, shape.H});
  const py::array c = empty<T>({shape.T, shape.B, shape.H});
  const StatesArgs<T> args{
      .shape = shape,
      .lengths = reserve.lengths_or_null(),
      .dropout = reserve.dropout.p > 0,
      .reserve = reserve.block.data(),
      .layer = layer,
      .direction = direction,
      .gates = data_of<T>(gates),
      .c = data_of<T>(c),
  };
  {
    const WithoutGil without_gil;
    states(*reserve.isa, Cell::lstm, args);
  }
  return py::make_tuple(gates, c);
}

py::tuple bind_states(const Reserve& reserve, int layer, int direction) {
  if (layer < 0 || layer >= reserve.shape.layers || direction < 0 || direction >= reserve.shape.directions) {
    throw py::value_error("layer, reverse: expected one of " + std::to_string(reserve.shape.layers) + " layers and " +
                          std::to_string(reserve.shape.directions) + " directions, got layer " + std::to_string(layer) +
                          ", direction " + std::to_string(direction));
  }
  return (reserve.code == 'f' ? states_of<float> : states_of<double>)(reserve, layer, direction);
}

}  // namespace

void bind_lstm(py::module_& module) {
  const auto only_from_forward = py::custom_type_setup([](PyHeapTypeObject* type) {
    type->ht_type.tp_flags |= Py_TPFLAGS_DISALLOW_INSTANTIATION;
    type->ht_type.tp_new = nullptr;
  });
  py::class_<Reserve>(module, "Reserve", only_from_forward,
                      "What a training forward keeps for backward. Opaque; never written.")
      .def_property_readonly(
          "nbytes",
          [](const Reserve& reserve) { return reserve.block.size() + static_cast<std::size_t>(reserve.y.nbytes()); })
      .def_property_readonly("isa", [](const Reserve& reserve) { return isa_name(*reserve.isa); })
      .def_property_readonly("biases",
                             [](const Reserve& reserve) { return py::make_tuple(reserve.has_b_ih, reserve.has_b_hh); })
      .def("states", bind_states, py::arg("layer"), py::arg("direction"));
  py::native_enum<Form>(module, "Form", "enum.Enum", "How a call shapes its arrays.")
      .value("layer", Form::layer)
      .value("stack", Form::stack)
      .value("cell", Form::cell)
      .finalize();
  module.def("lstm_forward", bind_forward, py::arg("x"), py::arg("h0"), py::arg("c0"), py::arg("weights"),
             py::arg("lengths"), py::arg("layers"), py::arg("directions"), py::arg("reverse"), py::arg("save"),
             py::arg("dropout"), py::arg("seed"), py::arg("form"));
  module.def("lstm_backward", bind_backward, py::arg("reserve"), py::arg("dy"), py::arg("dhn"), py::arg("dcn"));
}

}  // namespace lstm_fast::python
