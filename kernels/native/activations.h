// From the sums of a step to its new states, on vectors.
//
// sigmoid(u) * (tanh(y) - h) = ((e - 1) - h (1 + e)) / ((1 + e) (1 + exp(-u))) with e = exp(2y): two divisions for three
// gates. All this is one long chain of dependent operations, so several vectors go through it in step.
#pragma once

#include "simd.h"

namespace {

using augur::Cell;
using augur::Weights;

#if defined(AUGUR_ISA_AVX512)
// The logistic function of N vectors of z = x / kPieceWidth. The piece is the nearest integer to z, which is in the low
// bits of z + 1.5 * 2^23.
template <int N>
inline __attribute__((always_inline)) void sigmoid_in_pieces(V (&z)[N]) {
  const float* pieces = augur::kSigmoidPieces;
  __m512i piece[N];
  V y[N];
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) z[i] = _mm512_range_ps(z[i], all(augur::kLastPieceEnds), 2);  // the smaller magnitude, with the sign of z
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) piece[i] = _mm512_castps_si512(_mm512_add_ps(z[i], all(12582912.0f)));
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) y[i] = _mm512_permutex2var_ps(load(pieces + 64), piece[i], load(pieces + 80));
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i)
    y[i] = fma(y[i], z[i], _mm512_permutex2var_ps(load(pieces + 32), piece[i], load(pieces + 48)));
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) z[i] = fma(y[i], z[i], _mm512_permutex2var_ps(load(pieces), piece[i], load(pieces + 16)));
}
#endif

// 1 / x of N vectors, each from 1 to 2^63; one inverse for two vectors of the same row where Paired.
template <int N, bool Paired>
inline __attribute__((always_inline)) void invert(V (&x)[N]) {
  if constexpr (Paired) {
    V both[N / 2];
#pragma GCC unroll 4
    for (int i = 0; i < N / 2; ++i) both[i] = x[2 * i] * x[2 * i + 1];
    invert<N / 2, false>(both);
#pragma GCC unroll 4
    for (int i = 0; i < N / 2; ++i) {
      const V first = both[i] * x[2 * i + 1];
      x[2 * i + 1] = both[i] * x[2 * i];
      x[2 * i] = first;
    }
  } else {
#if defined(AUGUR_ISA_AVX512)  // a Newton step is cheaper than a division here
    V y[N];
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) y[i] = _mm512_rcp14_ps(x[i]);
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) x[i] = negated_fma(x[i], y[i], all(1.0f));
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) x[i] = fma(x[i], y[i], y[i]);
#else
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) x[i] = all(1.0f) / x[i];
#endif
  }
}

// Where the sums of R rows x NV vectors lie: gates + row * kRow + vector * kVector + gate * kGate.
template <int RowStride, int VectorStride, int GateStride>
struct Sums {
  static constexpr int kRow = RowStride, kVector = VectorStride, kGate = GateStride;
};

// The new states of R rows and NV vectors of hidden units from `base` on (DIEN eq. 2-5 and 12-15), all in step.
//
// `sums` are state times weights; those of the two gates have their inputs added already unless AddInputs. The bounds keep
// products of two of the terms finite; they are where the functions are at their limits: tanh to the last bit, the update
// gate to 1e-11, the reset gate to 1e-18.
template <Cell C, bool Fast, bool AddInputs, int R, int NV, typename Layout>
inline __attribute__((always_inline)) void activate(const float* sums, const float* const* x, const float* a,
                                                    const float* const* states, float* const* next,
                                                    const Weights& weights, int64_t base) {
  constexpr int n = R * NV, units = NV * kLanes;
  const auto at = [](int i) { return i % NV * kLanes; };
  const auto sum = [&](int i, int gate) {
    return load(sums + i / NV * Layout::kRow + i % NV * Layout::kVector + gate * Layout::kGate);
  };
  const auto input = [&](int i, int gate) {
    const V own = load(x[i / NV] + 3 * base + gate * units + at(i));
    if constexpr (C == Cell::aigru)
      return fma(all(a[i / NV]), own, load(weights.bias + 3 * base + gate * units + at(i)));
    else
      return own;
  };
  const auto gate_sum = [&](int i, int gate) { return AddInputs ? sum(i, gate) + input(i, gate) : sum(i, gate); };
  const auto state = [&](int i) { return load(states[i / NV] + base + at(i)); };
  const auto keep = [&](int i, V h) { store(next[i / NV] + base + at(i), h); };
  const V one = all(1.0f);
#if defined(AUGUR_ISA_AVX512)
  if constexpr (Fast) {
    V y[n], gate[n];
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) y[i] = gate_sum(i, 1);
    sigmoid_in_pieces(y);
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) y[i] = fma(y[i], sum(i, 2), input(i, 2));
    sigmoid_in_pieces(y);
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) y[i] = fma(all(2.0f), y[i], -(one + state(i)));  // tanh - h
    if constexpr (C != Cell::agru) {
#pragma GCC unroll 8
      for (int i = 0; i < n; ++i) gate[i] = gate_sum(i, 0);
      sigmoid_in_pieces(gate);
    }
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) {
      if constexpr (C == Cell::augru) gate[i] = all(a[i / NV]) * gate[i];
      if constexpr (C == Cell::agru) gate[i] = all(a[i / NV]);
      keep(i, fma(gate[i], y[i], state(i)));
    }
    return;
  }
#endif
  constexpr bool paired = NV == 2;
  V y[n], below[n], above[n];
#pragma GCC unroll 8
  for (int i = 0; i < n; ++i) y[i] = least(all(60.0f), gate_sum(i, 1));
  exp2<Fast>(y);
#pragma GCC unroll 8
  for (int i = 0; i < n; ++i) y[i] = one + y[i];
  invert<n, paired>(y);
#pragma GCC unroll 8
  for (int i = 0; i < n; ++i) y[i] = least(all(26.0f), fma(y[i], sum(i, 2), input(i, 2)));
  exp2<Fast>(y);
#pragma GCC unroll 8
  for (int i = 0; i < n; ++i) below[i] = one + y[i];
#pragma GCC unroll 8
  for (int i = 0; i < n; ++i) {
    above[i] = negated_fma(state(i), below[i], y[i] - one);
    if constexpr (C == Cell::augru || C == Cell::agru) above[i] = all(a[i / NV]) * above[i];
  }
  if constexpr (C != Cell::agru) {
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) y[i] = least(all(37.0f), gate_sum(i, 0));
    exp2<Fast>(y);
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) below[i] = fma(below[i], y[i], below[i]);
  }
  invert<n, paired>(below);
#pragma GCC unroll 8
  for (int i = 0; i < n; ++i) keep(i, fma(above[i], below[i], state(i)));
}

}  // namespace
