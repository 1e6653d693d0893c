// Instruction sets, threads, memory, the FMA peak, the rate of reading, the compiler.
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <stdexcept>

#include "bindings.h"
#include "lstm_fast.h"
#include "threads.h"
#include "without_gil.h"

namespace lstm_fast::python {

namespace py = pybind11;

namespace {

std::atomic<int> chosen_threads{1};
thread_local int own_threads = 0;  // of this thread alone, instead; 0: none
std::atomic<bool> teams_for_all{false};
thread_local Used used_by_last_call;
std::atomic<Split> split{Split::faster};
Lender lender{};  // set once, by whoever imports the other library

void require_kernel(const std::string& dtype) {
  if (dtype != "float32" && dtype != "float64") {
    throw py::value_error("dtype: expected 'float32' or 'float64', got '" + dtype + "'");
  }
}

double peak(const std::string& dtype, double seconds) {
  require_kernel(dtype);
  const WithoutGil released;
  return (dtype == "float32" ? fma_peak<float> : fma_peak<double>)(active_isa(), seconds);
}

double reading(const std::string& dtype, std::size_t bytes, double seconds) {
  require_kernel(dtype);
  const WithoutGil released;
  return (dtype == "float32" ? read_rate<float> : read_rate<double>)(active_isa(), bytes, seconds);
}

double barrier(int threads) {
  const WithoutGil released;
  return barrier_ns(threads);
}

int num_threads() { return own_threads > 0 ? own_threads : chosen_threads.load(std::memory_order_relaxed); }

const char* compiler() {
#if defined(__clang__)
  return "Clang " __clang_version__;
#else
  return "GCC " __VERSION__;
#endif
}

}  // namespace

Threads threads_of_call(int limit) {
  Threads threads;
  if (limit > 0 && lender.parallel) {
    threads.lender = &lender;
    threads.lent = limit;
  }
  threads.most = limit > 0 ? std::min(limit, num_threads()) : num_threads();
  if (teams_for_all.load(std::memory_order_relaxed)) {
    threads.least_flops = threads.least_chunk_flops = threads.least_step_flops = 0;
  }
  threads.split = split.load(std::memory_order_relaxed);
  threads.used = &used_by_last_call;
  return threads;
}

void bind_config(py::module_& module) {
  module.def("most_threads", [] { return Barrier::max_size; });
  module.def("num_threads", num_threads);
  // Addresses of GOMP_parallel, omp_get_thread_num and omp_get_num_threads: whoever limits the threads of a call lends
  // these. Zeros: nobody does.
  module.def(
      "set_lender",
      [](std::uintptr_t parallel, std::uintptr_t number, std::uintptr_t count) {
        lender = {.parallel = reinterpret_cast<decltype(Lender::parallel)>(parallel),
                  .number = reinterpret_cast<decltype(Lender::number)>(number),
                  .count = reinterpret_cast<decltype(Lender::count)>(count)};
      },
      py::arg("parallel"), py::arg("number"), py::arg("count"));
  // For tests: a team even for work that is faster alone, and how many threads this thread's last call used.
  module.def(
      "use_team_always", [](bool always) { teams_for_all.store(always, std::memory_order_relaxed); },
      py::arg("always"));
  module.def("threads_used", [] { return used_by_last_call.threads; });
  // For tests and measurements: what threads share out, and whether it was the units in this thread's last call.
  py::enum_<Split>(module, "Split")
      .value("faster", Split::faster)
      .value("rows", Split::rows)
      .value("units", Split::units);
  module.def("set_split", [](Split chosen) { split.store(chosen, std::memory_order_relaxed); }, py::arg("split"));
  module.def("units_used", [] { return used_by_last_call.units; });
  module.def("set_num_threads", [](int n) { chosen_threads.store(n, std::memory_order_relaxed); }, py::arg("n"));
  module.def("own_num_threads", [] { return own_threads; });
  module.def("set_own_num_threads", [](int n) { own_threads = n; }, py::arg("n"));
  module.def("spare_memory", spare_memory);
  module.def("spare_memory_limit", spare_memory_limit);
  module.def("set_spare_memory_limit", set_spare_memory_limit, py::arg("bytes"));
  module.def("isa", [] { return isa_name(active_isa()); });
  module.def("set_isa", [](const std::string& name) { set_isa(name); }, py::arg("name"));
  module.def("isas_built", isas_built);
  module.def("isas_usable", isas_usable);
  module.def("compiler", compiler);
  module.def("fma_peak", peak, py::arg("dtype"), py::arg("seconds"));
  module.def("read_rate", reading, py::arg("dtype"), py::arg("bytes"), py::arg("seconds"));
  module.def("barrier_ns", barrier, py::arg("threads"));
}

}  // namespace lstm_fast::python
