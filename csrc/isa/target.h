// Target regions: the code between LF_BEGIN_TARGET and LF_END_TARGET is compiled for the named instruction set,
// whatever the command line says. Inside one: no std header (include it before), no lambda, no std algorithm, no global
// constructor (each would leave a copy that other code may link to and crash on an older CPU); every operation on a
// vector is LF_INLINE; plain pointers at the boundary.
//
// LF_UNROLL stands before a loop over the registers of a tile. Left to itself, GCC 12 unrolls such loops so late that
// the sums also live on the stack: 4 to 10 % of a training forward.
#pragma once

#define LF_INLINE inline __attribute__((always_inline))
#define LF_NOINLINE __attribute__((noinline))
#define LF_PRAGMA(text) _Pragma(#text)

#if defined(__clang__)
#define LF_BEGIN_TARGET(features) \
  LF_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define LF_END_TARGET LF_PRAGMA(clang attribute pop)
#define LF_UNROLL LF_PRAGMA(clang loop unroll(full))
#else
#define LF_BEGIN_TARGET(features) LF_PRAGMA(GCC push_options) LF_PRAGMA(GCC target(features))
#define LF_END_TARGET LF_PRAGMA(GCC pop_options)
#define LF_UNROLL LF_PRAGMA(GCC unroll 24)
#endif
