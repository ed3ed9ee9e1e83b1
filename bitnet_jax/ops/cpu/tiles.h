// Work that is shared out to the threads of XLA.

#ifndef BITNET_JAX_OPS_TILES_H_
#define BITNET_JAX_OPS_TILES_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>

#include "xla/ffi/api/ffi.h"

namespace bitnet {

// Calls run(0) to run(tiles - 1) on the threads of a pool and on this one.
template <typename Run>
void RunTiles(xla::ffi::ThreadPool& pool, int64_t tiles, const Run& run) {
  struct Shared {
    std::atomic<int64_t> next{0}, done{0};
  };
  auto shared = std::make_shared<Shared>();
  // A thread that comes late finds no tile, and touches nothing else.
  auto work = [shared, tiles, run] {
    int64_t tile;
    while ((tile = shared->next.fetch_add(1)) < tiles) {
      run(tile);
      shared->done.fetch_add(1, std::memory_order_release);
    }
  };
  const int64_t threads = std::min<int64_t>(pool.num_threads(), tiles);
  for (int64_t i = 1; i < threads; ++i) {
    pool.Schedule(std::decay_t<decltype(work)>(work));
  }
  work();
  while (shared->done.load(std::memory_order_acquire) < tiles) {
    std::this_thread::yield();
  }
}

}  // namespace bitnet

#endif  // BITNET_JAX_OPS_TILES_H_
