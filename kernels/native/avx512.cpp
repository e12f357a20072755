// 16 lanes; the fast form looks its activations up.
#define AUGUR_ISA_AVX512
#include "head.h"
#include "recurrence.h"
#include "scan.h"

namespace augur {

const Kernels kAvx512 = {"avx512",
                         kChunk,
                         kGroup,
                         {0, 0},
                         {-kLog2E, 1 / kPieceWidth},
                         {2 * kLog2E, 2 / kPieceWidth},
                         project,
                         arrange,
                         attend,
                         walk,
                         scratch_floats,
                         head,
                         pool,
                         sigmoid,
                         multiply_add,
                         scan_step,
                         scan_back,
                         add};

}  // namespace augur
