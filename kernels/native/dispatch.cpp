#include "dispatch.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

#include "crew.h"
#include "denormals.h"
#include "memory.h"

namespace augur {

namespace {

#if defined(__x86_64__) && defined(AUGUR_HAVE_AMX) && defined(__linux__)
// The matrix unit needs the operating system's leave, which is the process's and is kept by its threads.
bool matrix_unit_allowed() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned bf16 = 1u << 22, tile = 1u << 24;
  if ((d & bf16) == 0 || (d & tile) == 0) return false;
  constexpr int request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, request, tile_data) == 0;
}
#endif

std::vector<const Kernels*> runnable() {
  std::vector<const Kernels*> found = {&kBaseline};
#if defined(__x86_64__)
  __builtin_cpu_init();
#if defined(AUGUR_HAVE_AVX2)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&kAvx2);
#endif
#if defined(AUGUR_HAVE_AVX512)
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512) found.push_back(&kAvx512);
#if defined(AUGUR_HAVE_VNNI)
  if (avx512 && __builtin_cpu_supports("avx512vnni")) {
    static const Kernels vnni = with_word_products(), zen4 = with_separate_adders();
    found.push_back(&vnni);
    if (__builtin_cpu_is("amd")) found.push_back(&zen4);
  }
#endif
#if defined(AUGUR_HAVE_AMX) && defined(__linux__)
  if (avx512 && matrix_unit_allowed()) {
    static const Kernels amx = with_matrix_unit();
    found.push_back(&amx);
  }
#endif
#endif
#endif
  return found;
}

const std::vector<const Kernels*>& all_kernels() {
  static const std::vector<const Kernels*> found = runnable();
  return found;
}

std::atomic<const Kernels*> chosen{nullptr};

constexpr int64_t kStepsOfTask = 64;    // projected in one task
constexpr int64_t kStepsWorthHelp = 256;  // of each thread; below, waking a helper costs more than it saves
constexpr int64_t kGroupsOfThread = 16;   // about; the last ones are waited for
constexpr int kTogether = 4;            // rows that share a load of the weights
constexpr int64_t kRowsOfUsers = 16;

int64_t padded_to_16(int64_t count) { return (count + 15) / 16 * 16; }
int64_t padded_to_4(int64_t count) { return (count + 3) / 4 * 4; }

// Users from the longest to the shortest.
std::vector<int64_t> longest_first(const Users& users) {
  std::vector<int64_t> order(users.count);
  for (int64_t u = 0; u < users.count; ++u) order[u] = u;
  const auto length = [&users](int64_t u) { return users.offsets[u + 1] - users.offsets[u]; };
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return length(a) > length(b); });
  return order;
}

// Cuts `rows` into groups of at most `most`, all of about the same size and enough to go round the threads; where one
// group begins and the next one ends. The cuts are at multiples of kTogether.
std::vector<int64_t> groups_of(int64_t rows, int64_t most, int threads) {
  const int64_t blocks = (rows + kTogether - 1) / kTogether;
  int64_t groups = std::max<int64_t>((rows + most - 1) / most, 1);
  if (groups % threads) groups = (groups / threads + 1) * threads;
  groups = std::min(groups, std::max<int64_t>(blocks, 1));
  std::vector<int64_t> cuts;
  for (int64_t g = 0; g <= groups; ++g) cuts.push_back(std::min(blocks * g / groups * kTogether, rows));
  return cuts;
}

// Rows of a group at most. Several threads end together where groups are small, but tiles want their rows.
int64_t rows_of_group(const Kernels& kernels, bool fast, int64_t rows, int threads) {
  if (threads == 1 || kernels.parts[fast]) return kernels.rows;
  const int64_t share = padded_to_4(rows / (kGroupsOfThread * threads));
  return std::clamp<int64_t>(share, kTogether, kernels.rows);
}

