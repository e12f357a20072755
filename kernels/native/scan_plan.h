// A recurrence over padded rows for training: forward, keeping what the way back needs, and backward. On plain memory, one
// thread; what is not said to be checked, the caller has checked.
//
// T steps, B rows, H hidden. The gates are u, r, c.
#pragma once

#include <cstdint>

namespace augur {

struct ScanInputs {
  int64_t steps, rows, hidden;
  const float* projected;       // [T, B, 3H]; null on the way back
  const float* scale;           // [T, B]
  const int64_t* lengths;       // [B]
  const float* recurrent;       // [H, 3H]
  const float* bias_candidate;  // [H], or null for none
  bool agru;                    // scale replaces the update gate; else it multiplies it
};

struct ScanGradients {
  float *d_projected, *d_scale, *d_recurrent, *d_bias_candidate;  // shapes as above
};

// states [T, B, H]; past its length a row keeps its last state. kept [T, B, 4H], or null, is written on real steps alone.
// Returns false, having written nothing, unless all lengths are from 0 to T.
bool scan(const ScanInputs& given, float* states, float* kept);
// From d_states [T, B, H] and what `scan` left; zeros past the lengths.
void scan_back(const ScanInputs& given, const float* states, const float* kept, const float* d_states,
               const ScanGradients& out);

}  // namespace augur
