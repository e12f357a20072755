// Python's door to the native backend: memory by address, sizes by number. kernels/native/__init__.py is its one caller.
//
// Shapes and dtypes were checked in Python. Values are checked here, where that costs next to nothing: `gru` and `evolve`
// return false, having computed nothing, for offsets, user_of or weights that break the contract.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "dispatch.h"
#include "fused.h"
#include "scan_plan.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Address = uintptr_t;

template <typename T>
const T* input(Address address) {
  return reinterpret_cast<const T*>(address);
}

float* output(Address address) { return reinterpret_cast<float*>(address); }

augur::PlainWeights weights_of(Address input_weights, Address recurrent, Address bias, Address bias_candidate,
                               int64_t inputs, int64_t hidden) {
  return {input<float>(input_weights), input<float>(recurrent), input<float>(bias), input<float>(bias_candidate), inputs,
          hidden};
}

// Weights of a head: for each layer the addresses of its parts, and its numbers of inputs and outputs.
std::vector<augur::PlainHeadLayer> layers_of(const std::vector<std::vector<Address>>& parts,
                                             const std::vector<std::pair<int64_t, int64_t>>& sizes) {
  std::vector<augur::PlainHeadLayer> layers;
  for (size_t n = 0; n < parts.size(); ++n) {
    const auto part = [&](size_t which) { return input<float>(parts[n].at(which)); };
    layers.push_back({part(0), part(1), part(2), part(3), part(4), sizes.at(n).first, sizes.at(n).second});
  }
  return layers;
}

