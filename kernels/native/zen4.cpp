// AVX-512 on cores that add in other units than they multiply in (AMD since Zen 4).
//
// Product. By Winograd's identity of 1968, x1 y1 + x2 y2 = (x1 + y2) (x2 + y1) - x1 x2 - y1 y2: one multiplication and two
// additions for two multiplications. x1 x2 is one number for a row and all its columns, y1 y2 one for a column and all rows
// and steps. Were all products taken so, the adders would be the bound: of 16 pairs of inputs kPaired has 10, and
// multipliers and adders are about equally busy. The identity is as exact as its terms are equal in size: states are kept
// times a power of two and the weights divided by it, so that both have about the root of the largest weight. Where that
// is very large, plain AVX-512 takes over.
//
// Activations. exp2 by a table of 32 and a polynomial of degree 2, with more additions and fewer multiplications than that
// of degree 5; real divisions, which cost no more here than two multiplications.
#define AUGUR_ISA_AVX512
#include "simd.h"

namespace {

using augur::Cell;
using augur::Row;
using augur::Weights;

constexpr int kGroup = 16;  // rows walked together
constexpr int kSlots = 16;  // pairs of inputs in a block of 32: slot j has the inputs j and 16 + j

// Whether a slot is taken by the identity. Every third is multiplied out, and so is the last, as add_block() has it.
constexpr bool paired(int slot) { return slot % 3 != 2 && slot < 15; }
constexpr uint16_t paired_slots() {
  unsigned mask = 0;
  for (int slot = 0; slot < kSlots; ++slot) mask |= paired(slot) ? 1u << slot : 0u;
  return static_cast<uint16_t>(mask);
}
constexpr uint16_t kPaired = paired_slots();

// A broadcast by the load unit: that of a float takes a vector unit's time besides.
inline V broadcast(const float* p) {
  V x;
  __asm__("vpbroadcastd %1, %0" : "=v"(x) : "m"(*p));
  return x;
}

// Where the parts of some columns begin: those of one vector of hidden units.
struct Columns {
  int64_t vector, update, reset, candidate;  // in a row of x, and in the bias
  Columns(int64_t padded, int64_t vector_) : vector(vector_) {
    const int64_t units = vector / 2 * 32 + 32 <= padded ? 32 : 16;  // of a chunk of kAvx512's layout
    update = vector / 2 * 96 + vector % 2 * kLanes;
    reset = update + units;
    candidate = reset + units;
  }
};

// R rows at one step, their states end to end.
template <int R>
struct Rows {
  const float *x[R], *a[R];
  const float *states, *excess;  // excess[r]: sum of x1 x2 of a row's states
  float *next, *next_excess;
  int64_t hidden, padded;
};

// sums[r][gate] of R rows for a vector of hidden units.
template <int R>
struct Sums {
  alignas(64) float values[R][3][kLanes];
};

// 2^x of N vectors in step: n / 32 + f with n whole; 2^(n / 32) by the table, 2^f = 1 + f (c1 + c2 f), off by 5e-8 at most.
template <int N>
inline __attribute__((always_inline)) void exp2_by_table(V (&x)[N]) {
  const V magic = all(393216.0f);  // 1.5 * 2^18: what is added to it is rounded to 1/32, in its lowest bits
  V t[N];
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) t[i] = x[i] + magic;
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) x[i] = x[i] - (t[i] - magic);
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) {
    const __m512i bits = _mm512_castps_si512(t[i]);
    const V power = _mm512_permutex2var_ps(load(augur::kPowersOf2), bits, load(augur::kPowersOf2 + kLanes));
    t[i] = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(power), _mm512_slli_epi32(bits, 18)));
  }
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) x[i] = x[i] * fma(all(0.240226507f), x[i], all(0.693157345f));
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) x[i] = fma(x[i], t[i], t[i]);
}

// Where exp2_by_table works, and beyond which the functions are at their limits; keeps what is no number.
inline V bounded(float above, V x) { return most(all(-126.0f), least(all(above), x)); }

