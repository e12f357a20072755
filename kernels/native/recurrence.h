// Projection, attention and recurrence on vectors, for whatever instruction set simd.h was included for.
//
// A recurrence is bound by two things: the product of state and weights (three gates, H x 3H multiply-adds) and the
// activations (activations.h). The product keeps 4 rows x a chunk of hidden units x 3 gates in registers and reads each
// weight once for 4 rows.
//
// A row's arithmetic does not depend on the rows beside it.
#pragma once

#include "activations.h"

namespace {

using augur::Row;

constexpr int kBlock = 4;  // rows whose gates are in registers together
constexpr int kGroup = 16;  // rows walked together: while one block's activations wait, the next one's product runs

// acc[r][gate * NV + v] += sum over k of rows[r][k] * weights[k]; the update gate is left out where no cell needs it.
template <int R, int NV, bool Update>
inline __attribute__((always_inline)) void multiply(const float* const* rows, int64_t inner, const float* weights,
                                                    V (&acc)[R][3 * NV]) {
  constexpr int first = Update ? 0 : NV;
  for (int64_t k = 0; k < inner; ++k, weights += 3 * NV * kLanes) {
    V w[3 * NV];
#pragma GCC unroll 6
    for (int g = first; g < 3 * NV; ++g) w[g] = load(weights + g * kLanes);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const V state = all(rows[r][k]);
#pragma GCC unroll 6
      for (int g = first; g < 3 * NV; ++g) acc[r][g] = fma(state, w[g], acc[r][g]);
    }
  }
}

// One step of R rows for the chunk of hidden units from `base` on.
template <Cell C, bool Fast, int R, int NV>
inline __attribute__((always_inline)) void step_chunk(const float* const* x, const float* a, const float* const* states,
                                                      float* const* next, const Weights& weights, int64_t base) {
  constexpr int units = NV * kLanes;
  constexpr bool update = C != Cell::agru;
  V acc[R][3 * NV];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      const int64_t at = 3 * base + v * kLanes;
      acc[r][v] = load(x[r] + at);
      acc[r][NV + v] = load(x[r] + at + units);
      if constexpr (C == Cell::aigru) {
        acc[r][v] = fma(all(a[r]), acc[r][v], load(weights.bias + at));
        acc[r][NV + v] = fma(all(a[r]), acc[r][NV + v], load(weights.bias + at + units));
      }
      acc[r][2 * NV + v] = load(weights.bias_candidate + base + v * kLanes);
    }
  }
  multiply<R, NV, update>(states, weights.hidden, weights.recurrent + 3 * base * weights.hidden, acc);
  alignas(64) float sums[R * 3 * units];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 6
    for (int g = update ? 0 : NV; g < 3 * NV; ++g) store(sums + (r * 3 * NV + g) * kLanes, acc[r][g]);
  activate<C, Fast, false, R, NV, Sums<3 * units, kLanes, units>>(sums, x, a, states, next, weights, base);
}

template <Cell C, bool Fast, int R>
__attribute__((noinline)) void step_rows(const Row* rows, int64_t t, const float* states, float* next, const Weights& weights) {
  const float *x[R], *from[R];
  float* to[R];
  float a[R];
  for (int r = 0; r < R; ++r) {
    x[r] = rows[r].x + t * 3 * weights.padded;
    a[r] = C == Cell::gru ? 1.0f : rows[r].a[t];
    from[r] = states + r * weights.padded;
    to[r] = next + r * weights.padded;
  }
  int64_t base = 0;
  for (; base + kChunk <= weights.padded; base += kChunk)
    step_chunk<C, Fast, R, kChunk / kLanes>(x, a, from, to, weights, base);
  if constexpr (kChunk > 16)  // P is a multiple of 16
    for (; base < weights.padded; base += 16) step_chunk<C, Fast, R, 16 / kLanes>(x, a, from, to, weights, base);
}

