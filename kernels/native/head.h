// The head on vectors, for whatever instruction set simd.h was included for: first layer from its terms, activations,
// further layers, output, for some rows that stay in the cache together.
//
// Weights are read in panels of 16 columns. A block of rows times two panels (one where lanes are fewer) is in registers;
// a panel is read once for a block of rows and comes from the first cache for all but the first of them. A row's
// arithmetic does not depend on the rows beside it.
#pragma once

#include "activations.h"

namespace {

using augur::HeadInputs;
using augur::HeadLayer;
using augur::HeadView;

#if defined(AUGUR_ISA_AVX512)
constexpr int kHeadRows = 8, kHeadVectors = 2;  // 16 of 32 registers: the broadcasts come from memory
#elif defined(AUGUR_ISA_AVX2)
constexpr int kHeadRows = 6, kHeadVectors = 2;  // 12 of 16
#else
constexpr int kHeadRows = 2, kHeadVectors = 4;  // 8 of 16
#endif
constexpr int kPanel = 16;

// s * (alpha + p * (1 - alpha)) of R x NV vectors in step: p is sigmoid((s - mean) * scale), or 1 above 0 and else 0.
template <bool Dice, int R, int NV>
inline __attribute__((always_inline)) void activate_layer(V (&s)[R][NV], const HeadLayer& layer, int64_t at) {
  if constexpr (Dice) {
    V p[R * NV];
#pragma GCC unroll 8
    for (int i = 0; i < R * NV; ++i) {
      const int64_t column = at + i % NV * kLanes;
      p[i] = least(all(60.0f), fma(s[i / NV][i % NV], load(layer.scale + column), load(layer.shift + column)));
    }
    exp2<false>(p);
#pragma GCC unroll 8
    for (int i = 0; i < R * NV; ++i) p[i] = all(1.0f) + p[i];
    invert<R * NV, false>(p);
#pragma GCC unroll 8
    for (int i = 0; i < R * NV; ++i) {
      const int64_t column = at + i % NV * kLanes;
      s[i / NV][i % NV] = s[i / NV][i % NV] * fma(p[i], load(layer.rest + column), load(layer.alpha + column));
    }
  } else {
    const V zero = all(0.0f);
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < NV; ++v)
        s[r][v] = fma(load(layer.alpha + at + v * kLanes), least(zero, s[r][v]), most(zero, s[r][v]));
  }
}

// `out` of R rows and NV vectors of columns from `at` on; it holds where the sums begin.
template <bool Dice, int R, int NV>
inline __attribute__((always_inline)) void head_block(const float* in, int64_t stride, const HeadLayer& layer, int64_t at,
                                                      float* out) {
  constexpr int per_panel = kPanel / kLanes;
  V acc[R][NV];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = load(out + r * layer.padded + at + v * kLanes);
  const float* weight = layer.weight + at * layer.inputs;
  for (int64_t k = 0; k < layer.inputs; ++k) {
    V w[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v)
      w[v] = load(weight + v / per_panel * layer.inputs * kPanel + k * kPanel + v % per_panel * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const V x = all(in[r * stride + k]);
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[r][v] = fma(x, w[v], acc[r][v]);
    }
  }
  constexpr int together = R * NV <= 8 ? R : 8 / NV;  // rows whose activations are in step
  if constexpr (together == R) {
    activate_layer<Dice, R, NV>(acc, layer, at);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) store(out + r * layer.padded + at + v * kLanes, acc[r][v]);
  } else {
    static_assert(R % together == 0 || R % 2 == 0);
    constexpr int step = R % together == 0 ? together : 2;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) store(out + r * layer.padded + at + v * kLanes, acc[r][v]);
    for (int r = 0; r < R; r += step) {
      V s[step][NV];
      for (int i = 0; i < step; ++i)
        for (int v = 0; v < NV; ++v) s[i][v] = load(out + (r + i) * layer.padded + at + v * kLanes);
      activate_layer<Dice, step, NV>(s, layer, at);
      for (int i = 0; i < step; ++i)
        for (int v = 0; v < NV; ++v) store(out + (r + i) * layer.padded + at + v * kLanes, s[i][v]);
    }
  }
}

template <bool Dice, int NV>
__attribute__((noinline)) void head_columns(const float* in, int64_t stride, int64_t rows, const HeadLayer& layer,
                                            int64_t at, float* out) {
  int64_t r = 0;
  const auto from = [&](int64_t row) { return in + row * stride; };
  const auto to = [&](int64_t row) { return out + row * layer.padded; };
  for (; r + kHeadRows <= rows; r += kHeadRows) head_block<Dice, kHeadRows, NV>(from(r), stride, layer, at, to(r));
  if constexpr (kHeadRows > 4)
    for (; r + 4 <= rows; r += 4) head_block<Dice, 4, NV>(from(r), stride, layer, at, to(r));
  if constexpr (kHeadRows > 2)
    for (; r + 2 <= rows; r += 2) head_block<Dice, 2, NV>(from(r), stride, layer, at, to(r));
  for (; r < rows; ++r) head_block<Dice, 1, NV>(from(r), stride, layer, at, to(r));
}

template <bool Dice>
void head_layer(const float* in, int64_t stride, int64_t rows, const HeadLayer& layer, float* out) {
  constexpr int width = kHeadVectors * kLanes;
  int64_t at = 0;
  for (; at + width <= layer.padded; at += width) head_columns<Dice, kHeadVectors>(in, stride, rows, layer, at, out);
  if constexpr (width > kPanel)
    for (; at < layer.padded; at += kPanel) head_columns<Dice, kPanel / kLanes>(in, stride, rows, layer, at, out);
}

