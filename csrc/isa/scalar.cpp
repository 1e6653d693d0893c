// The scalar kernels, twice: for any CPU, where fma may be a slow library call, and with the FMA instruction.
#include <cstddef>

#include "../kernels.h"
#include "target.h"

// Where fma is a library call only the size of the code counts: tiles of one row.
#if defined(__FP_FAST_FMA)
#define LF_SCALAR_REGISTERS 16
#else
#define LF_SCALAR_REGISTERS 4
#endif

namespace lstm_fast::scalar {
namespace {
#include "scalar-inl.h"
}
bool usable() { return true; }
}  // namespace lstm_fast::scalar

namespace lstm_fast {
constexpr Isa isa_scalar{"scalar", scalar::usable, scalar::isa_kernels<scalar::F32>(),
                         scalar::isa_kernels<scalar::F64>()};
}

#if defined(__x86_64__)
#undef LF_SCALAR_REGISTERS
#define LF_SCALAR_REGISTERS 16

LF_BEGIN_TARGET("fma")

namespace lstm_fast::scalar_fma {
namespace {
#include "scalar-inl.h"
}
}  // namespace lstm_fast::scalar_fma

LF_END_TARGET

namespace lstm_fast::scalar_fma {
bool usable() { return __builtin_cpu_supports("fma"); }
}  // namespace lstm_fast::scalar_fma

namespace lstm_fast {
constexpr Isa isa_scalar_fma{"scalar", scalar_fma::usable, scalar_fma::isa_kernels<scalar_fma::F32>(),
                             scalar_fma::isa_kernels<scalar_fma::F64>()};
}
#endif
