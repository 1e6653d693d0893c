// AVX2 and FMA: 16 registers of 256 bits.
#include <immintrin.h>

#include <cstddef>

#include "../kernels.h"
#include "target.h"

LF_BEGIN_TARGET("avx2,fma")

namespace lstm_fast::avx2 {
namespace {

// Eight ones, eight zeros: reading from 8 - count on gives the mask of the first `count` lanes.
alignas(64) constexpr std::int32_t first_lanes_f32[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
alignas(64) constexpr std::int64_t first_lanes_f64[8] = {-1, -1, -1, -1, 0, 0, 0, 0};

struct F32 {
  using scalar = float;
  static constexpr int lanes = 8;
  static constexpr int registers = 16;
  static constexpr int columns = 4;  // of load_columns
  __m256 raw;

  static LF_INLINE __m256i first_lanes(index count) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(first_lanes_f32 + lanes - count));
  }
  static LF_INLINE F32 set(float value) { return {_mm256_set1_ps(value)}; }
  static LF_INLINE F32 load(const float* from) { return {_mm256_loadu_ps(from)}; }
  static LF_INLINE F32 load_first(const float* from, index count) {
    return {_mm256_maskload_ps(from, first_lanes(count))};
  }
  LF_INLINE void store(float* to) const { _mm256_storeu_ps(to, raw); }
  LF_INLINE void store_first(float* to, index count) const { _mm256_maskstore_ps(to, first_lanes(count), raw); }
  LF_INLINE float first() const { return _mm256_cvtss_f32(raw); }
};

struct F64 {
  using scalar = double;
  static constexpr int lanes = 4;
  static constexpr int registers = 16;
  static constexpr int columns = 2;
  __m256d raw;

  static LF_INLINE __m256i first_lanes(index count) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(first_lanes_f64 + lanes - count));
  }
  static LF_INLINE F64 set(double value) { return {_mm256_set1_pd(value)}; }
  static LF_INLINE F64 load(const double* from) { return {_mm256_loadu_pd(from)}; }
  static LF_INLINE F64 load_first(const double* from, index count) {
    return {_mm256_maskload_pd(from, first_lanes(count))};
  }
  LF_INLINE void store(double* to) const { _mm256_storeu_pd(to, raw); }
  LF_INLINE void store_first(double* to, index count) const { _mm256_maskstore_pd(to, first_lanes(count), raw); }
  LF_INLINE double first() const { return _mm256_cvtsd_f64(raw); }
};

