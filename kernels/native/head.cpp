#include <algorithm>

#include "crew.h"
#include "denormals.h"
#include "dispatch.h"
#include "head_weights.h"

namespace augur {

namespace {

constexpr int64_t kPanel = 16;
constexpr int64_t kRowsOfTask = 32;      // their inputs and sums stay in the second cache with the weights

int64_t padded_to_panel(int64_t count) { return (count + kPanel - 1) / kPanel * kPanel; }

}  // namespace

PackedHead::PackedHead(const std::vector<PlainHeadLayer>& layers, const float* output, float output_bias,
                       bool dice) {
  view_.widest = 0;
  view_.dice = dice;
  view_.output_bias = output_bias;
  for (const PlainHeadLayer& plain : layers) {
    const int64_t outputs = plain.outputs, padded = padded_to_panel(outputs);
    auto weight = aligned<float>(plain.inputs * padded);
    float* to = weight.get();
    for (int64_t at = 0; at < padded; at += kPanel)
      for (int64_t k = 0; k < plain.inputs; ++k)
        for (int64_t j = at; j < at + kPanel; ++j) *to++ = j < outputs ? plain.weight[k * outputs + j] : 0.0f;
    memory_.push_back(std::move(weight));
    HeadLayer layer;
    layer.inputs = plain.inputs;
    layer.outputs = outputs;
    layer.padded = padded;
    layer.weight = memory_.back().get();
    layer.bias = kept(outputs, padded, plain.bias);
    layer.alpha = kept(outputs, padded, plain.alpha);
    std::vector<float> rest(outputs), scale(outputs), shift(outputs);
    for (int64_t j = 0; j < outputs; ++j) {
      const double factor = -1.4426950408889634 * plain.scale[j];  // exp2 of it is exp(-x)
      rest[j] = 1.0f - plain.alpha[j];
      scale[j] = static_cast<float>(factor);
      shift[j] = static_cast<float>(-factor * plain.mean[j]);
    }
    layer.rest = kept(outputs, padded, rest.data());
    layer.scale = kept(outputs, padded, scale.data());
    layer.shift = kept(outputs, padded, shift.data());
    layers_.push_back(layer);
    view_.widest = std::max(view_.widest, padded);
  }
  view_.output = kept(layers.back().outputs, layers_.back().padded, output);
  view_.layers = layers_.data();
  view_.count = static_cast<int64_t>(layers_.size());
}

const float* PackedHead::kept(int64_t count, int64_t padded, const float* from) {
  auto made = aligned<float>(padded);
  for (int64_t j = 0; j < padded; ++j) made[j] = j < count ? from[j] : 0.0f;
  memory_.push_back(std::move(made));
  return memory_.back().get();
}

bool head(const PackedHead& weights, const HeadInputs& given, Team& team, float* out) {
  if (!inside(given.item_of, given.count, given.item_rows) || !inside(given.request_of, given.count, given.request_rows))
    return false;
  const Kernels& kernels = kernels_in_use();
  const HeadView& view = weights.view();
  // Enough tasks to go round the threads, of a multiple of 8 rows.
  const int64_t share = (given.count + team.threads() - 1) / team.threads();
  const int64_t rows = std::min(kRowsOfTask, std::max<int64_t>((share + 7) / 8 * 8, 8));
  const int64_t room = padded_to_panel(rows * (view.layers[0].inputs + 2 * view.widest));
  const auto scratch = aligned<float>(team.threads() * room);
  team.each((given.count + rows - 1) / rows, [&](int64_t task, int worker) {
    const WithoutDenormals without;
    const int64_t begin = task * rows;
    kernels.head(given, view, begin, std::min(rows, given.count - begin), scratch.get() + worker * room, out);
  });
  return true;
}

}  // namespace augur