// The new states' sum of x1 x2. Four rows share the additions across lanes; for fewer, what is stored after them is
// written over or is no row.
template <int R>
inline __attribute__((always_inline)) void add_excess(const Rows<R>& rows, int64_t vector) {
  V p[4];
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    const float* own = rows.next + (r < R ? r : 0) * rows.padded + vector * kLanes;
    p[r] = r < R ? _mm512_maskz_mul_ps(kPaired, load(own), load(own + kLanes)) : all(0.0f);
  }
  const V first = _mm512_unpacklo_ps(p[0], p[1]) + _mm512_unpackhi_ps(p[0], p[1]);
  const V second = _mm512_unpacklo_ps(p[2], p[3]) + _mm512_unpackhi_ps(p[2], p[3]);
  const __m512d one = _mm512_castps_pd(first), other = _mm512_castps_pd(second);
  const V four = _mm512_castpd_ps(_mm512_unpacklo_pd(one, other)) + _mm512_castpd_ps(_mm512_unpackhi_pd(one, other));
  const __m256 eight = _mm512_castps512_ps256(four) + _mm512_extractf32x8_ps(four, 1);
  __m128 excess = _mm256_castps256_ps128(eight) + _mm256_extractf128_ps(eight, 1);
  if (vector) excess = excess + _mm_loadu_ps(rows.next_excess);
  _mm_storeu_ps(rows.next_excess, excess);
}

// The new states of R rows for NV vectors of hidden units, by the arithmetic of activations.h with states times
// weights.state_scale. Both gates of a vector go through exp in step, then all candidates.
template <Cell C, int R, int NV>
inline __attribute__((always_inline)) void activate(const Rows<R>& rows, const Sums<R>* sums, const Weights& weights, int64_t vector) {
  constexpr bool update = C != Cell::agru;
  constexpr int gates = update ? 2 : 1;
  V y[NV * R], gate[NV][gates * R];
  const auto state = [&](int r, int v) { return load(rows.states + r * rows.padded + (vector + v) * kLanes); };
  const auto input = [&](int r, int v) {
    const int64_t column = Columns(rows.padded, vector + v).candidate;
    const V own = load(rows.x[r] + column);
    if constexpr (C == Cell::aigru)
      return fma(broadcast(rows.a[r]), own, load(weights.bias + column));
    else
      return own;
  };
#pragma GCC unroll 2
  for (int v = 0; v < NV; ++v) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      gate[v][r] = bounded(60, load(sums[v].values[r][1]));
      if constexpr (update) gate[v][R + r] = bounded(37, load(sums[v].values[r][0]));
    }
    exp2_by_table(gate[v]);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) y[v * R + r] = load(sums[v].values[r][2]) / (all(1.0f) + gate[v][r]);
  }
#pragma GCC unroll 2
  for (int v = 0; v < NV; ++v)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) y[v * R + r] = bounded(26, y[v * R + r] + input(r, v));
  exp2_by_table(y);
  const V scale = all(weights.state_scale);
#pragma GCC unroll 2
  for (int v = 0; v < NV; ++v)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      V below = all(1.0f) + y[v * R + r];
      V above = negated_fma(state(r, v), below, fma(y[v * R + r], scale, -scale));
      if constexpr (C == Cell::augru || C == Cell::agru) above = broadcast(rows.a[r]) * above;
      if constexpr (update) below = fma(below, gate[v][R + r], below);
      store(rows.next + r * rows.padded + (vector + v) * kLanes, state(r, v) + above / below);
    }
  if constexpr (NV == 2) add_excess(rows, vector);
}

// Adds a slot's two inputs times their weights; the update gate is left out where no cell needs it.
template <bool Paired, int R, bool Update>
inline __attribute__((always_inline)) void add_slot(const float* states, int64_t padded, const float* weights, V (&acc)[R][3]) {
  constexpr int first = Update ? 0 : 1;
  V w1[3], w2[3];
#pragma GCC unroll 3
  for (int g = first; g < 3; ++g) w1[g] = load(weights + g * kLanes);
#pragma GCC unroll 3
  for (int g = first; g < 3; ++g) w2[g] = load(weights + (3 + g) * kLanes);
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    const V x1 = broadcast(states + r * padded), x2 = broadcast(states + r * padded + kSlots);
#pragma GCC unroll 3
    for (int g = first; g < 3; ++g)
      if constexpr (Paired)
        acc[r][g] = fma(x1 + w2[g], x2 + w1[g], acc[r][g]);
      else
        acc[r][g] = fma(x2, w2[g], fma(x1, w1[g], acc[r][g]));
  }
}

