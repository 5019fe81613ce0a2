// A leaf seen from one of its elements on, and a copy of some elements that whole vectors may read and write.
#pragma once

#include <cstring>

#include "leaf.h"

namespace adamx {
namespace ADAMX_ISA {

inline size_t width(Type type) { return type == Type::f32 ? 4 : 2; }

// Calls `visit(pointer, halves of a byte an element)` for each array that has one number an element, the gradient
// first.
template <typename Visit>
inline void each_array(Leaf& leaf, Visit visit) {
  visit(leaf.gradient, 2 * width(leaf.gradient_type));
  visit(leaf.weight, 2 * width(leaf.weight_type));
  if (leaf.remainder != nullptr) visit(leaf.remainder, 2 * leaf.remainder_width());
  visit(leaf.mu.data, leaf.mu.halves());
  visit(leaf.nu.data, leaf.nu.halves());
}

// The leaf from there on, which starts a block where there are blocks.
inline Leaf from(const Begin& begin, Leaf leaf) {
  each_array(leaf, [&](void*& data, size_t halves) {
    data = static_cast<char*>(data) + bytes(static_cast<size_t>(begin.element), halves);
  });
  for (Moment* moment : {&leaf.mu, &leaf.nu}) {
    if (!moment->coded()) continue;
    int64_t block = begin.column == 0 ? 0 : begin.column / moment->block;
    if (begin.row != 0) block += begin.row * ((leaf.last() + moment->block - 1) / moment->block);
    if (moment->blocks != nullptr) moment->blocks += block;
    if (moment->half_blocks != nullptr) moment->half_blocks += block;
    if (moment->block > leaf.last()) moment->block = leaf.last();  // where a row ends
  }
  return leaf;
}

// The first n elements of a leaf with zeros behind them.
class Padded {
 public:
  Padded(const Leaf& leaf, int64_t n) : leaf_(leaf), n_(static_cast<size_t>(n)) {}

  Leaf copy() {
    Leaf copied = leaf_;
    char* buffer = buffers_;
    each_array(copied, [&](void*& data, size_t halves) {
      std::memcpy(buffer, data, bytes(n_, halves));
      std::memset(buffer + bytes(n_, halves), 0, bytes(kLanes, halves));
      data = buffer;
      buffer += kBuffer;
    });
    return copied;
  }

  // All but the gradient, which is only read.
  void write_back() {
    const char* buffer = buffers_;
    each_array(leaf_, [&](void* data, size_t halves) {
      if (buffer != buffers_) std::memcpy(data, buffer, bytes(n_, halves));
      buffer += kBuffer;
    });
  }

 private:
  static constexpr size_t kBuffer = 4 * (kTile + kLanes);
  Leaf leaf_;
  size_t n_;
  alignas(64) char buffers_[5 * kBuffer];
};

}  // namespace ADAMX_ISA
}  // namespace adamx
