// 8 lanes, fused multiply-add.
#define AUGUR_ISA_AVX2
#include "head.h"
#include "recurrence.h"
#include "scan.h"

namespace augur {

const Kernels kAvx2 = {"avx2",  kChunk,  kGroup, {0, 0}, {-kLog2E, -kLog2E}, {2 * kLog2E, 2 * kLog2E},
                       project, arrange, attend, walk,   scratch_floats, head, pool, sigmoid, multiply_add,
                       scan_step, scan_back, add};

}  // namespace augur
