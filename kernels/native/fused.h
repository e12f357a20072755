// A whole network in one call: rows of tables, interest states, interest evolution, head, sigmoid.
//
// U histories, N behaviours of them end to end, R requests, C candidates, I items, A actions, S rows of side features, K
// side features of a request; H hidden, E width of an item's embedding, D of an action's, W of the head's first layer.
#pragma once

#include "dispatch.h"
#include "head_weights.h"

namespace augur {

// All that does not change between calls. The memory is the caller's, and has to outlive the calls.
struct FusedModel {
  const float *projected, *queries, *targets, *embeddings;  // [I, 3H], [I, H], [I, W], [I, E]
  const float *projected_actions, *action_embeddings;       // [A, 3H], [A, D]
  const float* of_pooled;                                   // [E + D, W]
  int64_t items, actions, hidden, embedding, action_embedding, width;
  PlainWeights extractor, evolution;
  Cell cell;
  bool fast;
  PackedHead head;
};

struct FusedBatch {
  const int64_t *behaviors, *actions;       // [N]; no actions where the model has none
  const int64_t* offsets;                   // [U + 1]
  const int64_t *candidates, *history_of, *request_of;  // [C]
  const int64_t* history_of_request;        // [R]
  const float* side_table;                  // [S, W]
  const int64_t* side;                      // [R, K]
  int64_t behavior_count, users, candidate_count, requests, side_rows, side_features;
};

// The argument that holds what it must not, by its place in FusedBatch from 1 on; 0 where all is well.
int wrong_argument(const FusedModel& model, const FusedBatch& batch);

// out [C] probabilities of a batch in which nothing is wrong. Returns false if a weight of the recurrent layers is not
// finite.
bool fused(const FusedModel& model, const FusedBatch& batch, int threads, float* out);

}  // namespace augur
