// What a spinning thread tells its CPU.
#pragma once

namespace lstm_fast {

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace lstm_fast