constexpr int kSlotFloats = 2 * 3 * kLanes;

// A block of 32 inputs. Unrolled any further, the loop takes one and a half times as long.
template <int R, bool Update>
inline __attribute__((always_inline)) void add_block(const float* states, int64_t padded, const float* weights, V (&acc)[R][3]) {
  int64_t slot = 0;
  for (; slot + 3 <= kSlots; slot += 3, weights += 3 * kSlotFloats) {
    add_slot<true, R, Update>(states + slot, padded, weights, acc);
    add_slot<true, R, Update>(states + slot + 1, padded, weights + kSlotFloats, acc);
    add_slot<false, R, Update>(states + slot + 2, padded, weights + 2 * kSlotFloats, acc);
  }
  add_slot<false, R, Update>(states + slot, padded, weights, acc);
}

// acc += states times weights, and what the pairs have too much: the columns' share is in the bias, the rows' is `excess`.
template <int R, bool Update>
inline __attribute__((always_inline)) void multiply(const Rows<R>& rows, const float* weights, V (&acc)[R][3]) {
  int64_t k = 0;
  for (; k + kSlots < rows.hidden; k += 2 * kSlots, weights += kSlots * kSlotFloats)
    add_block<R, Update>(rows.states + k, rows.padded, weights, acc);
  for (; k < rows.hidden; ++k, weights += 3 * kLanes)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const V x = broadcast(rows.states + r * rows.padded + k);
#pragma GCC unroll 3
      for (int g = Update ? 0 : 1; g < 3; ++g) acc[r][g] = fma(x, load(weights + g * kLanes), acc[r][g]);
    }
}

// The sums of R rows for a vector of hidden units, all inputs of the gates in them.
template <Cell C, int R>
inline __attribute__((always_inline)) void sum_up(const Rows<R>& rows, const Weights& weights, const Columns& columns, Sums<R>& sums) {
  constexpr bool update = C != Cell::agru;
  V acc[R][3];
  const auto input = [&](int r, int64_t column) {
    const V own = load(rows.x[r] + column);
    if constexpr (C == Cell::aigru)
      return fma(broadcast(rows.a[r]), own, load(weights.bias + column));
    else
      return own;
  };
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    if constexpr (update) acc[r][0] = input(r, columns.update);
    acc[r][1] = input(r, columns.reset);
    acc[r][2] = load(weights.bias_candidate + columns.vector * kLanes);
  }
  multiply<R, update>(rows, weights.pairs + columns.vector * weights.pairs_of_vector, acc);
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    const V excess = broadcast(rows.excess + r);
#pragma GCC unroll 3
    for (int g = update ? 0 : 1; g < 3; ++g) store(sums.values[r][g], acc[r][g] - excess);
  }
}

// States of a group of rows at a step.
struct Group {
  float *states, *excess;  // [16, P], [16] and room for 3 that are no rows
};

// A step of R rows from `first` on. The width that is served is known to the compiler.
template <Cell C, int R, int Width>
__attribute__((noinline)) void step_rows(const Row* rows, int64_t first, int64_t t, const Group& now, const Group& next,
                                         const Weights& weights) {
  Rows<R> own;
  own.hidden = Width ? Width : weights.hidden;
  own.padded = Width ? Width : weights.padded;
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    own.x[r] = rows[first + r].x + t * 3 * own.padded;
    own.a[r] = rows[first + r].a + t;
  }
  own.states = now.states + first * own.padded;
  own.next = next.states + first * own.padded;
  own.excess = now.excess + first;
  own.next_excess = next.excess + first;
  Sums<R> sums[2];
  const int64_t vectors = own.padded / kLanes;
  int64_t vector = 0;
  for (; vector + 2 <= vectors; vector += 2) {
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) sum_up<C, R>(own, weights, Columns(own.padded, vector + v), sums[v]);
    activate<C, R, 2>(own, sums, weights, vector);
  }
  if (vector < vectors) {
    sum_up<C, R>(own, weights, Columns(own.padded, vector), sums[0]);
    activate<C, R, 1>(own, sums, weights, vector);
  }
}