template <Cell C, bool Fast>
void walk_cell(const Row* rows, int64_t count, const Weights& weights, bool every_state, float* scratch) {
  const int64_t padded = weights.padded;
  float *states = scratch, *next = scratch + kGroup * padded;
  for (int64_t i = 0; i < count * padded; ++i) states[i] = 0.0f;
  int64_t live = count;
  for (int64_t t = 0; live > 0; ++t) {
    while (live > 0 && rows[live - 1].length <= t) --live;
    const auto step = [&](auto take, int64_t from) {
      take(rows + from, t, states + from * padded, next + from * padded, weights);
    };
    int64_t r = 0;
    for (; r + 4 <= live; r += 4) step(step_rows<C, Fast, 4>, r);
    for (; r + 2 <= live; r += 2) step(step_rows<C, Fast, 2>, r);
    if (r < live) step(step_rows<C, Fast, 1>, r);
    for (r = 0; r < live; ++r) {
      float* out = every_state ? rows[r].out + t * weights.hidden : rows[r].out;
      if (every_state || rows[r].length == t + 1)
        __builtin_memcpy(out, next + r * padded, weights.hidden * sizeof(float));
    }
    float* swapped = states;
    states = next;
    next = swapped;
  }
}

template <bool Fast>
void walk_precision(const Row* rows, int64_t count, const Weights& weights, Cell cell, bool every_state,
                    float* scratch) {
  switch (cell) {
    case Cell::gru: return walk_cell<Cell::gru, Fast>(rows, count, weights, every_state, scratch);
    case Cell::augru: return walk_cell<Cell::augru, Fast>(rows, count, weights, every_state, scratch);
    case Cell::agru: return walk_cell<Cell::agru, Fast>(rows, count, weights, every_state, scratch);
    case Cell::aigru: return walk_cell<Cell::aigru, Fast>(rows, count, weights, every_state, scratch);
  }
}

void walk(const Row* rows, int64_t count, const Weights& weights, Cell cell, bool fast, bool every_state,
          float* scratch) {
  if (fast)
    walk_precision<true>(rows, count, weights, cell, every_state, scratch);
  else
    walk_precision<false>(rows, count, weights, cell, every_state, scratch);
}

size_t scratch_floats(int64_t padded) { return 2 * kGroup * padded; }

template <int R, int NV>
void project_chunk(const float* const* in, const Weights& weights, bool biased, int64_t base, float* x) {
  V acc[R][3 * NV];
  for (int r = 0; r < R; ++r)
    for (int g = 0; g < 3 * NV; ++g) acc[r][g] = biased ? load(weights.bias + 3 * base + g * kLanes) : all(0.0f);
  multiply<R, NV, true>(in, weights.inputs, weights.input + 3 * base * weights.inputs, acc);
  for (int r = 0; r < R; ++r)
    for (int g = 0; g < 3 * NV; ++g) store(x + r * 3 * weights.padded + 3 * base + g * kLanes, acc[r][g]);
}

template <int R>
void project_rows(const float* in, const Weights& weights, bool biased, float* x) {
  const float* rows[R];
  for (int r = 0; r < R; ++r) rows[r] = in + r * weights.inputs;
  int64_t base = 0;
  for (; base + kChunk <= weights.padded; base += kChunk)
    project_chunk<R, kChunk / kLanes>(rows, weights, biased, base, x);
  if constexpr (kChunk > 16)
    for (; base < weights.padded; base += 16) project_chunk<R, 16 / kLanes>(rows, weights, biased, base, x);
}

void project(const float* in, int64_t rows, const Weights& weights, bool biased, float* x) {
  int64_t i = 0;
  for (; i + kBlock <= rows; i += kBlock)
    project_rows<kBlock>(in + i * weights.inputs, weights, biased, x + i * 3 * weights.padded);
  for (; i < rows; ++i) project_rows<1>(in + i * weights.inputs, weights, biased, x + i * 3 * weights.padded);
}

