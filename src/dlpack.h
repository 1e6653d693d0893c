// Tensors of other libraries, as the DLPack protocol (version 0, https://dmlc.github.io/dlpack) hands them over: a
// capsule named "dltensor" that owns a Managed.
#pragma once

#include <pybind11/pybind11.h>

#include <utility>

#include "arrays.h"

namespace lstm_fast::python::dlpack {

struct Device {
  std::int32_t type, number;
};
inline constexpr std::int32_t cpu = 1;

struct DataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};
enum Code : std::uint8_t { signed_integer = 0, unsigned_integer = 1, floating_point = 2 };

struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null: dense
  std::uint64_t byte_offset;
};

struct Managed {
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);
};

// The tensor in a capsule, which goes on owning it. TypeError for anything else.
const Tensor& look_into(const py::handle& capsule);

// Where the elements of a dense tensor of T on the CPU stand; null if it is another one or has other `dims`.
template <class T>
const T* dense(const Tensor& tensor, const Dims& dims);

// The same memory as an ndarray that owns what the capsule did, which is used up. TypeError for anything but a CPU
// tensor of floats or integers.
py::array array_of(const py::handle& capsule);

// A new dense float tensor of two dimensions in memory of our own, uninitialised, and where its elements stand.
template <class T>
std::pair<py::capsule, T*> empty(index rows, index columns);

}  // namespace lstm_fast::python::dlpack
