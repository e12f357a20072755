// Float32 that are too small for their full precision cost a hundred times as much as others, and matter to nobody.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace augur {

class WithoutDenormals {
 public:
#if defined(__x86_64__)
  WithoutDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~WithoutDenormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#else
  WithoutDenormals() {}
#endif
};

}  // namespace augur
