// Python's door to the native backend: memory by address, sizes by number. kernels/native/__init__.py is its one caller.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "dispatch.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Address = uintptr_t;

template <typename T>
const T* input(Address address) {
  return reinterpret_cast<const T*>(address);
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
      [](Address inputs, Address offsets, int64_t users, Address w_input, Address w_recurrent, Address bias,
         Address bias_candidate, int64_t input_width, int64_t hidden, bool projected, bool fast, int threads,
         Address out) {
        augur::gru(input<float>(inputs), {input<int64_t>(offsets), users},
                   weights_of(w_input, w_recurrent, bias, bias_candidate, input_width, hidden), projected, fast, threads,
                   reinterpret_cast<float*>(out));
      },
      nb::call_guard<nb::gil_scoped_release>());
  module.def(
      "evolve",
      [](Address states, Address offsets, int64_t users, Address queries, Address user_of, int64_t candidates,
         Address w_input, Address w_recurrent, Address bias, Address bias_candidate, int64_t hidden, int cell, bool fast,
         int threads, Address out) {
        augur::evolve(input<float>(states), {input<int64_t>(offsets), users},
                      {input<float>(queries), input<int64_t>(user_of), candidates},
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
}