using Index = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using IndexMatrix = nb::ndarray<const int64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

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
        if (!augur::cuts(users, behaviors)) return false;
        augur::Team team(augur::threads_worth(behaviors, threads));
        return augur::gru(input<float>(inputs), users,
                          weights_of(w_input, w_recurrent, bias, bias_candidate, input_width, hidden), projected, fast,
                          team, reinterpret_cast<float*>(out));
      },
      nb::call_guard<nb::gil_scoped_release>());
  module.def(
      "evolve",
      [](Address states, int64_t behaviors, Address offsets, int64_t count, Address queries, Address user_of,
         int64_t candidate_count, Address w_input, Address w_recurrent, Address bias, Address bias_candidate, int64_t hidden, int cell, bool fast,
         int threads, Address out) {
        const augur::Users users{input<int64_t>(offsets), count};
        const augur::Candidates candidates{input<float>(queries), input<int64_t>(user_of), candidate_count};
        if (!augur::cuts(users, behaviors) || !augur::inside(candidates.user_of, candidates.count, count)) return false;
        augur::Team team(augur::threads_worth(augur::steps_of(users, candidates), threads));
        return augur::evolve(input<float>(states), users, candidates,
                             weights_of(w_input, w_recurrent, bias, bias_candidate, hidden, hidden),
                             static_cast<augur::Cell>(cell), fast, team, reinterpret_cast<float*>(out));
      },
      nb::call_guard<nb::gil_scoped_release>());
  module.def(
      "attention",
      [](Address states, int64_t hidden, Address offsets, int64_t users, Address queries, Address user_of,
         int64_t candidates, int threads, int64_t longest, Address out) {
        augur::Team team(threads);
        augur::attention(input<float>(states), hidden, {input<int64_t>(offsets), users},
                         {input<float>(queries), input<int64_t>(user_of), candidates}, team, longest,
                         reinterpret_cast<float*>(out));
      },
      nb::call_guard<nb::gil_scoped_release>());
  module.def(
      "scan",
      [](const std::vector<int64_t>& sizes, Address projected, Address scale, Address lengths, Address recurrent,
         Address bias_candidate, bool agru, Address states, Address kept) {
        return augur::scan({sizes.at(0), sizes.at(1), sizes.at(2), input<float>(projected), input<float>(scale),
                            input<int64_t>(lengths), input<float>(recurrent), input<float>(bias_candidate), agru},
                           output(states), output(kept));
      },
      nb::call_guard<nb::gil_scoped_release>());
  module.def(
      "scan_back",
      [](const std::vector<int64_t>& sizes, Address scale, Address lengths, Address recurrent, bool agru, Address states,
         Address kept, Address d_states, Address d_projected, Address d_scale, Address d_recurrent,
         Address d_bias_candidate) {
        augur::scan_back({sizes.at(0), sizes.at(1), sizes.at(2), nullptr, input<float>(scale), input<int64_t>(lengths),
                          input<float>(recurrent), nullptr, agru},
                         input<float>(states), input<float>(kept), input<float>(d_states),
                         {output(d_projected), output(d_scale), output(d_recurrent), output(d_bias_candidate)});
      },
      nb::call_guard<nb::gil_scoped_release>());
  nb::class_<augur::PackedHead>(module, "Head");
  module.def("pack_head", [](const std::vector<std::vector<Address>>& parts,
                             const std::vector<std::pair<int64_t, int64_t>>& sizes, Address output, float output_bias,
                             bool dice) {
    return std::make_unique<augur::PackedHead>(layers_of(parts, sizes), input<float>(output), output_bias, dice);
  });
  module.def(
      "head",
      [](const augur::PackedHead& weights, Address items, Address embeddings, int64_t item_rows, Address item_of,
         Address requests, Address factors, int64_t request_rows, Address request_of, Address final, int64_t count, int64_t crossed,
         int threads, Address out) {
        const augur::HeadInputs given{input<float>(items), input<float>(embeddings), input<float>(requests),
                                      input<float>(factors), input<float>(final), input<int64_t>(item_of),
                                      input<int64_t>(request_of), item_rows, request_rows, count, crossed};
        augur::Team team(augur::threads_worth(count * augur::kStepsOfHead, threads));
        return augur::head(weights, given, team, reinterpret_cast<float*>(out));
      },
      nb::call_guard<nb::gil_scoped_release>());
  nb::class_<augur::FusedModel>(module, "Fused")
      .def("__init__", [](augur::FusedModel* made, const std::vector<Address>& tables, const std::vector<int64_t>& sizes,
                          const std::vector<Address>& extractor, const std::vector<Address>& evolution, int64_t inputs, int cell,
                          bool fast, const std::vector<std::vector<Address>>& parts,
                          const std::vector<std::pair<int64_t, int64_t>>& layers, Address output, float output_bias, bool dice) {
        const auto table = [&](size_t which) { return input<float>(tables.at(which)); };
        const int64_t hidden = sizes.at(2);
        const auto weights = [&](const std::vector<Address>& own, int64_t width) {
          return weights_of(own.at(0), own.at(1), own.at(2), own.at(3), width, hidden);
        };
        new (made) augur::FusedModel{table(0), table(1), table(2), table(3), table(4), table(5), table(6),
                                     sizes.at(0), sizes.at(1), hidden, sizes.at(3), sizes.at(4), sizes.at(5),
                                     weights(extractor, inputs), weights(evolution, hidden), static_cast<augur::Cell>(cell), fast,
                                     augur::PackedHead(layers_of(parts, layers), input<float>(output), output_bias, dice)};
      })
      // Which argument is wrong, as wrong_argument() has it; 9 for shapes, -1 for weights, 0 when all was computed.
      .def("__call__", [](const augur::FusedModel& model, Index behaviors, Index actions, Index offsets, Index candidates,
                          Index history_of, Index request_of, Index history_of_request, Address side_table,
                          int64_t side_rows, IndexMatrix side, int threads, nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu> out) {
        const size_t count = candidates.size();
        const augur::FusedBatch batch{behaviors.data(), actions.data(), offsets.data(), candidates.data(), history_of.data(),
                                      request_of.data(), history_of_request.data(), input<float>(side_table), side.data(),
                                      static_cast<int64_t>(behaviors.size()), static_cast<int64_t>(offsets.size()) - 1,
                                      static_cast<int64_t>(count), static_cast<int64_t>(side.shape(0)), side_rows,
                                      static_cast<int64_t>(side.shape(1))};
        if (batch.users < 0 || (model.actions && actions.size() != behaviors.size()) || history_of.size() != count ||
            request_of.size() != count || out.size() != count || history_of_request.size() != side.shape(0))
          return 9;
        float* to = out.data();
        const nb::gil_scoped_release release;
        if (const int wrong = augur::wrong_argument(model, batch)) return wrong;
        return augur::fused(model, batch, threads, to) ? 0 : -1;
      }, "behaviors"_a.noconvert(), "actions"_a.noconvert(), "offsets"_a.noconvert(), "candidates"_a.noconvert(),
         "history_of"_a.noconvert(), "request_of"_a.noconvert(), "history_of_request"_a.noconvert(), "side_table"_a,
         "side_rows"_a, "side"_a.noconvert(), "threads"_a, "out"_a.noconvert());
}
