// The kernel as a target of XLA's foreign function interface.
#include "xla/ffi/api/ffi.h"

#include <string>
#include <utility>
#include <vector>

#include "run.h"

namespace ffi = xla::ffi;

namespace adamx {
namespace {

Element element_of(ffi::DataType type) {
  switch (type) {
    case ffi::DataType::F32:
      return Element::f32;
    case ffi::DataType::BF16:
      return Element::bf16;
    case ffi::DataType::F16:
      return Element::f16;
    case ffi::DataType::U16:
      return Element::u16;
    case ffi::DataType::U32:
      return Element::u32;
    case ffi::DataType::S8:
      return Element::i8;
    case ffi::DataType::U8:
      return Element::u8;
    case ffi::DataType::S4:
      return Element::i4;
    default:
      return Element::other;
  }
}

View view_of(ffi::AnyBuffer buffer) {
  const auto dims = buffer.dimensions();
  return {element_of(buffer.element_type()), static_cast<int>(dims.size()), dims.begin(), buffer.untyped_data()};
}

ffi::Error step(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets results, int64_t weights,
                int64_t mu_storage, int64_t nu_storage, int64_t mu_block, int64_t nu_block, bool nesterov,
                bool precise1, bool precise2, bool norms) {
  std::vector<View> inputs, outputs;
  inputs.reserve(args.size());
  outputs.reserve(results.size());
  for (size_t i = 0; i < args.size(); ++i) {
    auto buffer = args.get<ffi::AnyBuffer>(i);
    if (buffer.has_error()) return buffer.error();
    inputs.push_back(view_of(buffer.value()));
  }
  for (size_t i = 0; i < results.size(); ++i) {
    auto buffer = results.get<ffi::AnyBuffer>(i);
    if (buffer.has_error()) return buffer.error();
    outputs.push_back(view_of(*buffer.value()));
  }
  Call call;
  const Form form{weights, mu_storage, nu_storage, mu_block, nu_block, nesterov, precise1, precise2, norms};
  const std::string error = read(inputs, outputs, form, call);
  if (!error.empty()) return ffi::Error::InvalidArgument(error);
  run(std::move(call), pool.num_threads() - 1, [&pool](auto task) { pool.Schedule(std::move(task)); });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace adamx

#pragma GCC visibility push(default)
XLA_FFI_DEFINE_HANDLER_SYMBOL(adamx_step, adamx::step,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<int64_t>("weights")
                                  .Attr<int64_t>("mu_storage")
                                  .Attr<int64_t>("nu_storage")
                                  .Attr<int64_t>("mu_block")
                                  .Attr<int64_t>("nu_block")
                                  .Attr<bool>("nesterov")
                                  .Attr<bool>("precise1")
                                  .Attr<bool>("precise2")
                                  .Attr<bool>("norms"));

extern "C" int adamx_interface() { return adamx::kInterface; }
extern "C" const char* adamx_instructions() { return adamx::instructions(); }
extern "C" int adamx_api_major() { return XLA_FFI_API_MAJOR; }
extern "C" int adamx_api_minor() { return XLA_FFI_API_MINOR; }
#pragma GCC visibility pop
