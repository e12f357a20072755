#include "weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <mutex>

namespace augur {

namespace {

// In pairs, all columns are off by the rounding of the largest weight; one that stands out too far would spoil the others.
constexpr float kLargestPaired = 32;
constexpr size_t kKept = 8;  // layers: two of a model, several models

// A quadratic through three points of each piece, its Chebyshev nodes, in powers of z: off by 1.2e-4 at most. The first
// and last piece end in 0 and 1 (off by 1.7e-4 there), so that a gate that is shut stays shut.
struct SigmoidPieces {
  alignas(64) float values[96];
  SigmoidPieces() {
    for (int place = 0; place < 32; ++place) {
      const double middle = place < 16 ? place : place - 32;
      double z[3], y[3];
      for (int i = 0; i < 3; ++i) {
        z[i] = middle + 0.5 * std::cos((2 * i + 1) * std::acos(-1.0) / 6);
        y[i] = 1 / (1 + std::exp(-z[i] * static_cast<double>(kPieceWidth)));
      }
      if (middle == 15) z[0] = kLastPieceEnds, y[0] = 1;
      if (middle == -15) z[2] = -kLastPieceEnds, y[2] = 0;
      const double first = (y[1] - y[0]) / (z[1] - z[0]), second = (y[2] - y[1]) / (z[2] - z[1]);
      const double p2 = (second - first) / (z[2] - z[0]);
      const double p1 = first - p2 * (z[0] + z[1]);
      values[place] = static_cast<float>(y[0] - (p1 + p2 * z[0]) * z[0]);
      values[32 + place] = static_cast<float>(p1);
      values[64 + place] = static_cast<float>(p2);
    }
  }
};

uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

struct PowersOf2 {
  alignas(64) float values[32];
  PowersOf2() {
    for (uint32_t i = 0; i < 32; ++i) {
      const uint32_t bits = bits_of(static_cast<float>(std::exp2(i / 32.0))) - (i << 18);
      std::memcpy(values + i, &bits, sizeof bits);
    }
  }
};

float upper_part(float x) {
  const uint32_t bits = bits_of(x) & 0xffff0000u;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

}  // namespace

static const SigmoidPieces pieces;
const float* const kSigmoidPieces = pieces.values;
static const PowersOf2 powers;
const float* const kPowersOf2 = powers.values;

PackedWeights::PackedWeights(const PlainWeights& plain, const Kernels& kernels, bool fast)
    : kernels_(&kernels), fast_(fast) {
  const int64_t inputs = plain.inputs, hidden = plain.hidden, padded = (hidden + 15) / 16 * 16;
  view.inputs = inputs;
  view.hidden = hidden;
  view.padded = padded;
  view.sigmoid_scale = kernels.sigmoid_scale[fast];
  view.tanh_scale = kernels.tanh_scale[fast];
  plain_.insert(plain_.end(), plain.input, plain.input + inputs * 3 * hidden);
  plain_.insert(plain_.end(), plain.recurrent, plain.recurrent + hidden * 3 * hidden);
  plain_.insert(plain_.end(), plain.bias, plain.bias + 3 * hidden);
  plain_.insert(plain_.end(), plain.bias_candidate, plain.bias_candidate + hidden);
  finite = std::all_of(plain_.begin(), plain_.end(), [](float x) { return std::isfinite(x); });
  input_ = aligned<float>(inputs * 3 * padded);
  recurrent_ = aligned<float>(hidden * 3 * padded);
  bias_ = aligned<float>(3 * padded);
  bias_candidate_ = aligned<float>(padded);
  pack_columns(plain.input, inputs, kernels.chunk, input_.get());
  pack_columns(plain.recurrent, hidden, kernels.chunk, recurrent_.get());
  pack_columns(plain.bias, 1, kernels.chunk, bias_.get());
  for (int64_t j = 0; j < padded; ++j)
    bias_candidate_[j] = j < hidden ? plain.bias_candidate[j] * view.tanh_scale : 0.0f;
  if (kernels.parts[fast] && (fast || padded == kExactTileWidth)) pack_tiles(plain.recurrent, kernels.parts[fast]);
  if (kernels.paired && !fast) pack_pairs(plain.recurrent, kernels.paired);
  if (kernels.words && fast) pack_words(plain.recurrent);
  view.words = words_.get();
  view.word_scales = word_scales_.get();
  view.pairs = pairs_.get();
  view.pair_shift = pair_shift_.get();
  view.input = input_.get();
  view.recurrent = recurrent_.get();
  view.bias = bias_.get();
  view.bias_candidate = bias_candidate_.get();
  view.tiles = tiles_.get();
}

void PackedWeights::pack_columns(const float* plain, int64_t rows, int chunk, float* to) const {
  const int64_t hidden = view.hidden;
  for (int64_t base = 0; base < view.padded; base += chunk) {
    const int64_t units = std::min<int64_t>(chunk, view.padded - base);
    for (int64_t k = 0; k < rows; ++k)
      for (int gate = 0; gate < 3; ++gate)
        for (int64_t j = base; j < base + units; ++j)
          *to++ = j < hidden ? plain[k * 3 * hidden + gate * hidden + j] * (gate == 2 ? view.tanh_scale : view.sigmoid_scale)
                             : 0.0f;
  }
}

// Tiles [3 * vector + gate][block of 32 inputs][part], each 16 rows of 16 pairs: row j has the inputs j and 16 + j.
void PackedWeights::pack_tiles(const float* recurrent, int parts) {
  const int64_t hidden = view.hidden, vectors = view.padded / 16, depth = (vectors + 1) / 2;
  const int64_t size = 3 * vectors * depth * parts * 512;
  tiles_ = aligned<uint16_t>(size);
  std::fill_n(tiles_.get(), size, uint16_t{0});
  for (int64_t k = 0; k < hidden; ++k)
    for (int64_t column = 0; column < 3 * hidden; ++column) {
      const int64_t gate = column / hidden, j = column % hidden;
      const int64_t tile = ((j / 16 * 3 + gate) * depth + k / 32) * parts;
      const int64_t place = k % 16 * 32 + j % 16 * 2 + k % 32 / 16;
      float rest = recurrent[k * 3 * hidden + column] * (gate == 2 ? view.tanh_scale : view.sigmoid_scale);
      for (int part = 0; part < parts; ++part) {
        tiles_[(tile + part) * 512 + place] = static_cast<uint16_t>(bits_of(rest) >> 16);
        rest -= upper_part(rest);
      }
    }
}

// For each vector of hidden units the inputs in slots of two, 16 slots for a block of 32, then what is left one by one; for
// each input the update gate, the reset gate, the candidate.
void PackedWeights::pack_pairs(const float* recurrent, uint16_t paired) {
  const int64_t hidden = view.hidden, padded = view.padded, vectors = padded / 16;
  const int64_t blocks = (hidden + 15) / 32, inputs = std::max(32 * blocks, hidden);
  const auto weight = [&](int64_t k, int64_t gate, int64_t j) {
    if (k >= hidden || j >= hidden) return 0.0f;
    return recurrent[k * 3 * hidden + gate * hidden + j] * (gate == 2 ? view.tanh_scale : view.sigmoid_scale);
  };
  float largest = 0.0f;
  for (int64_t i = 0; i < 3 * hidden * hidden; ++i) largest = std::max(largest, std::abs(recurrent[i]));
  largest *= view.tanh_scale;
  if (!(largest <= kLargestPaired)) return;
  // Near the root of the largest weight, and within what float32 can divide by.
  view.state_scale = std::exp2(std::max(std::round(std::log2(largest) / 2), -30.0f));
  view.pairs_of_vector = inputs * 48;
  pairs_ = aligned<float>(vectors * inputs * 48);
  pair_shift_ = aligned<float>(3 * padded);
  float* to = pairs_.get();
  for (int64_t vector = 0; vector < vectors; ++vector) {
    const auto put = [&](int64_t k) {
      for (int64_t gate = 0; gate < 3; ++gate)
        for (int64_t j = 16 * vector; j < 16 * vector + 16; ++j) *to++ = weight(k, gate, j) / view.state_scale;
    };
    for (int64_t block = 0; block < blocks; ++block)
      for (int64_t slot = 0; slot < 16; ++slot) put(32 * block + slot), put(32 * block + 16 + slot);
    for (int64_t k = 32 * blocks; k < hidden; ++k) put(k);
    const int64_t units = std::min<int64_t>(32, padded - vector / 2 * 32);
    for (int64_t gate = 0; gate < 3; ++gate)
      for (int64_t j = 16 * vector; j < 16 * vector + 16; ++j) {
        double excess = 0;
        for (int64_t block = 0; block < blocks; ++block)
          for (int64_t slot = 0; slot < 16; ++slot)
            if (paired >> slot & 1)
              excess += static_cast<double>(weight(32 * block + slot, gate, j) / view.state_scale) *
                        (weight(32 * block + 16 + slot, gate, j) / view.state_scale);
        const int64_t column = vector / 2 * 96 + gate * units + j % 32;
        pair_shift_[column] = static_cast<float>(-excess);
        (gate < 2 ? bias_[column] : bias_candidate_[j]) += pair_shift_[column];
      }
  }
}

// For each chunk of hidden units the slots of two inputs, in the order in which two vectors of 32-bit integers are packed
// to 16 bits; for each slot the pairs of all columns.
void PackedWeights::pack_words(const float* recurrent) {
  const int64_t hidden = view.hidden, padded = view.padded, blocks = (padded + 31) / 32;
  words_ = aligned<int32_t>(3 * padded * blocks * 16);
  word_scales_ = aligned<float>(3 * padded);
  int32_t* chunk = words_.get();
  for (int64_t base = 0; base < padded; base += 32) {
    const int64_t units = std::min<int64_t>(32, padded - base);
    for (int64_t column = 0; column < 3 * units; ++column) {
      const int64_t gate = column / units, j = base + column % units;
      const auto weight = [&](int64_t k) {
        return k < hidden && j < hidden ? static_cast<double>(recurrent[k * 3 * hidden + gate * hidden + j]) : 0.0;
      };
      double largest = 0, sum = 0;
      for (int64_t k = 0; k < hidden; ++k) largest = std::max(largest, std::abs(weight(k))), sum += std::abs(weight(k));
      // Rounding adds at most a half to each. A column with what is no number gives none.
      const double room = 65535.0 - static_cast<double>(hidden), scale = sum > 0 ? std::min(32767 / largest, room / sum) : 1;
      const double unit = static_cast<double>(gate == 2 ? view.tanh_scale : view.sigmoid_scale) / (scale * 32767);
      word_scales_[3 * base + column] = std::isfinite(sum) ? static_cast<float>(unit) : std::nanf("");
      const auto word = [&](int64_t k) {
        return static_cast<uint32_t>(std::isfinite(sum) ? std::lrint(weight(k) * scale) : 0) & 0xffffu;
      };
      for (int64_t slot = 0; slot < 16 * blocks; ++slot) {
        const int64_t k = slot / 16 * 32 + slot % 4 / 2 * 16 + slot % 16 / 4 * 4 + slot % 2 * 2;
        chunk[slot * 3 * units + column] = static_cast<int32_t>(word(k) | word(k + 1) << 16);
      }
    }
    chunk += 3 * units * blocks * 16;
  }
}

bool PackedWeights::holds(const PlainWeights& plain, const Kernels& kernels, bool fast) const {
  if (&kernels != kernels_ || fast != fast_ || plain.inputs != view.inputs || plain.hidden != view.hidden) return false;
  const float* own = plain_.data();
  const auto same = [&own](const float* other, int64_t count) {
    const bool found = std::memcmp(own, other, count * sizeof(float)) == 0;
    own += count;
    return found;
  };
  const int64_t inputs = plain.inputs, hidden = plain.hidden;
  return same(plain.input, inputs * 3 * hidden) && same(plain.recurrent, hidden * 3 * hidden) &&
         same(plain.bias, 3 * hidden) && same(plain.bias_candidate, hidden);
}

std::shared_ptr<const PackedWeights> packed(const PlainWeights& plain, const Kernels& kernels, bool fast) {
  using Kept = std::deque<std::shared_ptr<const PackedWeights>>;
  static std::mutex& mutex = *new std::mutex;  // neither is destroyed: a thread may be here when the process ends
  static Kept& kept = *new Kept;
  Kept candidates;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    candidates = kept;
  }
  for (const auto& each : candidates)
    if (each->holds(plain, kernels, fast)) return each;
  auto made = std::make_shared<const PackedWeights>(plain, kernels, fast);
  if (!made->finite) return made;
  const std::lock_guard<std::mutex> lock(mutex);
  kept.push_front(made);
  if (kept.size() > kKept) kept.pop_back();
  return made;
}

}  // namespace augur
