// A step is the same on any number of threads, and with any instructions: moments to the bit, weights within a few
// units in the last place.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "run.h"
#include "selftest.h"
#include "versions.h"

namespace adamx {
namespace {

const std::vector<Shape> kShapes = {{1},
                                    {3},
                                    {17},
                                    {1023},
                                    {1025},
                                    {4500},
                                    {0, 4},
                                    {4, 0},
                                    {5, 3},
                                    {2, 0, 3},
                                    {3, 5, 37},
                                    {3, 5, 38},
                                    {7, 24},
                                    {2, 3, 4, 5},
                                    {2, 1, 3, 2, 7},
                                    {1, 2, 3, 1, 2, 33},
                                    {2, 2, 2, 2, 2, 2, 3},
                                    {1, 2, 1, 2, 1, 2, 2, 129}};
const std::vector<Shape> kLong = {{2, 1040}, {300, 3}, {35001}};  // of several pieces

struct Stored {
  int64_t storage, block;
};
const std::pair<Stored, Stored> kMoments[] = {
    {{0, 1}, {0, 1}},   {{1, 1}, {1, 1}},     {{2, 1}, {2, 1}},    {{2, 1}, {0, 1}},    {{3, 16}, {3, 16}},
    {{3, 64}, {3, 64}}, {{3, 128}, {3, 128}}, {{3, 32}, {3, 128}}, {{3, 128}, {3, 32}}, {{3, 768}, {3, 48}},
    {{3, 64}, {0, 1}},  {{2, 1}, {3, 64}},    {{4, 64}, {4, 64}},  {{4, 32}, {4, 128}}, {{4, 512}, {4, 16}},
    {{4, 48}, {0, 1}},  {{4, 64}, {1, 1}},    {{4, 128}, {3, 32}}, {{3, 64}, {4, 64}},  {{2, 1}, {4, 96}}};
const std::pair<Element, Weights> kWeights[] = {{Element::f32, Weights::plain},   {Element::bf16, Weights::plain},
                                                {Element::bf16, Weights::master}, {Element::bf16, Weights::stochastic},
                                                {Element::bf16, Weights::narrow}, {Element::f16, Weights::plain},
                                                {Element::f16, Weights::master}};

// Whether rows of two codes a byte would end within one.
bool cut(const Shape& shape) { return shape.size() > 1 && shape.back() % 2 != 0; }

// The arrays after two steps that `take` takes.
template <typename Take>
Arrays::Contents after(const Case& of, Arrays& arrays, const Arrays::Contents& start, Take take) {
  arrays.restore(start);
  for (uint32_t t = 0; t < 2; ++t) {
    Call call = arrays.call(of.form);
    call.step.count += t;
    call.step.weight_count += t;
    take(std::move(call));
  }
  return arrays.contents();
}

template <typename T>
T element(const std::string& array, size_t i) {
  T x;
  std::memcpy(&x, array.data() + i * sizeof x, sizeof x);
  return x;
}

float bfloat16(uint16_t bits, uint16_t lower) {
  const uint32_t whole = (static_cast<uint32_t>(bits) << 16) + lower - ((lower & 0x8000u) << 1);
  float x;
  std::memcpy(&x, &whole, 4);
  return x;
}

double float16(uint16_t bits) {
  const int exponent = (bits >> 10) & 31, digits = bits & 1023;
  const double size = exponent == 31  ? (digits == 0 ? HUGE_VAL : NAN)
                      : exponent == 0 ? std::ldexp(digits, -24)
                                      : std::ldexp(1024 + digits, exponent - 25);
  return bits & 0x8000 ? -size : size;
}

}  // namespace

double weight(const Case& of, const Arrays::Contents& arrays, size_t i, size_t j) {
  if (of.weight == Element::f32) return static_cast<double>(element<float>(arrays[i], j));
  if (of.weight == Element::f16 && of.master()) return static_cast<double>(element<float>(arrays[i + 1], j));
  const auto bits = element<uint16_t>(arrays[i], j);
  if (of.weight == Element::f16) return float16(bits);
  const int lower = of.master()   ? element<uint16_t>(arrays[i + 1], j)
                    : of.narrow() ? element<uint8_t>(arrays[i + 1], j) << 8
                                  : 0;
  return static_cast<double>(bfloat16(bits, static_cast<uint16_t>(lower)));
}

namespace {

// After the point, of the weight in the end.
int digits(const Case& of) {
  return of.weight == Element::f32 || of.master() ? 23 : of.narrow() ? 15 : of.weight == Element::bf16 ? 7 : 10;
}

// How far the weights of two results lie apart, in units in the last place of what starts between 1 and 2.
double distance(const Case& of, const Arrays& arrays, const Arrays::Contents& a, const Arrays::Contents& b) {
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (arrays.roles[i] != Role::weight) continue;
    const size_t n = bytes_of(arrays.inputs[i]) / (of.weight == Element::f32 ? 4 : 2);
    for (size_t j = 0; j < n; ++j) {
      const double x = weight(of, a, i, j), y = weight(of, b, i, j);
      const double apart = std::ldexp(std::abs(x - y) / std::max({std::abs(x), std::abs(y), 1.0}), digits(of));
      if (x == y) continue;  // infinite as well
      if (std::isnan(apart)) return HUGE_VAL;
      most = std::max(most, apart);
    }
  }
  return most;
}

std::string differing(const Arrays& arrays, const Arrays::Contents& a, const Arrays::Contents& b, bool all) {
  std::string found;
  for (size_t i = 0; i < a.size(); ++i) {
    const bool exact = all || arrays.roles[i] == Role::given || arrays.roles[i] == Role::moment;
    if (exact && a[i] != b[i]) found += " " + std::to_string(i);
  }
  return found;
}

void check_case(const Case& of, Pool& pool) {
  Arrays arrays(of);
  const auto start = arrays.contents();
  const auto schedule = [&pool](auto task) { pool.schedule(std::move(task)); };
  const auto alone = after(of, arrays, start, [&](Call call) { run(std::move(call), 0, schedule); });
  for (size_t i = 0; i < start.size(); ++i) {
    const bool moves = arrays.roles[i] == Role::weight && start[i].size() > 64;  // rounding may keep a few elements
    if (!moves && arrays.roles[i] != Role::given) continue;
    check((start[i] != alone[i]) == moves, of.name() + ": array " + std::to_string(i));
  }
  for (const int64_t threads : {2, 16}) {
    const auto got = after(of, arrays, start, [&](Call call) { run(std::move(call), threads - 1, schedule); });
    const std::string other = differing(arrays, got, alone, true);
    check(other.empty(), of.name() + ", " + std::to_string(threads) + " threads: arrays" + other);
  }
  for (const Version& version : versions()) {
    const auto got = after(of, arrays, start, [&](const Call& call) {
      [[maybe_unused]] const FlushSubnormals flushed;
      for (const Leaf& leaf : call.leaves) version.step_tiles(leaf, call.step, 0, tiling(leaf).count());
    });
    const std::string other = differing(arrays, got, alone, std::strcmp(version.name, instructions()) == 0);
    check(other.empty(), of.name() + ", " + version.name + ": arrays" + other);
    const double apart = distance(of, arrays, got, alone), most = digits(of) == 23 ? 4 : 1;
    check(apart <= most, of.name() + ", " + version.name + ": weights differ by " + std::to_string(apart));
  }
}

}  // namespace

