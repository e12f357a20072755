#include "crew.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace augur {

namespace {

constexpr std::chrono::microseconds kPatience{100};  // to be awake for: twice what it takes to wake up

void breathe() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// Whether `done` came true while it is worth to be awake.
template <typename Done>
bool comes_true(const Done& done) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  do {
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      breathe();
    }
    std::this_thread::yield();  // to who waits for this processor, the caller maybe
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

class Crew {
 public:
  // Wakes up a helper for each that the team lacks.
  void call(Team& team) {
    int count;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      count = team.threads_ - 1 - team.present_ - team.called_;
      if (count <= 0) return;
      if (team.called_ == 0) teams_.push_back(&team);
      team.called_ += count;
      for (called_ += count; idle_ < called_; ++idle_) std::thread([this] { serve(); }).detach();
    }
    for (int i = 0; i < count; ++i) wanted_.notify_one();
  }

  // Nobody comes any more.
  void close(Team& team) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (team.called_ == 0) return;
    called_ -= team.called_;
    team.called_ = 0;
    teams_.erase(std::find(teams_.begin(), teams_.end(), &team));
  }

  // One less; who waits for it may be gone as soon as it is 0.
  void less(std::atomic<int>& count) {
    if (count.fetch_sub(1) != 1 || sleeping_ == 0) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    none_.notify_all();
  }

  // Returns when the count is 0.
  void wait_for_none(const std::atomic<int>& count) {
    if (comes_true([&count] { return count == 0; })) return;
    std::unique_lock<std::mutex> lock(mutex_);
    ++sleeping_;  // before the count is read again: `less` reads them in the other order
    none_.wait(lock, [&count] { return count == 0; });
    --sleeping_;
  }

 private:
  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wanted_.wait(lock, [this] { return !teams_.empty(); });
      Team& team = *teams_.front();
      --called_, --idle_;
      if (--team.called_ == 0) teams_.pop_front();
      ++team.present_;
      lock.unlock();
      team.help();
      less(team.present_);
      lock.lock();
      ++idle_;
    }
  }

  std::mutex mutex_;
  std::condition_variable wanted_, none_;
  std::deque<Team*> teams_;       // that have called
  int called_ = 0;                // by all of them
  int idle_ = 0;                  // helpers in no team
  std::atomic<int> sleeping_{0};  // callers who wait for their helpers
};

namespace {

std::atomic<Crew*> crew{nullptr};

// Never destroyed: helpers sleep in it until the process ends. A forked child has none of its parent's threads, and
// starts with a crew of its own.
Crew& the_crew() {
  static std::once_flag once;
  std::call_once(once, [] {
    crew = new Crew;
    pthread_atfork(nullptr, nullptr, [] { crew = new Crew; });
  });
  return *crew;
}

}  // namespace

Team::Team(int threads) : threads_(threads) {
  if (threads_ > 1) the_crew().call(*this);
}

Team::~Team() {
  if (threads_ == 1) return;
  over_ = true;
  the_crew().close(*this);
  the_crew().wait_for_none(present_);
}

void Team::each(int64_t tasks, const Task& task) {
  if (threads_ == 1 || tasks < 2) {
    for (int64_t i = 0; i < tasks; ++i) task(i, 0);
    return;
  }
  if (present_ + called_ < threads_ - 1) the_crew().call(*this);
  tasks_ = tasks;
  task_ = &task;
  next_ = 0;
  workers_ = 0;
  open_ = ++rounds_;
  work();
  open_ = 0;
  // A helper counts itself before it looks whether there is work: who is not counted now will see that there is none.
  the_crew().wait_for_none(working_);
}

void Team::help() {
  int last = 0;  // each round has one part for a helper
  while (comes_true([&] { return over_ || (open_ != 0 && open_ != last); }) && !over_) {
    ++working_;
    if (const int round = open_; round != 0 && round != last) {
      last = round;
      work();
    }
    the_crew().less(working_);
  }
}

void Team::work() {
  const int worker = workers_.fetch_add(1);
  for (int64_t i; (i = next_.fetch_add(1)) < tasks_;) (*task_)(i, worker);
}

}  // namespace augur
