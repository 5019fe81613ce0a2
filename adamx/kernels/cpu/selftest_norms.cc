// Norms are those of the arrays, whatever their size, on any number of threads, and leave the step as it is.
#include <cmath>
#include <cstring>

#include "run.h"
#include "selftest.h"
#include "versions.h"

namespace adamx {
namespace {

// A lane adds at most kTile / 4 squares in float32, each time off by at most half a unit: half of that in the root.
constexpr double kRounded = kTile / 4 * 0x1p-25;

using Taken = std::function<void(Call)>;

// The norms that a step on the arrays gives, 3 a leaf.
std::vector<float> measured(const Case& of, const Arrays& arrays, const Taken& take) {
  std::vector<float> norms(of.shapes.size() * kNorms, -1);
  Call call = arrays.call(of.form);
  call.norms = norms.data();
  take(std::move(call));
  return norms;
}

double gradient(const Case& of, const void* data, size_t j) {
  if (of.gradient == Element::f32) return static_cast<double>(static_cast<const float*>(data)[j]);
  uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t*>(data)[j]) << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return static_cast<double>(x);
}

bool near(double a, double b, double most) { return std::abs(a - b) <= most * std::abs(b); }

// Where the weights begin at 0 they end at their update.
void check_case(const Case& of, Pool& pool) {
  Arrays arrays(of);
  for (size_t i = 0; i < arrays.inputs.size(); ++i) {
    const bool starts = arrays.roles[i] == Role::weight || arrays.roles[i] == Role::remainder;
    if (starts) std::memset(arrays.inputs[i].data, 0, bytes_of(arrays.inputs[i]));
  }
  const auto start = arrays.contents();
  const auto schedule = [&pool](auto task) { pool.schedule(std::move(task)); };
  run(arrays.call(of.form), 0, schedule);
  const auto expected = arrays.contents();
  arrays.restore(start);
  const auto alone = measured(of, arrays, [&](Call call) { run(std::move(call), 0, schedule); });
  check(arrays.contents() == expected, of.name() + ": a step that is measured is the same");
  arrays.restore(start);
  const auto shared = measured(of, arrays, [&](Call call) { run(std::move(call), 15, schedule); });
  check(shared == alone, of.name() + ": norms on 16 threads");
  const double most = of.weight == Element::f32 || of.master() ? kRounded : of.narrow() ? 0x1p-14 : 2e-2;
  size_t leaf = 0;
  for (size_t i = 0; i < arrays.inputs.size(); ++i) {
    if (arrays.roles[i] != Role::weight) continue;
    const size_t n = bytes_of(arrays.inputs[i]) / (of.weight == Element::f32 ? 4 : 2);
    double gradients = 0, weights = 0;
    for (size_t j = 0; j < n; ++j) {
      gradients += std::pow(gradient(of, arrays.inputs[i - 1].data, j), 2);
      weights += std::pow(weight(of, expected, i, j), 2);
    }
    const float* norms = alone.data() + kNorms * leaf++;
    const std::string name = of.name() + ": leaf " + std::to_string(leaf) + ", the norm of ";
    check(near(static_cast<double>(norms[0]), std::sqrt(gradients), kRounded), name + "gradients");
    check(near(static_cast<double>(norms[1]), std::sqrt(weights), most), name + "updates");
    check(near(static_cast<double>(norms[2]), std::sqrt(weights), kRounded), name + "weights");
  }
  for (const Version& version : versions()) {
    arrays.restore(start);
    std::vector<double> squares(of.shapes.size() * kNorms);
    const Call call = arrays.call(of.form);
    for (size_t i = 0; i < call.leaves.size(); ++i) {
      version.measure_tiles(call.leaves[i], call.step, 0, tiling(call.leaves[i]).count(), squares.data() + kNorms * i);
    }
    bool same = true;
    for (size_t i = 0; i < squares.size(); ++i)
      same &= near(std::sqrt(squares[i]), static_cast<double>(alone[i]), most);
    check(same, of.name() + ": norms with " + version.name);
  }
}

void check_size(float size) {
  Case of;
  of.shapes = {{4500}};
  const Arrays arrays(of);
  for (int i = 0; i < 4500; ++i) static_cast<float*>(arrays.inputs[4].data)[i] = size;
  const auto norms =
      measured(of, arrays, [](Call call) { run(std::move(call), 0, [](const std::function<void()>&) {}); });
  const double expected = std::sqrt(4500.0) * static_cast<double>(size);
  check(near(static_cast<double>(norms[0]), expected, kRounded), "the norm of gradients of " + std::to_string(size));
}

}  // namespace

void check_norms() {
  Pool pool(15);
  int number = 0;
  for (const auto& [storage, block] : {std::pair<int64_t, int64_t>{0, 1}, {1, 1}, {2, 1}, {3, 64}, {4, 64}}) {
    for (const auto& [element, weights] : {std::pair<Element, Weights>{Element::f32, Weights::plain},
                                           {Element::bf16, Weights::plain},
                                           {Element::bf16, Weights::master},
                                           {Element::bf16, Weights::stochastic},
                                           {Element::bf16, Weights::narrow},
                                           {Element::f16, Weights::master}}) {
      Case of;
      of.form.weights = static_cast<int64_t>(weights);
      of.form.mu_storage = of.form.nu_storage = storage;
      of.form.mu_block = of.form.nu_block = block;
      of.form.nesterov = number % 2 == 1;
      of.gradient = number++ % 3 == 0 ? Element::bf16 : Element::f32;
      of.weight = element;
      of.shapes = {{1}, {17}, {1025}, {0, 4}, {3, storage == 4 ? 38 : 37}, {70001}, {96, 64}};
      check_case(of, pool);
    }
  }
  for (const float size : {0.0f, 1e-30f, 1e-18f, 1.0f, 1e30f}) check_size(size);
}

}  // namespace adamx
