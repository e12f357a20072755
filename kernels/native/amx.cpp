// Evolution with the matrix unit (AMX): the product of state and weights on tiles of bfloat16.
//
// A float32 is the sum of three bfloat16 (8 bits of significand each), so a product of float32 is, to its last bit or so,
// h1 w1 + (h1 w2 + h2 w1) + (h1 w3 + h2 w2 + h3 w1), summed in float32: six products on a unit sixteen times as fast. The
// fast form keeps two parts and three products, which are off by 2^-16.
//
// Two blocks of up to 16 rows take turns: while the matrix unit works on one, the vectors finish the other. Their
// instructions are interleaved tile by tile, because a core looks ahead by no more than some 500 instructions.
//
// A tile of states holds 16 rows of 16 pairs; pair j of block k is (h[32k + j], h[32k + 16 + j]), which takes two
// instructions to put together; the weights are laid out to match (PackedWeights::pack_tiles).
#define AUGUR_ISA_AVX512
#include "activations.h"

namespace {

using augur::Row;

constexpr int kTileRows = 16;
constexpr int kTileFloats = 256;
template <bool Fast>
constexpr int kParts = Fast ? 2 : 3;  // of bfloat16 in a number
constexpr int kTogether = 4;  // rows that go through the activations in step

// Tile registers; the intrinsics want literals.
#define SUM 0
#define STATE_1 1
#define STATE_2 2
#define STATE_3 3
#define WEIGHT_1 4
#define WEIGHT_2 5
#define WEIGHT_3 6

// Compilers do not know that tile instructions read memory: a barrier stands before those that read what was just
// written.
inline void written() { __asm__ volatile("" ::: "memory"); }

struct TileShapes {  // the memory form of a tile configuration
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};
};

void shape_tiles(int64_t rows) {
  TileShapes shapes;
  for (int i = 0; i <= WEIGHT_3; ++i) {
    shapes.bytes[i] = 64;
    shapes.rows[i] = static_cast<uint8_t>(i < WEIGHT_1 ? rows : kTileRows);
  }
  __asm__ volatile("" : : "r"(&shapes) : "memory");
  _tile_loadconfig(&shapes);
}

struct Block {
  const Row* rows;
  int64_t live;     // rows that still walk
  float* sums;      // [3 * vectors][16][16]: states times weights, gate by gate for each vector of hidden units
  float* states;    // [16, P]
  uint32_t* parts;  // [pairs][parts][16][16]: the states in pairs of bfloat16
};

template <bool Fast>
inline void load_states(const uint32_t* parts) {
  _tile_loadd(STATE_1, parts, 64);
  _tile_loadd(STATE_2, parts + kTileFloats, 64);
  if constexpr (!Fast) _tile_loadd(STATE_3, parts + 2 * kTileFloats, 64);
}

// Adds a tile of states times a tile of weights, smallest terms first.
template <bool Fast>
inline void add_products(const uint16_t* weights) {
  constexpr int weight_tile = 2 * kTileFloats;
  _tile_loadd(WEIGHT_1, weights, 64);
  _tile_loadd(WEIGHT_2, weights + weight_tile, 64);
  if constexpr (!Fast) {
    _tile_loadd(WEIGHT_3, weights + 2 * weight_tile, 64);
    _tile_dpbf16ps(SUM, STATE_1, WEIGHT_3);
    _tile_dpbf16ps(SUM, STATE_2, WEIGHT_2);
    _tile_dpbf16ps(SUM, STATE_3, WEIGHT_1);
  }
  _tile_dpbf16ps(SUM, STATE_1, WEIGHT_2);
  _tile_dpbf16ps(SUM, STATE_2, WEIGHT_1);
  _tile_dpbf16ps(SUM, STATE_1, WEIGHT_1);
}

