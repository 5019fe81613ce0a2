// What a call may not be is told in a sentence, whatever is wrong with it.
#include <algorithm>
#include <functional>

#include "selftest.h"

namespace adamx {
namespace {

constexpr int kElements = 9, kFirst = 4;  // the gradient of the only leaf; what follows it comes out as well

Case master_over_int8() {
  Case of;
  of.form = {static_cast<int64_t>(Weights::master), 3, 3, 32, 64, false, false, false};
  of.weight = Element::bf16;
  of.shapes = {{3, 70}};
  return of;
}

// A call that is changed before it is read.
struct Changed {
  Form form;
  std::vector<View> inputs, outputs;

  // Changes an input, and the output that it is.
  void both(size_t i, const std::function<void(View&)>& change) {
    change(inputs[i]);
    if (i > kFirst) change(outputs[i - kFirst - 1]);
  }
};

void check_read(const Case& of, const std::string& what, const std::string& part,
                const std::function<void(Changed&)>& change) {
  const Arrays arrays(of);
  Changed changed{of.form, arrays.inputs, arrays.outputs};
  change(changed);
  Call call;
  const std::string error = read(changed.inputs, changed.outputs, changed.form, call);
  const bool told = error.rfind("adamx: ", 0) == 0 && error.find(part) != std::string::npos;
  check(part.empty() ? error.empty() : told, what + " gave '" + error + "'");
}

void check_refused(const std::string& what, const std::string& part, const std::function<void(Changed&)>& change) {
  check_read(master_over_int8(), what, part, change);
}

void check_number_of_arrays(size_t inputs, size_t outputs) {
  for (size_t n = 0; n < inputs; ++n) {
    check_refused(std::to_string(n) + " inputs", "is missing", [n](Changed& c) { c.inputs.resize(n); });
  }
  for (size_t n = 0; n < outputs; ++n) {
    check_refused(std::to_string(n) + " outputs", "is missing", [n](Changed& c) { c.outputs.resize(n); });
  }
  check_refused("an input more", "too many", [](Changed& c) { c.inputs.push_back(c.inputs.back()); });
  check_refused("an output more", "too many", [](Changed& c) { c.outputs.push_back(c.outputs.back()); });
  static const int64_t salts[][2] = {{0, 3}, {2, 3}}, terms[][2] = {{0, 2}, {2, 2}};
  const auto of_leaves = [](Changed& c, int i) { c.inputs[2].dims = salts[i], c.inputs[3].dims = terms[i]; };
  check_refused("scalars of no leaf", "too many", [&](Changed& c) { of_leaves(c, 0); });
  check_refused("scalars of two leaves", "is missing", [&](Changed& c) { of_leaves(c, 1); });
  check_refused("an unknown decay", "decays in no way",
                [](Changed& c) { static_cast<uint32_t*>(c.inputs[2].data)[2] = 3; });
  check_refused("terms of two leaves", "terms must have shape", [](Changed& c) { c.inputs[3].dims = terms[1]; });
}

void check_arrays(size_t inputs) {
  for (size_t i = 0; i < inputs; ++i) {
    const std::string number = "input " + std::to_string(i);
    for (int element = 0; element < kElements; ++element) {
      const auto other = static_cast<Element>(element);
      check_read(master_over_int8(), number + " of element " + std::to_string(element),
                 Arrays(master_over_int8()).inputs[i].element == other || (i == kFirst && element < 3) ? "" : " ",
                 [i, other](Changed& c) { c.both(i, [other](View& view) { view.element = other; }); });
    }
    static const int64_t wrong[] = {3, 71, 1};
    for (int rank = 0; rank <= 3; ++rank) {
      check_refused(number + " of another shape", i == 2 ? "3 a leaf" : "must have shape",
                    [i, rank](Changed& c) { c.both(i, [rank](View& view) { view.rank = rank, view.dims = wrong; }); });
    }
    if (i != 7 && i != 9) {  // codes are bytes
      check_refused(number + " at an odd address", "is not aligned",
                    [i](Changed& c) { c.both(i, [](View& view) { view.data = static_cast<char*>(view.data) + 1; }); });
    }
    if (i <= kFirst) continue;
    const size_t output = i - kFirst - 1;
    check_refused(number + " elsewhere", "must be updated in place",
                  [output](Changed& c) { c.outputs[output].data = static_cast<char*>(c.outputs[output].data) + 4; });
    check_refused(number + " to another element", "differs from its result",
                  [output](Changed& c) { c.outputs[output].element = Element::other; });
    check_refused(number + " to another shape", "differs from its result",
                  [output](Changed& c) { c.outputs[output].dims = wrong; });
  }
}

void check_forms() {
  for (const int64_t storage : {int64_t{-1}, int64_t{5}, int64_t{256 + 3}, INT64_MAX, INT64_MIN}) {
    check_refused("a storage of mu", "is stored in no way", [storage](Changed& c) { c.form.mu_storage = storage; });
    check_refused("a storage of nu", "is stored in no way", [storage](Changed& c) { c.form.nu_storage = storage; });
    check_refused("weights", "is rounded in no way", [storage](Changed& c) { c.form.weights = storage; });
  }
  for (const int64_t block : {int64_t{0}, int64_t{-16}, int64_t{8}, int64_t{24}, int64_t{1040}, INT64_MAX, INT64_MIN}) {
    const std::string name = "a block of " + std::to_string(block);
    check_refused(name + " of mu", "a block must", [block](Changed& c) { c.form.mu_block = block; });
    check_refused(name + " of nu", "a block must", [block](Changed& c) { c.form.nu_block = block; });
  }
  check_refused("another block", "must have shape (3, 1, 2), got (3, 2, 2)", [](Changed& c) { c.form.nu_block = 96; });
  check_refused("a long block", "up to 1024", [](Changed& c) { c.form.nu_block = 2048; });
  check_refused("blocks that do not nest", "must nest", [](Changed& c) { c.form.mu_block = 48; });
}

void check_norms_asked() {
  static float norms[3];
  static const int64_t shape[] = {1, 3}, wrong[] = {1, 2};
  const auto asked = [](const View& view) {
    return [view](Changed& c) { c.form.norms = true, c.outputs.push_back(view); };
  };
  check_refused("norms without an output", "norms is missing", [](Changed& c) { c.form.norms = true; });
  check_refused("norms of another shape", "norms must have shape (1, 3)", asked({Element::f32, 2, wrong, norms}));
  check_refused("norms of another element", "norms must be float32", asked({Element::u32, 2, shape, norms}));
  check_read(master_over_int8(), "norms", "", asked({Element::f32, 2, shape, norms}));
}

void check_leaves() {
  const auto nothing = [](Changed&) {};
  check_read(master_over_int8(), "a call that is right", "", nothing);
  Case of = master_over_int8();
  of.shapes = {{0, 70}, {3, 0}, {1}, {0}};
  check_read(of, "leaves without elements", "", nothing);
  check_read(of, "leaves without memory", "", [](Changed& c) {
    for (size_t i = kFirst; i < c.inputs.size(); ++i) {
      const View& view = c.inputs[i];
      if (std::find(view.dims, view.dims + view.rank, 0) != view.dims + view.rank) c.inputs[i].data = nullptr;
    }
    for (View& view : c.outputs) {
      if (std::find(view.dims, view.dims + view.rank, 0) != view.dims + view.rank) view.data = nullptr;
    }
  });
  of.shapes = {};
  check_read(of, "no leaves", "", nothing);
  of.shapes = {{}};
  check_read(of, "int8 without an axis", "has no axis for blocks", nothing);
  of.shapes = {Shape(8, 1)};
  check_read(of, "8 axes", "", nothing);
  of.shapes = {Shape(9, 1)};
  check_read(of, "9 axes", "more than 8 axes", nothing);
  of = Case();
  of.form.weights = static_cast<int64_t>(Weights::stochastic);
  of.weight = Element::f16;
  of.shapes = {{3}};
  check_read(of, "dithered float16", "a dithered parameter must be bfloat16, got float16", nothing);
  Case fours;
  fours.form.mu_storage = fours.form.nu_storage = 4;
  fours.form.mu_block = fours.form.nu_block = 16;
  fours.shapes = {{3, 70}, {71}, {1, 71}};
  check_read(fours, "int4", "", nothing);
  fours.shapes = {{3, 71}};
  check_read(fours, "int4 in odd rows", "mu has rows that end within a byte", nothing);
  fours.shapes = {{3, 70}};
  check_read(fours, "bytes for int4", "nu must be int4, got uint8",
             [](Changed& c) { c.inputs[8].element = c.outputs[3].element = Element::u8; });
  check_read(fours, "numbers of v for m", "mu must be bfloat16, got uint16",
             [](Changed& c) { c.inputs[7].element = c.outputs[2].element = Element::u16; });
  of.form.weights = static_cast<int64_t>(Weights::narrow);
  check_read(of, "24 bits of float16", "a dithered parameter must be bfloat16, got float16", nothing);
  of.weight = Element::bf16;
  check_read(of, "24 bits", "", nothing);
  check_read(of, "24 bits as 32", "a remainder must be uint16, got uint8",
             [](Changed& c) { c.form.weights = static_cast<int64_t>(Weights::master); });
}

}  // namespace

void check_calls() {
  const Arrays arrays(master_over_int8());
  check_number_of_arrays(arrays.inputs.size(), arrays.outputs.size());
  check_arrays(arrays.inputs.size());
  check_forms();
  check_norms_asked();
  check_leaves();
}

}  // namespace adamx
