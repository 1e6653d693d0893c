// One element a vector: the oracle for all the others, and the kernel for every other CPU. Included inside a target
// region.

template <class T, class Bits, int exponent_shift, int of_registers>
struct Single {
  using scalar = T;
  static constexpr int lanes = 1;
  static constexpr int registers = of_registers;
  static constexpr int columns = 1;
  T raw;

  static LF_INLINE Single set(T value) { return {value}; }
  static LF_INLINE Single load(const T* from) { return {*from}; }
  static LF_INLINE Single load_first(const T* from, index) { return {*from}; }
  LF_INLINE void store(T* to) const { *to = raw; }
  LF_INLINE void store_first(T* to, index) const { *to = raw; }
  LF_INLINE T first() const { return raw; }

  friend LF_INLINE Single fma(Single a, Single b, Single c) {
    if constexpr (sizeof(T) == sizeof(float)) {
      return {__builtin_fmaf(a.raw, b.raw, c.raw)};
    } else {
      return {__builtin_fma(a.raw, b.raw, c.raw)};
    }
  }
  friend LF_INLINE Single add(Single a, Single b) { return {a.raw + b.raw}; }
  friend LF_INLINE Single sub(Single a, Single b) { return {a.raw - b.raw}; }
  friend LF_INLINE Single mul(Single a, Single b) { return {a.raw * b.raw}; }
  friend LF_INLINE Single div(Single a, Single b) { return {a.raw / b.raw}; }
  // The second operand when they are equal or one is NaN, as on x86.
  friend LF_INLINE Single min(Single bound, Single a) { return {bound.raw < a.raw ? bound.raw : a.raw}; }
  friend LF_INLINE Single max(Single bound, Single a) { return {bound.raw > a.raw ? bound.raw : a.raw}; }
  friend LF_INLINE Single neg(Single a) { return {-a.raw}; }
  friend LF_INLINE Single abs(Single a) { return {a.raw < 0 ? -a.raw : a.raw}; }
  friend LF_INLINE Single copysign(Single size, Single sign) {
    if constexpr (sizeof(T) == sizeof(float)) {
      return {__builtin_copysignf(size.raw, sign.raw)};
    } else {
      return {__builtin_copysign(size.raw, sign.raw)};
    }
  }
  // value where `of` is positive or NaN, else 0.
  friend LF_INLINE Single where_positive(Single of, Single value) { return {of.raw <= 0 ? T(0) : value.raw}; }
  // The lowest bits shifted into the exponent's place.
  friend LF_INLINE Single pow2(Single value) {
    Bits bits;
    __builtin_memcpy(&bits, &value.raw, sizeof bits);
    bits <<= exponent_shift;
    __builtin_memcpy(&value.raw, &bits, sizeof bits);
    return value;
  }
  friend LF_INLINE void load_columns(const T* rows, index, Single (&out)[1]) { out[0] = {*rows}; }
  // One lane has no halves; transpose_square never gets here.
  friend LF_INLINE void interleave(Single a, Single b, Single& low, Single& high) { low = a, high = b; }
};

using F32 = Single<float, std::uint32_t, 23, LF_SCALAR_REGISTERS>;
using F64 = Single<double, std::uint64_t, 52, LF_SCALAR_REGISTERS>;

#include "../kernels-inl.h"
