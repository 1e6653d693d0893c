#include "arrays.h"

#include <algorithm>

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

bool is_plain_array(const py::handle& value) { return py::isinstance<py::array>(value) && !py::hasattr(value, "mask"); }

bool is_float(const py::dtype& dtype) {
  return dtype.kind() == 'f' && (dtype.itemsize() == 4 || dtype.itemsize() == 8) &&
         py::cast<bool>(dtype.attr("isnative"));
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

Dims require_lengths(const py::object& lengths, index B, index T) {
  const bool listed = py::isinstance<py::list>(lengths) || py::isinstance<py::tuple>(lengths);
  if (!listed && !is_plain_array(lengths)) {
    throw py::type_error("lengths: expected an array of integers, got " + type_name(lengths));
  }
  const py::array given = py::array::ensure(lengths);
  if (!given) {
    PyErr_Clear();
    throw py::type_error("lengths: expected integers of one dimension");
  }
  if (given.size() > 0 && given.dtype().kind() != 'i' && given.dtype().kind() != 'u') {
    throw py::type_error("lengths: expected an integer dtype, got " + std::string(py::str(given.dtype())));
  }
  if (given.ndim() != 1 || given.shape(0) != B) {
    throw py::value_error("lengths: expected shape " + shape_text(Dims{B}) + ", got " + shape_text(given));
  }
  const auto integers = py::array_t<index, py::array::c_style | py::array::forcecast>::ensure(given);
  Dims found(integers.data(), integers.data() + B);
  const auto wrong = std::find_if(found.begin(), found.end(), [=](index length) { return length < 0 || length > T; });
  if (wrong != found.end()) {
    throw py::value_error("lengths: expected each in 0.." + std::to_string(T) + ", got " + std::to_string(*wrong) +
                          " at row " + std::to_string(wrong - found.begin()));
  }
  return found;
}

}  // namespace lstm_fast::python