// What the first layer begins with: to [W] = item's term + request's term + bias, and zeros up to `padded`.
inline void begin_row(const float* item, const float* request, const float* bias, int64_t width, int64_t padded,
                      float* to) {
  int64_t j = 0;
  for (; j + kLanes <= width; j += kLanes) store(to + j, load(item + j) + load(request + j) + load(bias + j));
  for (; j < width; ++j) to[j] = item[j] + request[j] + bias[j];
  for (; j < padded; ++j) to[j] = 0.0f;
}

inline void cross_row(const float* embedding, const float* factors, int64_t width, float* to) {
  int64_t k = 0;
  for (; k + kLanes <= width; k += kLanes) store(to + k, load(embedding + k) * load(factors + k));
  for (; k < width; ++k) to[k] = embedding[k] * factors[k];
}

constexpr int kAhead = 4;  // rows of tables asked for before they are read

inline void fetch(const float* row, int64_t width) {
  for (int64_t j = 0; j < width; j += 16) __builtin_prefetch(row + j);
}

template <bool Dice>
void head_rows(const HeadInputs& given, const HeadView& view, int64_t begin, int64_t rows, float* scratch, float* out) {
  const HeadLayer& first = view.layers[0];
  const int64_t stride = first.inputs, crossed = given.crossed, hidden = stride - crossed;
  float *in = scratch, *sums = scratch + rows * stride, *next = sums + rows * view.widest;
  for (int64_t r = 0; r < rows; ++r) {
    if (r + kAhead < rows) {
      const int64_t item = given.item_of[begin + r + kAhead];
      fetch(given.items + item * first.outputs, first.outputs);
      fetch(given.embeddings + item * crossed, crossed);
    }
    const int64_t c = begin + r, item = given.item_of[c], request = given.request_of[c];
    begin_row(given.items + item * first.outputs, given.requests + request * first.outputs, first.bias, first.outputs,
              first.padded, sums + r * first.padded);
    cross_row(given.embeddings + item * crossed, given.factors + request * crossed, crossed, in + r * stride);
    __builtin_memcpy(in + r * stride + crossed, given.final + c * hidden, hidden * sizeof(float));
  }
  head_layer<Dice>(in, stride, rows, first, sums);
  for (int64_t n = 1; n < view.count; ++n) {
    const HeadLayer& layer = view.layers[n];
    for (int64_t r = 0; r < rows; ++r)
      __builtin_memcpy(next + r * layer.padded, layer.bias, layer.padded * sizeof(float));
    head_layer<Dice>(sums, view.layers[n - 1].padded, rows, layer, next);
    float* swapped = sums;
    sums = next;
    next = swapped;
  }
  const int64_t last = view.layers[view.count - 1].padded;
  for (int64_t r = 0; r < rows; ++r) {
    V total = all(0.0f);
    for (int64_t j = 0; j < last; j += kLanes) total = fma(load(sums + r * last + j), load(view.output + j), total);
    out[begin + r] = sum(total) + view.output_bias;
  }
}

void head(const HeadInputs& given, const HeadView& view, int64_t begin, int64_t rows, float* scratch, float* out) {
  if (view.dice)
    head_rows<true>(given, view, begin, rows, scratch, out);
  else
    head_rows<false>(given, view, begin, rows, scratch, out);
}

// to [width] += factor * from.
inline void add_row(const float* from, float factor, int64_t width, float* to) {
  int64_t j = 0;
  for (; j + kLanes <= width; j += kLanes) store(to + j, fma(load(from + j), all(factor), load(to + j)));
  for (; j < width; ++j) to[j] += from[j] * factor;
}

void pool(const augur::PooledInputs& given, int64_t begin, int64_t end, int64_t r, float* factors, float* to) {
  const float share = end > begin ? 1.0f / static_cast<float>(end - begin) : 0.0f;
  for (int64_t j = 0; j < given.width; ++j) to[j] = 0.0f;
  for (int64_t k = 0; k < given.embedding; ++k) factors[k] = 0.0f;
  for (int64_t n = begin; n < end; ++n)
    add_row(given.embeddings + given.behaviors[n] * given.embedding, share, given.embedding, factors);
  for (int64_t k = 0; k < given.embedding; ++k) add_row(given.of_pooled + k * given.width, factors[k], given.width, to);
  const float* of_action = given.of_pooled + given.embedding * given.width;
  for (int64_t k = 0; k < given.action_embedding; ++k, of_action += given.width) {
    float mean = 0.0f;
    for (int64_t n = begin; n < end; ++n)
      mean += given.action_embeddings[given.actions[n] * given.action_embedding + k] * share;
    add_row(of_action, mean, given.width, to);
  }
  for (int64_t k = 0; k < given.side_features; ++k)
    add_row(given.side_table + given.side[r * given.side_features + k] * given.width, 1.0f, given.width, to);
}

void sigmoid(float* values, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    alignas(64) float own[kLanes] = {};
    const int64_t there = count - i < kLanes ? count - i : kLanes;
    for (int64_t j = 0; j < there; ++j) own[j] = values[i + j];
    V x[1] = {least(all(80.0f), load(own) * all(-augur::kLog2E))};
    exp2<false>(x);
    store(own, all(1.0f) / (all(1.0f) + x[0]));
    for (int64_t j = 0; j < there; ++j) values[i + j] = own[j];
  }
}

}  // namespace
