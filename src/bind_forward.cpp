// lstm_forward and its like: check, unpack, release the GIL, call.
#include <pybind11/stl.h>

#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "arrays.h"
#include "bindings.h"
#include "packed.h"
#include "weights.h"
#include "without_gil.h"

namespace lstm_fast::python {
namespace {

// How the arrays of a call are shaped and what it asks for, as Python gives it.
struct Request {
  CellKind kind;
  py::object x, h0, c0;
  py::list weights;    // tuples (w_ih, w_hh, b_ih, b_hh, w_hr) of the layers and directions
  py::object lengths;  // batch_sizes if packed
  int layers, directions;
  bool reverse;
  std::optional<Save> save;  // none: inference
  Dropout dropout;
  Form form;
  int threads;
  py::object block;   // bytes for the reserve, at least as many as it takes; None: our own
  bool cells;         // whether c after every step of the last layer is wanted; only with save
  py::object packed;  // these weights, packed; None: they are packed at this call
  py::object aids;    // (truncate, grad_clip, resets) as in Aids, resets an array or None; None: none of them
};

template <class T>
py::tuple forward_of(const Request& request) {
  const char code = code_of<T>();
  const Form form = request.form;
  const bool cell = form == Form::cell;
  const bool packed = form == Form::packed;
  const bool flat = is_flat(form);
  const py::array x = require(request.x, "x", flat ? Dims{-1, -1} : Dims{-1, -1, -1}, code, "x", false);
  const py::ssize_t rank = x.ndim();
  Dims lengths = packed ? require_batch_sizes(request.lengths, x.shape(0)) : Dims{};
  Shape shape{
      .cell = request.kind.cell,
      .T = cell     ? 1
           : packed ? (lengths.empty() ? 0 : lengths[0])
                    : x.shape(0),
      .B = packed ? static_cast<index>(lengths.size()) : x.shape(rank - 2),
      .I = x.shape(rank - 1),
      .H = 0,
      .P = 0,
      .layers = request.layers,
      .directions = request.directions,
      .reverse = request.reverse,
      .packed = packed,
      .weights_again = cell && request.save,
      .save = request.save.value_or(Save::gates),
      .activation = request.kind.activation,
  };
  find_hidden_sizes<T>(request.weights, &shape);
  const StackWeights<T> weights(request.weights, shape);
  const Dims h_dims = state_dims(form, shape, hidden(shape));
  const Dims c_dims = state_dims(form, shape, shape.H);
  const auto require_state = [&](const py::object& state, const char* name, const Dims& dims) {
    return is_stacked(form) ? require_optional(state, name, dims, code, "x", true)
                            : require(state, name, dims, code, "x", true);
  };
  const bool with_c = has_c(shape.cell);
  const std::optional<py::array> h0 = require_state(request.h0, cell ? "h" : "h0", h_dims);
  const std::optional<py::array> c0 =
      with_c ? require_state(request.c0, cell ? "c" : "c0", c_dims) : std::optional<py::array>();
  const bool ragged = !request.lengths.is_none();
  if (ragged && !packed) lengths = require_lengths(request.lengths, shape.B, shape.T);

  const Isa& isa = active_isa();
  const index width = shape.directions * hidden(shape);
  const py::array y = empty_array(code, flat ? Dims{x.shape(0), width} : Dims{shape.T, shape.B, width});
  const py::array hn = empty_array(code, h_dims);
  const auto cn = with_c ? std::optional(empty_array(code, c_dims)) : std::nullopt;
  py::object cells = py::none();
  T* cells_data = nullptr;
  if (request.cells) {
    const index states = shape.directions * shape.H;
    const py::array made = empty_array(code, flat ? Dims{x.shape(0), states} : Dims{shape.T, shape.B, states});
    cells_data = data_of<T>(made);
    cells = made;
  }
  const Dropout dropout = request.save ? request.dropout : Dropout{};
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
      .reserve = nullptr,
      .dropout = dropout,
      .threads = threads_of_call(request.threads),
      .poll = {},
      .cells = cells_data,
  };
  if (!request.packed.is_none()) {
    const auto& kept = request.packed.cast<const PackedWeights<T>&>();
    if (&kept.isa() == &isa) args.packed = &kept;  // else of no use, since the set has been changed
  }
  index truncate = 0;
  double grad_clip = 0;
  std::optional<py::array> resets;
  if (!request.aids.is_none()) {
    const py::tuple given = request.aids;
    truncate = py::cast<index>(given[0]);
    grad_clip = py::cast<double>(given[1]);
    if (!given[2].is_none()) resets = require_bools(given[2], "resets", {shape.T, shape.B});
  }
  args.resets = data_of<std::uint8_t>(resets);
  std::unique_ptr<Reserve> reserve;
  if (request.save) {
    const std::size_t bytes = reserve_bytes<T>(isa, shape, args.lengths, dropout.p > 0);
    const py::array block = request.block.is_none() ? empty_bytes(bytes) : require_bytes(request.block, bytes);
    args.reserve = data_of<std::byte>(block);
    reserve.reset(new Reserve{
        .isa = &isa,
        .shape = shape,
        .lengths = lengths,
        .ragged = ragged,
        .rows = x.shape(0),
        .dropout = dropout,
        .code = code,
        .has_b_ih = weights.first().b_ih != nullptr,
        .has_b_hh = weights.first().b_hh != nullptr,
        .form = form,
        .truncate = truncate,
        .grad_clip = grad_clip,
        .resets = resets,
        .saved = Saved{x, y, block, shape.weights_again ? request.weights : py::list()},
    });
  }
  bool done;
  {
    WithoutGil released;
    args.poll = released.poll();
    done = forward(isa, args);
  }
  if (!done) throw py::error_already_set();
  if (!reserve) return py::make_tuple(y, hn, cn, cells, py::none());
  y.attr("setflags")(py::arg("write") = false);
  return py::make_tuple(y.attr("view")(), hn, cn, cells, std::move(reserve));
}

py::tuple forward_by(const CellKind& kind, const py::object& x, const py::object& h0, const py::object& c0,
                     const py::list& weights, const py::object& lengths, int layers, int directions, bool reverse,
                     std::optional<Save> save, double dropout, std::uint64_t seed, Form form, int threads,
                     const py::object& block, bool cells, const py::object& packed, const py::object& aids) {
  if (cells && !save) throw py::value_error("cells: expected False without save");
  const auto run = float_dtype(x, "x") == 'f' ? forward_of<float> : forward_of<double>;
  return run({kind,
              x,
              h0,
              c0,
              weights,
              lengths,
              layers,
              directions,
              reverse,
              save,
              {dropout, seed},
              form,
              threads,
              block,
              cells,
              packed,
              aids});
}

// lstm_forward, gru_forward and so on: c0 and cn are None for cells without c.
template <std::size_t at>
void bind_forward_of(py::module_& module) {
  module.def((std::string(cell_kinds[at].name) + "_forward").c_str(),
             [](const py::object& x, const py::object& h0, const py::object& c0, const py::list& weights,
                const py::object& lengths, int layers, int directions, bool reverse, std::optional<Save> save,
                double dropout, std::uint64_t seed, Form form, int threads, const py::object& block, bool cells,
                const py::object& packed, const py::object& aids) {
               return forward_by(cell_kinds[at], x, h0, c0, weights, lengths, layers, directions, reverse, save,
                                 dropout, seed, form, threads, block, cells, packed, aids);
             },
             py::arg("x"), py::arg("h0"), py::arg("c0"), py::arg("weights"), py::arg("lengths"), py::arg("layers"),
             py::arg("directions"), py::arg("reverse"), py::arg("save"), py::arg("dropout"), py::arg("seed"),
             py::arg("form"), py::arg("threads") = 0, py::arg("block") = py::none(), py::arg("cells") = false,
             py::arg("packed") = py::none(), py::arg("aids") = py::none());
}

template <std::size_t... at>
void bind_all(py::module_& module, std::index_sequence<at...>) {
  (bind_forward_of<at>(module), ...);
}

}  // namespace

void bind_forward(py::module_& module) { bind_all(module, std::make_index_sequence<std::size(cell_kinds)>()); }

}  // namespace lstm_fast::python
