// One vector type per instruction set, with just the operations that the recurrences need. A source file includes this
// after choosing AUGUR_ISA_*; everything here has internal linkage, so that code compiled for one instruction set is
// never linked into another's place.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(AUGUR_ISA_AVX2) || defined(AUGUR_ISA_AVX512)
#include <immintrin.h>
#endif

#include "kernels.h"

namespace {

// 2^x on [-1/2, 1/2]: minimax in relative error, 7.5e-8 of degree 5 and 7.5e-5 of degree 3.
constexpr float kExp2Exact[] = {1.00000007e+0f,  0.693146967f,   0.240221197f,
                                0.0555071328f, 0.0096755416f, 0.0013276471f};
constexpr float kExp2Fast[] = {0.999928073f, 0.693260989f, 0.242611138f, 0.0551716601f};

#if defined(AUGUR_ISA_AVX512)

using V = __m512;
constexpr int kLanes = 16;
constexpr int kChunk = 32;  // hidden units of a block: 4 rows x 2 vectors x 3 gates in 24 registers, of 32

inline V load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, V x) { _mm512_storeu_ps(p, x); }
inline V all(float x) { return _mm512_set1_ps(x); }
inline V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
inline V negated_fma(V a, V b, V c) { return _mm512_fnmadd_ps(a, b, c); }
// Both give the second argument when one is no number: put the value there that must not be lost.
inline V least(V a, V b) { return _mm512_min_ps(a, b); }
inline V most(V a, V b) { return _mm512_max_ps(a, b); }
inline float sum(V x) { return _mm512_reduce_add_ps(x); }
inline float largest(V x) { return _mm512_reduce_max_ps(x); }

// x = n + f with n the nearest integer, as times_power_of_2 wants it; returns f.
inline V split(V x, V& n) {
  const V f = _mm512_reduce_ps(x, 0);
  n = _mm512_sub_ps(x, f);
  return f;
}
inline V times_power_of_2(V p, V n) { return _mm512_scalef_ps(p, n); }

#elif defined(AUGUR_ISA_AVX2)

using V = __m256;
constexpr int kLanes = 8;
constexpr int kChunk = 8;  // 4 rows x 1 vector x 3 gates in 12 registers, of 16

inline V load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, V x) { _mm256_storeu_ps(p, x); }
inline V all(float x) { return _mm256_set1_ps(x); }
inline V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
inline V negated_fma(V a, V b, V c) { return _mm256_fnmadd_ps(a, b, c); }
inline V least(V a, V b) { return _mm256_min_ps(a, b); }
inline V most(V a, V b) { return _mm256_max_ps(a, b); }
inline V times_power_of_2(V p, V n) {  // n's low bits are the number
  return _mm256_castsi256_ps(
      _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(n), 23)));
}

#else  // vectors of the compiler: SSE2 on x86-64, NEON on Arm

typedef float V __attribute__((vector_size(16)));
typedef int32_t VInt __attribute__((vector_size(16)));
constexpr int kLanes = 4;
#if defined(__aarch64__)
constexpr int kChunk = 8;  // 32 registers
#else
constexpr int kChunk = 4;  // 16 registers
#endif

inline V load(const float* p) {
  V x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}
inline void store(float* p, V x) { __builtin_memcpy(p, &x, sizeof x); }
inline V all(float x) { return V{x, x, x, x}; }
inline V fma(V a, V b, V c) { return a * b + c; }
inline V negated_fma(V a, V b, V c) { return c - a * b; }
inline V choose(VInt mask, V a, V b) { return (V)((mask & (VInt)a) | (~mask & (VInt)b)); }
inline V least(V a, V b) { return choose(a < b, a, b); }
inline V most(V a, V b) { return choose(a > b, a, b); }
inline V times_power_of_2(V p, V n) { return (V)((VInt)p + ((VInt)n << 23)); }  // n's low bits are the number

#endif

#if !defined(AUGUR_ISA_AVX512)

// x = n + f with n the nearest integer, which is in the low bits of what times_power_of_2 gets; returns f.
inline V split(V x, V& n) {
  const V magic = all(12582912.0f);  // 1.5 * 2^23
  x = most(all(-126.0f), x);
  n = x + magic;
  return x - (n - magic);
}

inline float sum(V x) {
  float total = 0;
  for (int i = 0; i < kLanes; ++i) total += x[i];
  return total;
}
inline float largest(V x) {
  float found = x[0];
  for (int i = 1; i < kLanes; ++i) found = x[i] > found ? x[i] : found;
  return found;
}

#endif

// 2^x of N vectors with x up to 126, in step: a chain of N operations each hides the latency of the ones before. Below
// -126, AVX-512 falls to 0 and the others stay where they are.
template <bool Fast, int N>
inline __attribute__((always_inline)) void exp2(V (&x)[N]) {
  constexpr int degree = Fast ? 3 : 5;
  const float* coefficients = Fast ? kExp2Fast : kExp2Exact;
  V f[N], p[N];
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) f[i] = split(x[i], x[i]);
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) p[i] = fma(all(coefficients[degree]), f[i], all(coefficients[degree - 1]));
#pragma GCC unroll 8
  for (int d = degree - 2; d >= 0; --d)
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) p[i] = fma(p[i], f[i], all(coefficients[d]));
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) x[i] = times_power_of_2(p[i], x[i]);
}

}  // namespace
