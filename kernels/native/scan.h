// Steps of a scan for training, forward and backward, on vectors, for whatever instruction set simd.h was included for.
//
// A step takes the rows that are alive, wherever they lie. Matrices that are multiplied from the right are in panels of 16
// columns, [panel][rows][16]; a tile of rows times vectors is in registers. A row's arithmetic does not depend on the rows
// beside it, but for the weights' gradient, in which rows are added up in their order.
#pragma once

#include "activations.h"

namespace {

using augur::ScanBack;
using augur::ScanStep;
using augur::ScanWeights;

#if defined(AUGUR_ISA_AVX512)
constexpr int kTileRows = 8, kTileVectors = 2;  // 16 of 32 registers
#elif defined(AUGUR_ISA_AVX2)
constexpr int kTileRows = 4, kTileVectors = 2;  // 8 of 16
#else
constexpr int kTileRows = 2, kTileVectors = 4;  // 8 of 16
#endif
constexpr int64_t kScanPanel = 16;

template <int N>
struct Constant {
  constexpr operator int() const { return N; }
};

// The first `count` numbers, and zeros; or all that a vector holds.
inline V load_some(const float* from, int64_t count) {
  if (count >= kLanes) return load(from);
#if defined(AUGUR_ISA_AVX512)
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), from);
#else
  alignas(64) float own[kLanes] = {};
  for (int64_t j = 0; j < count; ++j) own[j] = from[j];
  return load(own);
#endif
}

inline void store_some(float* to, V x, int64_t count) {
  if (count >= kLanes) return store(to, x);
#if defined(AUGUR_ISA_AVX512)
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), x);
#else
  alignas(64) float own[kLanes];
  store(own, x);
  for (int64_t j = 0; j < count; ++j) to[j] = own[j];
#endif
}

// acc[r][v] += sum over k of left(r, k) * right(k, v).
template <int R, int NV, typename Left, typename Right>
inline __attribute__((always_inline)) void accumulate(int64_t inner, Left left, Right right, V (&acc)[R][NV]) {
  for (int64_t k = 0; k < inner; ++k) {
    V w[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) w[v] = load(right(k, v));
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const V x = all(left(r, k));
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[r][v] = fma(x, w[v], acc[r][v]);
    }
  }
}

// Calls take(at, NV) with a constant NV for tiles of so many vectors until all of `padded` columns are covered.
template <typename Take>
inline __attribute__((always_inline)) void each_columns(int64_t padded, Take take) {
  constexpr int width = kTileVectors * kLanes;
  int64_t at = 0;
  for (; at + width <= padded; at += width) take(at, Constant<kTileVectors>());
  if constexpr (width > kScanPanel)
    for (; at < padded; at += kScanPanel) take(at, Constant<kScanPanel / kLanes>());
}

// Calls take(begin, R) with a constant R for groups of rows until all of `count` are covered.
template <typename Take>
inline __attribute__((always_inline)) void each_rows(int64_t count, Take take) {
  int64_t i = 0;
  for (; i + kTileRows <= count; i += kTileRows) take(i, Constant<kTileRows>());
  if constexpr (kTileRows > 4)
    for (; i + 4 <= count; i += 4) take(i, Constant<4>());
  if constexpr (kTileRows > 2)
    for (; i + 2 <= count; i += 2) take(i, Constant<2>());
  for (; i < count; ++i) take(i, Constant<1>());
}

// out[r] [padded] = out[r] (or 0) + rows[r] [inner] times a matrix in panels.
template <int R, bool Add>
inline __attribute__((always_inline)) void times_panels(const float* const* rows, int64_t inner, const float* panels,
                                                        int64_t padded, float* const* out) {
  each_columns(padded, [&](int64_t at, auto vectors) {
    constexpr int NV = vectors;
    constexpr int per_panel = kScanPanel / kLanes;
    V acc[R][NV];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[r][v] = Add ? load(out[r] + at + v * kLanes) : all(0.0f);
    const float* panel = panels + at / kScanPanel * kScanPanel * inner + at % kScanPanel;
    accumulate<R, NV>(
        inner, [&](int r, int64_t k) { return rows[r][k]; },
        [&](int64_t k, int v) { return panel + v / per_panel * kScanPanel * inner + k * kScanPanel + v % per_panel * kLanes; },
        acc);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) store(out[r] + at + v * kLanes, acc[r][v]);
  });
}

