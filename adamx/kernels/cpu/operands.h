// From the arrays of a call to leaves, or to a sentence that says what is wrong with them.
#pragma once

#include <string>
#include <vector>

#include "leaf.h"

namespace adamx {

// Raised with each change of what `read` or the kernel's attributes mean; INTERFACE in adamx/kernels/native.py is the
// same.
constexpr int kInterface = 6;

enum class Element : uint8_t { f32, bf16, f16, u16, u32, i8, u8, i4, other };

// An array of the caller's.
struct View {
  Element element = Element::other;
  int rank = 0;
  const int64_t* dims = nullptr;
  void* data = nullptr;
};

// What all leaves of a call have in common.
struct Form {
  int64_t weights = 0, mu_storage = 0, nu_storage = 0, mu_block = 1, nu_block = 1;
  bool nesterov = false, precise1 = false, precise2 = false, norms = false;
};

struct Call {
  std::vector<Leaf> leaves;
  Step step{};
  float* norms = nullptr;  // kNorms a leaf; null where nobody asks
};

// Reads inputs and outputs; returns "" or what was expected and what came.
//
// Inputs: 10 numbers (float32: b1, 1-b1, b2, 1-b2, both weights, the first one's of the next step, eps, eps_root, the
// factor of the gradients), 2 counts (uint32), 3 numbers a leaf (uint32: the salts of moments and weight, its
// `Decay`), 2 more a leaf (float32: what its direction and it itself are multiplied by); then of each leaf the
// gradient, and what the outputs are, in the same memory: the weight, its remainder if it has one, and both moments, a
// coded one as codes and the two numbers of each block. A form with norms has one output more: 3 a leaf (float32: the
// norms of its gradient, its update and its weight).
std::string read(const std::vector<View>& inputs, const std::vector<View>& outputs, const Form& form, Call& call);

}  // namespace adamx
