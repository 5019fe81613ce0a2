#include "operands.h"

#include <cstring>

namespace adamx {
namespace {

constexpr int64_t kNumbers = 10, kCounts = 2, kPerLeaf = 3, kTerms = 2;

const char* name(Element element) {
  static const char* const names[] = {"float32", "bfloat16", "float16", "uint16", "uint32",
                                      "int8",    "uint8",    "int4",    "another"};
  return names[static_cast<int>(element)];
}

size_t width(Element element) {
  static const size_t widths[] = {4, 2, 2, 2, 4, 1, 1, 1, 1};
  return widths[static_cast<int>(element)];
}

bool is_float(Element element) {
  return element == Element::f32 || element == Element::bf16 || element == Element::f16;
}

Type type_of(Element element) {
  return element == Element::f32 ? Type::f32 : element == Element::bf16 ? Type::bf16 : Type::f16;
}

// The next array in line, checked; the first thing that is wrong with any stays in `error`.
class Reader {
 public:
  Reader(const std::vector<View>& inputs, const std::vector<View>& outputs) : inputs_(inputs), outputs_(outputs) {}

  std::string error;

  View input(const char* what) {
    const View* view = next(what, inputs_, input_);
    return view == nullptr ? View{} : *view;
  }

  View output(const char* what) {
    const View* view = next(what, outputs_, output_);
    return view == nullptr ? View{} : *view;
  }

  // An input that is an output in the same memory.
  View in_place(const char* what) {
    const View *in = next(what, inputs_, input_), *out = next(what, outputs_, output_);
    if (in == nullptr || out == nullptr) return {};
    if (in->data != out->data) fail(what, "must be updated in place");
    if (in->element != out->element || !same_shape(*in, out->rank, out->dims)) fail(what, "differs from its result");
    return *in;
  }

  void expect(const char* what, const View& view, Element element) {
    if (view.element != element) fail(what, std::string("must be ") + name(element) + ", got " + name(view.element));
  }

  void expect_float(const char* what, const View& view) {
    if (!is_float(view.element))
      fail(what, std::string("must be float32 or half precision, got ") + name(view.element));
  }

  void expect_shape(const char* what, const View& view, int rank, const int64_t* dims) {
    if (!same_shape(view, rank, dims))
      fail(what, "must have shape " + text(rank, dims) + ", got " + text(view.rank, view.dims));
  }

  void expect_end() {
    if (input_ != inputs_.size() || output_ != outputs_.size()) fail("the call", "has too many arrays");
  }

  void fail(const char* what, const std::string& why) {
    if (error.empty()) error = std::string("adamx: ") + what + " " + why;
  }

 private:
  const std::vector<View>&inputs_, &outputs_;
  size_t input_ = 0, output_ = 0;

  const View* next(const char* what, const std::vector<View>& views, size_t& index) {
    if (index >= views.size()) {
      fail(what, "is missing");
      return nullptr;
    }
    const View& view = views[index++];
    if (reinterpret_cast<uintptr_t>(view.data) % width(view.element) != 0) fail(what, "is not aligned");
    return &view;
  }

  static std::string text(int rank, const int64_t* dims) {
    std::string listed;
    for (int axis = 0; axis < rank; ++axis) listed += (axis == 0 ? "" : ", ") + std::to_string(dims[axis]);
    return "(" + listed + ")";
  }

