// One function for each bind_*.cpp.
#pragma once

#include <pybind11/pybind11.h>

#include "lstm_fast.h"

namespace lstm_fast::python {

// As set from Python, and at most `limit` if that is not 0.
Threads threads_of_call(int limit);

void bind_config(pybind11::module_& module);
void bind_reserve(pybind11::module_& module);
void bind_forward(pybind11::module_& module);
void bind_backward(pybind11::module_& module);
void bind_dlpack(pybind11::module_& module);
void bind_stream(pybind11::module_& module);

}  // namespace lstm_fast::python
