// Checks that turn Python objects into arrays the kernels can read; every message names the argument, what was wanted
// and what came.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <optional>
#include <string>
#include <vector>

#include "lstm_fast.h"

namespace lstm_fast::python {

namespace py = pybind11;

using Dims = std::vector<index>;

// The dtype of a numpy.ndarray of float32 or float64 in native byte order, 'f' or 'd'. TypeError for anything else.
char float_dtype(const py::handle& value, const char* name);

// value as an ndarray of dtype `code` ('f' or 'd', the dtype of argument `like`), shape `wanted` (-1: any), rows dense.
// The same bits are copied to a dense array when the last axis is strided, when data is misaligned, or when `dense`
// asks for no gaps at all. TypeError for a wrong type or dtype, ValueError for a wrong shape.
py::array require(const py::handle& value, const char* name, const Dims& wanted, char code, const char* like,
                  bool dense);

// The same for an argument that may be None.
std::optional<py::array> require_optional(const py::handle& value, const char* name, const Dims& wanted, char code,
                                          const char* like, bool dense);

// lengths as given by the user: an array or list of integers [B], each 0..T. TypeError for another dtype, ValueError
// else.
Dims require_lengths(const py::object& lengths, index B, index T);

// The lengths that PyTorch's batch_sizes tell: rows active at every step, positive, not increasing, N in all.
// TypeError and ValueError as for lengths.
Dims require_batch_sizes(const py::object& batch_sizes, index N);

// What an array of dtype `code` takes; std::bad_alloc if it cannot be.
std::size_t array_bytes(char code, const Dims& dims);

// From so many bytes on an array takes memory that was kept, and gives it back; below, NumPy's and the C library's own
// caches serve.
inline constexpr std::size_t large_array = 1 << 20;

// An uninitialised array; MemoryError when it does not fit.
py::array empty_array(char code, const Dims& dims);

// The same of bytes, aligned to reserve_alignment.
py::array empty_bytes(std::size_t bytes);

// value as a dense array of bool, one byte each, of that shape. TypeError for another dtype, ValueError for another
// shape.
py::array require_bools(const py::handle& value, const char* name, const Dims& wanted);

// value as an array of at least that many bytes, aligned to reserve_alignment. ValueError for anything else.
py::array require_bytes(const py::object& value, std::size_t bytes);

template <class T>
constexpr char code_of() {
  return sizeof(T) == 4 ? 'f' : 'd';
}

// Without NumPy's check of the writeable flag: constness follows from what the kernels' argument structs promise.
template <class T>
T* data_of(const py::array& array) {
  return static_cast<T*>(const_cast<void*>(array.data()));
}

template <class T>
T* data_of(const std::optional<py::array>& array) {
  return array ? data_of<T>(*array) : nullptr;
}

// A [T,B,width] array with dense rows, or a [B,width] one as a single step.
template <class T>
Sequence<T> sequence_of(const py::array& array) {
  constexpr auto size = static_cast<py::ssize_t>(sizeof(T));
  const py::ssize_t rows = array.ndim() - 2;
  return {data_of<T>(array), rows > 0 ? array.strides(0) / size : 0, array.strides(rows) / size};
}

}  // namespace lstm_fast::python
