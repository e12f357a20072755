#include "fused.h"

#include <cstring>

#include "crew.h"
#include "denormals.h"

namespace augur {

int wrong_argument(const FusedModel& model, const FusedBatch& batch) {
  if (!inside(batch.behaviors, batch.behavior_count, model.items)) return 1;
  if (model.actions && !inside(batch.actions, batch.behavior_count, model.actions)) return 2;
  if (!cuts({batch.offsets, batch.users}, batch.behavior_count)) return 3;
  if (!inside(batch.candidates, batch.candidate_count, model.items)) return 4;
  if (!inside(batch.history_of, batch.candidate_count, batch.users)) return 5;
  if (!inside(batch.request_of, batch.candidate_count, batch.requests)) return 6;
  if (!inside(batch.history_of_request, batch.requests, batch.users)) return 7;
  if (!inside(batch.side, batch.requests * batch.side_features, batch.side_rows)) return 8;
  return 0;
}

bool fused(const FusedModel& model, const FusedBatch& batch, int threads, float* out) {
  const Kernels& kernels = kernels_in_use();
  const int64_t hidden = model.hidden, width = 3 * hidden, behaviors = batch.behavior_count;
  const Users users{batch.offsets, batch.users};
  const Candidates of_users{nullptr, batch.history_of, batch.candidate_count};
  Team team(threads_worth(behaviors + steps_of(users, of_users) + batch.candidate_count * kStepsOfHead, threads));

  const auto projected = aligned<float>(behaviors * width), states = aligned<float>(behaviors * hidden);
  for (int64_t n = 0; n < behaviors; ++n) {
    const float* item = model.projected + batch.behaviors[n] * width;
    float* to = projected.get() + n * width;
    if (model.actions) {
      const float* action = model.projected_actions + batch.actions[n] * width;
      for (int64_t j = 0; j < width; ++j) to[j] = item[j] + action[j];
    } else {
      std::memcpy(to, item, width * sizeof(float));
    }
  }
  if (!gru(projected.get(), users, model.extractor, true, model.fast, team, states.get())) return false;

  const int64_t candidates = batch.candidate_count;
  const auto queries = aligned<float>(candidates * hidden), final = aligned<float>(candidates * hidden);
  for (int64_t c = 0; c < candidates; ++c)
    std::memcpy(queries.get() + c * hidden, model.queries + batch.candidates[c] * hidden, hidden * sizeof(float));
  if (!evolve(states.get(), users, {queries.get(), batch.history_of, candidates}, model.evolution, model.cell, model.fast,
              team, final.get()))
    return false;

  const auto requests = aligned<float>(batch.requests * model.width);
  const auto factors = aligned<float>(batch.requests * model.embedding);
  const PooledInputs pooled{model.embeddings, model.actions ? model.action_embeddings : nullptr, model.of_pooled,
                            batch.side_table, batch.behaviors, batch.actions, batch.side, model.embedding,
                            model.actions ? model.action_embedding : 0, model.width, batch.side_features};
  team.each(batch.requests, [&](int64_t r, int) {
    const WithoutDenormals without;
    const int64_t u = batch.history_of_request[r];
    kernels.pool(pooled, batch.offsets[u], batch.offsets[u + 1], r, factors.get() + r * model.embedding,
                 requests.get() + r * model.width);
  });
  const HeadInputs given{model.targets, model.embeddings, requests.get(), factors.get(), final.get(), batch.candidates,
                         batch.request_of, model.items, batch.requests, candidates, model.embedding};
  if (!head(model.head, given, team, out)) return false;
  kernels.sigmoid(out, candidates);
  return true;
}

}  // namespace augur
