// JAX: the kernels as XLA foreign functions, on XLA's own threads.
//
// Uses only XLA's C interface. Buffers are (rows, columns), for any batch axes; each is checked,
// because a stale library would write out of bounds. The numbers of arguments and results determine
// which of the optional ones are present.
#include <cstring>

#include "elliptical.h"
#include "parameters.h"
#include "xla_ffi.h"

namespace xla = kmvn::xla;

namespace {

xla::Error* fail(const xla::Api* api, const char* message,
                 xla::Code code = xla::Code::InvalidArgument) {
  xla::CreateError call{};
  call.message = message;
  call.code = code;
  return api->create_error(&call);
}

// When XLA compiles, it asks for the interface version that a handler was written for.
bool answered_metadata(xla::CallFrame* frame) {
  xla::Extension* const extension = frame->head.extensions;
  if (!extension || extension->kind != xla::ExtensionKind::Metadata) return false;
  xla::Metadata* const metadata = reinterpret_cast<xla::MetadataExtension*>(extension)->metadata;
  metadata->version.major = xla::api_major;
  metadata->version.minor = xla::api_minor;
  metadata->traits = 0;
  return true;
}

const xla::Buffer& argument(const xla::CallFrame* frame, int64_t i) {
  return *static_cast<xla::Buffer*>(frame->arguments.buffers[i]);
}

const xla::Buffer& result_buffer(const xla::CallFrame* frame, int64_t i) {
  return *static_cast<xla::Buffer*>(frame->results.buffers[i]);
}

void* result(const xla::CallFrame* frame, int64_t i) { return result_buffer(frame, i).data; }

constexpr int64_t vector = -1;  // number of columns that stands for an array with one axis

// Whether a buffer has this shape, and the type of the first argument.
bool has(const xla::CallFrame* frame, const xla::Buffer& buffer, int64_t rows, int64_t columns) {
  return buffer.type == argument(frame, 0).type && buffer.rank == (columns == vector ? 1 : 2) &&
         buffer.dims[0] == rows && (columns == vector || buffer.dims[1] == columns);
}

// An attribute, int32 or float64; 0 if it is absent.
template <class T>
T attribute(const xla::CallFrame* frame, const char* name) {
  constexpr auto type = sizeof(T) == 4 ? xla::Type::Int32 : xla::Type::Float64;
  const xla::Attributes& attributes = frame->attributes;
  for (int64_t i = 0; i < attributes.size; ++i) {
    const xla::Text& found = *attributes.names[i];
    if (attributes.kinds[i] != xla::AttributeKind::Scalar || found.size != std::strlen(name) ||
        std::memcmp(found.data, name, found.size) != 0)
      continue;
    const auto* scalar = static_cast<const xla::Scalar*>(attributes.values[i]);
    if (scalar->type == type) return *static_cast<const T*>(scalar->value);
  }
  return 0;
}

// Reads sizes and data of the first two arguments, packed parameters, with columns behind them that
// are not read, and targets; false if they do not match.
template <class Arguments>
bool read_sizes(const xla::CallFrame* frame, int64_t trailing, Arguments& to) {
  const xla::Buffer &y_pred = argument(frame, 0), &y = argument(frame, 1);
  if (y_pred.rank != 2 || y.rank != 2) return false;
  to.rows = y_pred.dims[0];
  to.stride = y_pred.dims[1];
  to.d = y.dims[1];
  to.k = to.stride - 2 * to.d - trailing;
  to.y_pred = y_pred.data;
  to.y = y.data;
  return to.d > 0 && has(frame, y, to.rows, to.d);
}

// Reads sizes and data of the first two arguments, raw numbers (rows, 2 d + k) and their bias, with
// d from the third; false if they do not match.
template <class Arguments>
bool read_raw(const xla::CallFrame* frame, Arguments& to) {
  const xla::Buffer &raw = argument(frame, 0), &bias = argument(frame, 1),
                    &origin = argument(frame, 2);
  if (raw.rank != 2 || origin.rank != 1) return false;
  to.rows = raw.dims[0];
  to.d = origin.dims[0];
  to.k = raw.dims[1] - 2 * to.d;
  to.raw = raw.data;
  to.bias = bias.data;
  return to.k >= 0 && has(frame, bias, raw.dims[1], vector) && has(frame, origin, to.d, vector);
}

// Reads the strengths of d + k numbers; an empty array means no shrinkage.
template <class Arguments>
bool read_strengths(const xla::Buffer& strengths, Arguments& to) {
  if (strengths.rank != 1) return false;
  to.strengths = strengths.dims[0] ? strengths.data : nullptr;
  return strengths.dims[0] == 0 || strengths.dims[0] == to.d + to.k;
}

constexpr const char* mismatch = "keras_mvn: buffers that don't belong together";

struct Caller {
  const xla::Api* api;
  xla::Context* context;
};

// Returns 0 if there is no error; an error is XLA's object and must be destroyed.
int settled(const xla::Api* api, xla::Error* error) {
  if (!error) return 0;
  xla::DestroyError call{};
  call.error = error;
  api->destroy_error(&call);
  return 1;
}

int submit(void* scheduler, void (*task)(void*), void* data) {
  const auto* caller = static_cast<const Caller*>(scheduler);
  xla::Schedule call{};
  call.context = caller->context;
  call.task = task;
  call.data = data;
  return settled(caller->api, caller->api->schedule(&call));
}

kmvn_threads threads_of(Caller& caller) {
  int64_t threads = 1;
  xla::CountThreads call{};
  call.context = caller.context;
  call.threads = &threads;
  if (settled(caller.api, caller.api->count_threads(&call))) threads = 1;
  return {int(threads), submit, &caller, nullptr};
}

template <class Arguments>
xla::Error* call(xla::CallFrame* frame, const Arguments& arguments,
                 int (*f32)(const Arguments*, kmvn_threads),
                 int (*f64)(const Arguments*, kmvn_threads)) {
  Caller caller{frame->api, frame->context};
  const xla::Type type = argument(frame, 0).type;
  const auto run = type == xla::Type::Float32 ? f32 : type == xla::Type::Float64 ? f64 : nullptr;
  if (!run) return fail(frame->api, "keras_mvn: expected float32 or float64");
  const int found = run(&arguments, threads_of(caller));
  if (found == KMVN_OK) return nullptr;
  if (found == KMVN_NO_MEMORY)
    return fail(frame->api, "keras_mvn: not enough memory", xla::Code::ResourceExhausted);
  return fail(frame->api, "keras_mvn: a structure that this library does not know, or sizes");
}

}  // namespace