// 1 / (1 + 2^x) of N vectors in step, with x up to 60.
template <int N>
inline __attribute__((always_inline)) void fall(V (&x)[N]) {
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) x[i] = least(all(60.0f), x[i]);
  exp2<false>(x);
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) x[i] = all(1.0f) + x[i];
  invert<N, false>(x);
}

// New states of R rows for the hidden units from `unit` on, in step; `sums` [R][stride] are state times weights.
template <int R>
inline __attribute__((always_inline)) void scan_units(const ScanStep& step, const int64_t* rows, const ScanWeights& weights,
                                                      bool agru, const float* sums, int64_t stride, int64_t unit) {
  const int64_t hidden = weights.hidden, count = hidden - unit;
  const auto given = [&](int i, int gate) {
    return load_some(step.projected + rows[i] * 3 * hidden + gate * hidden + unit, count);
  };
  const auto sum = [&](int i, int gate) { return load(sums + i * stride + gate * hidden + unit); };
  const V bias = weights.bias_candidate ? load_some(weights.bias_candidate + unit, count) : all(0.0f);
  V u[R], r[R], inner[R], c[R];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) r[i] = (given(i, 1) + sum(i, 1)) * all(-augur::kLog2E);
  fall(r);
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) inner[i] = sum(i, 2) + bias;
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) c[i] = fma(r[i], inner[i], given(i, 2)) * all(2 * augur::kLog2E);
  fall(c);  // tanh(x) = 1 - 2 / (1 + exp(2x))
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) c[i] = negated_fma(all(2.0f), c[i], all(1.0f));
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) u[i] = (given(i, 0) + sum(i, 0)) * all(-augur::kLog2E);
  if (!agru) fall(u);
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
    const V before = step.before ? load_some(step.before + rows[i] * hidden + unit, count) : all(0.0f);
    const V a = all(step.scale[rows[i]]), update = agru ? a : a * u[i];
    store_some(step.states + rows[i] * hidden + unit, fma(update, c[i] - before, before), count);
    if (!step.kept) continue;
    float* kept = step.kept + rows[i] * 4 * hidden + unit;
    store_some(kept, u[i], count);
    store_some(kept + hidden, r[i], count);
    store_some(kept + 2 * hidden, c[i], count);
    store_some(kept + 3 * hidden, inner[i], count);
  }
}

template <int R>
__attribute__((noinline)) void scan_rows(const ScanStep& step, const int64_t* rows, const ScanWeights& weights, bool agru,
                                         float* sums) {
  const int64_t hidden = weights.hidden, stride = weights.padded_gates;
  const float* before[R];
  float* to[R];
  for (int r = 0; r < R; ++r) {
    before[r] = step.before ? step.before + rows[r] * hidden : nullptr;
    to[r] = sums + r * stride;
  }
  times_panels<R, false>(before, step.before ? hidden : 0, weights.recurrent, stride, to);
  for (int64_t unit = 0; unit < hidden; unit += kLanes) scan_units<R>(step, rows, weights, agru, sums, stride, unit);
}

void scan_step(const ScanStep& step, const ScanWeights& weights, bool agru, float* scratch) {
  each_rows(step.count, [&](int64_t begin, auto rows) { scan_rows<rows>(step, step.rows + begin, weights, agru, scratch); });
}

