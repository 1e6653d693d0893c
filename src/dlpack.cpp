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

const Tensor& tensor_in(const py::handle& capsule) {
  if (!PyCapsule_IsValid(capsule.ptr(), fresh)) throw py::type_error("tensor: expected a fresh DLPack capsule");
  return static_cast<Managed*>(PyCapsule_GetPointer(capsule.ptr(), fresh))->tensor;
}

const Exchange* exchange = nullptr;  // set once, by whoever imports the other library

// A tensor of our own: one piece of memory, the elements last unless they are many.
struct Owned {
  ManagedVersioned managed;
  std::int64_t shape[3], strides[3];
  Block block;
};

constexpr std::size_t head = (sizeof(Owned) + reserve_alignment - 1) / reserve_alignment * reserve_alignment;
constexpr auto alignment = static_cast<std::align_val_t>(reserve_alignment);

void free_owned(ManagedVersioned* managed) {
  auto* const owned = static_cast<Owned*>(managed->context);
  owned->~Owned();
  ::operator delete(owned, alignment);
}

}  // namespace

bool set_exchange(const py::object& capsule) {
  constexpr const char* name = "dlpack_exchange_api";
  if (!PyCapsule_IsValid(capsule.ptr(), name)) return false;
  const auto* const offered = static_cast<const Exchange*>(PyCapsule_GetPointer(capsule.ptr(), name));
  if (offered->version.major != 1 || !offered->look_into) return false;
  exchange = offered;
  return true;
}

bool is_capsule(const py::handle& value) { return PyCapsule_CheckExact(value.ptr()); }

std::optional<Tensor> look_into(const py::handle& value) {
  if (value.is_none()) return std::nullopt;
  if (is_capsule(value) || !exchange) return tensor_in(value);
  Tensor found;
  if (exchange->look_into(value.ptr(), &found) == 0) return found;
  PyErr_Clear();
  return std::nullopt;
}

template <class T>
bool holds(const Tensor& tensor) {
  return tensor.data && tensor.device.type == cpu && tensor.dtype.code == floating_point &&
         tensor.dtype.bits == 8 * sizeof(T) && tensor.dtype.lanes == 1 &&
         reinterpret_cast<std::uintptr_t>(first_byte(tensor)) % alignof(T) == 0;
}

template <class T>
const T* first(const Tensor& tensor) {
  return reinterpret_cast<const T*>(first_byte(tensor));
}

template <class T>
const T* dense(const Tensor& tensor, std::initializer_list<index> dims) {
  const bool fits = holds<T>(tensor) && std::equal(dims.begin(), dims.end(), tensor.shape, tensor.shape + tensor.ndim);
  return fits && is_dense(tensor) ? first<T>(tensor) : nullptr;
}

template <class T>
Made<T> make(bool for_capsules, const Dims& dims, bool swapped) {
  if (for_capsules) {
    const py::array array = empty_array(code_of<T>(), dims);
    return {swapped ? py::object(array.attr("swapaxes")(0, 1)) : py::object(array), data_of<T>(array)};
  }
  const std::size_t bytes = array_bytes(code_of<T>(), dims);
  const bool apart = bytes >= large_array;
  Block block(apart ? bytes : 0);
  void* const memory = ::operator new(head + (apart ? 0 : bytes), alignment);
  auto* const owned = new (memory) Owned{{}, {}, {}, std::move(block)};
  auto* const data = reinterpret_cast<T*>(apart ? owned->block.data() : static_cast<std::byte*>(memory) + head);
  index step = 1;
  for (std::size_t axis = dims.size(); axis-- > 0; step *= dims[axis]) {
    const std::size_t place = swapped && axis < 2 ? 1 - axis : axis;
    owned->shape[place] = dims[axis];
    owned->strides[place] = step;
  }
  owned->managed = {.version = exchange->version,
                    .context = owned,
                    .deleter = free_owned,
                    .flags = 0,
                    .tensor = {.data = data,
                               .device = {cpu, 0},
                               .ndim = static_cast<std::int32_t>(dims.size()),
                               .dtype = {floating_point, 8 * sizeof(T), 1},
                               .shape = owned->shape,
                               .strides = owned->strides,
                               .byte_offset = 0}};
  void* object = nullptr;
  if (exchange->to_object(&owned->managed, &object) != 0) throw py::error_already_set();
  return {py::reinterpret_steal<py::object>(static_cast<PyObject*>(object)), data};
}

py::array array_of(const py::handle& capsule) {
  const Tensor& tensor = tensor_in(capsule);
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

template bool holds<float>(const Tensor&);
template bool holds<double>(const Tensor&);
template const float* first<float>(const Tensor&);
template const double* first<double>(const Tensor&);
template const float* dense<float>(const Tensor&, std::initializer_list<index>);
template const double* dense<double>(const Tensor&, std::initializer_list<index>);
template Made<float> make<float>(bool, const Dims&, bool);
template Made<double> make<double>(bool, const Dims&, bool);

}  // namespace lstm_fast::python::dlpack
