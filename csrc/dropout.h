// Dropout masks as a function of (seed, layer, step, original row, unit): Philox4x32-10 (Salmon et al., 2011, "Parallel
// random numbers: as easy as 1, 2, 3"), key = seed, counter = (unit / 4, row, step, layer), word = unit % 4. Kept when
// the word is at least p * 2^32. Counters are taken modulo 2^32.
#pragma once

#include <cmath>

#include "lstm_fast.h"

namespace lstm_fast {

struct Words {
  std::uint32_t word[4];
};

inline Words philox(std::uint64_t seed, Words counter) {
  auto key_low = static_cast<std::uint32_t>(seed);
  auto key_high = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t even = std::uint64_t{0xD2511F53} * counter.word[0];
    const std::uint64_t odd = std::uint64_t{0xCD9E8D57} * counter.word[2];
    counter = {{static_cast<std::uint32_t>(odd >> 32) ^ counter.word[1] ^ key_low, static_cast<std::uint32_t>(odd),
                static_cast<std::uint32_t>(even >> 32) ^ counter.word[3] ^ key_high, static_cast<std::uint32_t>(even)}};
    key_low += 0x9E3779B9;
    key_high += 0xBB67AE85;
  }
  return counter;
}

// The first word that is kept, of 2^32; 2^32 keeps none.
inline std::uint64_t dropout_threshold(double p) { return static_cast<std::uint64_t>(std::ldexp(p, 32)); }

// to = from with the mask of one row: dropped or scaled by 1 / (1 - p). May be in place.
template <class T>
void drop_row(const Dropout& dropout, int layer, index step, index row, const T* from, index width, T* to) {
  const std::uint64_t threshold = dropout_threshold(dropout.p);
  const T scale = dropout.p < 1 ? static_cast<T>(1 / (1 - dropout.p)) : T(0);
  for (index unit = 0; unit < width; unit += 4) {
    const Words random = philox(dropout.seed, {{static_cast<std::uint32_t>(unit / 4), static_cast<std::uint32_t>(row),
                                                static_cast<std::uint32_t>(step), static_cast<std::uint32_t>(layer)}});
    for (index lane = 0; lane < 4 && unit + lane < width; ++lane) {
      to[unit + lane] = random.word[lane] >= threshold ? from[unit + lane] * scale : T(0);
    }
  }
}

}  // namespace lstm_fast
