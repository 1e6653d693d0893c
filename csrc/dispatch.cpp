// The best-first list of instruction sets, CPU detection, the override, the FMA peak, the rate of reading.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "kernels.h"

namespace lstm_fast {
namespace {

// Best first. A name stands for the first usable row that bears it.
const Isa* const isas[] = {
#if defined(__x86_64__)
    &isa_avx512,
    &isa_avx2,
    &isa_scalar_fma,
#endif
    &isa_scalar,
};

std::atomic<const Isa*> chosen{nullptr};

const Isa& require_isa(std::string_view name, const char* source) {
  if (const Isa* found = find_isa(name)) return *found;
  std::string choices;
  for (const char* usable : isas_usable()) choices += (choices.empty() ? "" : ", ") + std::string(usable);
  throw std::invalid_argument(std::string(source) + ": expected one of " + choices + ", got '" + std::string(name) +
                              "'");
}

template <class Accept>
std::vector<const char*> names_of(Accept accept) {
  std::vector<const char*> names;
  for (const Isa* isa : isas) {
    if (accept(*isa) && (names.empty() || std::strcmp(names.back(), isa->name) != 0)) names.push_back(isa->name);
  }
  return names;
}

// Most rounds a second of a loop that is run for about `seconds`, a millisecond and more at a time.
template <class Loop>
double most_a_second(double seconds, Loop loop) {
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point from) { return std::chrono::duration<double>(Clock::now() - from).count(); };
  const auto start = Clock::now();
  double best = 0;
  index rounds = 1;
  do {
    const auto begin = Clock::now();
    loop(rounds);
    const double elapsed = since(begin);
    // A try of microseconds would measure the clock.
    if (elapsed >= 1e-4) best = std::max(best, static_cast<double>(rounds) / elapsed);
    if (elapsed < 1e-3) rounds *= 2;
  } while (best == 0 || since(start) < seconds);
  return best;
}

}  // namespace

const Isa* find_isa(std::string_view name) {
  for (const Isa* isa : isas) {
    if (name == isa->name && isa->usable()) return isa;
  }
  return nullptr;
}

const Isa& active_isa() {
  if (const Isa* isa = chosen.load(std::memory_order_acquire)) return *isa;
  const char* wanted = std::getenv("LSTM_FAST_ISA");
  const Isa& isa = wanted && *wanted ? require_isa(wanted, "LSTM_FAST_ISA") : require_isa(isas_usable().front(), "isa");
  const Isa* nobody = nullptr;
  chosen.compare_exchange_strong(nobody, &isa);
  return *chosen.load(std::memory_order_acquire);
}

void set_isa(std::string_view name) { chosen.store(&require_isa(name, "name"), std::memory_order_release); }

const char* isa_name(const Isa& isa) { return isa.name; }

std::vector<const char*> isas_built() {
  return names_of([](const Isa&) { return true; });
}

std::vector<const char*> isas_usable() {
  return names_of([](const Isa& isa) { return isa.usable(); });
}

int gates_of(Cell cell) { return isa_scalar.f32.of(cell).gates; }

bool has_two_biases(Cell cell) { return isa_scalar.f32.of(cell).recurrent_bias; }

int slots_of(Cell cell) { return isa_scalar.f32.of(cell).slots; }

template <class T>
double fma_peak(const Isa& isa, double seconds) {
  const IsaKernels<T>& kernels = isa.kernels<T>();
  volatile T sink;
  const double rounds = most_a_second(seconds, [&](index count) { sink = kernels.fma_chains(count); });
  return rounds * static_cast<double>(kernels.fma_chains_flops) * 1e-9;
}

template <class T>
double read_rate(const Isa& isa, std::size_t bytes, double seconds) {
  const IsaKernels<T>& kernels = isa.kernels<T>();
  const std::size_t step = static_cast<std::size_t>(kernels.read_step) * sizeof(T);
  const std::size_t whole = std::max<std::size_t>(1, (bytes + step / 2) / step) * step;
  const Block block(whole);
  T* const data = reinterpret_cast<T*>(block.data());
  const index count = static_cast<index>(whole / sizeof(T));
  std::fill(data, data + count, T{0});
  volatile T sink;
  const double rounds = most_a_second(seconds, [&](index times) { sink = kernels.read_again(data, count, times); });
  return rounds * static_cast<double>(whole) * 1e-9;
}

template double fma_peak<float>(const Isa&, double);
template double fma_peak<double>(const Isa&, double);
template double read_rate<float>(const Isa&, std::size_t, double);
template double read_rate<double>(const Isa&, std::size_t, double);

}  // namespace lstm_fast
