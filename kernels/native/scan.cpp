#include "scan_plan.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "denormals.h"
#include "dispatch.h"
#include "memory.h"

namespace augur {

namespace {

constexpr int64_t kPanel = 16;

int64_t padded_to_panel(int64_t count) { return (count + kPanel - 1) / kPanel * kPanel; }

Aligned<float> zeros(int64_t count) {
  auto made = aligned<float>(count);
  std::fill_n(made.get(), count, 0.0f);
  return made;
}

// A matrix [rows, columns], of which at(row, column) is known, in panels.
template <typename At>
Aligned<float> in_panels(int64_t rows, int64_t columns, At at) {
  const int64_t padded = padded_to_panel(columns);
  auto made = aligned<float>(rows * padded);
  float* to = made.get();
  for (int64_t first = 0; first < padded; first += kPanel)
    for (int64_t k = 0; k < rows; ++k)
      for (int64_t j = first; j < first + kPanel; ++j) *to++ = j < columns ? at(k, j) : 0.0f;
  return made;
}

// Rows from the longest to the shortest: those alive at a step come first.
class Living {
 public:
  explicit Living(const ScanInputs& given) : lengths_(given.lengths), order_(given.rows) {
    std::iota(order_.begin(), order_.end(), int64_t{0});
    std::stable_sort(order_.begin(), order_.end(), [this](int64_t a, int64_t b) { return lengths_[a] > lengths_[b]; });
  }
  const int64_t* rows() const { return order_.data(); }
  int64_t at(int64_t step) const {
    const auto end = std::partition_point(order_.begin(), order_.end(), [&](int64_t row) { return lengths_[row] > step; });
    return end - order_.begin();
  }
  // Calls take(row) for those that have ended before the step.
  template <typename Take>
  void ended(int64_t step, Take take) const {
    for (size_t i = at(step); i < order_.size(); ++i) take(order_[i]);
  }

 private:
  const int64_t* lengths_;
  std::vector<int64_t> order_;
};

bool within_steps(const ScanInputs& given) {
  return std::all_of(given.lengths, given.lengths + given.rows,
                     [&](int64_t length) { return 0 <= length && length <= given.steps; });
}

}  // namespace

bool scan(const ScanInputs& given, float* states, float* kept) {
  if (!within_steps(given)) return false;
  const WithoutDenormals without;
  const int64_t hidden = given.hidden, gates = 3 * hidden, row_floats = given.rows * hidden;
  const auto recurrent = in_panels(hidden, gates, [&](int64_t k, int64_t j) { return given.recurrent[k * gates + j]; });
  const ScanWeights weights{hidden, padded_to_panel(hidden), padded_to_panel(gates), recurrent.get(), nullptr, given.bias_candidate};
  const auto scratch = zeros(8 * weights.padded_gates + kPanel);
  const Living living(given);
  const Kernels& kernels = kernels_in_use();
  for (int64_t t = 0; t < given.steps; ++t) {
    const float* before = t ? states + (t - 1) * row_floats : nullptr;
    float* now = states + t * row_floats;
    const ScanStep step{living.rows(), living.at(t), given.projected + t * given.rows * gates, given.scale + t * given.rows,
                        before, now, kept ? kept + 4 * t * row_floats : nullptr};
    kernels.scan_step(step, weights, given.agru, scratch.get());
    living.ended(t, [&](int64_t row) {
      float* to = now + row * hidden;
      if (before)
        std::memcpy(to, before + row * hidden, hidden * sizeof(float));
      else
        std::fill_n(to, hidden, 0.0f);
    });
  }
  return true;
}

void scan_back(const ScanInputs& given, const float* states, const float* kept, const float* d_states,
               const ScanGradients& out) {
  const WithoutDenormals without;
  const int64_t rows = given.rows, hidden = given.hidden, gates = 3 * hidden;
  const auto back = in_panels(gates, hidden, [&](int64_t j, int64_t k) { return given.recurrent[k * gates + j]; });
  const ScanWeights weights{hidden, padded_to_panel(hidden), padded_to_panel(gates), nullptr, back.get(), nullptr};
  const int64_t padded = weights.padded, stride = weights.padded_gates;
  const auto d_state = zeros(rows * padded), product = zeros(rows * stride);
  const auto d_recurrent = zeros(hidden * stride), d_bias = zeros(stride);
  const Living living(given);
  const Kernels& kernels = kernels_in_use();
  for (int64_t t = given.steps - 1; t >= 0; --t) {
    const float* pull = d_states + t * rows * hidden;
    for (int64_t row = 0; row < rows; ++row) kernels.add(pull + row * hidden, hidden, d_state.get() + row * padded);
    float *d_projected = out.d_projected + t * rows * gates, *d_scale = out.d_scale + t * rows;
    const float* before = t ? states + (t - 1) * rows * hidden : nullptr;
    const ScanBack step{living.rows(), living.at(t), given.scale + t * rows, before, kept + 4 * t * rows * hidden,
                        d_projected, d_scale, d_state.get(), d_recurrent.get(), d_bias.get()};
    kernels.scan_back(step, weights, given.agru, product.get());
    living.ended(t, [&](int64_t row) {
      std::fill_n(d_projected + row * gates, gates, 0.0f);
      d_scale[row] = 0.0f;
    });
  }
  for (int64_t k = 0; k < hidden; ++k) std::copy_n(d_recurrent.get() + k * stride, gates, out.d_recurrent + k * gates);
  std::copy_n(d_bias.get() + 2 * hidden, hidden, out.d_bias_candidate);
}

}  // namespace augur
