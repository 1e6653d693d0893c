// The extension module lstm_fast._lstm_fast_core: the table of contents.
#include <pybind11/pybind11.h>

#include "bindings.h"
#include "without_gil.h"

PYBIND11_MODULE(_lstm_fast_core, module) {
  module.doc() = "Compiled kernels of lstm_fast; use lstm_fast.ops or lstm_fast.LSTM.";
  lstm_fast::python::find_main_thread();
  lstm_fast::python::bind_config(module);
  lstm_fast::python::bind_reserve(module);
  lstm_fast::python::bind_forward(module);
  lstm_fast::python::bind_backward(module);
  lstm_fast::python::bind_dlpack(module);
  lstm_fast::python::bind_stream(module);
}
