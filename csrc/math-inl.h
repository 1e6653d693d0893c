// exp, sigmoid and tanh over the vector type V. Included inside a target region, once per instruction set.
//
// The same operations in the same order for every instruction set: explicit fma, exponent by integer shift, true
// division. Largest errors: f32 over all 2^32 inputs tanh 1.96 ULP, sigmoid 2.49 ULP for x >= -87.3 (below -88.4 it is
// 0, an absolute error <= 4.2e-39); f64 over 16 million points 2.3 and 2.1 ULP.

// e^x = s (1 + p), for x within the bounds that the callers set. t holds the exponent's bits of 2^n in its lowest
// mantissa bits.
template <class V>
struct ExpParts {
  V p, s;
};

template <class V>
struct ExpConstants;

// q(r) = (e^r - 1 - r) / r^2 on |r| <= ln2/2, highest power first.
template <>
struct ExpConstants<float> {
  static constexpr float magic = 12582912.0f + 127.0f;  // 1.5 * 2^23 + exponent bias
  static constexpr float log2e = 0x1.715476p+0f;
  static constexpr float ln2_hi = 0x1.62e4p-1f;  // few bits: n * ln2_hi is exact
  static constexpr float ln2_lo = 0x1.7f7d1cp-20f;
  static constexpr float q[] = {0x1.6d98fap-10f, 0x1.1227f2p-7f, 0x1.555486p-5f, 0x1.5554bp-3f, 0.5f};
  static constexpr float sigmoid_low = -87.3f;  // 2^n stays normal
  static constexpr float sigmoid_high = 89.0f;  // e^89 is Inf, so that sigmoid reaches 0
  static constexpr float tanh_high = 10.0f;     // tanh(10) rounds to 1
};

// Interpolated in 60 digits at the Chebyshev nodes; relative error of e^r 3.5e-17.
template <>
struct ExpConstants<double> {
  static constexpr double magic = 6755399441055744.0 + 1023.0;  // 1.5 * 2^52 + exponent bias
  static constexpr double log2e = 0x1.71547652b82fep+0;
  static constexpr double ln2_hi = 0x1.62e42fefap-1;
  static constexpr double ln2_lo = 0x1.cf79abc9e3b3ap-40;
  static constexpr double q[] = {
      0x1.af38d53857513p-26, 0x1.2891a8c1d838dp-22, 0x1.71de0d9c145d0p-19, 0x1.a019b8ef67c6cp-16, 0x1.a01a01a7c8d47p-13,
      0x1.6c16c17893833p-10, 0x1.11111111109adp-7,  0x1.5555555553d4fp-5,  0x1.5555555555556p-3,  0.5};
  static constexpr double sigmoid_low = -708.3;
  static constexpr double sigmoid_high = 710.0;
  static constexpr double tanh_high = 20.0;
};

template <class V>
LF_INLINE ExpParts<V> exp_parts(V x) {
  using C = ExpConstants<typename V::scalar>;
  const V t = fma(x, V::set(C::log2e), V::set(C::magic));
  const V n = sub(t, V::set(C::magic));
  const V r = fma(n, V::set(-C::ln2_lo), fma(n, V::set(-C::ln2_hi), x));
  V q = V::set(C::q[0]);
  for (std::size_t power = 1; power < sizeof(C::q) / sizeof(C::q[0]); ++power) {
    q = fma(q, r, V::set(C::q[power]));
  }
  return {fma(mul(r, r), q, r), pow2(t)};
}

// The bound stands first in min and max: they then return the second operand, a NaN too.
template <class V>
LF_INLINE V sigmoid(V x) {
  using C = ExpConstants<typename V::scalar>;
  const V one = V::set(1);
  const V y = min(V::set(C::sigmoid_high), max(V::set(C::sigmoid_low), neg(x)));
  const ExpParts<V> e = exp_parts(y);
  return div(one, fma(add(one, e.p), e.s, one));
}

template <class V>
LF_INLINE V tanh(V x) {
  using C = ExpConstants<typename V::scalar>;
  const V one = V::set(1);
  const V y = mul(V::set(-2), min(V::set(C::tanh_high), abs(x)));
  const ExpParts<V> e = exp_parts(y);
  const V numerator = neg(fma(e.s, e.p, sub(e.s, one)));
  return copysign(div(numerator, fma(e.s, e.p, add(e.s, one))), x);
}
