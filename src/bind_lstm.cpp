// lstm_forward, lstm_backward and the reserve between them: check, unpack, release the GIL, call.
#include <algorithm>
#include <chrono>
#include <memory>

#include <pybind11/native_enum.h>

#include "arrays.h"
#include "bindings.h"

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
  char code;
  bool has_b_ih, has_b_hh;
  Form form;
  py::array x;  // as given, or the dense copy of it
  py::array y;  // read-only
  py::array_t<std::byte> block;

  std::byte* aligned() const {
    const auto address = reinterpret_cast<std::uintptr_t>(block.data());
    const std::uintptr_t skip = (reserve_alignment - address % reserve_alignment) % reserve_alignment;
    return const_cast<std::byte*>(block.data()) + skip;
  }
};

// Lets Ctrl-C stop a long call; asks Python about twenty times a second, since that takes the GIL.
class SignalPoll {
 public:
  Poll poll() { return {stop, this}; }

 private:
  using Clock = std::chrono::steady_clock;

  static bool stop(void* context) {
    auto& self = *static_cast<SignalPoll*>(context);
    const auto now = Clock::now();
    if (now - self.last_ < std::chrono::milliseconds(50)) return false;
    const py::gil_scoped_acquire gil;
    const bool pending = PyErr_CheckSignals() != 0;
    self.last_ = Clock::now();
    return pending;
  }

  Clock::time_point last_ = Clock::now();
};

template <class T>
char code_of() {
  return sizeof(T) == 4 ? 'f' : 'd';
}

template <class T>
py::array empty(const Dims& dims) {
  return py::array_t<T>(std::vector<py::ssize_t>(dims.begin(), dims.end()));
}

Dims state_dims(Form form, const Shape& shape) {
  return form == Form::stack ? Dims{shape.layers * shape.directions, shape.B, shape.H} : Dims{shape.B, shape.H};
}

template <class T>
py::tuple forward_of(const py::object& x, const py::object& h0, const py::object& c0, const py::object& w_ih,
                     const py::object& w_hh, const py::object& b_ih, const py::object& b_hh, bool save, Form form) {
  const char code = code_of<T>();
  const bool cell = form == Form::cell;
  const py::array x_rows = require(x, "x", cell ? Dims{-1, -1} : Dims{-1, -1, -1}, code, "x", false);
  const py::array w_hh_rows = require(w_hh, "w_hh", {-1, -1}, code, "x", true);
  const Sequence<T> x_sequence = sequence_of<T>(x_rows);
  const py::ssize_t rank = x_rows.ndim();
  const Shape shape{cell ? 1 : x_rows.shape(0), x_rows.shape(rank - 2), x_rows.shape(rank - 1), w_hh_rows.shape(1)};
  if (shape.H < 1) throw py::value_error("w_hh: expected shape (4H, H) with H at least 1, got H = 0");
  require(w_hh, "w_hh", {4 * shape.H, shape.H}, code, "x", true);
  const py::array w_ih_rows = require(w_ih, "w_ih", {4 * shape.H, shape.I}, code, "x", true);
  const auto b_ih_row = require_optional(b_ih, "b_ih", {4 * shape.H}, code, "x", true);
  const auto b_hh_row = require_optional(b_hh, "b_hh", {4 * shape.H}, code, "x", true);
  const Dims state = state_dims(form, shape);
  const py::array h0_rows = require(h0, cell ? "h" : "h0", state, code, "x", true);
  const py::array c0_rows = require(c0, cell ? "c" : "c0", state, code, "x", true);

  const Isa& isa = active_isa();
  const py::array y = empty<T>({shape.T, shape.B, shape.H});
  const py::array hn = empty<T>(state);
  const py::array cn = empty<T>(state);
  std::unique_ptr<Reserve> reserve;
  if (save) {
    const std::size_t bytes = reserve_bytes<T>(isa, Cell::lstm, shape) + reserve_alignment;
    reserve.reset(new Reserve{&isa, shape, code, b_ih_row.has_value(), b_hh_row.has_value(), form, x_rows, y,
                              py::array_t<std::byte>(static_cast<py::ssize_t>(bytes))});
  }
  const Weights<T> weights{
      .w_ih = data_of<T>(w_ih_rows),
      .w_hh = data_of<T>(w_hh_rows),
      .b_ih = data_of<T>(b_ih_row),
      .b_hh = data_of<T>(b_hh_row),
      .w_hr = nullptr,
  };
  SignalPoll signals;
  const ForwardArgs<T> args{
      .shape = shape,
      .x = x_sequence,
      .h0 = data_of<T>(h0_rows),
      .c0 = data_of<T>(c0_rows),
      .weights = &weights,
      .lengths = nullptr,
      .y = data_of<T>(y),
      .hn = data_of<T>(hn),
      .cn = data_of<T>(cn),
      .reserve = reserve ? reserve->aligned() : nullptr,
      .team = nullptr,
      .poll = signals.poll(),
  };
  bool done;
  {
    const py::gil_scoped_release release;
    done = forward(isa, Cell::lstm, args);
  }
  if (!done) throw py::error_already_set();
  if (!reserve) return py::make_tuple(y, hn, cn, py::none());
  y.attr("setflags")(py::arg("write") = false);
  return py::make_tuple(y.attr("view")(), hn, cn, std::move(reserve));
}

