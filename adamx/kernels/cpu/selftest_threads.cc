// Calls end on a pool whose threads are all busy with calls, and what a pool comes to late does no harm.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "run.h"
#include "selftest.h"

namespace adamx {
namespace {

constexpr int kCalls = 48;
constexpr std::chrono::seconds kPatience{100};

Case large() {
  Case of;
  of.form = {0, 3, 3, 64, 64, false, false, false};
  of.shapes = {{5 * kTilesPerPiece, 70}, {0, 3}, {3}};
  return of;
}

Arrays::Contents stepped_alone() {
  Arrays arrays(large());
  run(arrays.call(large().form), 0, [](const std::function<void()>&) {});
  return arrays.contents();
}

void check_busy_pool(int threads) {
  const Arrays::Contents expected = stepped_alone();
  std::mutex mutex;
  std::condition_variable ended;
  int right = 0, done = 0;
  Pool pool(threads);
  for (int i = 0; i < kCalls; ++i) {
    pool.schedule([&] {
      Arrays arrays(large());
      run(arrays.call(large().form), 7, [&pool](auto task) { pool.schedule(std::move(task)); });
      const bool same = arrays.contents() == expected;
      const std::lock_guard<std::mutex> lock(mutex);
      right += same;
      ++done;
      ended.notify_one();
    });
  }
  std::unique_lock<std::mutex> lock(mutex);
  if (!ended.wait_for(lock, kPatience, [&] { return done == kCalls; })) {
    std::printf("FAILED: %d of %d calls ended\n", done, kCalls);
    std::abort();  // its threads cannot be joined
  }
  check(right == kCalls, std::to_string(right) + " of the calls on " + std::to_string(threads) + " threads were right");
}

void check_late_helpers() {
  std::vector<std::function<void()>> late;
  {
    Arrays arrays(large());
    run(arrays.call(large().form), 7, [&late](auto task) { late.push_back(std::move(task)); });
    check(arrays.contents() == stepped_alone(), "a call whose helpers do not come");
  }
  check(late.size() > 1, "a call asks for helpers");
  for (const auto& task : late) task();  // the arrays are gone
}

void check_nothing_to_do() {
  Case of = large();
  of.shapes = {{0, 3}, {3, 0}};
  int asked = 0;
  for (const int64_t helpers : {-1, 0, 7}) {
    run(Arrays(of).call(of.form), helpers, [&asked](const std::function<void()>&) { ++asked; });
  }
  Arrays arrays(large());
  run(arrays.call(large().form), -1, [&asked](const std::function<void()>&) { ++asked; });
  check(asked == 0, "helpers where there is nothing for them");
}

void check_each_piece_once() {
  Pool pool(3);
  std::vector<std::atomic<int>> times(10'000);
  const auto schedule = [&pool](auto task) { pool.schedule(std::move(task)); };
  parallel(10'000, 3, schedule, [&times](int64_t i) { ++times[static_cast<size_t>(i)]; });
  bool once = true;
  for (const auto& time : times) once = once && time == 1;
  check(once, "each piece once");
}

}  // namespace

void check_threads() {
  check_late_helpers();
  check_nothing_to_do();
  check_each_piece_once();
  for (const int threads : {1, 2, 4}) check_busy_pool(threads);
}

}  // namespace adamx