void arrange(const float* projected, int64_t rows, const Weights& weights, float* x) {
  const int64_t hidden = weights.hidden;
  for (int64_t i = 0; i < rows; ++i, projected += 3 * hidden)
    for (int64_t base = 0; base < weights.padded; base += kChunk) {
      const int64_t units = weights.padded - base < kChunk ? weights.padded - base : kChunk;
      for (int gate = 0; gate < 3; ++gate, x += units) {
        const float scale = gate == 2 ? weights.tanh_scale : weights.sigmoid_scale;
        const float* from = projected + gate * hidden + base;
        for (int64_t j = 0; j < units; ++j) x[j] = base + j < hidden ? from[j] * scale : 0.0f;
      }
    }
}

// Scores of R queries and NV vectors of steps.
template <int R, int NV>
void score(const float* transposed, int64_t stride, int64_t hidden, const float* const* queries, float* a) {
  V acc[R][NV];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < NV; ++v) acc[r][v] = all(0.0f);
  for (int64_t k = 0; k < hidden; ++k, transposed += stride) {
    V s[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) s[v] = load(transposed + v * kLanes);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const V q = all(queries[r][k]);
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[r][v] = fma(q, s[v], acc[r][v]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < NV; ++v) store(a + r * stride + v * kLanes, acc[r][v]);
}

// Of R rows in step (DIEN eq. 9). The stride is a multiple of 16; what lies past the steps is left at nearly zero.
template <int R>
void softmax(float* a, int64_t steps, int64_t stride) {
  constexpr float log2e = 1.44269504f;
  V shift[R], total[R];
  for (int r = 0; r < R; ++r) {
    float* own = a + r * stride;
    for (int64_t t = steps; t < stride; ++t) own[t] = -__builtin_inff();
    V most_of = load(own);
    for (int64_t t = kLanes; t < stride; t += kLanes) most_of = most(load(own + t), most_of);
    shift[r] = all(largest(most_of));
    total[r] = all(0.0f);
  }
  for (int64_t t = 0; t < stride; t += kLanes) {
    V e[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) e[r] = (load(a + r * stride + t) - shift[r]) * all(log2e);
    exp2<false>(e);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      store(a + r * stride + t, e[r]);
      total[r] = total[r] + e[r];
    }
  }
  for (int r = 0; r < R; ++r) {
    const V share = all(1.0f / sum(total[r]));
    for (int64_t t = 0; t < stride; t += kLanes) store(a + r * stride + t, load(a + r * stride + t) * share);
  }
}

template <int R>
void attend_rows(const float* transposed, int64_t steps, int64_t stride, int64_t hidden, const float* const* queries,
                 float* a) {
  constexpr int wide = kLanes == 4 ? 2 : 4;
  int64_t t = 0;
  for (; t + wide * kLanes <= stride; t += wide * kLanes)
    score<R, wide>(transposed + t, stride, hidden, queries, a + t);
  for (; t + 2 * kLanes <= stride; t += 2 * kLanes) score<R, 2>(transposed + t, stride, hidden, queries, a + t);
  for (; t < stride; t += kLanes) score<R, 1>(transposed + t, stride, hidden, queries, a + t);
  softmax<R>(a, steps, stride);
}

void attend(const float* transposed, int64_t steps, int64_t stride, int64_t hidden, const float* const* queries,
            int64_t count, float* a) {
  int64_t i = 0;
  for (; i + kBlock <= count; i += kBlock)
    attend_rows<kBlock>(transposed, steps, stride, hidden, queries + i, a + i * stride);
  for (; i < count; ++i) attend_rows<1>(transposed, steps, stride, hidden, queries + i, a + i * stride);
}

int64_t multiply_add(int64_t rounds) {
  constexpr int chains = kLanes == 16 ? 24 : 12;
  V acc[chains];
  for (int i = 0; i < chains; ++i) acc[i] = all(1.0f);
  V factor = all(0.5f), term = all(0.25f);
  for (int64_t n = 0; n < rounds; ++n) {
#pragma GCC unroll 24
    for (int i = 0; i < chains; ++i) acc[i] = fma(acc[i], factor, term);
  }
  V total = acc[0];
  for (int i = 1; i < chains; ++i) total = total + acc[i];
  volatile float kept = sum(total);  // or the loop would be left out
  (void)kept;
  return rounds * chains * kLanes;
}

}  // namespace
