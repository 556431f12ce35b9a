// Convolutions by oneDNN as XLA custom calls: forward, forward with bias and activation, data gradient, weight gradient;
// grouped and depthwise.
// Images are NHWC and kernels HWIO (grouped: [h, w, in / groups, out]), as in JAX.

#include <omp.h>

#include <array>
#include <map>
#include <mutex>
#include <unordered_map>

#include "dnnl.hpp"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using dnnl::memory;

namespace {

enum Kind : int64_t { kForward, kFused, kData, kWeights };
enum Activation : int64_t { kNone, kRelu, kRelu6 };

// kind, n, h, w, c, kh, kw, d, oh, ow, stride, top, bottom, left, right, groups, bf16, activation
using Key = std::array<int64_t, 18>;

struct Plan {
  dnnl::primitive run;
  memory::desc src, weights, dst, scratch;  // as the primitive wants them
  memory::desc given_weights;               // as JAX has them
  bool reordered;
};

dnnl::engine& Engine() {
  static auto* engine = new dnnl::engine(dnnl::engine::kind::cpu, 0);  // never destroyed: XLA's threads outlive main
  return *engine;
}

template <typename Descriptor>
Plan Finish(const Descriptor& d, const memory::desc& src, const memory::desc& weights, const memory::desc& dst,
            const memory::desc& given) {
  return {dnnl::primitive(d), src, weights, dst, d.scratchpad_desc(), given, weights != given};
}

memory::desc Bias(int64_t width) { return memory::desc({width}, memory::data_type::f32, memory::format_tag::x); }

// What is not a number must stay so, or nobody would see that a network has diverged: oneDNN's ReLU and clip are max and min,
// which make it 0, but for a slope below 0 other than 0. Its slope here is as good as none.
dnnl::post_ops After(int64_t activation) {
  constexpr float kSlope = 1e-20f;
  dnnl::post_ops ops;
  if (activation == kRelu || activation == kRelu6) ops.append_eltwise(dnnl::algorithm::eltwise_relu, kSlope, 0);
  if (activation == kRelu6) {  // min(x, 6) = 6 - max(6 - x, 0)
    ops.append_eltwise(dnnl::algorithm::eltwise_linear, -1, 6);
    ops.append_eltwise(dnnl::algorithm::eltwise_relu, kSlope, 0);
    ops.append_eltwise(dnnl::algorithm::eltwise_linear, -1, 6);
  }
  return ops;
}

Plan Make(const Key& k) {
  const auto [kind, n, h, w, c, kh, kw, d, oh, ow, stride, top, bottom, left, right, groups, bf16, activation] = k;
  const auto f32 = memory::data_type::f32, type = bf16 ? memory::data_type::bf16 : f32;
  const memory::dims strides{stride, stride}, before{top, left}, after{bottom, right};
  const memory::desc src({n, c, h, w}, type, memory::format_tag::nhwc), dst({n, d, oh, ow}, type, memory::format_tag::nhwc);
  const memory::dims shape = groups > 1 ? memory::dims{groups, d / groups, c / groups, kh, kw} : memory::dims{d, c, kh, kw};
  const memory::desc given(shape, f32, groups > 1 ? memory::format_tag::hwigo : memory::format_tag::hwio);
  // Sums are float32 whatever the type; so is a gradient of the kernel.
  const memory::desc any(shape, type, memory::format_tag::any), sums(shape, f32, memory::format_tag::any);
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);  // the same primitive may run on several threads
  const auto algorithm = dnnl::algorithm::convolution_direct;
  if (kind == kFused) {
    attr.set_post_ops(After(activation));
    const dnnl::convolution_forward::primitive_desc p(Engine(), dnnl::prop_kind::forward_inference, algorithm, src, any,
                                                      Bias(d), dst, strides, before, after, attr);
    return Finish(p, src, p.weights_desc(), dst, given);
  }
  const dnnl::convolution_forward::primitive_desc forward(Engine(), dnnl::prop_kind::forward_training, algorithm, src, any,
                                                          dst, strides, before, after, attr);
  if (kind == kForward) return Finish(forward, src, forward.weights_desc(), dst, given);
  if (kind == kData) {
    const dnnl::convolution_backward_data::primitive_desc p(Engine(), algorithm, src, any, dst, strides, before, after,
                                                            forward, attr);
    return Finish(p, src, p.weights_desc(), dst, given);
  }
  const dnnl::convolution_backward_weights::primitive_desc p(Engine(), algorithm, src, sums, dst, strides, before, after,
                                                             forward, attr);
  return Finish(p, src, p.diff_weights_desc(), dst, given);
}

const Plan& Cached(const Key& key) {
  static auto* mutex = new std::mutex;
  static auto* plans = new std::map<Key, Plan>;
  const std::lock_guard<std::mutex> lock(*mutex);
  auto found = plans->find(key);
  if (found == plans->end()) found = plans->emplace(key, Make(key)).first;
  return found->second;
}

int threads = 1;

