// The operations of the native backend, on plain memory. What is not said to be checked, the caller has checked.
//
// U users, N steps of all users end to end, C candidates, T steps of the longest user, I inputs, H hidden.
#pragma once

#include <string>
#include <vector>

#include "crew.h"
#include "kernels.h"
#include "weights.h"

namespace augur {

// Instruction sets that were compiled and that this machine runs, slowest first.
std::vector<std::string> instruction_sets();
// The last of them, or the one that was chosen.
std::string instruction_set();
// Returns false for a name that is not in instruction_sets(); an empty one takes the choice back.
bool choose_instruction_set(const std::string& name);

// Of that instruction set.
const Kernels& kernels_in_use();

struct Users {
  const int64_t* offsets;  // [U + 1]
  int64_t count;
};

// Whether offsets cut all behaviours: from 0 to their number, never falling.
bool cuts(const Users& users, int64_t behaviors);
// Whether all of index [count] are from 0 to rows - 1.
bool inside(const int64_t* index, int64_t count, int64_t rows);

struct Candidates {
  const float* queries;    // [C, H]
  const int64_t* user_of;  // [C]
  int64_t count;
};

// Steps of all candidates together.
int64_t steps_of(const Users& users, const Candidates& candidates);
// How many of the threads so many steps are worth; the head of a candidate counts as some.
constexpr int64_t kStepsOfHead = 12;
int threads_worth(int64_t steps, int threads);

// out [N, H] from inputs [N, I], or [N, 3H] when projected. Returns false, having written nothing, unless all weights are
// finite.
bool gru(const float* inputs, const Users& users, const PlainWeights& weights, bool projected, bool fast, Team& team,
         float* out);
// out [C, H] from states [N, H]; the same of weights.
bool evolve(const float* states, const Users& users, const Candidates& candidates, const PlainWeights& weights,
            Cell cell, bool fast, Team& team, float* out);
// out [C, T] from states [N, H]; what lies past a user's length is not touched.
void attention(const float* states, int64_t hidden, const Users& users, const Candidates& candidates, Team& team,
               int64_t longest, float* out);

// Float32 multiply-adds per second on so many threads, by the instruction set in use; what evolve can at best do with it.
double multiply_add_peak(int threads, double seconds);

}  // namespace augur