// Tile n of a block's sums, over `depth` pairs of vectors of its states; those of a single pair are loaded already.
template <bool Fast>
inline void multiply_tile(const Block& block, const Weights& weights, int n, int depth) {
  constexpr int weight_tile = 2 * kTileFloats;
  written();
  if (n % 3 == 2)
    _tile_loadd(SUM, weights.bias_candidate + n / 3 * 16, 0);  // stride 0: the same for all rows
  else
    _tile_zero(SUM);
  const uint16_t* tile = weights.tiles + static_cast<int64_t>(n) * depth * kParts<Fast> * weight_tile;
  for (int k = 0; k < depth; ++k) {
    if (depth > 1) load_states<Fast>(block.parts + k * kParts<Fast> * kTileFloats);
    add_products<Fast>(tile + k * kParts<Fast> * weight_tile);
  }
  _tile_stored(SUM, block.sums + n * kTileFloats, 64);
  written();
}

// The upper halves of two vectors of float32 as pairs: low from `a`, high from `b`.
inline __m512i paired(V a, V b) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  const __m512i low = _mm512_srli_epi32(_mm512_castps_si512(a), 16);
  return _mm512_ternarylogic_epi32(low, _mm512_castps_si512(b), upper, 0xf8);  // low | (b & upper)
}

inline V without_upper_half(V x) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  return x - _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), upper));
}

// Step t of R rows from `r` on, for NV vectors of hidden units: two, or one at the end of an odd number.
template <Cell C, bool Fast, int R, int NV>
__attribute__((noinline)) void finish(const Block& block, const Weights& weights, int64_t r, int pair, int64_t t) {
  const float *x[R], *from[R];
  float *to[R], a[R];
#pragma GCC unroll 4
  for (int i = 0; i < R; ++i) {
    const Row& row = block.rows[r + i];
    x[i] = row.x + t * 3 * weights.padded;
    a[i] = row.a[t];
    from[i] = to[i] = block.states + (r + i) * weights.padded;
  }
  activate<C, Fast, true, R, NV, Sums<16, 3 * kTileFloats, kTileFloats>>(block.sums + pair * 6 * kTileFloats + r * 16, x,
                                                                         a, from, to, weights, pair * 32);
  uint32_t* parts = block.parts + pair * kParts<Fast> * kTileFloats + r * 16;
#pragma GCC unroll 4
  for (int i = 0; i < R; ++i) {
    V low = load(to[i] + pair * 32), high = NV == 2 ? load(to[i] + pair * 32 + 16) : all(0.0f);
#pragma GCC unroll 3
    for (int part = 0; part < kParts<Fast>; ++part) {
      _mm512_storeu_si512(parts + part * kTileFloats + i * 16, paired(low, high));
      low = without_upper_half(low);
      high = without_upper_half(high);
    }
  }
}

template <Cell C, bool Fast, int NV>
inline void finish_rows(const Block& block, const Weights& weights, int64_t r, int pair, int64_t t) {
  const int64_t end = block.live - r < kTogether ? block.live : r + kTogether;
  if (end - r == kTogether) return finish<C, Fast, kTogether, NV>(block, weights, r, pair, t);
  for (; r + 2 <= end; r += 2) finish<C, Fast, 2, NV>(block, weights, r, pair, t);
  if (r < end) finish<C, Fast, 1, NV>(block, weights, r, pair, t);
}

// Multiplies the states of one block, if any of it walks, and finishes step t of the other.
template <Cell C, bool Fast>
inline __attribute__((always_inline)) void half_step(const Block& multiplied, Block& finished, const Weights& weights,
                                                     int vectors, int64_t t) {
  const int pairs = (vectors + 1) / 2, tiles = 3 * vectors;
  const bool multiply = multiplied.live > 0;
  if (multiply && pairs == 1) {
    written();
    load_states<Fast>(multiplied.parts);
  }
  const int64_t units = (finished.live + kTogether - 1) / kTogether * pairs;
  int64_t r = 0;
  int pair = 0;
  for (int n = 0, done = 0; n < tiles; ++n) {
    if (multiply) multiply_tile<Fast>(multiplied, weights, n, pairs);
    for (; done < units * (n + 1) / tiles; ++done) {
      if (2 * pair + 1 < vectors)
        finish_rows<C, Fast, 2>(finished, weights, r, pair, t);
      else
        finish_rows<C, Fast, 1>(finished, weights, r, pair, t);
      if (++pair == pairs) pair = 0, r += kTogether;
    }
  }
  for (; finished.live > 0 && finished.rows[finished.live - 1].length == t + 1; --finished.live) {
    const int64_t last = finished.live - 1;
    __builtin_memcpy(finished.rows[last].out, finished.states + last * weights.padded, weights.hidden * sizeof(float));
  }
}

