// Memory that begins at a cache line, so that no vector lies across two.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace augur {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

template <typename T>
using Aligned = std::unique_ptr<T[], Free>;

// Room for `count` values, not initialised. Throws std::bad_alloc.
template <typename T>
Aligned<T> aligned(int64_t count) {
  constexpr size_t line = 64;
  const size_t bytes = (static_cast<size_t>(count) * sizeof(T) / line + 1) * line;
  void* memory = std::aligned_alloc(line, bytes);
  if (!memory) throw std::bad_alloc();
  return Aligned<T>(static_cast<T*>(memory));
}

}  // namespace augur