  static bool same_shape(const View& view, int rank, const int64_t* dims) {
    if (view.rank != rank) return false;
    for (int axis = 0; axis < rank; ++axis) {
      if (view.dims[axis] != dims[axis]) return false;
    }
    return true;
  }
};

Element element_of(Storage storage, bool square) {
  switch (storage) {
    case Storage::f32:
      return Element::f32;
    case Storage::int8:
      return square ? Element::u8 : Element::i8;
    case Storage::int4:
      return Element::i4;
    default:
      return Element::bf16;
  }
}

Moment moment(Reader& reader, const char* what, const Leaf& leaf, int64_t storage, int64_t block, bool square) {
  Moment read;
  read.storage = static_cast<Storage>(storage);
  read.block = read.coded() ? block : 1;
  const View data = reader.in_place(what);
  reader.expect_shape(what, data, leaf.rank, leaf.dims);
  reader.expect(what, data, element_of(read.storage, square));
  read.data = data.data;
  if (!read.coded()) return read;
  if (read.storage == Storage::int4 && leaf.rows() > 1 && leaf.last() % 2 != 0)
    reader.fail(what, "has rows that end within a byte");

  int64_t blocks[kMaxRank + 1] = {};
  for (int axis = 0; axis < leaf.rank; ++axis) blocks[axis] = leaf.dims[axis];
  if (leaf.rank == 0) reader.fail(what, "has no axis for blocks");
  if (leaf.rank > 0) blocks[leaf.rank - 1] = (leaf.last() + block - 1) / block;
  blocks[leaf.rank] = 2;
  const View view = reader.in_place(what);
  const bool half = read.storage == Storage::int4 && !square;
  reader.expect(what, view, half ? Element::bf16 : Element::f32);
  reader.expect_shape(what, view, leaf.rank + 1, blocks);
  if (half) read.half_blocks = static_cast<HalfBlock*>(view.data);
  if (!half) read.blocks = static_cast<Block*>(view.data);
  return read;
}

Leaf leaf(Reader& reader, const Form& form, const uint32_t* numbers, const float* terms) {
  Leaf read;
  const View gradient = reader.input("a gradient"), weight = reader.in_place("a parameter");
  reader.expect_float("a gradient", gradient);
  reader.expect_float("a parameter", weight);
  if (weight.rank > kMaxRank) reader.fail("a parameter", "has more than 8 axes");
  if (!reader.error.empty()) return read;
  read.rank = weight.rank;
  for (int axis = 0; axis < weight.rank; ++axis) read.dims[axis] = weight.dims[axis];
  reader.expect_shape("a gradient", gradient, read.rank, read.dims);
  read.gradient_type = type_of(gradient.element);
  read.gradient = gradient.data;
  read.weight_type = type_of(weight.element);
  read.weight = weight.data;
  read.weights = weight.element == Element::f32 ? Weights::plain : static_cast<Weights>(form.weights);
  if (read.dithers_weight()) reader.expect("a dithered parameter", weight, Element::bf16);
  if (read.weights == Weights::master || read.weights == Weights::narrow) {
    const View remainder = reader.in_place("a remainder");
    const Element upper = read.weights == Weights::narrow ? Element::u8 : Element::u16;
    reader.expect("a remainder", remainder, read.weight_type == Type::f16 ? Element::f32 : upper);
    reader.expect_shape("a remainder", remainder, read.rank, read.dims);
    read.remainder = remainder.data;
  }
  read.mu = moment(reader, "mu", read, form.mu_storage, form.mu_block, false);
  read.nu = moment(reader, "nu", read, form.nu_storage, form.nu_block, true);
  if (!reader.error.empty()) return read;
  read.moment_salt = numbers[0];
  read.weight_salt = numbers[1];
  if (numbers[2] > static_cast<uint32_t>(Decay::cautious)) reader.fail("a parameter", "decays in no way known here");
  read.decays = static_cast<Decay>(numbers[2]);
  read.scale = terms[0];
  read.decay = terms[1];
  return read;
}

bool coded(int64_t storage) { return storage >= static_cast<int64_t>(Storage::int8); }

// Blocks must nest, so that a tile begins a block of both moments.
bool fits(int64_t storage, int64_t block, int64_t other) {
  return !coded(storage) || (block >= kLanes && block <= kTile && block % kLanes == 0 &&
                             (other <= 1 || block % other == 0 || other % block == 0));
}

}  // namespace

std::string read(const std::vector<View>& inputs, const std::vector<View>& outputs, const Form& form, Call& call) {
  Reader reader(inputs, outputs);
  for (const int64_t storage : {form.mu_storage, form.nu_storage}) {
    if (storage < 0 || storage > 4) reader.fail("a moment", "is stored in no way known here");
  }
  if (form.weights < 0 || form.weights > 3) reader.fail("a parameter", "is rounded in no way known here");
  if (!fits(form.mu_storage, form.mu_block, coded(form.nu_storage) ? form.nu_block : 1) ||
      !fits(form.nu_storage, form.nu_block, coded(form.mu_storage) ? form.mu_block : 1)) {
    reader.fail("a block", "must have a multiple of 16 elements up to 1024, and those of mu and nu must nest");
  }
  const View numbers = reader.input("numbers"), counts = reader.input("counts"), leaves = reader.input("salts");
  const View terms = reader.input("terms");
  reader.expect("numbers", numbers, Element::f32);
  reader.expect("counts", counts, Element::u32);
  reader.expect("salts", leaves, Element::u32);
  reader.expect("terms", terms, Element::f32);
  reader.expect_shape("numbers", numbers, 1, &kNumbers);
  reader.expect_shape("counts", counts, 1, &kCounts);
  if (leaves.rank != 2 || leaves.dims[1] != kPerLeaf) reader.fail("salts", "must be 3 a leaf");
  if (leaves.rank == 2) {
    const int64_t shape[] = {leaves.dims[0], kTerms};
    reader.expect_shape("terms", terms, 2, shape);
  }
  if (!reader.error.empty()) return reader.error;

  const auto* x = static_cast<const float*>(numbers.data);
  const auto* count = static_cast<const uint32_t*>(counts.data);
  call.step = {x[0], x[1], x[2],          x[3],          x[4],          x[5],     x[6],    x[7],
               x[8], x[9], form.nesterov, form.precise1, form.precise2, count[0], count[1]};
  call.leaves.reserve(static_cast<size_t>(leaves.dims[0]));
  for (int64_t i = 0; i < leaves.dims[0] && reader.error.empty(); ++i) {
    call.leaves.push_back(leaf(reader, form, static_cast<const uint32_t*>(leaves.data) + kPerLeaf * i,
                               static_cast<const float*>(terms.data) + kTerms * i));
  }
  if (form.norms && reader.error.empty()) {
    const View norms = reader.output("norms");
    const int64_t shape[] = {leaves.dims[0], kNorms};
    reader.expect("norms", norms, Element::f32);
    reader.expect_shape("norms", norms, 2, shape);
    call.norms = static_cast<float*>(norms.data);
  }
  reader.expect_end();
  return reader.error;
}

}  // namespace adamx
