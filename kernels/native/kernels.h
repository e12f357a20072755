// What the code of one instruction set offers to the planning in dispatch.cpp, and the layouts they share.
//
// H hidden, P hidden padded to a multiple of 16, I inputs, T steps.
#pragma once

#include <cstddef>
#include <cstdint>

namespace augur {

enum class Cell { gru, augru, agru, aigru };

// Weights of one layer as the kernels read them. Columns are cut into chunks of hidden units (the last may be shorter);
// in a chunk come its units' update gate, reset gate, candidate. They are scaled so that the activations need no further
// multiplication: sigmoid(z) and tanh(z) take z * sigmoid_scale and z * tanh_scale of the instruction set.
struct Weights {
  int64_t inputs, hidden, padded;
  const float* input;           // [chunk][I][3 * units]
  const float* recurrent;       // [chunk][H][3 * units]
  const float* bias;            // [3P] in the order of columns
  const float* bias_candidate;  // [P]
  const uint16_t* tiles;        // recurrent in parts of bfloat16, for matrix units; see amx.cpp
  // The recurrent weights in pairs of inputs; see zen4.cpp. Their shift is in the bias of the update and reset gate and in
  // bias_candidate.
  const float* pairs;       // [P / 16][pairs_of_vector]
  int64_t pairs_of_vector;
  const float* pair_shift;  // [3P] in the order of columns
  float state_scale;
  // The recurrent weights as pairs of 16-bit integers, and what their columns are to be multiplied by; see vnni.cpp.
  const int32_t* words;      // [chunk][slots][3 * units]
  const float* word_scales;  // [3P] in the order of columns
  float sigmoid_scale, tanh_scale;
};

// One sequence to walk: a candidate over its user's steps, or a user over its own.
struct Row {
  const float* x;   // [T, 3P]: the input projection of the steps
  const float* a;   // [T] attention (evolution alone)
  int64_t length;   // T
  float* out;       // [H], or [T, H] when every state is asked for
};

// A layer of a head as head.h reads it, all padded to a multiple of 16 columns with zeros.
struct HeadLayer {
  int64_t inputs, outputs, padded;
  const float* weight;  // [panel of 16 columns][inputs][16]
  const float *bias, *alpha, *rest;  // [padded]; rest is 1 - alpha
  const float *scale, *shift;        // [padded]: s * scale + shift is -log2 e * (s - mean) * scale of the contract
};

struct HeadView {
  int64_t widest;           // of the layers, padded
  int64_t count;
  const HeadLayer* layers;
  const float* output;      // [padded of the last layer]
  float output_bias;
  bool dice;                // else PReLU
};

// C candidates, I items, R requests, E width of an embedding, H hidden, W width of the first layer, which has E + H inputs.
struct HeadInputs {
  const float *items, *embeddings;    // [I, W], [I, E]
  const float *requests, *factors;    // [R, W], [R, E]
  const float* final;                 // [C, H]
  const int64_t *item_of, *request_of;  // [C]
  int64_t item_rows, request_rows, count, crossed;  // I, R, C, E
};

// What a request's terms are made of; see fused.h for the names.
struct PooledInputs {
  const float *embeddings, *action_embeddings;  // [I, E], [A, D] or null
  const float* of_pooled;                       // [E + D, W]
  const float* side_table;                      // [S, W]
  const int64_t *behaviors, *actions, *side;    // [N], [N], [R, K]
  int64_t embedding, action_embedding, width, side_features;
};

// Weights of a scan for training, in panels of 16 columns; P3 is 3H padded to 16.
struct ScanWeights {
  int64_t hidden, padded, padded_gates;  // H, P, P3
  const float* recurrent;       // [H, 3H] in panels: gates u, r, c
  const float* back;            // the same transposed, [3H, H]
  const float* bias_candidate;  // [H], or null for none
};

// One step of a scan over B rows, of which those in `rows` are alive. Past [B] everything is as the step has it.
struct ScanStep {
  const int64_t* rows;     // [count]
  int64_t count;
  const float* projected;  // [B, 3H]
  const float* scale;      // [B]
  const float* before;     // [B, H] states; null for zeros
  float* states;           // [B, H]
  float* kept;             // [B, 4H] for the way back: u, r, c, what the reset gate multiplies; null to keep nothing
};

// The same step on the way back, with d_ for the gradient of.
struct ScanBack {
  const int64_t* rows;
  int64_t count;
  const float *scale, *before, *kept;
  float *d_projected, *d_scale;  // of the step, as above
  float* d_state;                // [B, P] in: of the states; out: of those before
  float *d_recurrent, *d_bias;   // [H, P3] and [P3] of the sums, which are added to
};

struct Kernels {
  const char* name;
  int chunk;           // hidden units in a chunk
  int rows;            // a group has at most so many rows
  int parts[2];        // of bfloat16 in Weights::tiles, for exact and fast; 0 where there are none
  float sigmoid_scale[2], tanh_scale[2];  // for exact and fast

