// The step on a leaf, tile by tile. Compiled once for each set of instructions, under the name ADAMX_ISA.
#include "bits.h"
#include "dither.h"
#include "formulas.h"
#include "int8.h"
#include "leaf.h"
#include "weights.h"

namespace adamx {
namespace ADAMX_ISA {

namespace {

struct Scratch {
  alignas(64) float gradient[kTile], mu[kTile], nu[kTile], weight[kTile], direction[kTile];
  alignas(64) uint32_t bits[kTile];
};

template <typename T>
T* at(void* data, int64_t i) {
  return static_cast<T*>(data) + i;
}

// Half precision or float32 as float32: in place where it is that already.
const float* widened(Type type, const void* data, int64_t begin, int32_t n, float* __restrict out) {
  if (type == Type::f32) return static_cast<const float*>(data) + begin;
  const auto* __restrict in = static_cast<const uint16_t*>(data) + begin;
  if (type == Type::bf16) {
    for (int32_t i = 0; i < n; ++i) out[i] = from_bfloat16(in[i]);
  } else {
    for (int32_t i = 0; i < n; ++i) out[i] = from_float16(in[i]);
  }
  return out;
}

// Calls `on_block(first element, elements, block)` for the blocks of a tile that begins a block of its row.
template <typename F>
void each_block(const Leaf& leaf, int64_t block, int64_t begin, int32_t n, F on_block) {
  const int64_t last = leaf.last(), per_row = (last + block - 1) / block;
  int64_t index = begin / last * per_row + begin % last / block;
  for (int64_t i = 0; i < n; i += block, ++index) on_block(i, n - i < block ? n - i : block, index);
}

template <bool square>
float* decoded(const Leaf& leaf, const Moment& moment, int64_t begin, int32_t n, float* __restrict out) {
  switch (moment.storage) {
    case Storage::f32:
      return at<float>(moment.data, begin);
    case Storage::int8:
      each_block(leaf, moment.block, begin, n, [&](int64_t i, int64_t size, int64_t block) {
        decode_block<square>(at<uint8_t>(moment.data, begin + i), moment.scale[block], moment.top[block],
                             static_cast<int32_t>(size), out + i);
      });
      return out;
    default:
      const auto* __restrict in = at<uint16_t>(moment.data, begin);
      for (int32_t i = 0; i < n; ++i) out[i] = from_bfloat16(in[i]);
      return out;
  }
}

template <bool square>
void encode(const Leaf& leaf, const Moment& moment, uint32_t count, int64_t begin, int32_t n,
            const float* __restrict x, uint32_t* __restrict bits) {
  if (moment.storage == Storage::f32) return;
  auto* __restrict out = at<uint16_t>(moment.data, begin);
  if (moment.storage == Storage::bf16_nearest) {
    for (int32_t i = 0; i < n; ++i) out[i] = to_bfloat16(x[i]);
    return;
  }
  thresholds(leaf, moment.salt, count, begin, n, bits);
  if (moment.storage == Storage::bf16_dithered) {
    for (int32_t i = 0; i < n; ++i) out[i] = dithered_bfloat16(x[i], bits[i], square);
    return;
  }
  each_block(leaf, moment.block, begin, n, [&](int64_t i, int64_t size, int64_t block) {
    encode_block<square>(x + i, bits + i, static_cast<int32_t>(size), at<uint8_t>(moment.data, begin + i),
                         moment.scale + block, moment.top + block);
  });
}

// The float32 weights that the step starts from.
const float* started(const Leaf& leaf, int64_t begin, int32_t n, float* __restrict out) {
  if (leaf.weights != Weights::master) return widened(leaf.weight_type, leaf.weight, begin, n, out);
  if (leaf.weight_type == Type::f16) return at<float>(leaf.remainder, begin);
  const auto* __restrict upper = at<uint16_t>(leaf.weight, begin);
  const auto* __restrict lower = at<uint16_t>(leaf.remainder, begin);
  for (int32_t i = 0; i < n; ++i) out[i] = join(upper[i], lower[i]);
  return out;
}

void land(const Leaf& leaf, const Step& step, int64_t begin, int32_t n, const float* start, Scratch& scratch) {
  const float* direction = scratch.direction;
  const float rate = step.minus_rate;
  if (leaf.weight_type == Type::f32) {
    auto* weight = at<float>(leaf.weight, begin);
    for (int32_t i = 0; i < n; ++i) weight[i] = multiply_add(rate, direction[i], weight[i]);
    return;
  }
  auto* __restrict weight = at<uint16_t>(leaf.weight, begin);
  if (leaf.weights == Weights::stochastic) {
    thresholds(leaf, leaf.weight_salt, step.weight_count, begin, n, scratch.bits);
    for (int32_t i = 0; i < n; ++i) weight[i] = dithered_sum(start[i], rate * direction[i], scratch.bits[i]);
  } else if (leaf.weight_type == Type::f16) {
    auto* master = leaf.weights == Weights::master ? at<float>(leaf.remainder, begin) : scratch.weight;
    for (int32_t i = 0; i < n; ++i) {
      const float moved = multiply_add(rate, direction[i], start[i]);
      master[i] = moved;
      weight[i] = to_float16(moved);
    }
  } else if (leaf.weights == Weights::master) {
    auto* __restrict lower = at<uint16_t>(leaf.remainder, begin);
    for (int32_t i = 0; i < n; ++i) {
      const float moved = multiply_add(rate, direction[i], start[i]);
      weight[i] = upper_half(moved);
      lower[i] = lower_half(moved, weight[i]);
    }
  } else {
    for (int32_t i = 0; i < n; ++i) weight[i] = to_bfloat16(multiply_add(rate, direction[i], start[i]));
  }
}

using Formulas = void (*)(const Step&, float, int32_t, const float*, float*, float*, float*);

template <bool nesterov, bool precise1>
Formulas chosen(const Step& step) {
  return step.precise2 ? formulas<nesterov, precise1, true> : formulas<nesterov, precise1, false>;
}

Formulas chosen(const Step& step) {
  if (step.nesterov) return step.precise1 ? chosen<true, true>(step) : chosen<true, false>(step);
  return step.precise1 ? chosen<false, true>(step) : chosen<false, false>(step);
}

}  // namespace

void step_tiles(const Leaf& leaf, const Step& step, int64_t begin, int64_t end) {
  Scratch scratch;
  const Tiling tiles = tiling(leaf);
  const Formulas formulas_of_step = chosen(step);
  const bool half = leaf.nu.storage == Storage::bf16_nearest || leaf.nu.storage == Storage::bf16_dithered;
  const float largest = half ? 0x1.FEp127f : FLT_MAX;
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t column = tile % tiles.per_row * tiles.length, first = tile / tiles.per_row * tiles.last + column;
    const auto n = static_cast<int32_t>(tiles.last - column < tiles.length ? tiles.last - column : tiles.length);
    const float* gradient = widened(leaf.gradient_type, leaf.gradient, first, n, scratch.gradient);
    const float* start = started(leaf, first, n, scratch.weight);
    float* mu = decoded<false>(leaf, leaf.mu, first, n, scratch.mu);
    float* nu = decoded<true>(leaf, leaf.nu, first, n, scratch.nu);
    formulas_of_step(step, largest, n, gradient, mu, nu, scratch.direction);
    if (leaf.decays) decay(step.decay, n, start, scratch.direction);
    encode<false>(leaf, leaf.mu, step.count, first, n, mu, scratch.bits);
    encode<true>(leaf, leaf.nu, step.count, first, n, nu, scratch.bits);
    land(leaf, step, first, n, start, scratch);
  }
}

}  // namespace ADAMX_ISA
}  // namespace adamx
