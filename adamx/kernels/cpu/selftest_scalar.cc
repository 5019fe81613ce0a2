// Steps against the same in plain scalar code, to the bit: weights of 24 bits, with updates that are known exactly.
#include <cmath>
#include <cstring>

#include "run.h"
#include "scalar.h"
#include "selftest.h"
#include "versions.h"

namespace adamx {
namespace {

// One row: the leaf of a step whose direction is the sign of the gradient, from gradients that are powers of two.
struct Row {
  std::vector<uint16_t> upper;
  std::vector<uint8_t> lower;
  std::vector<float> gradient, mu, nu;
  Leaf leaf;
  Step step{.5f, .5f, .5f, .5f, .5f, .5f, .75f, 0, 0, 1, false, false, false, 0, 7};

  Row(const std::vector<uint16_t>& uppers, float scale, uint32_t salt) {
    for (const uint16_t bits : uppers) {
      for (int rest = 0; rest < 256; rest += 5) {
        upper.push_back(bits);
        lower.push_back(static_cast<uint8_t>(rest + bits % 5));
        gradient.push_back(std::ldexp(rest % 2 == 0 ? 1.f : -1.f, rest % 7));
      }
    }
    mu.assign(upper.size(), 0);
    nu.assign(upper.size(), 0);
    leaf.rank = 1;
    leaf.dims[0] = static_cast<int64_t>(upper.size());
    leaf.gradient = gradient.data();
    leaf.weight_type = Type::bf16;
    leaf.weights = Weights::narrow;
    leaf.weight = upper.data();
    leaf.remainder = lower.data();
    leaf.weight_salt = salt;
    leaf.scale = scale;
    leaf.mu.data = mu.data();
    leaf.nu.data = nu.data();
  }
};

void check_narrow(const std::vector<uint16_t>& uppers, float scale, uint32_t salt) {
  for (const Version& version : versions()) {
    const Row before(uppers, scale, salt);
    Row after(uppers, scale, salt);
    {
      [[maybe_unused]] const FlushSubnormals flushed;
      version.step_tiles(after.leaf, after.step, 0, tiling(after.leaf).count());
    }
    int wrong = 0;
    for (size_t i = 0; i < before.upper.size(); ++i) {
      const float update = before.gradient[i] < 0 ? -scale : scale;
      const uint32_t threshold = scalar::threshold(static_cast<uint32_t>(i) + salt, before.step.weight_count);
      const scalar::Narrow expected = scalar::moved({before.upper[i], before.lower[i]}, update, threshold);
      wrong += after.upper[i] != expected.upper || after.lower[i] != expected.lower;
    }
    check(wrong == 0, std::to_string(wrong) + " of " + std::to_string(before.upper.size()) + " weights of 24 bits by " +
                          std::to_string(scale) + " with " + version.name);
  }
}

}  // namespace

void check_scalar() {
  std::vector<uint16_t> usual;
  for (uint32_t bits = 0x3800; bits < 0x4400; bits += 3) usual.push_back(static_cast<uint16_t>(bits ^ (bits << 15)));
  const std::vector<uint16_t> ends = {0, 0x8000, 0x7F7F, 0xFF7F, 0x7F80, 0xFF80, 0x7FC0, 0xFFC1, 0x3F80, 0xBF80};
  for (const float scale : {-1e-3f, 0x1p-20f, 1e-7f, -3e-9f, 0.3f, 100.f}) {
    check_narrow(usual, scale, 0x12340u);
    check_narrow(usual, scale, 0x12345u);  // within a group
    check_narrow(ends, scale, 0x12340u);
  }
  for (const float scale : {3e38f, HUGE_VALF, NAN}) check_narrow(ends, scale, 0x770u);
}

}  // namespace adamx