void Run(const Key& key, void* src, void* weights, void* bias, void* dst) {
  omp_set_num_threads(threads);  // of this thread, whichever of XLA's it is
  const Plan& plan = Cached(key);
  dnnl::stream stream(Engine());
  memory x(plan.src, Engine(), src), y(plan.dst, Engine(), dst), given(plan.given_weights, Engine(), weights);
  memory scratch(plan.scratch, Engine());
  memory own = plan.reordered ? memory(plan.weights, Engine()) : given;
  switch (key[0]) {
    case kForward:
    case kFused: {
      if (plan.reordered) dnnl::reorder(given, own).execute(stream, given, own);
      std::unordered_map<int, memory> arguments{{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, own}, {DNNL_ARG_DST, y},
                                                {DNNL_ARG_SCRATCHPAD, scratch}};
      if (bias) arguments.insert({DNNL_ARG_BIAS, memory(Bias(key[7]), Engine(), bias)});
      plan.run.execute(stream, arguments);
      break;
    }
    case kData:
      if (plan.reordered) dnnl::reorder(given, own).execute(stream, given, own);
      plan.run.execute(stream, {{DNNL_ARG_DIFF_SRC, x}, {DNNL_ARG_WEIGHTS, own}, {DNNL_ARG_DIFF_DST, y},
                                {DNNL_ARG_SCRATCHPAD, scratch}});
      break;
    default:
      plan.run.execute(stream, {{DNNL_ARG_SRC, x}, {DNNL_ARG_DIFF_WEIGHTS, own}, {DNNL_ARG_DIFF_DST, y},
                                {DNNL_ARG_SCRATCHPAD, scratch}});
      if (plan.reordered) dnnl::reorder(own, given).execute(stream, own, given);
  }
  stream.wait();
}

// Images are float32 or bfloat16, kernels float32. The result is y (forward), the gradient of x (data) or that of the kernel.
template <Kind kind>
ffi::Error Call(ffi::AnyBuffer a, ffi::AnyBuffer b, void* bias, ffi::Result<ffi::AnyBuffer> out, int64_t stride,
                ffi::Span<const int64_t> pads, int64_t groups, int64_t activation) {
  const auto x = kind == kData ? out->dimensions() : a.dimensions();
  const auto w = kind == kWeights ? out->dimensions() : b.dimensions();
  const auto y = kind == kForward || kind == kFused ? out->dimensions() : kind == kData ? a.dimensions() : b.dimensions();
  void* src = kind == kData ? out->untyped_data() : a.untyped_data();
  void* weights = kind == kWeights ? out->untyped_data() : b.untyped_data();
  void* dst = kind == kForward || kind == kFused ? out->untyped_data() : kind == kData ? a.untyped_data() : b.untyped_data();
  const int64_t bf16 = a.element_type() == ffi::BF16;
  const Key key{kind, x[0], x[1], x[2], x[3], w[0], w[1], w[3], y[1], y[2], stride, pads[0], pads[1], pads[2], pads[3],
                groups, bf16, activation};
  try {
    Run(key, src, weights, bias, dst);
  } catch (const dnnl::error& e) {
    return ffi::Error::Internal(std::string("oneDNN: ") + e.what());
  }
  return ffi::Error::Success();
}

template <Kind kind>
ffi::Error Convolve(ffi::AnyBuffer a, ffi::AnyBuffer b, ffi::Result<ffi::AnyBuffer> out, int64_t stride,
                    ffi::Span<const int64_t> pads, int64_t groups) {
  return Call<kind>(a, b, nullptr, out, stride, pads, groups, kNone);
}

ffi::Error Fused(ffi::AnyBuffer x, ffi::AnyBuffer kernel, ffi::AnyBuffer bias, ffi::Result<ffi::AnyBuffer> y, int64_t stride,
                 ffi::Span<const int64_t> pads, int64_t groups, int64_t activation) {
  return Call<kFused>(x, kernel, bias.untyped_data(), y, stride, pads, groups, activation);
}

}  // namespace

#define ATTRIBUTES \
  Ret<ffi::AnyBuffer>().Attr<int64_t>("stride").Attr<ffi::Span<const int64_t>>("pads").Attr<int64_t>("groups")
#define BINDING ffi::Ffi::Bind().Arg<ffi::AnyBuffer>().Arg<ffi::AnyBuffer>().ATTRIBUTES

XLA_FFI_DEFINE_HANDLER_SYMBOL(NcjaxConvForward, Convolve<kForward>, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(NcjaxConvFused, Fused,
                              ffi::Ffi::Bind().Arg<ffi::AnyBuffer>().Arg<ffi::AnyBuffer>().Arg<ffi::AnyBuffer>()
                                  .ATTRIBUTES.Attr<int64_t>("activation"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(NcjaxConvData, Convolve<kData>, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(NcjaxConvWeights, Convolve<kWeights>, BINDING);

extern "C" void NcjaxSetThreads(int count) { threads = count; }
