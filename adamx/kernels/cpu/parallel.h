// Work that threads claim piece by piece. The caller claims as well and waits for claimed pieces only, so that a pool
// whose threads are all busy, waiting themselves perhaps, cannot block it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

namespace adamx {

class Pieces {
 public:
  explicit Pieces(int64_t count) : count_(count) {}

  // Works until nothing is left to claim.
  template <typename F>
  void work(const F& on_piece) {
    int64_t done = 0;
    for (int64_t piece; (piece = next_.fetch_add(1, std::memory_order_relaxed)) < count_; ++done) on_piece(piece);
    if (done == 0) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    done_ += done;
    if (done_ == count_) all_done_.notify_all();
  }

  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    all_done_.wait(lock, [this] { return done_ == count_; });
  }

 private:
  const int64_t count_;
  std::atomic<int64_t> next_{0};
  std::mutex mutex_;
  std::condition_variable all_done_;
  int64_t done_ = 0;
};

// Calls `on_piece(piece)` for all pieces, here and on up to `helpers` threads that `schedule(task)` starts.
template <typename Schedule, typename F>
void parallel(int64_t pieces, int64_t helpers, Schedule schedule, F on_piece) {
  if (pieces == 0) return;
  helpers = helpers < pieces - 1 ? helpers : pieces - 1;
  const auto shared = std::make_shared<std::pair<Pieces, F>>(std::piecewise_construct, std::forward_as_tuple(pieces),
                                                             std::forward_as_tuple(std::move(on_piece)));
  for (int64_t i = 0; i < helpers; ++i) {
    schedule([shared] { shared->first.work(shared->second); });
  }
  shared->first.work(shared->second);
  shared->first.wait();
}

}  // namespace adamx
