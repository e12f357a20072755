// The fast form with dot products of 16-bit integers (AVX-512 VNNI): 32 multiply-adds in an instruction.
//
// A column of weights is scaled to integers whose magnitudes sum up to 2^16 at most, and states to 2^15, so that no sum
// leaves 32 bits. States stay float32 between steps; what is multiplied is off by 2^-16.
#define AUGUR_ISA_AVX512
#include "activations.h"

namespace {

using augur::Row;

constexpr int kGroup = 16;  // rows walked together
constexpr int kSlots = 16;  // pairs of inputs in a block of 32, in the order that saturate() leaves them in
constexpr float kWord = 32767.0f;

// A broadcast by the load unit; see zen4.cpp.
inline __m512i broadcast(const int32_t* p) {
  __m512i x;
  __asm__("vpbroadcastd %1, %0" : "=v"(x) : "m"(*p));
  return x;
}

// Adds the products of pairs. GCC 12 copies the sum before the instruction that it has for this.
inline void add_products(__m512i& sum, __m512i a, __m512i b) { __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b)); }

// R rows at one step.
template <int R>
struct Rows {
  const float* x[R];
  float a[R];
  float* states[R];
  const int32_t* words;  // [R, words_of_row]: pairs of states
  int32_t* next_words;
  int64_t words_of_row;
};

// Sums of states times weights, with the inputs of the gates added and the bias of the candidate.
template <Cell C, int R, int NV>
inline __attribute__((always_inline)) void sum_up(const Rows<R>& rows, const Weights& weights, int64_t base, float* sums) {
  constexpr int first = C == Cell::agru ? NV : 0, columns = 3 * NV;
  __m512i acc[R][columns];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 6
    for (int g = first; g < columns; ++g) acc[r][g] = _mm512_setzero_si512();
  const int32_t* w = weights.words + 3 * base * rows.words_of_row;
  for (int64_t slot = 0; slot < rows.words_of_row; ++slot, w += columns * kLanes) {
    __m512i own[columns];
#pragma GCC unroll 6
    for (int g = first; g < columns; ++g) own[g] = _mm512_load_si512(w + g * kLanes);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const __m512i x = broadcast(rows.words + r * rows.words_of_row + slot);
#pragma GCC unroll 6
      for (int g = first; g < columns; ++g) add_products(acc[r][g], x, own[g]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 6
    for (int g = first; g < columns; ++g) {
      const int64_t column = 3 * base + g * kLanes;
      V term = g < 2 * NV ? load(rows.x[r] + column) : load(weights.bias_candidate + base + (g - 2 * NV) * kLanes);
      if constexpr (C == Cell::aigru)
        if (g < 2 * NV) term = fma(all(rows.a[r]), term, load(weights.bias + column));
      store(sums + (r * columns + g) * kLanes, fma(_mm512_cvtepi32_ps(acc[r][g]), load(weights.word_scales + column), term));
    }
}

// The pairs of two vectors of states (or of one and zeros).
template <int NV>
inline __m512i saturate(const float* states) {
  const auto rounded = [states](int v) { return _mm512_cvtps_epi32(load(states + v * kLanes) * all(kWord)); };
  if constexpr (NV == 2)
    return _mm512_packs_epi32(rounded(0), rounded(1));
  else
    return _mm512_packs_epi32(rounded(0), _mm512_setzero_si512());
}

template <Cell C, int R, int NV>
inline __attribute__((always_inline)) void step_chunk(const Rows<R>& rows, const Weights& weights, int64_t base) {
  constexpr int units = NV * kLanes;
  alignas(64) float sums[R * 3 * units];
  sum_up<C, R, NV>(rows, weights, base, sums);
  activate<C, true, false, R, NV, Sums<3 * units, kLanes, units>>(sums, rows.x, rows.a, rows.states, rows.states, weights, base);
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
    _mm512_store_si512(rows.next_words + r * rows.words_of_row + base / 2, saturate<NV>(rows.states[r] + base));
}

template <Cell C, int R, int Width>
__attribute__((noinline)) void step_rows(const Row* rows, int64_t first, int64_t t, float* states, const int32_t* words,
                                         int32_t* next_words, const Weights& weights) {
  const int64_t padded = Width ? Width : weights.padded;
  Rows<R> own;
  own.words_of_row = (padded + 31) / 32 * kSlots;
  own.words = words + first * own.words_of_row;
  own.next_words = next_words + first * own.words_of_row;
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    own.x[r] = rows[first + r].x + t * 3 * padded;
    own.a[r] = C == Cell::gru ? 1.0f : rows[first + r].a[t];
    own.states[r] = states + (first + r) * padded;
  }
  int64_t base = 0;
  for (; base + 32 <= padded; base += 32) step_chunk<C, R, 2>(own, weights, base);
  if (base < padded) step_chunk<C, R, 1>(own, weights, base);
}

int64_t words_of_group(int64_t padded) { return kGroup * ((padded + 31) / 32 * kSlots); }

template <Cell C, int Width>
void walk_width(const Row* rows, int64_t count, const Weights& weights, bool every_state, float* scratch) {
  const int64_t padded = weights.padded, size = words_of_group(padded);
  float* states = scratch;
  auto *words = reinterpret_cast<int32_t*>(scratch + kGroup * padded), *next = words + size;
  __builtin_memset(scratch, 0, (kGroup * padded + size) * sizeof(float));
  int64_t live = count;
  for (int64_t t = 0; live > 0; ++t) {
    while (live > 0 && rows[live - 1].length <= t) --live;
    int64_t r = 0;
    for (; r + 4 <= live; r += 4) step_rows<C, 4, Width>(rows, r, t, states, words, next, weights);
    for (; r + 2 <= live; r += 2) step_rows<C, 2, Width>(rows, r, t, states, words, next, weights);
    if (r < live) step_rows<C, 1, Width>(rows, r, t, states, words, next, weights);
    for (r = 0; r < live; ++r) {
      float* out = every_state ? rows[r].out + t * weights.hidden : rows[r].out;
      if (every_state || rows[r].length == t + 1)
        __builtin_memcpy(out, states + r * padded, weights.hidden * sizeof(float));
    }
    auto* swapped = words;
    words = next;
    next = swapped;
  }
}

template <Cell C>
void walk_cell(const Row* rows, int64_t count, const Weights& weights, bool every_state, float* scratch) {
  if (weights.padded == 32) return walk_width<C, 32>(rows, count, weights, every_state, scratch);
  walk_width<C, 0>(rows, count, weights, every_state, scratch);
}

}  // namespace