py::tuple bind_forward(const py::object& x, const py::object& h0, const py::object& c0, const py::object& w_ih,
                       const py::object& w_hh, const py::object& b_ih, const py::object& b_hh, bool save, Form form) {
  const auto run = float_dtype(x, "x") == 'f' ? forward_of<float> : forward_of<double>;
  return run(x, h0, c0, w_ih, w_hh, b_ih, b_hh, save, form);
}

template <class T>
py::dict backward_of(const Reserve& reserve, const py::object& dy, const py::object& dhn, const py::object& dcn) {
  const Shape& shape = reserve.shape;
  const Dims state = state_dims(reserve.form, shape);
  const auto dy_rows = require_optional(dy, "dy", {shape.T, shape.B, shape.H}, reserve.code, "x", false);
  const auto dhn_rows = require_optional(dhn, "dhn", state, reserve.code, "x", true);
  const auto dcn_rows = require_optional(dcn, "dcn", state, reserve.code, "x", true);

  const py::array dx = empty<T>({shape.T, shape.B, shape.I});
  const py::array dh0 = empty<T>(state);
  const py::array dc0 = empty<T>(state);
  const py::array dw_ih = empty<T>({4 * shape.H, shape.I});
  const py::array dw_hh = empty<T>({4 * shape.H, shape.H});
  const py::array db = empty<T>({4 * shape.H});
  const bool has_bias = reserve.has_b_ih || reserve.has_b_hh;
  const WeightGradients<T> weights{
      .w_ih = data_of<T>(dw_ih), .w_hh = data_of<T>(dw_hh), .b = has_bias ? data_of<T>(db) : nullptr, .w_hr = nullptr};
  SignalPoll signals;
  const BackwardArgs<T> args{
      .shape = shape,
      .x = sequence_of<T>(reserve.x),
      .y = data_of<T>(reserve.y),
      .reserve = reserve.aligned(),
      .lengths = nullptr,
      .dy = dy_rows ? sequence_of<T>(*dy_rows) : Sequence<T>{nullptr, 0, 0},
      .dhn = data_of<T>(dhn_rows),
      .dcn = data_of<T>(dcn_rows),
      .dx = data_of<T>(dx),
      .dh0 = data_of<T>(dh0),
      .dc0 = data_of<T>(dc0),
      .weights = &weights,
      .team = nullptr,
      .poll = signals.poll(),
  };
  bool done;
  {
    const py::gil_scoped_release release;
    done = backward(*reserve.isa, Cell::lstm, args);
  }
  if (!done) throw py::error_already_set();
  py::dict gradients;
  gradients["x"] = dx;
  gradients["h0"] = dh0;
  gradients["c0"] = dc0;
  gradients["w_ih"] = dw_ih;
  gradients["w_hh"] = dw_hh;
  if (reserve.has_b_ih) gradients["b_ih"] = db;
  if (reserve.has_b_hh) gradients["b_hh"] = reserve.has_b_ih ? py::object(db.attr("copy")()) : py::object(db);
  return gradients;
}

py::dict bind_backward(const Reserve& reserve, const py::object& dy, const py::object& dhn, const py::object& dcn) {
  return (reserve.code == 'f' ? backward_of<float> : backward_of<double>)(reserve, dy, dhn, dcn);
}

template <class T>
py::tuple states_of(const Reserve& reserve) {
  const Shape& shape = reserve.shape;
  const py::array gates = empty<T>({4, shape.T, shape.B, shape.H});
  const py::array c = empty<T>({shape.T, shape.B, shape.H});
  states(*reserve.isa, Cell::lstm, StatesArgs<T>{shape, reserve.aligned(), 0, 0, data_of<T>(gates), data_of<T>(c)});
  return py::make_tuple(gates, c);
}

}  // namespace

void bind_lstm(py::module_& module) {
  py::class_<Reserve>(module, "Reserve", "What a training forward keeps for backward. Opaque; never written.")
      .def_property_readonly("nbytes",
                             [](const Reserve& reserve) { return reserve.block.nbytes() + reserve.y.nbytes(); })
      .def_property_readonly("isa", [](const Reserve& reserve) { return isa_name(*reserve.isa); })
      .def("states", [](const Reserve& reserve) {
        return (reserve.code == 'f' ? states_of<float> : states_of<double>)(reserve);
      });
  py::native_enum<Form>(module, "Form", "enum.Enum", "How a call shapes its arrays.")
      .value("layer", Form::layer)
      .value("stack", Form::stack)
      .value("cell", Form::cell)
      .finalize();
  module.def("lstm_forward", bind_forward, py::arg("x"), py::arg("h0"), py::arg("c0"), py::arg("w_ih"), py::arg("w_hh"),
             py::arg("b_ih"), py::arg("b_hh"), py::arg("save"), py::arg("form"));
  module.def("lstm_backward", bind_backward, py::arg("reserve"), py::arg("dy"), py::arg("dhn"), py::arg("dcn"));
}

}  // namespace lstm_fast::python
