#include "arrays.h"

#include <algorithm>
#include <memory>
#include <new>
#include <utility>

namespace lstm_fast::python {
namespace {

std::string shape_text(const py::array& array) {
  std::string text = "(";
  for (py::ssize_t axis = 0; axis < array.ndim(); ++axis)
    text += (axis ? ", " : "") + std::to_string(array.shape(axis));
  return text + (array.ndim() == 1 ? ",)" : ")");
}

std::string shape_text(const Dims& dims) {
  std::string text = "(";
  for (std::size_t axis = 0; axis < dims.size(); ++axis) {
    text += (axis ? ", " : "") + (dims[axis] < 0 ? std::string("any") : std::to_string(dims[axis]));
  }
  return text + (dims.size() == 1 ? ",)" : ")");
}

std::string type_name(const py::handle& value) { return py::str(py::type::handle_of(value).attr("__name__")); }

// An ndarray, or of a subclass without a mask. Most are the former, and asking for an attribute that is not there takes
// as long as a small step.
bool is_plain_array(const py::handle& value) {
  const auto& api = py::detail::npy_api::get();
  if (py::type::handle_of(value).ptr() == reinterpret_cast<PyObject*>(api.PyArray_Type_)) return true;
  return py::isinstance<py::array>(value) && !py::hasattr(value, "mask");
}

bool is_float(const py::dtype& dtype) {
  const int number = dtype.num();
  return (number == py::detail::npy_api::NPY_FLOAT_ || number == py::detail::npy_api::NPY_DOUBLE_) &&
         dtype.byteorder() == '=';
}

const char* dtype_name(char code) { return code == 'f' ? "float32" : "float64"; }

}  // namespace

char float_dtype(const py::handle& value, const char* name) {
  if (!is_plain_array(value)) {
    throw py::type_error(std::string(name) + ": expected a numpy.ndarray of float32 or float64, got " +
                         type_name(value));
  }
  const py::dtype dtype = py::reinterpret_borrow<py::array>(value).dtype();
  if (!is_float(dtype)) {
    throw py::type_error(std::string(name) + ": expected dtype float32 or float64, got " + std::string(py::str(dtype)) +
                         "; convert it with " + name + ".astype(np.float32)");
  }
  return dtype.itemsize() == 4 ? 'f' : 'd';
}

py::array require(const py::handle& value, const char* name, const Dims& wanted, char code, const char* like,
                  bool dense) {
  if (!is_plain_array(value)) {
    throw py::type_error(std::string(name) + ": expected a numpy.ndarray of " + dtype_name(code) + ", got " +
                         type_name(value));
  }
  auto array = py::reinterpret_borrow<py::array>(value);
  if (!is_float(array.dtype()) || array.dtype().itemsize() != (code == 'f' ? 4 : 8)) {
    throw py::type_error(std::string(name) + ": expected dtype " + dtype_name(code) + ", the dtype of " + like +
                         ", got " + std::string(py::str(array.dtype())) + "; convert it with " + name + ".astype(np." +
                         dtype_name(code) + ")");
  }
  bool fits = array.ndim() == static_cast<py::ssize_t>(wanted.size());
  for (std::size_t axis = 0; fits && axis < wanted.size(); ++axis) {
    fits = wanted[axis] < 0 || array.shape(static_cast<py::ssize_t>(axis)) == wanted[axis];
  }
  if (!fits) {
    throw py::value_error(std::string(name) + ": expected shape " + shape_text(wanted) + ", got " + shape_text(array));
  }
  const py::ssize_t size = array.itemsize();
  bool usable = (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0;
  if (dense) {
    usable = usable && (array.flags() & py::array::c_style) != 0;
  } else {
    const py::ssize_t last = array.ndim() - 1;
    usable = usable && (array.strides(last) == size || array.shape(last) <= 1);
    for (py::ssize_t axis = 0; axis < last; ++axis) usable = usable && array.strides(axis) % size == 0;
  }
  if (!usable) array = py::array::ensure(array.attr("copy")("C"));
  return array;
}

std::optional<py::array> require_optional(const py::handle& value, const char* name, const Dims& wanted, char code,
                                          const char* like, bool dense) {
  if (value.is_none()) return std::nullopt;
  return require(value, name, wanted, code, like, dense);
}

namespace {

// A one-dimensional array of integers, of `count` elements if that is not negative.
Dims require_integers(const py::object& value, const char* name, index count) {
  const std::string of = std::string(name) + ": expected ";
  const bool listed = py::isinstance<py::list>(value) || py::isinstance<py::tuple>(value);
  if (!listed && !is_plain_array(value)) throw py::type_error(of + "an array of integers, got " + type_name(value));
  const py::array given = py::array::ensure(value);
  if (!given) {
    PyErr_Clear();
    throw py::type_error(of + "integers of one dimension");
  }
  if (given.size() > 0 && given.dtype().kind() != 'i' && given.dtype().kind() != 'u') {
    throw py::type_error(of + "an integer dtype, got " + std::string(py::str(given.dtype())));
  }
  if (given.ndim() != 1 || (count >= 0 && given.shape(0) != count)) {
    throw py::value_error(of + "shape " + shape_text(Dims{count}) + ", got " + shape_text(given));
  }
  const auto integers = py::array_t<index, py::array::c_style | py::array::forcecast>::ensure(given);
  return Dims(integers.data(), integers.data() + given.shape(0));
}

}  // namespace

Dims require_lengths(const py::object& lengths, index B, index T) {
  const Dims found = require_integers(lengths, "lengths", B);
  const auto wrong = std::find_if(found.begin(), found.end(), [=](index length) { return length < 0 || length > T; });
  if (wrong != found.end()) {
    throw py::value_error("lengths: expected each in 0.." + std::to_string(T) + ", got " + std::to_string(*wrong) +
                          " at row " + std::to_string(wrong - found.begin()));
  }
  return found;
}

Dims require_batch_sizes(const py::object& batch_sizes, index N) {
  const Dims sizes = require_integers(batch_sizes, "batch_sizes", -1);
  index rows = 0;
  index before = N;
  for (const index size : sizes) {
    if (size < 1 || size > before) {
      throw py::value_error("batch_sizes: expected positive numbers that do not increase and sum to " +
                            std::to_string(N) + ", got " + std::to_string(size) + " after " + std::to_string(before));
    }
    rows += size;
    before = size;
    if (rows > N) break;
  }
  if (rows != N) throw py::value_error("batch_sizes: expected a sum of " + std::to_string(N) + ", the rows of x");
  // Row r is active until the sizes fall to r.
  Dims lengths(sizes.empty() ? 0 : static_cast<std::size_t>(sizes[0]), 0);
  for (const index size : sizes) std::for_each_n(lengths.begin(), size, [](index& length) { ++length; });
  return lengths;
}

namespace {

// A capsule that owns the memory.
py::capsule owner_of(Block block) {
  auto owned = std::make_unique<Block>(std::move(block));
  const py::capsule owner(owned.get(), [](void* memory) { delete static_cast<Block*>(memory); });
  owned.release();
  return owner;
}

}  // namespace

std::size_t array_bytes(char code, const Dims& dims) {
  std::size_t bytes = code == 'f' ? sizeof(float) : sizeof(double);
  for (const index size : dims) {
    if (__builtin_mul_overflow(bytes, static_cast<std::size_t>(size), &bytes) || bytes > PTRDIFF_MAX)
      throw std::bad_alloc();
  }
  return bytes;
}

py::array empty_array(char code, const Dims& dims) {
  const std::size_t bytes = array_bytes(code, dims);
  const py::dtype dtype = code == 'f' ? py::dtype::of<float>() : py::dtype::of<double>();
  const std::vector<py::ssize_t> shape(dims.begin(), dims.end());
  if (bytes < large_array) return py::array(dtype, shape);
  Block block(bytes);
  void* const data = block.data();
  return py::array(dtype, shape, data, owner_of(std::move(block)));
}

py::array empty_bytes(std::size_t bytes) {
  Block block(bytes);
  void* const data = block.data();
  return py::array(py::dtype::of<std::uint8_t>(), {static_cast<py::ssize_t>(bytes)}, data, owner_of(std::move(block)));
}

py::array require_bools(const py::handle& value, const char* name, const Dims& wanted) {
  const auto fail = [&](const std::string& got) {
    return std::string(name) + ": expected an array of bool of shape " + shape_text(wanted) + ", got " + got;
  };
  if (!is_plain_array(value)) throw py::type_error(fail(type_name(value)));
  const auto array = py::reinterpret_borrow<py::array>(value);
  if (array.dtype().kind() != 'b') throw py::type_error(fail("dtype " + py::str(array.dtype()).cast<std::string>()));
  const Dims shape(array.shape(), array.shape() + array.ndim());
  if (shape != wanted) throw py::value_error(fail("shape " + shape_text(array)));
  return py::array::ensure(array, py::array::c_style);
}

py::array require_bytes(const py::object& value, std::size_t bytes) {
  if (!is_plain_array(value)) throw py::type_error("block: expected a numpy.ndarray of bytes, got " + type_name(value));
  auto block = py::reinterpret_borrow<py::array>(value);
  if (block.itemsize() != 1 || static_cast<std::size_t>(block.nbytes()) < bytes ||
      (block.flags() & py::array::c_style) == 0 ||
      reinterpret_cast<std::uintptr_t>(block.data()) % reserve_alignment != 0) {
    throw py::value_error("block: expected " + std::to_string(bytes) + " dense bytes aligned to " +
                          std::to_string(reserve_alignment) + ", got " + std::to_string(block.nbytes()));
  }
  return block;
}

}  // namespace lstm_fast::python
