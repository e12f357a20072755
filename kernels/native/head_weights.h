// The weights of a head, packed once when it is made ready.
#pragma once

#include <vector>

#include "kernels.h"
#include "memory.h"

namespace augur {

// One layer as HeadLayer of the contract has it: weight [inputs, outputs], the others [outputs].
struct PlainHeadLayer {
  const float *weight, *bias, *alpha, *mean, *scale;
  int64_t inputs, outputs;
};

// Never changed once made: any number of threads may read it. The layout is the same for all instruction sets.
class PackedHead {
 public:
  PackedHead(const std::vector<PlainHeadLayer>& layers, const float* output, float output_bias, bool dice);
  PackedHead(const PackedHead&) = delete;
  const HeadView& view() const { return view_; }

 private:
  const float* kept(int64_t count, int64_t padded, const float* from);

  HeadView view_;
  std::vector<HeadLayer> layers_;
  std::vector<Aligned<float>> memory_;
};

// out [C] logits. Returns false, having written nothing, for an index outside its table.
bool head(const PackedHead& weights, const HeadInputs& given, Team& team, float* out);

}  // namespace augur
