// Sums of the squares of gradients, updates and weights, for a step that is asked for their norms.
#pragma once

#include <cfloat>

#include "lanes.h"
#include "leaf.h"

namespace adamx {
namespace ADAMX_ISA {

// A step that is not asked.
struct NoSquares {
  static constexpr bool kAsked = false;
  struct Room {};
  explicit NoSquares(Room&) {}
};

// Summed in float32 over a tile, within 2^-16 of itself at worst, and in double from tile to tile.
class Squares {
 public:
  static constexpr bool kAsked = true;
  struct Room {
    alignas(64) float updates[kTile + kLanes];  // of a tile, as nothing else keeps them
  };
  explicit Squares(Room& room) : updates_(room.updates) {}

  void see(Of of, F x, int64_t i) {
    if (of == Of::update) store(updates_ + i, x);
    F& sum = sums_[static_cast<int>(of)];
    sum = multiply_add(x, x, sum);
  }

  // Ends a tile of n elements; `reread(of, i)` gives a gradient or a weight again.
  template <typename Reread>
  void end_tile(int64_t n, Reread reread) {
    for (const Of of : {Of::gradient, Of::update, Of::weight}) {
      const int which = static_cast<int>(of);
      double sum = 0;
      each(sums_[which], [&](double x) { sum += x; });
      if (!(sum >= kLeast && sum <= FLT_MAX)) {  // squares overflow, or vanish: again, in double
        sum = 0;
        for (int64_t i = 0; i < n; i += kLanes) {
          const F x = of == Of::update ? load<F>(updates_ + i) : reread(of, i);
          each(x, [&](double x) { sum += x * x; });
        }
      }
      totals_[which] += sum;
      sums_[which] = F{};
    }
  }

  void add_to(double* squares) const {
    for (int which = 0; which < kNorms; ++which) squares[which] += totals_[which];
  }

 private:
  template <typename Visit>
  static void each(F x, Visit visit) {
    float lanes[kLanes];
    store(lanes, x);
    for (const float lane : lanes) visit(static_cast<double>(lane));
  }

  // Of a sum as large as this, squares below the smallest float32 number are no part that counts.
  static constexpr double kLeast = 0x1p-90;
  float* updates_;
  F sums_[kNorms] = {};
  double totals_[kNorms] = {};
};

}  // namespace ADAMX_ISA
}  // namespace adamx
