// Python's door to the native backend: memory by address, sizes by number. kernels/native/__init__.py is its one caller.
//
// Shapes and dtypes were checked in Python. Values are checked here, where that costs next to nothing: `gru` and `evolve`
// return false, having computed nothing, for offsets, user_of or weights that break the contract.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "dispatch.h"
#include "head_weights.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Address = uintptr_t;

template <typename T>
const T* input(Address address) {
  return reinterpret_cast<const T*>(address);
}

// Offsets cut all N behaviours: from 0 to N, never falling.
bool cuts(const augur::Users& users, int64_t behaviors) {
  bool good = users.offsets[0] == 0 && users.offsets[users.count] == behaviors;
  for (int64_t u = 0; u < users.count; ++u) good &= users.offsets[u] <= users.offsets[u + 1];
  return good;
}

// Every candidate points to a user.
bool point(const augur::Candidates& candidates, int64_t users) {
  uint64_t largest = 0;  // what is negative is larger than any user
  for (int64_t c = 0; c < candidates.count; ++c)
    largest = std::max(largest, static_cast<uint64_t>(candidates.user_of[c]));
  return candidates.count == 0 || largest < static_cast<uint64_t>(users);
}

augur::PlainWeights weights_of(Address input_weights, Address recurrent, Address bias, Address bias_candidate,
                               int64_t inputs, int64_t hidden) {
  return {input<float>(input_weights), input<float>(recurrent), input<float>(bias), input<float>(bias_candidate), inputs,
          hidden};
}

}  // namespace

NB_MODULE(_native, module) {
  module.doc() = "GRU, attention and AUGRU over ragged batches in C++; addresses of contiguous float32 and int64";
  module.def("instruction_sets", &augur::instruction_sets);
  module.def("instruction_set", &augur::instruction_set);
  module.def("choose_instruction_set", &augur::choose_instruction_set, "name"_a);
  module.def("multiply_add_peak", &augur::multiply_add_peak, "threads"_a, "seconds"_a,
             nb::call_guard<nb::gil_scoped_release>());
  module.def(
      "gru",
      [](Address inputs, int64_t behaviors, Address offsets, int64_t count, Address w_input, Address w_recurrent, Address bias,
         Address bias_candidate, int64_t input_width, int64_t hidden, bool projected, bool fast, int threads,
         Address out) {
        const augur::Users users{input<int64_t>(offsets), count};
        return cuts(users, behaviors) &&
               augur::gru(input<float>(inputs), users,
                          weights_of(w_input, w_recurrent, bias, bias_candidate, input_width, hidden), projected, fast,
                          threads, reinterpret_cast<float*>(out));
      },
      nb::call_guard<nb::gil_scoped_release>());
  module.def(
      "evolve",
      [](Address states, int64_t behaviors, Address offsets, int64_t count, Address queries, Address user_of,
         int64_t candidate_count, Address w_input, Address w_recurrent, Address bias, Address bias_candidate, int64_t hidden, int cell, bool fast,
         int threads, Address out) {
        const augur::Users users{input<int64_t>(offsets), count};
        const augur::Candidates candidates{input<float>(queries), input<int64_t>(user_of), candidate_count};
        return cuts(users, behaviors) && point(candidates, count) &&
               augur::evolve(input<float>(states), users, candidates,
                             weights_of(w_input, w_recurrent, bias, bias_candidate, hidden, hidden),
                             static_cast<augur::Cell>(cell), fast, threads, reinterpret_cast<float*>(out));
      },
      nb::call_guard<nb::gil_scoped_release>());
  module.def(
      "attention",
      [](Address states, int64_t hidden, Address offsets, int64_t users, Address queries, Address user_of,
         int64_t candidates, int threads, int64_t longest, Address out) {
        augur::attention(input<float>(states), hidden, {input<int64_t>(offsets), users},
                         {input<float>(queries), input<int64_t>(user_of), candidates}, threads, longest,
                         reinterpret_cast<float*>(out));
      },
      nb::call_guard<nb::gil_scoped_release>());
  nb::class_<augur::PackedHead>(module, "Head");
  module.def("pack_head", [](const std::vector<std::vector<Address>>& parts,
                             const std::vector<std::pair<int64_t, int64_t>>& sizes, Address output, float output_bias, bool dice) {
    std::vector<augur::PlainHeadLayer> layers;
    for (size_t n = 0; n < parts.size(); ++n) {
      const auto part = [&](size_t which) { return input<float>(parts[n].at(which)); };
      layers.push_back({part(0), part(1), part(2), part(3), part(4), sizes.at(n).first, sizes.at(n).second});
    }
    return std::make_unique<augur::PackedHead>(layers, input<float>(output), output_bias, dice);
  });
  module.def(
      "head",
      [](const augur::PackedHead& weights, Address items, Address embeddings, int64_t item_rows, Address item_of,
         Address requests, Address factors, int64_t request_rows, Address request_of, Address final, int64_t count, int64_t crossed,
         int threads, Address out) {
        const augur::HeadInputs given{input<float>(items), input<float>(embeddings), input<float>(requests),
                                      input<float>(factors), input<float>(final), input<int64_t>(item_of),
                                      input<int64_t>(request_of), item_rows, request_rows, count, crossed};
        return augur::head(weights, given, threads, reinterpret_cast<float*>(out));
      },
      nb::call_guard<nb::gil_scoped_release>());
}
