// What the kernel is told of one leaf of the parameters' tree and of one step.
#pragma once

#include <cstddef>
#include <cstdint>

namespace adamx {

constexpr int kMaxRank = 8;
constexpr int64_t kTile = 1024;  // elements that are worked on at a time, in the nearest cache; no block is longer
constexpr int64_t kLanes = 16;   // and in one vector; blocks are multiples of it

enum class Type : uint8_t { f32, bf16, f16 };

// How a moment is kept between steps.
enum class Storage : uint8_t { f32, bf16_nearest, bf16_dithered, int8, int4 };

// What a half-precision weight has behind it: nothing, the rest of a float32 weight, dithered rounding, or 8 more bits
// of a weight that is dithered to 24.
enum class Weights : uint8_t { plain, master, stochastic, narrow };

// Which elements of a weight decay: none, all, or those where that does not oppose the update.
enum class Decay : uint8_t { nowhere, everywhere, cautious };

// What the elements of a block have in common: the unit of codes, and the largest of them.
struct Block {
  float scale = 0, top = 0;
};

// The same in bfloat16.
struct HalfBlock {
  uint16_t scale = 0, top = 0;
};

struct Moment {
  Storage storage = Storage::f32;
  void* data = nullptr;              // float, bfloat16 bits, or codes, of int4 two in a byte, the first one below
  Block* blocks = nullptr;           // of codes
  HalfBlock* half_blocks = nullptr;  // in their place for an m in int4
  int64_t block = 1;

  bool coded() const { return storage == Storage::int8 || storage == Storage::int4; }
  size_t halves() const {  // of a byte, an element
    return storage == Storage::f32 ? 8 : storage == Storage::int8 ? 2 : storage == Storage::int4 ? 1 : 4;
  }
};

// The bytes of elements of so many halves.
inline size_t bytes(size_t elements, size_t halves) { return (elements * halves + 1) / 2; }

struct Leaf {
  int rank = 0;
  int64_t dims[kMaxRank] = {};
  Type gradient_type = Type::f32;
  void* gradient = nullptr;  // only read
  Type weight_type = Type::f32;
  Weights weights = Weights::plain;
  void* weight = nullptr;
  void* remainder = nullptr;                  // uint16 or uint8 beside bfloat16, float beside float16
  uint32_t moment_salt = 0, weight_salt = 0;  // of the dither
  Decay decays = Decay::nowhere;
  float scale = -1,
        decay = 0;  // the weight moves by `scale` times the direction and, where it decays, `decay` times itself
  Moment mu, nu;

  bool dithers_weight() const { return weights == Weights::stochastic || weights == Weights::narrow; }
  size_t remainder_width() const { return weights == Weights::narrow ? 1 : weight_type == Type::f16 ? 4 : 2; }
  bool has(Storage storage) const { return mu.storage == storage || nu.storage == storage; }
  int64_t last() const { return rank == 0 ? 1 : dims[rank - 1]; }
  int64_t rows() const {
    int64_t product = 1;
    for (int axis = 0; axis + 1 < rank; ++axis) product *= dims[axis];
    return product;
  }
};

// Where a tile begins.
struct Begin {
  int64_t element, row, column;
  Begin(const Leaf& leaf, int64_t at) : element(at), row(at / leaf.last()), column(at - row * leaf.last()) {}
};

// What the norms of a leaf are of.
enum class Of : uint8_t { gradient, update, weight };
constexpr int kNorms = 3;

// The numbers of Algorithm 1 in this step. `rest` is 1-β, rounded from the exact difference; a weight is 1-β^t.
struct Step {
  float b1, rest1, b2, rest2;
  float weight1, weight2, weight1_next;
  float eps, eps_root;
  float factor;  // of the gradients
  bool nesterov, precise1, precise2;
  uint32_t count, weight_count;  // the dither's
};

// Tiles are numbered row by row. A tile lies within a row where blocks do; else, and where each row is a block of whole
// vectors, rows are one.
struct Tiling {
  int64_t rows, last, length, per_row;
  int64_t count() const { return rows * per_row; }
};

Tiling tiling(const Leaf& leaf);

// Takes the step on tiles [begin, end) of a leaf, with the best instructions that this processor has. `squares` is
// null, or kNorms numbers to which the sums of squares of these tiles are added.
void step_tiles(const Leaf& leaf, const Step& step, int64_t begin, int64_t end, double* squares);

// The name of those instructions.
const char* instructions();

}  // namespace adamx
