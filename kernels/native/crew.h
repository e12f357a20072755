// Threads for one call: the caller and helpers who sleep between calls.
#pragma once

#include <cstdint>
#include <functional>

namespace augur {

// Runs task(0) to task(tasks - 1), each once, on at most `threads` threads: the caller's and helpers'. `worker` numbers
// the threads of this call from 0. Returns when all are done. Any number of callers at once; safe after a fork.
void in_parallel(int64_t tasks, int threads, const std::function<void(int64_t task, int worker)>& task);

}  // namespace augur
