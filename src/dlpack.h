// Tensors of other libraries, as the DLPack protocol (https://dmlc.github.io/dlpack) hands them over: a capsule named
// "dltensor" that owns a Managed (version 0), or by functions that the library offers, without a capsule (version 1.3).
#pragma once

#include <pybind11/pybind11.h>

#include <initializer_list>
#include <optional>

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

struct Version {
  std::uint32_t major, minor;
};

struct ManagedVersioned {
  Version version;
  void* context;
  void (*deleter)(ManagedVersioned*);
  std::uint64_t flags;
  Tensor tensor;
};

// DLPackExchangeAPI, a table that stays where it is; all functions return 0, or -1 with a Python error set.
struct Exchange {
  Version version;
  Exchange* older;
  void* allocate;
  void* share;
  int (*to_object)(ManagedVersioned* tensor, void** object);  // which owns the tensor from then on
  int (*look_into)(void* object, Tensor* tensor);             // which the object goes on owning; may be null
  void* stream;
};

// Takes over the table in a capsule. False, and nothing is changed, for None or another version of it.
bool set_exchange(const py::object& capsule);

bool is_capsule(const py::handle& value);

// The tensor in a capsule, or, if there is an exchange, what one of its library's is; the object goes on owning it.
// Nothing for None and for a tensor without such memory. TypeError for anything else.
std::optional<Tensor> look_into(const py::handle& value);

// Whether it is a tensor of T on the CPU, with memory.
template <class T>
bool holds(const Tensor& tensor);

// Its first element.
template <class T>
const T* first(const Tensor& tensor);

// Where the elements of a dense tensor of T on the CPU stand; null if it is another one or has other `dims`.
template <class T>
const T* dense(const Tensor& tensor, std::initializer_list<index> dims);

// The same memory as an ndarray that owns what the capsule did, which is used up. TypeError for anything but a CPU
// tensor of floats or integers.
py::array array_of(const py::handle& capsule);

// An output, uninitialised, and where its elements stand.
template <class T>
struct Made {
  py::object tensor;
  T* data;
};

// Dense, of two or three dimensions, but for the first two of three, which change places if `swapped`. What it is
// follows what the inputs were: a tensor of the exchange's library in memory of our own, or an ndarray for capsules.
template <class T>
Made<T> make(bool for_capsules, const Dims& dims, bool swapped = false);

}  // namespace lstm_fast::python::dlpack