// What evolution and attention share: candidates sorted by user, long histories first, and the users' states by column.
struct Plan {
  std::vector<int64_t> order;  // candidates whose users have steps
  std::vector<int64_t> place;  // for each user where its steps begin in x, or -1 for one without candidates or steps
  std::vector<int64_t> column_place;  // and where its transposed states begin
  std::vector<int64_t> used;          // users with candidates and steps
  int64_t steps = 0, column_floats = 0;

  Plan(const Users& users, const Candidates& candidates, int64_t hidden)
      : place(users.count, -1), column_place(users.count, 0) {
    std::vector<int64_t> end(users.count, 0);
    for (int64_t c = 0; c < candidates.count; ++c) ++end[candidates.user_of[c]];
    int64_t before = 0;
    for (const int64_t u : longest_first(users)) {
      const int64_t length = users.offsets[u + 1] - users.offsets[u], own = end[u];
      if (length == 0) {
        end[u] = -1;
        continue;
      }
      end[u] = before;
      before += own;
      if (own == 0) continue;
      used.push_back(u);
      place[u] = steps;
      column_place[u] = column_floats;
      steps += length;
      column_floats += padded_to_16(length) * hidden;
    }
    order.resize(before);
    for (int64_t c = 0; c < candidates.count; ++c) {
      int64_t& next = end[candidates.user_of[c]];
      if (next >= 0) order[next++] = c;
    }
  }
};

void transpose(const float* states, int64_t length, int64_t hidden, float* columns) {
  const int64_t stride = padded_to_16(length);
  for (int64_t k = 0; k < hidden; ++k) {
    float* column = columns + k * stride;
    for (int64_t t = 0; t < length; ++t) column[t] = states[t * hidden + k];
    for (int64_t t = length; t < stride; ++t) column[t] = 0.0f;
  }
}

// The steps of some users in pieces for a task each.
struct Piece {
  int64_t user, begin, end;
};

std::vector<Piece> pieces_of(const std::vector<int64_t>& used, const Users& users) {
  std::vector<Piece> pieces;
  for (const int64_t u : used) {
    const int64_t length = users.offsets[u + 1] - users.offsets[u];
    for (int64_t t = 0; t < length; t += kStepsOfTask) pieces.push_back({u, t, std::min(t + kStepsOfTask, length)});
  }
  return pieces;
}

// Attention of the candidates `order[begin:end]`, one after the other in `a`, each padded to 16.
void attend_group(const Kernels& kernels, const float* columns, const Plan& plan, const Users& users,
                  const Candidates& candidates, int64_t hidden, int64_t begin, int64_t end, float* a) {
  const float* queries[kTogether];
  while (begin < end) {
    const int64_t u = candidates.user_of[plan.order[begin]];
    const int64_t length = users.offsets[u + 1] - users.offsets[u], stride = padded_to_16(length);
    int64_t count = 0;
    while (count < kTogether && begin < end && candidates.user_of[plan.order[begin]] == u)
      queries[count++] = candidates.queries + plan.order[begin++] * hidden;
    kernels.attend(columns + plan.column_place[u], length, stride, hidden, queries, count, a);
    a += count * stride;
  }
}

int64_t attention_floats(const Plan& plan, const Users& users, const Candidates& candidates, int64_t begin,
                         int64_t end) {
  int64_t count = 0;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t u = candidates.user_of[plan.order[i]];
    count += padded_to_16(users.offsets[u + 1] - users.offsets[u]);
  }
  return count;
}

}  // namespace

const Kernels& kernels_in_use() {
  const Kernels* found = chosen.load();
  return found ? *found : *all_kernels().back();
}

bool cuts(const Users& users, int64_t behaviors) {
  bool good = users.offsets[0] == 0 && users.offsets[users.count] == behaviors;
  for (int64_t u = 0; u < users.count; ++u) good &= users.offsets[u] <= users.offsets[u + 1];
  return good;
}