namespace augur {

void walk_words(const Row* rows, int64_t count, const Weights& weights, Cell cell, bool every_state, float* scratch) {
  switch (cell) {
    case Cell::gru: return walk_cell<Cell::gru>(rows, count, weights, every_state, scratch);
    case Cell::augru: return walk_cell<Cell::augru>(rows, count, weights, every_state, scratch);
    case Cell::agru: return walk_cell<Cell::agru>(rows, count, weights, every_state, scratch);
    case Cell::aigru: return walk_cell<Cell::aigru>(rows, count, weights, every_state, scratch);
  }
}

size_t words_scratch_floats(int64_t padded) { return kGroup * padded + 2 * words_of_group(padded); }

namespace {

void walk(const Row* rows, int64_t count, const Weights& weights, Cell cell, bool fast, bool every_state, float* scratch) {
  if (fast) return walk_words(rows, count, weights, cell, every_state, scratch);
  kAvx512.walk(rows, count, weights, cell, fast, every_state, scratch);
}

size_t scratch_floats(int64_t padded) {
  const size_t words = words_scratch_floats(padded), vectors = kAvx512.scratch_floats(padded);
  return words > vectors ? words : vectors;
}

}  // namespace

Kernels with_word_products() {
  Kernels kernels = kAvx512;
  kernels.name = "avx512vnni";
  kernels.words = true;
  kernels.walk = walk;
  kernels.scratch_floats = scratch_floats;
  return kernels;
}

}  // namespace augur
