#include "crew.h"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

namespace augur {

namespace {

struct Job {
  Job(int64_t count, const std::function<void(int64_t, int)>& each) : tasks(count), task(each) {}
  void work() {
    const int worker = workers.fetch_add(1);
    for (int64_t i; (i = next.fetch_add(1)) < tasks;) task(i, worker);
  }
  const int64_t tasks;
  const std::function<void(int64_t, int)>& task;
  std::atomic<int64_t> next{0};
  std::atomic<int> workers{0};
  int asked = 0;    // helpers who have not come yet, under the crew's mutex
  int helping = 0;  // helpers at work, under the crew's mutex
};

class Crew {
 public:
  void run(Job& job, int helpers) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      while (size_ < helpers) hire();
      job.asked = helpers;
      jobs_.push_back(&job);
    }
    for (int i = 0; i < helpers; ++i) wanted_.notify_one();
    job.work();
    std::unique_lock<std::mutex> lock(mutex_);
    if (job.asked > 0) {  // nothing is left to do for those who have not come
      job.asked = 0;
      for (auto each = jobs_.begin(); each != jobs_.end(); ++each)
        if (*each == &job) {
          jobs_.erase(each);
          break;
        }
    }
    done_.wait(lock, [&job] { return job.helping == 0; });
  }

 private:
  void hire() {
    std::thread([this] { help(); }).detach();
    ++size_;
  }

  void help() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wanted_.wait(lock, [this] { return !jobs_.empty(); });
      Job& job = *jobs_.front();
      if (--job.asked == 0) jobs_.pop_front();
      ++job.helping;
      lock.unlock();
      job.work();
      lock.lock();
      if (--job.helping == 0) done_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wanted_, done_;
  std::deque<Job*> jobs_;
  int size_ = 0;
};

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

void in_parallel(int64_t tasks, int threads, const std::function<void(int64_t, int)>& task) {
  Job job(tasks, task);
  const int64_t helpers = (tasks < threads ? tasks : threads) - 1;
  if (helpers > 0)
    the_crew().run(job, static_cast<int>(helpers));
  else
    job.work();
}

}  // namespace augur
