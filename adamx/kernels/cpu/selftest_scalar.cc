// Steps against the same in plain scalar code, to the bit: weights of 24 bits, with updates that are known exactly, and
// moments in int4.
#include <algorithm>
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

// A row of blocks whose moments are int4, and its gradients.
struct Fours {
  static constexpr size_t kBlock = 32;
  std::vector<uint8_t> mu, nu;
  std::vector<HalfBlock> mu_blocks;
  std::vector<Block> nu_blocks;
  std::vector<float> gradient, weight;
  Leaf leaf;
  Step step{.5f, .5f, .5f, .5f, .75f, .75f, .875f, 1e-8f, 0, 1, false, false, false, 0, 0};

  explicit Fours(size_t n)
      : mu((n + 1) / 2),
        nu((n + 1) / 2),
        mu_blocks((n + kBlock - 1) / kBlock),
        nu_blocks(mu_blocks.size()),
        gradient(n),
        weight(n, 1) {
    leaf.rank = 1;
    leaf.dims[0] = static_cast<int64_t>(n);
    leaf.gradient = gradient.data();
    leaf.weight = weight.data();
    leaf.moment_salt = 0x4560u;
    leaf.mu.storage = leaf.nu.storage = Storage::int4;
    leaf.mu.block = leaf.nu.block = kBlock;
    leaf.mu.data = mu.data();
    leaf.nu.data = nu.data();
    leaf.mu.half_blocks = mu_blocks.data();
    leaf.nu.blocks = nu_blocks.data();
  }

  static int code(const std::vector<uint8_t>& codes, size_t i) {
    const int four = codes[i / 2] >> i % 2 * 4 & 15;
    return four < 8 ? four : four - 16;
  }

  scalar::FourBlock block(bool square, size_t number) const {
    scalar::FourBlock of{{}, nu_blocks[number].scale, nu_blocks[number].top};
    if (!square) of.scale = scalar::float_of(static_cast<uint32_t>(mu_blocks[number].scale) << 16);
    if (!square) of.top = scalar::float_of(static_cast<uint32_t>(mu_blocks[number].top) << 16);
    const size_t end = std::min((number + 1) * kBlock, gradient.size());
    for (size_t i = number * kBlock; i < end; ++i) of.codes.push_back(code(square ? nu : mu, i));
    return of;
  }
};

// Gradients of this step: of sizes far apart, with zeros and several of the same size, and 0 in whole blocks.
float gradient_of(size_t i, uint32_t t) {
  const uint32_t random = (static_cast<uint32_t>(i) * 2654435761u + t * 40503u) >> 8;
  if (i / Fours::kBlock % 5 == 4 || random % 11 == 0) return 0;
  const float size = random % 7 == 0 ? 1 : 1 + static_cast<float>(random & 0xFFFu) * 0x1p-12f;
  return std::ldexp(random & 0x10000u ? size : -size, static_cast<int>(random % 13 == 0 ? random % 29 : 0) - 8);
}

// How many blocks are not what scalar code makes of those before.
size_t wrong_blocks(const Fours& before, const Fours& after) {
  size_t wrong = 0;
  for (size_t number = 0; number < before.mu_blocks.size(); ++number) {
    const scalar::FourBlock mu = before.block(false, number), nu = before.block(true, number);
    std::vector<float> m, v;
    std::vector<uint32_t> thresholds;
    for (size_t i = 0; i < nu.codes.size(); ++i) {
      const size_t at = number * Fours::kBlock + i;
      const float g = after.gradient[at], old = scalar::decoded_v(nu, i);
      m.push_back(.5f * g + .5f * (scalar::decoded_m(mu, i) * std::sqrt(old)));
      v.push_back(.5f * (g * g) + .5f * old);
      thresholds.push_back(scalar::threshold(static_cast<uint32_t>(at) + after.leaf.moment_salt, after.step.count));
    }
    const scalar::FourBlock new_nu = scalar::encoded_v(v, thresholds);
    for (size_t i = 0; i < m.size(); ++i) {
      const float by = std::sqrt(scalar::decoded_v(new_nu, i));
      m[i] = by == 0 ? 0 : m[i] / by;
    }
    const scalar::FourBlock new_mu = scalar::encoded_m(m, thresholds);
    const auto same = [](const scalar::FourBlock& a, const scalar::FourBlock& b) {
      return a.codes == b.codes && a.scale == b.scale && a.top == b.top;
    };
    wrong += !same(new_nu, after.block(true, number)) || !same(new_mu, after.block(false, number));
  }
  return wrong;
}

void check_fours(size_t n) {
  for (const Version& version : versions()) {
    Fours after(n);
    for (uint32_t t = 1; t < 6; ++t) {
      for (size_t i = 0; i < n; ++i) after.gradient[i] = gradient_of(i, t);
      Fours before(n);
      before.mu = after.mu, before.nu = after.nu;
      before.mu_blocks = after.mu_blocks, before.nu_blocks = after.nu_blocks;
      after.step.count = t;
      [[maybe_unused]] const FlushSubnormals flushed;
      version.step_tiles(after.leaf, after.step, 0, tiling(after.leaf).count());
      const size_t wrong = wrong_blocks(before, after);
      check(wrong == 0, std::to_string(wrong) + " blocks of int4 in " + std::to_string(n) + " elements, step " +
                            std::to_string(t) + ", with " + version.name);
    }
  }
}

}  // namespace

void check_scalar() {
  for (const size_t n : {1, 7, 32, 64, 1000, 5001, 40000}) check_fours(n);
  std::vector<uint16_t> usual;
  for (uint32_t bits = 0x3800; bits < 0x4400; bits += 3) usual.push_back(static_cast<uint16_t>(bits ^ (bits << 15)));
  const std::vector<uint16_t> ends = {0, 0x8000, 0x7F7F, 0xFF7F, 0x7F80, 0xFF80, 0x7FC0, 0xFFC1, 0x3F80, 0xBF80};
  for (const float scale : {-1e-3f, 0x1p-20f, 1e-7f, -3e-9f, 0.3f, 100.f}) {
    check_narrow(usual, scale, 0x12340u);
    check_narrow(usual, scale, 0x12345u);  // within a group
    check_narrow(ends, scale, 0x12340u);
  }
  for (const float scale : {1e35f, 3e38f, HUGE_VALF, NAN}) check_narrow(ends, scale, 0x770u);
}

}  // namespace adamx