bool inside(const int64_t* index, int64_t count, int64_t rows) {
  uint64_t largest = 0;  // what is negative is larger than any row
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, static_cast<uint64_t>(index[i]));
  return count == 0 || largest < static_cast<uint64_t>(rows);
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Kernels* each : all_kernels()) names.emplace_back(each->name);
  return names;
}

std::string instruction_set() { return kernels_in_use().name; }

bool choose_instruction_set(const std::string& name) {
  if (name.empty()) {
    chosen = nullptr;
    return true;
  }
  for (const Kernels* each : all_kernels())
    if (name == each->name) {
      chosen = each;
      return true;
    }
  return false;
}

int threads_worth(int64_t steps, int threads) {
  return static_cast<int>(std::clamp<int64_t>(steps / kStepsWorthHelp, 1, threads));
}

int64_t steps_of(const Users& users, const Candidates& candidates) {
  int64_t steps = 0;
  for (int64_t c = 0; c < candidates.count; ++c) {
    const int64_t u = candidates.user_of[c];
    steps += users.offsets[u + 1] - users.offsets[u];
  }
  return steps;
}

bool gru(const float* inputs, const Users& users, const PlainWeights& plain, bool projected, bool fast, Team& team,
         float* out) {
  const Kernels& kernels = kernels_in_use();
  const auto weights = packed(plain, kernels, fast);
  if (!weights->finite) return false;
  const Weights& view = weights->view;
  const int64_t steps = users.offsets[users.count];
  const auto x = aligned<float>(steps * 3 * view.padded);
  team.each((steps + kStepsOfTask - 1) / kStepsOfTask, [&](int64_t task, int) {
    const WithoutDenormals without;
    const int64_t begin = task * kStepsOfTask, count = std::min(kStepsOfTask, steps - begin);
    float* to = x.get() + begin * 3 * view.padded;
    if (projected)
      kernels.arrange(inputs + begin * 3 * view.hidden, count, view, to);
    else
      kernels.project(inputs + begin * view.inputs, count, view, true, to);
  });
  std::vector<int64_t> order = longest_first(users);
  while (!order.empty() && users.offsets[order.back() + 1] == users.offsets[order.back()]) order.pop_back();
  const std::vector<int64_t> cuts = groups_of(static_cast<int64_t>(order.size()), kRowsOfUsers, team.threads());
  const int64_t room = padded_to_16(static_cast<int64_t>(kernels.scratch_floats(view.padded)));
  const auto scratch = aligned<float>(team.threads() * room);
  team.each(static_cast<int64_t>(cuts.size()) - 1, [&](int64_t task, int worker) {
    const WithoutDenormals without;
    Row rows[kRowsOfUsers];
    int64_t count = 0;
    for (int64_t i = cuts[task]; i < cuts[task + 1]; ++i) {
      const int64_t begin = users.offsets[order[i]], length = users.offsets[order[i] + 1] - begin;
      rows[count++] = {x.get() + begin * 3 * view.padded, nullptr, length, out + begin * view.hidden};
    }
    kernels.walk(rows, count, view, Cell::gru, fast, true, scratch.get() + worker * room);
  });
  return true;
}