LF_INLINE F32 fma(F32 a, F32 b, F32 c) { return {_mm256_fmadd_ps(a.raw, b.raw, c.raw)}; }
LF_INLINE F64 fma(F64 a, F64 b, F64 c) { return {_mm256_fmadd_pd(a.raw, b.raw, c.raw)}; }
LF_INLINE F32 add(F32 a, F32 b) { return {_mm256_add_ps(a.raw, b.raw)}; }
LF_INLINE F64 add(F64 a, F64 b) { return {_mm256_add_pd(a.raw, b.raw)}; }
LF_INLINE F32 sub(F32 a, F32 b) { return {_mm256_sub_ps(a.raw, b.raw)}; }
LF_INLINE F64 sub(F64 a, F64 b) { return {_mm256_sub_pd(a.raw, b.raw)}; }
LF_INLINE F32 mul(F32 a, F32 b) { return {_mm256_mul_ps(a.raw, b.raw)}; }
LF_INLINE F64 mul(F64 a, F64 b) { return {_mm256_mul_pd(a.raw, b.raw)}; }
LF_INLINE F32 div(F32 a, F32 b) { return {_mm256_div_ps(a.raw, b.raw)}; }
LF_INLINE F64 div(F64 a, F64 b) { return {_mm256_div_pd(a.raw, b.raw)}; }
LF_INLINE F32 min(F32 bound, F32 a) { return {_mm256_min_ps(bound.raw, a.raw)}; }
LF_INLINE F64 min(F64 bound, F64 a) { return {_mm256_min_pd(bound.raw, a.raw)}; }
LF_INLINE F32 max(F32 bound, F32 a) { return {_mm256_max_ps(bound.raw, a.raw)}; }
LF_INLINE F64 max(F64 bound, F64 a) { return {_mm256_max_pd(bound.raw, a.raw)}; }
LF_INLINE F32 neg(F32 a) { return {_mm256_xor_ps(a.raw, _mm256_set1_ps(-0.0f))}; }
LF_INLINE F64 neg(F64 a) { return {_mm256_xor_pd(a.raw, _mm256_set1_pd(-0.0))}; }
LF_INLINE F32 abs(F32 a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.raw)}; }
LF_INLINE F64 abs(F64 a) { return {_mm256_andnot_pd(_mm256_set1_pd(-0.0), a.raw)}; }
LF_INLINE F32 copysign(F32 size, F32 sign) {
  return {_mm256_or_ps(abs(size).raw, _mm256_and_ps(_mm256_set1_ps(-0.0f), sign.raw))};
}
LF_INLINE F64 copysign(F64 size, F64 sign) {
  return {_mm256_or_pd(abs(size).raw, _mm256_and_pd(_mm256_set1_pd(-0.0), sign.raw))};
}
// The lowest bits shifted into the exponent's place.
LF_INLINE F32 pow2(F32 bits) { return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(bits.raw), 23))}; }
LF_INLINE F64 pow2(F64 bits) { return {_mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(bits.raw), 52))}; }
// value where `of` is positive or NaN, else 0.
LF_INLINE F32 where_positive(F32 of, F32 value) {
  return {_mm256_and_ps(_mm256_cmp_ps(of.raw, _mm256_setzero_ps(), _CMP_NLE_UQ), value.raw)};
}
LF_INLINE F64 where_positive(F64 of, F64 value) {
  return {_mm256_and_pd(_mm256_cmp_pd(of.raw, _mm256_setzero_pd(), _CMP_NLE_UQ), value.raw)};
}
// a0 b0 a1 b1 ..., lower and upper half.
LF_INLINE void interleave(F32 a, F32 b, F32& low, F32& high) {
  const __m256 even = _mm256_unpacklo_ps(a.raw, b.raw);
  const __m256 odd = _mm256_unpackhi_ps(a.raw, b.raw);
  low = {_mm256_permute2f128_ps(even, odd, 0x20)};
  high = {_mm256_permute2f128_ps(even, odd, 0x31)};
}
LF_INLINE void interleave(F64 a, F64 b, F64& low, F64& high) {
  const __m256d even = _mm256_unpacklo_pd(a.raw, b.raw);
  const __m256d odd = _mm256_unpackhi_pd(a.raw, b.raw);
  low = {_mm256_permute2f128_pd(even, odd, 0x20)};
  high = {_mm256_permute2f128_pd(even, odd, 0x31)};
}
// Lane r of out[k] = element k of row r. Four rows of 128 bits at a time, transposed within the 128-bit lanes.
LF_INLINE void load_columns(const float* rows, index stride, F32 (&out)[4]) {
  __m256 quad[4];
  for (int r = 0; r < 4; ++r) {
    const float* from = rows + r * stride;
    quad[r] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from)), _mm_loadu_ps(from + 4 * stride), 1);
  }
  const __m256d low01 = _mm256_castps_pd(_mm256_unpacklo_ps(quad[0], quad[1]));
  const __m256d low23 = _mm256_castps_pd(_mm256_unpacklo_ps(quad[2], quad[3]));
  const __m256d high01 = _mm256_castps_pd(_mm256_unpackhi_ps(quad[0], quad[1]));
  const __m256d high23 = _mm256_castps_pd(_mm256_unpackhi_ps(quad[2], quad[3]));
  out[0] = {_mm256_castpd_ps(_mm256_unpacklo_pd(low01, low23))};
  out[1] = {_mm256_castpd_ps(_mm256_unpackhi_pd(low01, low23))};
  out[2] = {_mm256_castpd_ps(_mm256_unpacklo_pd(high01, high23))};
  out[3] = {_mm256_castpd_ps(_mm256_unpackhi_pd(high01, high23))};
}
LF_INLINE void load_columns(const double* rows, index stride, F64 (&out)[2]) {
  __m256d pair[2];
  for (int r = 0; r < 2; ++r) {
    const double* from = rows + r * stride;
    pair[r] = _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(from)), _mm_loadu_pd(from + 2 * stride), 1);
  }
  out[0] = {_mm256_unpacklo_pd(pair[0], pair[1])};
  out[1] = {_mm256_unpackhi_pd(pair[0], pair[1])};
}

#include "../kernels-inl.h"

}  // namespace
}  // namespace lstm_fast::avx2

LF_END_TARGET

namespace lstm_fast::avx2 {
bool usable() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

}  // namespace lstm_fast::avx2

namespace lstm_fast {
constexpr Isa isa_avx2{"avx2", avx2::usable, avx2::isa_kernels<avx2::F32>(), avx2::isa_kernels<avx2::F64>()};
}
