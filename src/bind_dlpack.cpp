// Tensors by DLPack: as arrays, and lstm_infer, inference on them, for callers to whom single microseconds matter. It
// takes what needs no conversion, and leaves all else, errors included, to lstm_forward.
#include <memory>

#include "bindings.h"
#include "dlpack.h"
#include "reserve.h"
#include "series.h"
#include "without_gil.h"

namespace lstm_fast::python {
namespace {

// An OpenMP library's threads spin for milliseconds after each use.
thread_local Series series{std::chrono::microseconds(200)};

// The tensors of a call: x, h0, c0, and w_ih, w_hh, b_ih, b_hh, w_hr of every layer and direction.
enum At : std::size_t { at_x, at_h0, at_c0, at_weights };
constexpr std::size_t kinds = 5;

// Where they stand in memory. What is None is null; whatever is no dense tensor of T as it should be makes all of them
// unusable.
template <class T>
class Tensors {
 public:
  explicit Tensors(const py::tuple& given) : given_(given) {}

  bool usable() const { return usable_; }

  const T* dense(std::size_t at, std::initializer_list<index> dims) {
    const std::optional<dlpack::Tensor> found = dlpack::look_into(handle(at));
    const T* const data = found ? dlpack::dense<T>(*found, dims) : nullptr;
    usable_ = usable_ && data;
    return data;
  }
  const T* dense_or_none(std::size_t at, std::initializer_list<index> dims) {
    return handle(at).is_none() ? nullptr : dense(at, dims);
  }

 private:
  py::handle handle(std::size_t at) const { return PyTuple_GET_ITEM(given_.ptr(), static_cast<py::ssize_t>(at)); }

  const py::tuple& given_;
  bool usable_ = true;
};

// What a call asks for beside its tensors.
struct Request {
  Shape shape;  // T and B follow from x
  Form form;    // stack or cell
  bool batch_first;
  int threads;
};

template <class T>
py::object infer_of(const py::tuple& given, const dlpack::Tensor& x, Request request) {
  const bool cell = request.form == Form::cell;
  Shape& shape = request.shape;
  if (!dlpack::holds<T>(x) || x.ndim != (cell ? 2 : 3)) return py::none();
  const std::int64_t dense_strides[] = {x.shape[1] * x.shape[x.ndim - 1], x.shape[x.ndim - 1], 1};
  const std::int64_t* const strides = x.strides ? x.strides : dense_strides + (cell ? 1 : 0);
  const int rows = cell || request.batch_first ? 0 : 1;
  shape.T = cell ? 1 : x.shape[1 - rows];
  shape.B = x.shape[rows];
  if (shape.T < 1 || shape.B < 1 || shape.I < 1 || x.shape[x.ndim - 1] != shape.I ||
      (shape.I > 1 && strides[x.ndim - 1] != 1)) {
    return py::none();
  }
  Tensors<T> tensors(given);
  const index Ho = hidden(shape);
  const index count = shape.layers * shape.directions;
  const auto state = [&](std::size_t at, index width) {
    return cell ? tensors.dense_or_none(at, {shape.B, width}) : tensors.dense_or_none(at, {count, shape.B, width});
  };
  const T* const h0 = state(at_h0, Ho);
  const T* const c0 = state(at_c0, shape.H);
  std::vector<Weights<T>> weights;
  for (std::size_t at = at_weights; at < given.size(); at += kinds) {
    const bool lowest = at < at_weights + kinds * static_cast<std::size_t>(shape.directions);
    weights.push_back({
        .w_ih = tensors.dense(at, {4 * shape.H, lowest ? shape.I : shape.directions * Ho}),
        .w_hh = tensors.dense(at + 1, {4 * shape.H, Ho}),
        .b_ih = tensors.dense_or_none(at + 2, {4 * shape.H}),
        .b_hh = tensors.dense_or_none(at + 3, {4 * shape.H}),
        .w_hr = shape.P > 0 ? tensors.dense(at + 4, {shape.P, shape.H}) : nullptr,
    });
  }
  if (!tensors.usable()) return py::none();

  const bool for_capsules = dlpack::is_capsule(given[at_x]);
  const auto make = [&](const Dims& dims, bool swapped = false) {
    return dlpack::make<T>(for_capsules, dims, swapped);
  };
  const index width = shape.directions * Ho;
  const auto scratch = cell ? std::make_unique_for_overwrite<T[]>(static_cast<std::size_t>(shape.B * Ho)) : nullptr;
  const auto y = cell ? dlpack::Made<T>{{}, scratch.get()} : make({shape.T, shape.B, width}, request.batch_first);
  const auto hn = make(state_dims(request.form, shape, Ho));
  const auto cn = make(state_dims(request.form, shape, shape.H));
  ForwardArgs<T> args{
      .shape = shape,
      .x = {dlpack::first<T>(x), cell ? 0 : strides[1 - rows], strides[rows]},
      .h0 = h0,
      .c0 = c0,
      .weights = weights.data(),
      .lengths = nullptr,
      .y = y.data,
      .hn = hn.data,
      .cn = cn.data,
      .reserve = nullptr,
      .dropout = {},
      .threads = threads_of_call(request.threads),
      .poll = {},
  };
  const bool step = shape.T == 1 && count == 1 && shape.P == 0;
  args.threads.awake = step && args.threads.lender && series.goes_on();
  bool done;
  {
    WithoutGil released;
    args.poll = released.poll();
    done = forward(active_isa(), args);
  }
  if (!done) throw py::error_already_set();
  if (step) series.step(static_cast<double>(8 * shape.B * shape.H * (shape.H + shape.I)), args.threads.used->threads);
  if (cell) return py::make_tuple(hn.tensor, cn.tensor);
  return py::make_tuple(y.tensor, hn.tensor, cn.tensor);
}

// Tensors as PyTorch's own, if set_exchange was successful, or as capsules. Of a cell h and c, else y, hn and cn, as
// tensors or, for capsules, arrays; None if it is not that simple.
py::object lstm_infer(const py::tuple& tensors, index inputs, index hidden, index proj, int layers, int directions,
                      bool batch_first, bool cell, int threads) {
  if (tensors.size() != at_weights + kinds * static_cast<std::size_t>(layers * directions)) {
    throw py::value_error("tensors: expected 3 and 5 of each layer and direction, got " +
                          std::to_string(tensors.size()));
  }
  const std::optional<dlpack::Tensor> x = dlpack::look_into(tensors[at_x]);
  if (!x) return py::none();
  const Request request{
      .shape = {.T = 0, .B = 0, .I = inputs, .H = hidden, .P = proj, .layers = layers, .directions = directions},
      .form = cell ? Form::cell : Form::stack,
      .batch_first = batch_first,
      .threads = threads,
  };
  return x->dtype.bits == 32 ? infer_of<float>(tensors, *x, request) : infer_of<double>(tensors, *x, request);
}

}  // namespace

void bind_dlpack(py::module_& module) {
  module.def("lstm_infer", lstm_infer, py::arg("tensors"), py::arg("inputs"), py::arg("hidden"), py::arg("proj"),
             py::arg("layers"), py::arg("directions"), py::arg("batch_first"), py::arg("cell"), py::arg("threads"));
  // A type's __dlpack_c_exchange_api__, or None: whether its tensors can be given as they are.
  module.def("set_exchange", dlpack::set_exchange, py::arg("capsule"));
  module.def("array_of_dlpack", dlpack::array_of, py::arg("capsule"));
}

}  // namespace lstm_fast::python
