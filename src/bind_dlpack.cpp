// Tensors by DLPack: as arrays, and lstm_step, one step of one layer on them, for callers to whom single microseconds
// matter. It takes what needs no conversion, and leaves all else, errors included, to lstm_forward.
#include <memory>

#include "bindings.h"
#include "dlpack.h"
#include "series.h"
#include "without_gil.h"

namespace lstm_fast::python {
namespace {

// An OpenMP library's threads spin for milliseconds after each use.
thread_local Series series{std::chrono::microseconds(200)};

struct StepTensors {
  const dlpack::Tensor &x, &h, &c, &w_ih, &w_hh;
  const dlpack::Tensor *b_ih, *b_hh;  // null: none
};

template <class T>
py::object step_of(const StepTensors& tensors, int threads) {
  const index B = tensors.x.shape[0];
  const index I = tensors.x.shape[1];
  const index H = tensors.h.shape[1];
  if (B < 1 || I < 1 || H < 1) return py::none();
  const T* const x = dlpack::dense<T>(tensors.x, {B, I});
  const T* const h = dlpack::dense<T>(tensors.h, {B, H});
  const T* const c = dlpack::dense<T>(tensors.c, {B, H});
  const Weights<T> weights{
      .w_ih = dlpack::dense<T>(tensors.w_ih, {4 * H, I}),
      .w_hh = dlpack::dense<T>(tensors.w_hh, {4 * H, H}),
      .b_ih = tensors.b_ih ? dlpack::dense<T>(*tensors.b_ih, {4 * H}) : nullptr,
      .b_hh = tensors.b_hh ? dlpack::dense<T>(*tensors.b_hh, {4 * H}) : nullptr,
      .w_hr = nullptr,
  };
  if (!x || !h || !c || !weights.w_ih || !weights.w_hh || (tensors.b_ih && !weights.b_ih) ||
      (tensors.b_hh && !weights.b_hh)) {
    return py::none();
  }
  const Isa& isa = active_isa();
  auto [hn, hn_data] = dlpack::empty<T>(B, H);
  auto [cn, cn_data] = dlpack::empty<T>(B, H);
  const auto y = std::make_unique_for_overwrite<T[]>(static_cast<std::size_t>(B * H));  // hn once more
  ForwardArgs<T> args{
      .shape = {.T = 1, .B = B, .I = I, .H = H},
      .x = {x, 0, I},
      .h0 = h,
      .c0 = c,
      .weights = &weights,
      .lengths = nullptr,
      .y = y.get(),
      .hn = hn_data,
      .cn = cn_data,
      .reserve = nullptr,
      .dropout = {},
      .threads = threads_of_call(threads),
      .poll = {},
  };
  args.threads.awake = args.threads.lender && series.goes_on();
  bool done;
  {
    WithoutGil released;
    args.poll = released.poll();
    done = forward(isa, args);
  }
  if (!done) throw py::error_already_set();
  series.step(static_cast<double>(8 * B * H * (H + I)), args.threads.used->threads);
  return py::make_tuple(std::move(hn), std::move(cn));
}

// x, h, c, w_ih, w_hh and the biases, which may be None.
py::object lstm_step(const py::list& capsules, int threads) {
  if (capsules.size() != 7) throw py::value_error("capsules: expected 7, got " + std::to_string(capsules.size()));
  const auto tensor = [&](std::size_t at) -> const dlpack::Tensor& {
    return dlpack::look_into(py::handle(PyList_GET_ITEM(capsules.ptr(), static_cast<py::ssize_t>(at))));
  };
  const auto optional = [&](std::size_t at) { return capsules[at].is_none() ? nullptr : &tensor(at); };
  const StepTensors tensors{
      .x = tensor(0),
      .h = tensor(1),
      .c = tensor(2),
      .w_ih = tensor(3),
      .w_hh = tensor(4),
      .b_ih = optional(5),
      .b_hh = optional(6),
  };
  if (tensors.x.ndim != 2 || tensors.h.ndim != 2) return py::none();
  return tensors.x.dtype.bits == 32 ? step_of<float>(tensors, threads) : step_of<double>(tensors, threads);
}

}  // namespace

void bind_dlpack(py::module_& module) {
  module.def("lstm_step", lstm_step, py::arg("capsules"), py::arg("threads"));
  module.def("array_of_dlpack", dlpack::array_of, py::arg("capsule"));
}

}  // namespace lstm_fast::python
