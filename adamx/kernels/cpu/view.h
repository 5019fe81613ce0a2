// A leaf seen from one of its elements on, and a copy of some elements that whole vectors may read and write.
#pragma once

#include <cstring>

#include "leaf.h"

namespace adamx {
namespace ADAMX_ISA {

inline size_t width(Type type) { return type == Type::f32 ? 4 : 2; }

// Calls `visit(pointer, bytes an element)` for each array that has one number an element, the gradient first.
template <typename Visit>
inline void each_array(Leaf& leaf, Visit visit) {
  visit(leaf.gradient, width(leaf.gradient_type));
  visit(leaf.weight, width(leaf.weight_type));
  if (leaf.remainder != nullptr) visit(leaf.remainder, leaf.remainder_width());
  visit(leaf.mu.data, leaf.mu.width());
  visit(leaf.nu.data, leaf.nu.width());
}

// The leaf from there on, which starts a block where there are blocks.
inline Leaf from(const Begin& begin, Leaf leaf) {
  each_array(leaf, [&](void*& data, size_t bytes) {
    data = static_cast<char*>(data) + static_cast<size_t>(begin.element) * bytes;
  });
  for (Moment* moment : {&leaf.mu, &leaf.nu}) {
    if (moment->storage != Storage::int8) continue;
    int64_t block = begin.column == 0 ? 0 : begin.column / moment->block;
    if (begin.row != 0) block += begin.row * ((leaf.last() + moment->block - 1) / moment->block);
    moment->blocks += block;
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
    each_array(copied, [&](void*& data, size_t bytes) {
      std::memcpy(buffer, data, n_ * bytes);
      std::memset(buffer + n_ * bytes, 0, kLanes * bytes);
      data = buffer;
      buffer += kBuffer;
    });
    return copied;
  }

  // All but the gradient, which is only read.
  void write_back() {
    const char* buffer = buffers_;
    each_array(leaf_, [&](void* data, size_t bytes) {
      if (buffer != buffers_) std::memcpy(data, buffer, n_ * bytes);
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
