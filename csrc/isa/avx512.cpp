// AVX-512 (F, DQ, BW, VL): 32 registers of 512 bits.
#include <immintrin.h>

#include <cstddef>

#include "../kernels.h"
#include "target.h"

// GCC 12's own avx512fintrin.h passes deliberately undefined vectors around and warns about them where they are
// inlined.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

LF_BEGIN_TARGET("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")

namespace lstm_fast::avx512 {
namespace {

struct F32 {
  using scalar = float;
  static constexpr int lanes = 16;
  static constexpr int registers = 32;
  static constexpr int columns = 4;  // of load_columns
  __m512 raw;

  static LF_INLINE F32 set(float value) { return {_mm512_set1_ps(value)}; }
  static LF_INLINE F32 load(const float* from) { return {_mm512_loadu_ps(from)}; }
  static LF_INLINE F32 load_first(const float* from, index count) {
    return {_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1u), from)};
  }
  LF_INLINE void store(float* to) const { _mm512_storeu_ps(to, raw); }
  LF_INLINE void store_first(float* to, index count) const {
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1u), raw);
  }
  LF_INLINE float first() const { return _mm512_cvtss_f32(raw); }
};

struct F64 {
  using scalar = double;
  static constexpr int lanes = 8;
  static constexpr int registers = 32;
  static constexpr int columns = 2;
  __m512d raw;

  static LF_INLINE F64 set(double value) { return {_mm512_set1_pd(value)}; }
  static LF_INLINE F64 load(const double* from) { return {_mm512_loadu_pd(from)}; }
  static LF_INLINE F64 load_first(const double* from, index count) {
    return {_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1u), from)};
  }
  LF_INLINE void store(double* to) const { _mm512_storeu_pd(to, raw); }
  LF_INLINE void store_first(double* to, index count) const {
    _mm512_mask_storeu_pd(to, static_cast<__mmask8>((1u << count) - 1u), raw);
  }
  LF_INLINE double first() const { return _mm512_cvtsd_f64(raw); }
};