  // x [rows, 3P] = in [rows, I] * input + bias (without the bias for a cell that scales the input by attention).
  void (*project)(const float* in, int64_t rows, const Weights& weights, bool biased, float* x);
  // x [rows, 3P] from a projection [rows, 3H] that was made elsewhere: gates u, r, c, unscaled.
  void (*arrange)(const float* projected, int64_t rows, const Weights& weights, float* x);
  // Attention of `count` queries over the same T steps. transposed [H, stride], a [count, stride].
  void (*attend)(const float* transposed, int64_t steps, int64_t stride, int64_t hidden, const float* const* queries,
                 int64_t count, float* a);
  // Walks at most `rows` rows, longest first. `scratch` holds scratch_floats().
  void (*walk)(const Row* rows, int64_t count, const Weights& weights, Cell cell, bool fast, bool every_state,
               float* scratch);
  size_t (*scratch_floats)(int64_t padded);
  // Logits of candidates `begin` to `begin + rows`; `scratch` holds rows * (inputs of the first layer + 2 * widest) floats.
  void (*head)(const HeadInputs& given, const HeadView& view, int64_t begin, int64_t rows, float* scratch, float* out);
  // Terms of request `r` with the behaviours `begin` to `end`: factors [E] their mean embedding, to [W] the mean times
  // of_pooled and the rows of its side features.
  void (*pool)(const PooledInputs& given, int64_t begin, int64_t end, int64_t r, float* factors, float* to);
  void (*sigmoid)(float* values, int64_t count);  // in place
  // Multiply-adds done by a call: independent chains of the widest fused multiply-add.
  int64_t (*multiply_add)(int64_t rounds);
  // A step of a scan for training. `scratch` holds 8 * P3 + 16 floats forward; backward count * P3, of which what is past
  // 3H in each row is 0.
  void (*scan_step)(const ScanStep& step, const ScanWeights& weights, bool agru, float* scratch);
  void (*scan_back)(const ScanBack& step, const ScanWeights& weights, bool agru, float* scratch);
  void (*add)(const float* from, int64_t count, float* to);  // to [count padded to 16] += from
  uint16_t paired = 0;  // which of 16 pairs of inputs are multiplied as such in the exact form; see zen4.cpp
  bool words = false;   // whether the fast form multiplies 16-bit integers; see vnni.cpp
};

constexpr float kLog2E = 1.44269504f;

// Hidden units, padded, for which exact evolution is faster on tiles than on vectors.
constexpr int64_t kExactTileWidth = 32;

// The logistic function in 32 pieces of degree 2: coefficients [3][32] over z = x / kPieceWidth, piece round(z) mod 32.
constexpr float kPieceWidth = 0.56f;
constexpr float kLastPieceEnds = 15.49f;
extern const float* const kSigmoidPieces;

// 2^(i / 32) for i from 0 to 31, less i in the bits that are worth 1 / 32: these bits and the exponent's are to be added.
extern const float* const kPowersOf2;

extern const Kernels kBaseline;
#if defined(__x86_64__)
extern const Kernels kAvx2, kAvx512;
Kernels with_word_products();    // AVX-512 and VNNI
Kernels with_separate_adders();  // the same on AMD
void walk_words(const Row* rows, int64_t count, const Weights& weights, Cell cell, bool every_state, float* scratch);
size_t words_scratch_floats(int64_t padded);
Kernels with_matrix_unit();  // AVX-512 and AMX
#endif

}  // namespace augur
