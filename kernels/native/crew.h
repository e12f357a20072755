// Threads for one call: the caller and helpers who sleep between calls.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

namespace augur {

// The caller and up to `threads` - 1 helpers, from where it is made to where it ends. Helpers are called when it is made,
// so that they wake up while the caller prepares; between rounds of tasks they wait awake, for a tenth of a millisecond at
// most, and then go back to sleep until the next round. Any number of teams at once; safe after a fork.
class Team {
 public:
  explicit Team(int threads);
  ~Team();  // when all helpers have let go
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int threads() const { return threads_; }

  // Runs task(0) to task(tasks - 1), each once, on whoever is there. `worker` numbers its threads from 0.
  // Returns when all are done.
  using Task = std::function<void(int64_t task, int worker)>;
  void each(int64_t tasks, const Task& task);

 private:
  friend class Crew;
  void help();  // a helper's part
  void work();

  const int threads_;
  std::atomic<int> open_{0};      // the round that has work, or 0
  std::atomic<bool> over_{false};
  std::atomic<int> working_{0};   // helpers in a round, or looking whether there is one
  std::atomic<int> present_{0};   // helpers who have come and not gone
  std::atomic<int> called_{0};    // helpers who have not come yet; changes under the crew's mutex
  std::atomic<int> workers_{0};   // of this round
  std::atomic<int64_t> next_{0};
  int64_t tasks_ = 0;
  const Task* task_ = nullptr;
  int rounds_ = 0;
};

}  // namespace augur
