// The best-first list of instruction sets, CPU detection, the override, the FMA peak.
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

template <class T>
double fma_peak(const Isa& isa, double seconds) {
  using Clock = std::chrono::steady_clock;
  const IsaKernels<T>& kernels = isa.kernels<T>();
  const auto start = Clock::now();
  const auto since = [](Clock::time_point from) { return std::chrono::duration<double>(Clock::now() - from).count(); };
  volatile T sink;
  double best = 0;
  index iterations = 1000;
  do {
    const auto begin = Clock::now();
    sink = kernels.fma_chains(iterations);
    const double elapsed = since(begin);
    best = std::max(best, static_cast<double>(iterations * kernels.fma_chains_flops) / elapsed * 1e-9);
    if (elapsed < 1e-3) iterations *= 2;
  } while (since(start) < seconds);
  static_cast<void>(sink);
  return best;
}

template double fma_peak<float>(const Isa&, double);
template double fma_peak<double>(const Isa&, double);

}  // namespace lstm_fast
