#include "without_gil.h"

#include <pthread.h>

#include <atomic>
#include <thread>

namespace lstm_fast::python {
namespace {

std::atomic<unsigned long> main_thread{0};

}  // namespace

void find_main_thread() {
  main_thread.store(pybind11::module_::import("threading").attr("main_thread")().attr("ident").cast<unsigned long>());
  // A child has one thread, the one that forked.
  pthread_atfork(nullptr, nullptr, [] { main_thread.store(PyThread_get_thread_ident()); });
}

bool WithoutGil::in_main_thread() { return PyThread_get_thread_ident() == main_thread.load(std::memory_order_relaxed); }

bool WithoutGil::stop(void* context) {
  auto& self = *static_cast<WithoutGil*>(context);
  const auto now = Clock::now();
  if (now - self.last_ < std::chrono::milliseconds(50)) return false;
  self.take();
  const bool pending = PyErr_CheckSignals() != 0;
  self.state_ = PyEval_SaveThread();
  self.last_ = Clock::now();
  return pending;
}

// Python before 3.14 ends a daemon thread that comes back while the interpreter shuts down, by unwinding its stack.
// What a team of threads still works on must not be unwound: sleep until the process is gone, as 3.14 does.
void WithoutGil::take() noexcept {
  try {
    PyEval_RestoreThread(state_);
  } catch (...) {
    while (true) std::this_thread::sleep_for(std::chrono::hours(1));
  }
}

}  // namespace lstm_fast::python
