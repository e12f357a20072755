// The compiler's own vectors of 4 lanes: SSE2 on x86-64, NEON on Arm.
#include "head.h"
#include "recurrence.h"
#include "scan.h"

namespace augur {

#if defined(__aarch64__)
constexpr const char* kName = "neon";
#else
constexpr const char* kName = "baseline";
#endif

const Kernels kBaseline = {kName,  kChunk,  kGroup,         {0, 0},        {-kLog2E, -kLog2E}, {2 * kLog2E, 2 * kLog2E},
                           project, arrange, attend, walk, scratch_floats, head, pool, sigmoid, multiply_add,
                           scan_step, scan_back, add};

}  // namespace augur
