// The reserve: opaque but for its size, the states in it, and the arrays that it gives away.
#include "reserve.h"

#include <pybind11/native_enum.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <string>

#include "bindings.h"
#include "without_gil.h"

namespace lstm_fast::python {
namespace {

template <class T>
py::tuple states_of(const Reserve& reserve, int layer, int direction) {
  const Shape& shape = reserve.shape;
  const py::array gates = empty_array(reserve.code, {slots_of(shape.cell), shape.T, shape.B, shape.H});
  const auto c =
      has_c(shape.cell) ? std::optional(empty_array(reserve.code, {shape.T, shape.B, shape.H})) : std::nullopt;
  StatesArgs<T> args{
      .shape = shape,
      .x = sequence_of<T>(reserve.saved->x),
      .y = data_of<T>(reserve.saved->y),
      .reserve = bytes_of(reserve.saved->block),
      .lengths = reserve.lengths_or_null(),
      .dropout = reserve.dropout.p > 0,
      .layer = layer,
      .direction = direction,
      .gates = data_of<T>(gates),
      .c = data_of<T>(c),
      .poll = {},
      .resets = data_of<std::uint8_t>(reserve.resets),
  };
  bool done;
  {
    WithoutGil released;
    args.poll = released.poll();
    done = states(*reserve.isa, args);
  }
  if (!done) throw py::error_already_set();
  return py::make_tuple(gates, c);
}

py::tuple reserve_states(const Reserve& reserve, int layer, int direction) {
  if (layer < 0 || layer >= reserve.shape.layers || direction < 0 || direction >= reserve.shape.directions) {
    throw py::value_error("layer, reverse: expected one of " + std::to_string(reserve.shape.layers) + " layers and " +
                          std::to_string(reserve.shape.directions) + " directions, got layer " + std::to_string(layer) +
                          ", direction " + std::to_string(direction));
  }
  if (!reserve.saved) throw py::value_error("reserve: expected one that still has its arrays");
  return (reserve.code == 'f' ? states_of<float> : states_of<double>)(reserve, layer, direction);
}

const char* reserve_cell(const Reserve& reserve) {
  const auto same = [&](const CellKind& kind) {
    return kind.cell == reserve.shape.cell && kind.activation == reserve.shape.activation;
  };
  return std::find_if(std::begin(cell_kinds), std::end(cell_kinds), same)->name;
}

py::ssize_t reserve_nbytes(const Reserve& reserve) {
  return reserve.saved ? reserve.saved->block.nbytes() + reserve.saved->y.nbytes() : 0;
}

// x, y (writable again) and the block: the reserve forgets them, and backward takes them back.
py::tuple release(Reserve& reserve) {
  if (!reserve.saved) throw py::value_error("reserve: expected one that still has its arrays");
  const Saved saved = *reserve.saved;
  reserve.saved.reset();
  py::detail::array_proxy(saved.y.ptr())->flags |= py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
  return py::make_tuple(saved.x, saved.y, saved.block);
}

const Isa& isa_named(const std::string& name) {
  const Isa* found = find_isa(name);
  if (!found) throw py::value_error("isa: expected one of this CPU's, got '" + name + "'");
  return *found;
}

// A reserve without its arrays, of a forward that is known by its shape alone.
std::unique_ptr<Reserve> describe(const std::string& cell, const std::string& isa, char code, index T, index B, index I,
                                  index H, index P, int layers, int directions, const py::object& lengths, bool packed,
                                  double dropout, std::uint64_t seed, bool biased) {
  const CellKind& kind = cell_named(cell);
  const bool ragged = !lengths.is_none();
  const Dims found = !ragged ? Dims{} : packed ? require_batch_sizes(lengths, T) : require_lengths(lengths, B, T);
  return std::unique_ptr<Reserve>(new Reserve{
      .isa = &isa_named(isa),
      .shape = {.cell = kind.cell,
                .T = !packed         ? T
                     : found.empty() ? 0
                                     : found[0],
                .B = B,
                .I = I,
                .H = H,
                .P = P,
                .layers = layers,
                .directions = directions,
                .packed = packed,
                .activation = kind.activation},
      .lengths = found,
      .ragged = ragged,
      .rows = T,
      .dropout = {dropout, seed},
      .code = code,
      .has_b_ih = biased,
      .has_b_hh = biased,
      .form = packed ? Form::packed : Form::stack,
      .truncate = 0,
      .grad_clip = 0,
      .resets = std::nullopt,
      .saved = std::nullopt,
  });
}

}  // namespace

void bind_reserve(py::module_& module) {
  const auto only_from_forward = py::custom_type_setup([](PyHeapTypeObject* type) {
    type->ht_type.tp_flags |= Py_TPFLAGS_DISALLOW_INSTANTIATION;
    type->ht_type.tp_new = nullptr;
  });
  py::class_<Reserve>(module, "Reserve", only_from_forward,
                      "What a training forward keeps for backward. Opaque; never written.")
      .def_property_readonly("nbytes", reserve_nbytes)
      .def_property_readonly("cell", reserve_cell)
      .def_property_readonly("isa", [](const Reserve& reserve) { return isa_name(*reserve.isa); })
      .def_property_readonly("biases",
                             [](const Reserve& reserve) { return py::make_tuple(reserve.has_b_ih, reserve.has_b_hh); })
      .def("states", reserve_states, py::arg("layer"), py::arg("direction"))
      .def("release", release);
  module.def("describe_reserve", describe, py::arg("cell"), py::arg("isa"), py::arg("code"), py::arg("steps"),
             py::arg("batch"), py::arg("inputs"), py::arg("hidden"), py::arg("proj"), py::arg("layers"),
             py::arg("directions"), py::arg("lengths"), py::arg("packed"), py::arg("dropout"), py::arg("seed"),
             py::arg("biased"));
  py::native_enum<Save>(module, "Save", "enum.Enum", "What a training forward keeps.")
      .value("gates", Save::gates)
      .value("lean", Save::lean)
      .finalize();
  py::native_enum<Form>(module, "Form", "enum.Enum", "How a call shapes its arrays.")
      .value("layer", Form::layer)
      .value("stack", Form::stack)
      .value("packed", Form::packed)
      .value("cell", Form::cell)
      .finalize();
}

}  // namespace lstm_fast::python
