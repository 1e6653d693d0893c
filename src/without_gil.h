// The interpreter's lock, given up while the kernels run.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>

#include "lstm_fast.h"

namespace lstm_fast::python {

class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() { take(); }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

  // Lets Ctrl-C stop a long call of the main thread, the only one that handles signals: asks Python about twenty times
  // a second, since that takes the lock.
  Poll poll() { return in_main_thread() ? Poll{stop, this} : Poll{}; }

 private:
  using Clock = std::chrono::steady_clock;

  static bool in_main_thread();
  static bool stop(void* context);
  void take() noexcept;

  PyThreadState* state_;
  Clock::time_point last_ = Clock::now();
};

// Tells WithoutGil which thread is the main one; needed once.
void find_main_thread();

}  // namespace lstm_fast::python