// All pairs of moments and weights with all flags; gradients and the way to round change from one to the next.
// Quick: a seventh of them, one or two with each pair.
void check_steps(bool quick) {
  constexpr Element gradients[] = {Element::f32, Element::bf16, Element::f16};
  Pool pool(15);
  int number = 0;
  for (const auto& [mu, nu] : kMoments) {
    for (const auto& [weight, weights] : kWeights) {
      for (int flags = 0; flags < 12; ++flags, ++number) {
        if (quick && number % 7 != 0) continue;
        const bool nesterov = (flags & 1) != 0, precise = (flags & 2) != 0;
        Case of;
        of.form = {
            static_cast<int64_t>(weights), mu.storage, nu.storage, mu.block, nu.block, nesterov, precise, precise};
        of.gradient = gradients[(number / 12 + flags) % 3];
        of.weight = weight;
        of.decays = static_cast<Decay>(flags / 4);
        of.shapes = kShapes;
        if (!of.coded()) of.shapes.push_back({});
        if (number / 12 % 12 == flags) of.shapes.insert(of.shapes.end(), kLong.begin(), kLong.end());
        if (of.in_four()) of.shapes.erase(std::remove_if(of.shapes.begin(), of.shapes.end(), cut), of.shapes.end());
        check_case(of, pool);
      }
    }
  }
}

}  // namespace adamx