template <Cell C, bool Fast>
inline __attribute__((always_inline)) void walk_blocks(Block& first, Block& second, const Weights& weights, int vectors) {
  const Block none = {nullptr, 0, nullptr, nullptr, nullptr};
  Block idle = none;
  half_step<C, Fast>(first, idle, weights, vectors, 0);
  for (int64_t t = 0; first.live > 0; ++t) {
    half_step<C, Fast>(second, first, weights, vectors, t);
    half_step<C, Fast>(first, second, weights, vectors, t);
  }
}

int64_t block_floats(int64_t padded) {
  const int64_t vectors = padded / 16;
  return 3 * vectors * kTileFloats + kTileRows * padded + (vectors + 1) / 2 * kParts<false> * kTileFloats;
}

template <Cell C, bool Fast>
void walk_tiles(const Row* rows, int64_t count, const Weights& weights, float* scratch) {
  const int vectors = static_cast<int>(weights.padded / 16);
  const int64_t block = block_floats(weights.padded), first = (count + 1) / 2;
  __builtin_memset(scratch, 0, 2 * block * sizeof(float));
  const auto block_at = [&](const Row* own, int64_t live, float* memory) {
    float* states = memory + 3 * vectors * kTileFloats;
    return Block{own, live, memory, states, reinterpret_cast<uint32_t*>(states + kTileRows * weights.padded)};
  };
  Block one = block_at(rows, first, scratch), other = block_at(rows + first, count - first, scratch + block);
  shape_tiles(first);
  if (vectors == 2)  // the size that is served: the compiler unrolls it
    walk_blocks<C, Fast>(one, other, weights, 2);
  else
    walk_blocks<C, Fast>(one, other, weights, vectors);
  _tile_release();
}

template <bool Fast>
void walk_evolution(const Row* rows, int64_t count, const Weights& weights, Cell cell, float* scratch) {
  switch (cell) {
    case Cell::augru: return walk_tiles<Cell::augru, Fast>(rows, count, weights, scratch);
    case Cell::agru: return walk_tiles<Cell::agru, Fast>(rows, count, weights, scratch);
    case Cell::aigru: return walk_tiles<Cell::aigru, Fast>(rows, count, weights, scratch);
    case Cell::gru: return;
  }
}

void walk(const Row* rows, int64_t count, const Weights& weights, Cell cell, bool fast, bool every_state,
          float* scratch) {
  // Users are few and their rows long: tiles would be nearly empty. Six products pay where the weights stay close.
  if (cell != Cell::gru && fast) return walk_evolution<true>(rows, count, weights, cell, scratch);
  if (cell != Cell::gru && weights.padded == augur::kExactTileWidth)
    return walk_evolution<false>(rows, count, weights, cell, scratch);
  const int64_t most = augur::kAvx512.rows;
  for (; count > most; rows += most, count -= most)
    augur::kAvx512.walk(rows, most, weights, cell, fast, every_state, scratch);
  augur::kAvx512.walk(rows, count, weights, cell, fast, every_state, scratch);
}

size_t scratch_floats(int64_t padded) {
  const size_t tiles = 2 * block_floats(padded), vectors = augur::kAvx512.scratch_floats(padded);
  return tiles > vectors ? tiles : vectors;
}

}  // namespace

namespace augur {

Kernels with_matrix_unit() {
  Kernels kernels = kAvx512;
  kernels.name = "amx";
  kernels.rows = 2 * kTileRows;
  kernels.parts[false] = kParts<false>;
  kernels.parts[true] = kParts<true>;
  kernels.walk = walk;
  kernels.scratch_floats = scratch_floats;
  return kernels;
}

}  // namespace augur