template <Cell C, int Width>
void walk_width(const Row* rows, int64_t count, const Weights& weights, bool every_state, float* scratch) {
  const int64_t padded = weights.padded, group = kGroup * (padded + 2);
  for (int64_t i = 0; i < 2 * group; ++i) scratch[i] = 0.0f;
  Group now = {scratch, scratch + kGroup * padded}, next = {scratch + group, scratch + group + kGroup * padded};
  const float unscaled = 1.0f / weights.state_scale;
  int64_t live = count;
  for (int64_t t = 0; live > 0; ++t) {
    while (live > 0 && rows[live - 1].length <= t) --live;
    int64_t r = 0;
    for (; r + 4 <= live; r += 4) step_rows<C, 4, Width>(rows, r, t, now, next, weights);
    for (; r + 2 <= live; r += 2) step_rows<C, 2, Width>(rows, r, t, now, next, weights);
    if (r < live) step_rows<C, 1, Width>(rows, r, t, now, next, weights);
    for (r = 0; r < live; ++r) {
      float* out = every_state ? rows[r].out + t * weights.hidden : rows[r].out;
      if (every_state || rows[r].length == t + 1)
        for (int64_t j = 0; j < weights.hidden; ++j) out[j] = next.states[r * padded + j] * unscaled;
    }
    const Group swapped = now;
    now = next;
    next = swapped;
  }
}

template <Cell C>
void walk_cell(const Row* rows, int64_t count, const Weights& weights, bool every_state, float* scratch) {
  if (weights.hidden == 32) return walk_width<C, 32>(rows, count, weights, every_state, scratch);
  walk_width<C, 0>(rows, count, weights, every_state, scratch);
}

void walk(const Row* rows, int64_t count, const Weights& weights, Cell cell, bool fast, bool every_state, float* scratch) {
  if (fast) return augur::walk_words(rows, count, weights, cell, every_state, scratch);
  if (!weights.pairs) return augur::kAvx512.walk(rows, count, weights, cell, fast, every_state, scratch);
  switch (cell) {
    case Cell::gru: return walk_cell<Cell::gru>(rows, count, weights, every_state, scratch);
    case Cell::augru: return walk_cell<Cell::augru>(rows, count, weights, every_state, scratch);
    case Cell::agru: return walk_cell<Cell::agru>(rows, count, weights, every_state, scratch);
    case Cell::aigru: return walk_cell<Cell::aigru>(rows, count, weights, every_state, scratch);
  }
}

// x of a projection that was made elsewhere, with the shift that a projection made here has from the bias.
void arrange(const float* projected, int64_t rows, const Weights& weights, float* x) {
  augur::kAvx512.arrange(projected, rows, weights, x);
  if (!weights.pairs) return;
  for (int64_t i = 0; i < rows; ++i, x += 3 * weights.padded)
    for (int64_t base = 0; base < weights.padded; base += 32) {
      const int64_t units = base + 32 <= weights.padded ? 32 : 16;
      for (int64_t j = 3 * base; j < 3 * base + 2 * units; ++j) x[j] += weights.pair_shift[j];
    }
}

size_t scratch_floats(int64_t padded) {
  const size_t words = augur::words_scratch_floats(padded), vectors = 2 * kGroup * (padded + 2);
  return words > vectors ? words : vectors;
}

}  // namespace

namespace augur {

Kernels with_separate_adders() {
  Kernels kernels = with_word_products();
  kernels.name = "zen4";
  kernels.paired = kPaired;
  kernels.arrange = arrange;
  kernels.walk = walk;
  kernels.scratch_floats = scratch_floats;
  return kernels;
}

}  // namespace augur
