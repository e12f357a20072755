// Weights in the layout of an instruction set.
#pragma once

#include <memory>
#include <vector>

#include "kernels.h"
#include "memory.h"

namespace augur {

// As GruWeights has them: gates u, r, c; [I, 3H], [H, 3H], [3H], [H].
struct PlainWeights {
  const float *input, *recurrent, *bias, *bias_candidate;
  int64_t inputs, hidden;
};

class PackedWeights {
 public:
  PackedWeights(const PlainWeights& plain, const Kernels& kernels, bool fast);
  // Whether these are the same weights, to the bit, for the same kernels.
  bool holds(const PlainWeights& plain, const Kernels& kernels, bool fast) const;
  Weights view;
  bool finite;  // every one of them

 private:
  void pack_columns(const float* plain, int64_t rows, int chunk, float* to) const;
  void pack_tiles(const float* recurrent, int parts);
  void pack_words(const float* recurrent);
  void pack_pairs(const float* recurrent, uint16_t paired);

  const Kernels* kernels_;
  bool fast_;
  std::vector<float> plain_;
  Aligned<float> input_, recurrent_, bias_, bias_candidate_, pairs_, pair_shift_, word_scales_;
  Aligned<int32_t> words_;
  Aligned<uint16_t> tiles_;
};

// Packed weights; those of the last few layers are kept, and found again by content.
std::shared_ptr<const PackedWeights> packed(const PlainWeights& plain, const Kernels& kernels, bool fast);

}  // namespace augur