bool evolve(const float* states, const Users& users, const Candidates& candidates, const PlainWeights& plain, Cell cell,
            bool fast, Team& team, float* out) {
  const Kernels& kernels = kernels_in_use();
  const auto weights = packed(plain, kernels, fast);
  if (!weights->finite) return false;
  const Weights& view = weights->view;
  const int64_t hidden = view.hidden, width = 3 * view.padded;
  const Plan plan(users, candidates, hidden);
  const int64_t rows_in_all = static_cast<int64_t>(plan.order.size());
  if (rows_in_all < candidates.count) std::memset(out, 0, candidates.count * hidden * sizeof(float));
  if (rows_in_all == 0) return true;

  const auto x = aligned<float>(plan.steps * width), columns = aligned<float>(plan.column_floats);
  const std::vector<Piece> pieces = pieces_of(plan.used, users);
  const auto prepare = [&](int64_t task, int) {
    const WithoutDenormals without;
    const auto [u, begin, end] = pieces[task];
    const int64_t first = users.offsets[u];
    kernels.project(states + (first + begin) * hidden, end - begin, view, cell != Cell::aigru,
                    x.get() + (plan.place[u] + begin) * width);
    if (begin == 0)
      transpose(states + first * hidden, users.offsets[u + 1] - first, hidden, columns.get() + plan.column_place[u]);
  };
  team.each(static_cast<int64_t>(pieces.size()), prepare);

  const int threads = team.threads();
  const std::vector<int64_t> cuts = groups_of(rows_in_all, rows_of_group(kernels, fast, rows_in_all, threads), threads);
  const int64_t groups = static_cast<int64_t>(cuts.size()) - 1;
  int64_t most_attention = 0;
  for (int64_t g = 0; g < groups; ++g)
    most_attention = std::max(most_attention, attention_floats(plan, users, candidates, cuts[g], cuts[g + 1]));
  const int64_t walking = padded_to_16(static_cast<int64_t>(kernels.scratch_floats(view.padded)));
  const int64_t room = walking + most_attention;
  const auto scratch = aligned<float>(team.threads() * room);

  team.each(groups, [&](int64_t task, int worker) {
    const WithoutDenormals without;
    float* own = scratch.get() + worker * room;
    float* a = own + walking;
    attend_group(kernels, columns.get(), plan, users, candidates, hidden, cuts[task], cuts[task + 1], a);
    Row rows[32];
    int64_t count = 0;
    for (int64_t i = cuts[task]; i < cuts[task + 1]; ++i) {
      const int64_t c = plan.order[i], u = candidates.user_of[c];
      const int64_t length = users.offsets[u + 1] - users.offsets[u];
      rows[count++] = {x.get() + plan.place[u] * width, a, length, out + c * hidden};
      a += padded_to_16(length);
    }
    kernels.walk(rows, count, view, cell, fast, false, own);
  });
  return true;
}

void attention(const float* states, int64_t hidden, const Users& users, const Candidates& candidates, Team& team,
               int64_t longest, float* out) {
  const Kernels& kernels = kernels_in_use();
  const Plan plan(users, candidates, hidden);
  const int64_t rows = static_cast<int64_t>(plan.order.size());
  if (rows == 0) return;
  const auto columns = aligned<float>(plan.column_floats);
  for (const int64_t u : plan.used)
    transpose(states + users.offsets[u] * hidden, users.offsets[u + 1] - users.offsets[u], hidden,
              columns.get() + plan.column_place[u]);
  const std::vector<int64_t> cuts = groups_of(rows, kernels.rows, team.threads());
  const int64_t room = kernels.rows * padded_to_16(longest);
  const auto scratch = aligned<float>(team.threads() * room);
  team.each(static_cast<int64_t>(cuts.size()) - 1, [&](int64_t task, int worker) {
    const WithoutDenormals without;
    float* a = scratch.get() + worker * room;
    attend_group(kernels, columns.get(), plan, users, candidates, hidden, cuts[task], cuts[task + 1], a);
    for (int64_t i = cuts[task]; i < cuts[task + 1]; ++i) {
      const int64_t c = plan.order[i], u = candidates.user_of[c], length = users.offsets[u + 1] - users.offsets[u];
      std::memcpy(out + c * longest, a, length * sizeof(float));
      a += padded_to_16(length);
    }
  });
}

double multiply_add_peak(int threads, double seconds) {
  const Kernels& kernels = kernels_in_use();
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); };
  std::atomic<double> best{0.0};
  Team team(threads);
  const Clock::time_point begin = Clock::now();
  while (since(begin) < seconds) {
    const Clock::time_point round = Clock::now();
    std::atomic<int64_t> done{0};
    team.each(threads, [&](int64_t, int) { done += kernels.multiply_add(100000); });
    best = std::max(best.load(), static_cast<double>(done) / since(round));
  }
  return best;
}

}  // namespace augur