// (y_pred, y[, observed]) → (squared_mahalanobis, half_log_det, [variance,] [z, v])
extern "C" KMVN_API xla::Error* kmvn_xla_elliptical_forward(xla::CallFrame* frame) {
  if (answered_metadata(frame)) return nullptr;
  const int64_t given = frame->arguments.size, results = frame->results.size;
  kmvn_forward a{};
  a.structure = attribute<int32_t>(frame, "structure");
  const bool variance = attribute<int32_t>(frame, "variance") != 0;
  const int32_t trailing = attribute<int32_t>(frame, "trailing");
  const int64_t values = variance ? 3 : 2;
  if (given < 2 || (results != values && results != values + 2) ||
      !read_sizes(frame, trailing, a) ||
      (given > 2 && !has(frame, argument(frame, 2), a.rows, a.d)) ||
      !has(frame, result_buffer(frame, 0), a.rows, vector) ||
      !has(frame, result_buffer(frame, 1), a.rows, vector) ||
      (variance && !has(frame, result_buffer(frame, 2), a.rows, a.d)) ||
      (results > values && (!has(frame, result_buffer(frame, values), a.rows,
                                 kmvn_kept(a.structure, a.d, a.k)) ||
                            !has(frame, result_buffer(frame, values + 1), a.rows, a.d))))
    return fail(frame->api, mismatch);
  a.observed = given > 2 ? argument(frame, 2).data : nullptr;
  a.squared_mahalanobis = result(frame, 0);
  a.half_log_det = result(frame, 1);
  a.variance = variance ? result(frame, 2) : nullptr;
  a.z = results > values ? result(frame, values) : nullptr;
  a.v = results > values ? result(frame, values + 1) : nullptr;
  return call(frame, a, kmvn_elliptical_forward_f32, kmvn_elliptical_forward_f64);
}