// A row's way back through its activations: from the gradient of its new state, `d_state` [padded], to those of the sums,
// `product` [3H], of the projection, of the scale, and to what goes straight to the state before.
inline void back_row(const ScanBack& step, int64_t row, int64_t hidden, bool agru, float* d_state, float* product) {
  const float *kept = step.kept + row * 4 * hidden, *before = step.before ? step.before + row * hidden : nullptr;
  float* d_projected = step.d_projected + row * 3 * hidden;
  const V a = all(step.scale[row]), one = all(1.0f);
  V d_scale = all(0.0f);
  for (int64_t unit = 0; unit < hidden; unit += kLanes) {
    const int64_t count = hidden - unit;
    const auto part = [&](int which) { return load_some(kept + which * hidden + unit, count); };
    const V u = part(0), r = part(1), c = part(2), d = load(d_state + unit);
    const V h = before ? load_some(before + unit, count) : all(0.0f);
    const V d_update = d * (c - h), through = d * (agru ? a : a * u);
    const V d_c = through * negated_fma(c, c, one), d_inner = d_c * r;
    const V d_u = agru ? all(0.0f) : d_update * a * (u * (one - u)), d_r = d_inner * part(3) * (one - r);
    d_scale = agru ? d_scale + d_update : fma(d_update, u, d_scale);
    store(d_state + unit, d - through);
    store_some(d_projected + unit, d_u, count);
    store_some(d_projected + hidden + unit, d_r, count);
    store_some(d_projected + 2 * hidden + unit, d_c, count);
    store_some(product + unit, d_u, count);
    store_some(product + hidden + unit, d_r, count);
    store_some(product + 2 * hidden + unit, d_inner, count);
  }
  step.d_scale[row] = sum(d_scale);
}

// d_recurrent [H][stride] += the states before [count, H], transposed, times product [count, stride].
inline void add_weights(const ScanBack& step, int64_t hidden, int64_t stride, const float* product) {
  each_rows(hidden, [&](int64_t k, auto rows) {
    constexpr int R = rows;
    each_columns(stride, [&](int64_t at, auto vectors) {
      constexpr int NV = vectors;
      V acc[R][NV] = {};
      accumulate<R, NV>(
          step.count, [&](int r, int64_t n) { return step.before[step.rows[n] * hidden + k + r]; },
          [&](int64_t n, int v) { return product + n * stride + at + v * kLanes; }, acc);
      for (int r = 0; r < R; ++r)
        for (int v = 0; v < NV; ++v) {
          float* to = step.d_recurrent + (k + r) * stride + at + v * kLanes;
          store(to, load(to) + acc[r][v]);
        }
    });
  });
}

void scan_back(const ScanBack& step, const ScanWeights& weights, bool agru, float* product) {
  const int64_t hidden = weights.hidden, stride = weights.padded_gates;
  for (int64_t n = 0; n < step.count; ++n)
    back_row(step, step.rows[n], hidden, agru, step.d_state + step.rows[n] * weights.padded, product + n * stride);
  for (int64_t n = 0; n < step.count; ++n)
    for (int64_t j = 0; j < stride; j += kLanes) {
      float* to = step.d_bias + j;
      store(to, load(to) + load(product + n * stride + j));
    }
  if (!step.before) return;  // from a state of zeros nothing goes further, nor into the weights
  each_rows(step.count, [&](int64_t begin, auto rows) {
    constexpr int R = rows;
    const float* from[R];
    float* to[R];
    for (int r = 0; r < R; ++r) {
      from[r] = product + (begin + r) * stride;
      to[r] = step.d_state + step.rows[begin + r] * weights.padded;
    }
    times_panels<R, true>(from, 3 * hidden, weights.back, weights.padded, to);
  });
  add_weights(step, hidden, stride, product);
}

// to [count] += from.
void add(const float* from, int64_t count, float* to) {
  for (int64_t j = 0; j < count; j += kLanes) store_some(to + j, load(to + j) + load_some(from + j, count - j), count - j);
}

}  // namespace