LF_INLINE F32 fma(F32 a, F32 b, F32 c) { return {_mm512_fmadd_ps(a.raw, b.raw, c.raw)}; }
LF_INLINE F64 fma(F64 a, F64 b, F64 c) { return {_mm512_fmadd_pd(a.raw, b.raw, c.raw)}; }
LF_INLINE F32 add(F32 a, F32 b) { return {_mm512_add_ps(a.raw, b.raw)}; }
LF_INLINE F64 add(F64 a, F64 b) { return {_mm512_add_pd(a.raw, b.raw)}; }
LF_INLINE F32 sub(F32 a, F32 b) { return {_mm512_sub_ps(a.raw, b.raw)}; }
LF_INLINE F64 sub(F64 a, F64 b) { return {_mm512_sub_pd(a.raw, b.raw)}; }
LF_INLINE F32 mul(F32 a, F32 b) { return {_mm512_mul_ps(a.raw, b.raw)}; }
LF_INLINE F64 mul(F64 a, F64 b) { return {_mm512_mul_pd(a.raw, b.raw)}; }
LF_INLINE F32 div(F32 a, F32 b) { return {_mm512_div_ps(a.raw, b.raw)}; }
LF_INLINE F64 div(F64 a, F64 b) { return {_mm512_div_pd(a.raw, b.raw)}; }
LF_INLINE F32 min(F32 bound, F32 a) { return {_mm512_min_ps(bound.raw, a.raw)}; }
LF_INLINE F64 min(F64 bound, F64 a) { return {_mm512_min_pd(bound.raw, a.raw)}; }
LF_INLINE F32 max(F32 bound, F32 a) { return {_mm512_max_ps(bound.raw, a.raw)}; }
LF_INLINE F64 max(F64 bound, F64 a) { return {_mm512_max_pd(bound.raw, a.raw)}; }
LF_INLINE F32 neg(F32 a) { return {_mm512_xor_ps(a.raw, _mm512_set1_ps(-0.0f))}; }
LF_INLINE F64 neg(F64 a) { return {_mm512_xor_pd(a.raw, _mm512_set1_pd(-0.0))}; }
LF_INLINE F32 abs(F32 a) { return {_mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.raw)}; }
LF_INLINE F64 abs(F64 a) { return {_mm512_andnot_pd(_mm512_set1_pd(-0.0), a.raw)}; }
LF_INLINE F32 copysign(F32 size, F32 sign) {
  return {_mm512_or_ps(abs(size).raw, _mm512_and_ps(_mm512_set1_ps(-0.0f), sign.raw))};
}
LF_INLINE F64 copysign(F64 size, F64 sign) {
  return {_mm512_or_pd(abs(size).raw, _mm512_and_pd(_mm512_set1_pd(-0.0), sign.raw))};
}
// The lowest bits shifted into the exponent's place.
LF_INLINE F32 pow2(F32 bits) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(bits.raw), 23))}; }
LF_INLINE F64 pow2(F64 bits) { return {_mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(bits.raw), 52))}; }
// value where `of` is positive or NaN, else 0.
LF_INLINE F32 where_positive(F32 of, F32 value) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(of.raw, _mm512_setzero_ps(), _CMP_NLE_UQ), value.raw)};
}
LF_INLINE F64 where_positive(F64 of, F64 value) {
  return {_mm512_maskz_mov_pd(_mm512_cmp_pd_mask(of.raw, _mm512_setzero_pd(), _CMP_NLE_UQ), value.raw)};
}
// a0 b0 a1 b1 ..., lower and upper half.
LF_INLINE void interleave(F32 a, F32 b, F32& low, F32& high) {
  const __m512i lower = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  low = {_mm512_permutex2var_ps(a.raw, lower, b.raw)};
  high = {_mm512_permutex2var_ps(a.raw, _mm512_add_epi32(lower, _mm512_set1_epi32(8)), b.raw)};
}
LF_INLINE void interleave(F64 a, F64 b, F64& low, F64& high) {
  const __m512i lower = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
  low = {_mm512_permutex2var_pd(a.raw, lower, b.raw)};
  high = {_mm512_permutex2var_pd(a.raw, _mm512_add_epi64(lower, _mm512_set1_epi64(4)), b.raw)};
}
// Lane r of out[k] = element k of row r. Sixteen bytes of every row, put in place by masked loads, transposed within
// the 128-bit lanes.
LF_INLINE void load_columns(const float* rows, index stride, F32 (&out)[4]) {
  __m512 quad[4];
  for (int r = 0; r < 4; ++r) {
    const float* from = rows + r * stride;
    quad[r] = _mm512_castps128_ps512(_mm_loadu_ps(from));
    quad[r] = _mm512_mask_broadcast_f32x4(quad[r], 0x00f0, _mm_loadu_ps(from + 4 * stride));
    quad[r] = _mm512_mask_broadcast_f32x4(quad[r], 0x0f00, _mm_loadu_ps(from + 8 * stride));
    quad[r] = _mm512_mask_broadcast_f32x4(quad[r], 0xf000, _mm_loadu_ps(from + 12 * stride));
  }
  const __m512d low01 = _mm512_castps_pd(_mm512_unpacklo_ps(quad[0], quad[1]));
  const __m512d low23 = _mm512_castps_pd(_mm512_unpacklo_ps(quad[2], quad[3]));
  const __m512d high01 = _mm512_castps_pd(_mm512_unpackhi_ps(quad[0], quad[1]));
  const __m512d high23 = _mm512_castps_pd(_mm512_unpackhi_ps(quad[2], quad[3]));
  out[0] = {_mm512_castpd_ps(_mm512_unpacklo_pd(low01, low23))};
  out[1] = {_mm512_castpd_ps(_mm512_unpackhi_pd(low01, low23))};
  out[2] = {_mm512_castpd_ps(_mm512_unpacklo_pd(high01, high23))};
  out[3] = {_mm512_castpd_ps(_mm512_unpackhi_pd(high01, high23))};
}
LF_INLINE void load_columns(const double* rows, index stride, F64 (&out)[2]) {
  __m512d pair[2];
  for (int r = 0; r < 2; ++r) {
    const double* from = rows + r * stride;
    pair[r] = _mm512_castpd128_pd512(_mm_loadu_pd(from));
    pair[r] = _mm512_mask_broadcast_f64x2(pair[r], 0x0c, _mm_loadu_pd(from + 2 * stride));
    pair[r] = _mm512_mask_broadcast_f64x2(pair[r], 0x30, _mm_loadu_pd(from + 4 * stride));
    pair[r] = _mm512_mask_broadcast_f64x2(pair[r], 0xc0, _mm_loadu_pd(from + 6 * stride));
  }
  out[0] = {_mm512_unpacklo_pd(pair[0], pair[1])};
  out[1] = {_mm512_unpackhi_pd(pair[0], pair[1])};
}
// Keeps GCC 12 from reading a weight vector again from memory for every row: 94 against 115 GFLOP/s at 2 and 3 rows.
LF_INLINE void keep_in_register(F32& a) { asm("" : "+v"(a.raw)); }
LF_INLINE void keep_in_register(F64& a) { asm("" : "+v"(a.raw)); }

#include "../kernels-inl.h"

}  // namespace
}  // namespace lstm_fast::avx512

LF_END_TARGET

namespace lstm_fast::avx512 {
bool usable() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx2") &&
         __builtin_cpu_supports("fma");
}

}  // namespace lstm_fast::avx512

namespace lstm_fast {
constexpr Isa isa_avx512{"avx512", avx512::usable, avx512::isa_kernels<avx512::F32>(),
                         avx512::isa_kernels<avx512::F64>()};
}
