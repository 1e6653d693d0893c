#include "dlpack.h"

#include <algorithm>
#include <memory>
#include <new>

namespace lstm_fast::python::dlpack {
namespace {

constexpr const char* fresh = "dltensor";
constexpr const char* used = "used_dltensor";  // whoever takes the tensor renames its capsule so

std::byte* first_byte(const Tensor& tensor) { return static_cast<std::byte*>(tensor.data) + tensor.byte_offset; }

bool is_dense(const Tensor& tensor) {
  std::int64_t step = 1;
  for (std::int32_t axis = tensor.ndim - 1; tensor.strides && axis >= 0; --axis) {
    if (tensor.shape[axis] != 1 && tensor.strides[axis] != step) return false;
    step *= tensor.shape[axis];
  }
  return true;
}

// None if NumPy has no such type.
py::object numpy_type(const DataType& type) {
  if (type.lanes != 1) return py::none();
  const bool is_signed = type.code == signed_integer;
  switch (type.code * 256 + type.bits) {
    case floating_point * 256 + 32:
      return py::dtype::of<float>();
    case floating_point * 256 + 64:
      return py::dtype::of<double>();
    case signed_integer * 256 + 8:
    case unsigned_integer * 256 + 8:
      return is_signed ? py::dtype::of<std::int8_t>() : py::dtype::of<std::uint8_t>();
    case signed_integer * 256 + 16:
    case unsigned_integer * 256 + 16:
      return is_signed ? py::dtype::of<std::int16_t>() : py::dtype::of<std::uint16_t>();
    case signed_integer * 256 + 32:
    case unsigned_integer * 256 + 32:
      return is_signed ? py::dtype::of<std::int32_t>() : py::dtype::of<std::uint32_t>();
    case signed_integer * 256 + 64:
    case unsigned_integer * 256 + 64:
      return is_signed ? py::dtype::of<std::int64_t>() : py::dtype::of<std::uint64_t>();
    default:
      return py::none();
  }
}

// A tensor of our own: one piece of memory, the elements last.
struct Owned {
  Managed managed;
  std::int64_t shape[2], strides[2];
};

constexpr std::size_t head = (sizeof(Owned) + reserve_alignment - 1) / reserve_alignment * reserve_alignment;
constexpr auto alignment = static_cast<std::align_val_t>(reserve_alignment);

void free_owned(Managed* managed) { ::operator delete(managed->context, alignment); }

void free_capsule(PyObject* capsule) {
  if (!PyCapsule_IsValid(capsule, fresh)) return;
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, fresh));
  managed->deleter(managed);
}

}  // namespace

const Tensor& look_into(const py::handle& capsule) {
  if (!PyCapsule_IsValid(capsule.ptr(), fresh)) throw py::type_error("tensor: expected a fresh DLPack capsule");
  return static_cast<Managed*>(PyCapsule_GetPointer(capsule.ptr(), fresh))->tensor;
}

template <class T>
const T* dense(const Tensor& tensor, const Dims& dims) {
  if (!tensor.data || tensor.device.type != cpu || tensor.dtype.code != floating_point ||
      tensor.dtype.bits != 8 * sizeof(T) || tensor.dtype.lanes != 1 ||
      tensor.ndim != static_cast<std::int32_t>(dims.size()) || !is_dense(tensor)) {
    return nullptr;
  }
  for (std::size_t axis = 0; axis < dims.size(); ++axis) {
    if (tensor.shape[axis] != dims[axis]) return nullptr;
  }
  const std::byte* const data = first_byte(tensor);
  return reinterpret_cast<std::uintptr_t>(data) % alignof(T) == 0 ? reinterpret_cast<const T*>(data) : nullptr;
}

template <class T>
std::pair<py::capsule, T*> empty(index rows, index columns) {
  std::size_t bytes = sizeof(T);
  if (__builtin_mul_overflow(bytes, static_cast<std::size_t>(rows), &bytes) ||
      __builtin_mul_overflow(bytes, static_cast<std::size_t>(columns), &bytes) ||
      __builtin_add_overflow(bytes, head, &bytes)) {
    throw std::bad_alloc();
  }
  void* const memory = ::operator new(bytes, alignment);
  auto* const owned = new (memory) Owned{{}, {rows, columns}, {columns, 1}};
  void* const data = static_cast<std::byte*>(memory) + head;
  owned->managed = {.tensor = {.data = data,
                               .device = {cpu, 0},
                               .ndim = 2,
                               .dtype = {floating_point, 8 * sizeof(T), 1},
                               .shape = owned->shape,
                               .strides = owned->strides,
                               .byte_offset = 0},
                    .context = memory,
                    .deleter = free_owned};
  PyObject* const capsule = PyCapsule_New(&owned->managed, fresh, free_capsule);
  if (!capsule) {
    free_owned(&owned->managed);
    throw py::error_already_set();
  }
  return {py::reinterpret_steal<py::capsule>(capsule), static_cast<T*>(data)};
}

py::array array_of(const py::handle& capsule) {
  const Tensor& tensor = look_into(capsule);
  const py::object dtype = numpy_type(tensor.dtype);
  if (tensor.device.type != cpu || dtype.is_none()) {
    throw py::type_error("tensor: expected floats or integers on the CPU, got DLPack type " +
                         std::to_string(tensor.dtype.code) + " of " + std::to_string(tensor.dtype.bits) +
                         " bits on device " + std::to_string(tensor.device.type));
  }
  if (!tensor.data && std::find(tensor.shape, tensor.shape + tensor.ndim, 0) == tensor.shape + tensor.ndim) {
    throw py::value_error("tensor: expected elements in memory, got none: its storage has been resized");
  }
  const std::size_t rank = static_cast<std::size_t>(tensor.ndim);
  std::vector<py::ssize_t> shape(tensor.shape, tensor.shape + rank);
  std::vector<py::ssize_t> strides;
  for (std::size_t axis = 0; tensor.strides && axis < rank; ++axis) {
    strides.push_back(tensor.strides[axis] * tensor.dtype.bits / 8);
  }
  void* const data = first_byte(tensor);
  auto* const managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule.ptr(), fresh));
  const py::capsule owner(managed, [](void* pointer) {
    auto* const owned = static_cast<Managed*>(pointer);
    if (owned->deleter) owned->deleter(owned);
  });
  PyCapsule_SetName(capsule.ptr(), used);
  return py::array(py::reinterpret_borrow<py::dtype>(dtype), std::move(shape), std::move(strides), data, owner);
}

template const float* dense<float>(const Tensor&, const Dims&);
template const double* dense<double>(const Tensor&, const Dims&);
template std::pair<py::capsule, float*> empty<float>(index, index);
template std::pair<py::capsule, double*> empty<double>(index, index);

}  // namespace lstm_fast::python::dlpack