// (y_pred, y, z, v, squared_mahalanobis_bar, half_log_det_bar, mean_bar[, trailing_bar][, observed])
// → y_pred_bar
extern "C" KMVN_API xla::Error* kmvn_xla_elliptical_backward(xla::CallFrame* frame) {
  if (answered_metadata(frame)) return nullptr;
  const int64_t given = frame->arguments.size;
  kmvn_backward a{};
  a.structure = attribute<int32_t>(frame, "structure");
  a.fixed_mean = attribute<int32_t>(frame, "fixed_mean");
  a.trailing = attribute<int32_t>(frame, "trailing");
  const int64_t needed = a.trailing ? 8 : 7;
  if (given < needed || frame->results.size != 1 || !read_sizes(frame, a.trailing, a) ||
      !has(frame, argument(frame, 2), a.rows, kmvn_kept(a.structure, a.d, a.k)) ||
      !has(frame, argument(frame, 3), a.rows, a.d) ||
      !has(frame, argument(frame, 4), a.rows, vector) ||
      !has(frame, argument(frame, 5), a.rows, vector) ||
      !has(frame, argument(frame, 6), a.rows, a.d) ||
      (a.trailing && !has(frame, argument(frame, 7), a.rows, a.trailing)) ||
      (given > needed && !has(frame, argument(frame, needed), a.rows, a.d)) ||
      !has(frame, result_buffer(frame, 0), a.rows, a.stride))
    return fail(frame->api, mismatch);
  a.z = argument(frame, 2).data;
  a.v = argument(frame, 3).data;
  a.squared_mahalanobis_bar = argument(frame, 4).data;
  a.half_log_det_bar = argument(frame, 5).data;
  a.mean_bar = argument(frame, 6).data;
  a.trailing_bar = a.trailing ? argument(frame, 7).data : nullptr;
  a.observed = given > needed ? argument(frame, needed).data : nullptr;
  a.y_pred_bar = result(frame, 0);
  return call(frame, a, kmvn_elliptical_backward_f32, kmvn_elliptical_backward_f64);
}

// (raw, bias, origin mean, stddev, scale, shape, floor, strengths) → (y_pred, penalty)
extern "C" KMVN_API xla::Error* kmvn_xla_parameters_forward(xla::CallFrame* frame) {
  if (answered_metadata(frame)) return nullptr;
  kmvn_parameters_forward a{};
  a.radius = attribute<double>(frame, "radius");
  if (frame->arguments.size != 8 || frame->results.size != 2 || !read_raw(frame, a) ||
      !has(frame, argument(frame, 3), a.d, vector) ||
      !has(frame, argument(frame, 4), a.d, vector) ||
      !has(frame, argument(frame, 5), a.k, vector) ||
      !has(frame, argument(frame, 6), a.d, vector) || !read_strengths(argument(frame, 7), a) ||
      !has(frame, result_buffer(frame, 0), a.rows, 2 * a.d + a.k) ||
      !has(frame, result_buffer(frame, 1), a.rows, vector))
    return fail(frame->api, mismatch);
  a.origin_mean = argument(frame, 2).data;
  a.origin_stddev = argument(frame, 3).data;
  a.origin_scale = argument(frame, 4).data;
  a.origin_shape = argument(frame, 5).data;
  a.floor = argument(frame, 6).data;
  a.y_pred = result(frame, 0);
  a.penalty = result(frame, 1);
  return call(frame, a, kmvn_parameters_forward_f32, kmvn_parameters_forward_f64);
}

// (raw, bias, origin stddev, scale, strengths, y_pred_bar, penalty_bar) → raw_bar
extern "C" KMVN_API xla::Error* kmvn_xla_parameters_backward(xla::CallFrame* frame) {
  if (answered_metadata(frame)) return nullptr;
  kmvn_parameters_backward a{};
  a.radius = attribute<double>(frame, "radius");
  if (frame->arguments.size != 7 || frame->results.size != 1 || !read_raw(frame, a) ||
      !has(frame, argument(frame, 3), a.d, vector) || !read_strengths(argument(frame, 4), a) ||
      !has(frame, argument(frame, 5), a.rows, 2 * a.d + a.k) ||
      !has(frame, argument(frame, 6), a.rows, vector) ||
      !has(frame, result_buffer(frame, 0), a.rows, 2 * a.d + a.k))
    return fail(frame->api, mismatch);
  a.origin_stddev = argument(frame, 2).data;
  a.origin_scale = argument(frame, 3).data;
  a.y_pred_bar = argument(frame, 5).data;
  a.penalty_bar = argument(frame, 6).data;
  a.raw_bar = result(frame, 0);
  return call(frame, a, kmvn_parameters_backward_f32, kmvn_parameters_backward_f64);
}
