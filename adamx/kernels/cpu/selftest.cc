// The kernel's test program. It needs neither XLA nor Python, so that it runs under sanitizers. With --quick: a share.
#include "selftest.h"

#include <cmath>
#include <cstdio>
#include <cstring>

#include "versions.h"

namespace adamx {
namespace {

int passed = 0, failed = 0;

size_t width(Element element) {
  const bool wide = element == Element::f32 || element == Element::u32;
  return wide ? 4 : element == Element::i8 || element == Element::u8 || element == Element::i4 ? 1 : 2;
}

// A number between 2^-14 and 2^16 cut to the bits of an element.
uint32_t bits_of(float x, Element element) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  switch (element) {
    case Element::f32:
      return bits;
    case Element::bf16:
      return bits >> 16;
    case Element::f16:
      return ((bits >> 16) & 0x8000u) | (x == 0 ? 0u : ((bits & 0x7FFFFFFFu) - (112u << 23)) >> 13);
    default:
      return static_cast<uint32_t>(static_cast<int64_t>(x));
  }
}

}  // namespace

void check(bool ok, const std::string& what) {
  ++(ok ? passed : failed);
  if (!ok) std::printf("FAILED: %s\n", what.c_str());
}

std::string Case::name() const {
  static const char* const storages[] = {"float32", "nearest", "dithered", "int8 ", "int4 "};
  static const char* const weightings[] = {" plain", " master", " stochastic", " of 24 bits"};
  static const char* const decaying[] = {"", ", decay", ", cautious decay"};
  static const char* const elements[] = {"float32", "bfloat16", "float16"};
  const auto moment = [](int64_t storage, int64_t block) {
    return storages[storage] + (storage >= 3 ? std::to_string(block) : std::string());
  };
  return "mu " + moment(form.mu_storage, form.mu_block) + ", nu " + moment(form.nu_storage, form.nu_block) +
         ", gradient " + elements[static_cast<int>(gradient)] + ", weight " + elements[static_cast<int>(weight)] +
         weightings[form.weights] + decaying[static_cast<int>(decays)] + (form.nesterov ? ", nesterov" : "") +
         (form.precise1 ? ", precise" : "");
}

size_t bytes_of(const View& view) {
  size_t bytes = width(view.element);
  for (int axis = 0; axis < view.rank; ++axis) bytes *= static_cast<size_t>(view.dims[axis]);
  return view.element == Element::i4 ? (bytes + 1) / 2 : bytes;
}

Arrays::Arrays(const Case& of) {
  // β is 1/2, so that averages are rounded once whether multiplication and addition are contracted or not.
  const float numbers[] = {.5f, .5f, .5f, .5f, .875f, .875f, .9375f, 1e-3f, 1e-6f, .5f};
  const float* number = numbers;
  add(Role::given, Element::f32, {10}, [&] { return *number++; });
  add(Role::given, Element::u32, {2}, [] { return 5.0f; });
  const auto count = static_cast<int64_t>(of.shapes.size());
  int column = 0;
  add(Role::given, Element::u32, {count, 3}, [&] {
    const float salt = std::floor(1e5f * uniform());  // every other leaf begins where a group does
    return ++column % 3 == 0 ? static_cast<float>(of.decays) : column / 3 % 2 == 0 ? 16 * salt : salt;
  });
  int term = 0;
  add(Role::given, Element::f32, {count, 2}, [&] {
    return term++ % 2 == 0 ? -1e-2f : of.decays == Decay::nowhere ? 0.f : -1e-3f;
  });
  for (const Shape& shape : of.shapes) {
    int64_t i = 0;
    add(Role::given, of.gradient, shape, [&] {
      const float x = .5f + 1.5f * uniform();
      return ++i % 7 == 0 ? 0 : uniform() < .5f ? x : -x;
    });
    add(Role::weight, of.weight, shape, [&] { return 1 + uniform(); });
    const Element rest = of.narrow() ? Element::u8 : of.weight == Element::f16 ? Element::f32 : Element::u16;
    const auto remainder = [&] {
      return rest == Element::f32 ? 1 + uniform() : (rest == Element::u8 ? 256 : 65536) * uniform();
    };
    if (of.master() || of.narrow()) add(Role::remainder, rest, shape, remainder);
    add_moment(false, of.form.mu_storage, of.form.mu_block, shape);
    add_moment(true, of.form.nu_storage, of.form.nu_block, shape);
  }
}

float Arrays::uniform() {
  random_ = random_ * 1664525u + 1013904223u;
  return static_cast<float>(random_ >> 8) * 0x1p-24f;
}

void Arrays::add_moment(bool square, int64_t storage, int64_t block, const Shape& shape) {
  if (storage < 3) {
    const Element element = storage == 0 ? Element::f32 : Element::bf16;
    return add(Role::moment, element, shape, [&] { return square ? uniform() : 2 * uniform() - 1; });
  }
  Shape blocks = shape;
  if (!blocks.empty()) blocks.back() = (blocks.back() + block - 1) / block;
  blocks.push_back(2);
  const auto code = [&] { return square ? 256 * uniform() : 255 * uniform() - 127; };
  const auto two_codes = [&] { return 256 * uniform(); };
  const bool four = storage == 4;
  if (four) add(Role::moment, Element::i4, shape, two_codes);
  if (!four) add(Role::moment, square ? Element::u8 : Element::i8, shape, code);
  bool scale = false;
  add(Role::moment, four && !square ? Element::bf16 : Element::f32, blocks, [&] {
    scale = !scale;
    return scale ? (1 + uniform()) * (four ? .25f : square ? 0x1p-32f : 0x1p-14f) : 2 + uniform();
  });
}

void Arrays::add(Role role, Element element, const Shape& shape, const std::function<float()>& number) {
  shapes_.push_back(shape);
  View view{element, static_cast<int>(shape.size()), shapes_.back().data(), nullptr};
  const size_t bytes = bytes_of(view), each = width(element);
  memory_.emplace_back(new char[each + bytes]);
  view.data = memory_.back().get() + each;
  for (size_t i = 0; i < bytes; i += each) {
    const uint32_t bits = bits_of(number(), element);
    std::memcpy(static_cast<char*>(view.data) + i, &bits, each);  // the lower bytes come first
  }
  inputs.push_back(view);
  roles.push_back(role);
  if (role != Role::given) outputs.push_back(view);
}

Arrays::Contents Arrays::contents() const {
  Contents copied;
  for (const View& view : inputs) copied.emplace_back(static_cast<const char*>(view.data), bytes_of(view));
  return copied;
}

void Arrays::restore(const Contents& contents) {
  for (size_t i = 0; i < inputs.size(); ++i) std::memcpy(inputs[i].data, contents[i].data(), contents[i].size());
}

Call Arrays::call(const Form& form) const {
  Call call;
  const std::string error = read(inputs, outputs, form, call);
  if (!error.empty()) check(false, error);
  return call;
}

Pool::Pool(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

Pool::~Pool() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Pool::schedule(std::function<void()> task) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  changed_.notify_one();
}

void Pool::work() {
  for (;;) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return closed_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    const std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
  }
}

}  // namespace adamx

int main(int count, char** arguments) {
  adamx::check_calls();
  adamx::check_steps(count > 1 && std::strcmp(arguments[1], "--quick") == 0);
  adamx::check_threads();
  adamx::check_norms();
  adamx::check_scalar();
  for (const adamx::Version& version : adamx::versions()) std::printf("%s ", version.name);
  std::printf("\n%d passed, %d failed\n", adamx::passed, adamx::failed);
  return adamx::failed != 0;
}
