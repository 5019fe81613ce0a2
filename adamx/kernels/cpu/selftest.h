// What the parts of the test program share: calls on buffers of exactly their size, and threads.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "operands.h"

namespace adamx {

// Counts a check, and tells of one that fails.
void check(bool passed, const std::string& what);

void check_steps(bool quick);
void check_calls();
void check_threads();
void check_norms();
void check_scalar();

using Shape = std::vector<int64_t>;

// The leaves of a call.
struct Case {
  Form form;
  Element gradient = Element::f32, weight = Element::f32;
  Decay decays = Decay::nowhere;
  std::vector<Shape> shapes;

  bool coded() const { return form.mu_storage >= 3 || form.nu_storage >= 3; }
  bool in_four() const { return form.mu_storage == 4 || form.nu_storage == 4; }
  bool is(Weights weights) const { return form.weights == static_cast<int64_t>(weights) && weight != Element::f32; }
  bool master() const { return is(Weights::master); }
  bool narrow() const { return is(Weights::narrow); }
  std::string name() const;
};

// What an array is in a call: only read, part of a weight, or part of a moment.
enum class Role : uint8_t { given, weight, remainder, moment };

// A call's arrays. Each lies in memory of its own that ends where the array ends, aligned for its elements, no better.
class Arrays {
 public:
  explicit Arrays(const Case& of);
  Arrays(const Arrays&) = delete;
  Arrays& operator=(const Arrays&) = delete;

  std::vector<View> inputs, outputs;
  std::vector<Role> roles;  // of the inputs

  using Contents = std::vector<std::string>;
  Contents contents() const;
  void restore(const Contents& contents);

  // The call; a sentence that says why not is a failed check.
  Call call(const Form& form) const;

 private:
  std::deque<Shape> shapes_;
  std::vector<std::unique_ptr<char[]>> memory_;
  uint32_t random_ = 1;

  float uniform();  // in [0, 1)
  void add(Role role, Element element, const Shape& shape, const std::function<float()>& number);
  void add_moment(bool square, int64_t storage, int64_t block, const Shape& shape);
};

size_t bytes_of(const View& view);

// Element j of the weight whose array has number i, or of the float32 weight behind it.
double weight(const Case& of, const Arrays::Contents& arrays, size_t i, size_t j);

// Threads that run tasks in the order in which they come.
class Pool {
 public:
  explicit Pool(int threads);
  ~Pool();  // once all tasks are done
  void schedule(std::function<void()> task);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  bool closed_ = false;
  std::vector<std::thread> threads_;

  void work();
};

}  // namespace adamx
