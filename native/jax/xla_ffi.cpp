// JAX: the kernels as XLA foreign functions, on XLA's own threads.
//
// XLA's C interface is used as it is: buffers come flattened to (rows, columns), whatever their
// batch axes, so that vmap needs nothing but broad arguments. The number of arguments and of
// results says which of the optional ones are there.
#include <cstring>

#include "elliptical.h"
#include "parameters.h"
#include "xla/ffi/api/c_api.h"

namespace {

XLA_FFI_Error* fail(const XLA_FFI_Api* api, const char* message) {
  XLA_FFI_Error_Create_Args args{};
  args.struct_size = XLA_FFI_Error_Create_Args_STRUCT_SIZE;
  args.message = message;
  args.errc = XLA_FFI_Error_Code_INVALID_ARGUMENT;
  return api->XLA_FFI_Error_Create(&args);
}

// When it compiles, XLA asks which interface a handler was written for: 0.1 has all that is used.
bool answered_metadata(XLA_FFI_CallFrame* frame) {
  XLA_FFI_Extension_Base* const extension = frame->extension_start;
  if (!extension || extension->type != XLA_FFI_Extension_Metadata) return false;
  XLA_FFI_Metadata* const metadata =
      reinterpret_cast<XLA_FFI_Metadata_Extension*>(extension)->metadata;
  metadata->api_version.major_version = XLA_FFI_API_MAJOR;
  metadata->api_version.minor_version = 1;
  metadata->traits = 0;
  return true;
}

const XLA_FFI_Buffer& argument(const XLA_FFI_CallFrame* frame, int64_t i) {
  return *static_cast<XLA_FFI_Buffer*>(frame->args.args[i]);
}

const XLA_FFI_Buffer& result_buffer(const XLA_FFI_CallFrame* frame, int64_t i) {
  return *static_cast<XLA_FFI_Buffer*>(frame->rets.rets[i]);
}

void* result(const XLA_FFI_CallFrame* frame, int64_t i) { return result_buffer(frame, i).data; }

// Whether a buffer of z has the columns that the structure fills.
template <class Arguments>
bool holds_kept(const XLA_FFI_Buffer& z, const Arguments& of) {
  return z.rank > 0 && z.dims[z.rank - 1] == kmvn_kept(of.structure, of.d, of.k);
}

// An attribute, int32 or float64; 0 if it is not there.
template <class T>
T attribute(const XLA_FFI_CallFrame* frame, const char* name) {
  constexpr auto type = sizeof(T) == 4 ? XLA_FFI_DataType_S32 : XLA_FFI_DataType_F64;
  for (int64_t i = 0; i < frame->attrs.size; ++i) {
    const XLA_FFI_ByteSpan& span = *frame->attrs.names[i];
    if (frame->attrs.types[i] != XLA_FFI_AttrType_SCALAR || span.len != std::strlen(name) ||
        std::memcmp(span.ptr, name, span.len) != 0)
      continue;
    const auto* scalar = static_cast<const XLA_FFI_Scalar*>(frame->attrs.attrs[i]);
    if (scalar->dtype == type) return *static_cast<const T*>(scalar->value);
  }
  return 0;
}

// Rows and columns of the packed parameters and d of the targets; false if they don't agree.
template <class Arguments>
bool read_sizes(const XLA_FFI_Buffer& y_pred, const XLA_FFI_Buffer& y, Arguments& to) {
  if (y_pred.rank < 1 || y.rank != y_pred.rank) return false;
  to.stride = y_pred.dims[y_pred.rank - 1];
  to.d = y.dims[y.rank - 1];
  to.rows = 1;
  for (int64_t i = 0; i + 1 < y_pred.rank; ++i) {
    if (y.dims[i] != y_pred.dims[i]) return false;
    to.rows *= y_pred.dims[i];
  }
  to.y_pred = y_pred.data;
  to.y = y.data;
  to.k = to.stride - 2 * to.d;
  return y.dtype == y_pred.dtype && to.d > 0;
}

// Of the raw numbers (rows, 2 d + k), their bias and something that has d.
template <class Arguments>
bool read_raw(const XLA_FFI_Buffer& raw, const XLA_FFI_Buffer& bias, const XLA_FFI_Buffer& origin,
              Arguments& to) {
  if (raw.rank != 2 || bias.rank != 1 || origin.rank != 1) return false;
  to.rows = raw.dims[0];
  to.d = origin.dims[0];
  to.k = raw.dims[1] - 2 * to.d;
  to.raw = raw.data;
  to.bias = bias.data;
  return to.k >= 0 && bias.dims[0] == raw.dims[1];
}

// The strengths of d + k numbers; an empty array is none.
template <class Arguments>
bool read_strengths(const XLA_FFI_Buffer& strengths, Arguments& to) {
  if (strengths.rank != 1) return false;
  to.strengths = strengths.dims[0] ? strengths.data : nullptr;
  return strengths.dims[0] == 0 || strengths.dims[0] == to.d + to.k;
}

struct Caller {
  const XLA_FFI_Api* api;
  XLA_FFI_ExecutionContext* context;
};

// 0 if there is no error; an error is XLA's own object and has to be given back.
int settled(const XLA_FFI_Api* api, XLA_FFI_Error* error) {
  if (!error) return 0;
  XLA_FFI_Error_Destroy_Args args{};
  args.struct_size = XLA_FFI_Error_Destroy_Args_STRUCT_SIZE;
  args.error = error;
  api->XLA_FFI_Error_Destroy(&args);
  return 1;
}

int submit(void* scheduler, void (*task)(void*), void* data) {
  const auto* caller = static_cast<const Caller*>(scheduler);
  XLA_FFI_ThreadPool_Schedule_Args args{};
  args.struct_size = XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE;
  args.ctx = caller->context;
  args.task = task;
  args.data = data;
  return settled(caller->api, caller->api->XLA_FFI_ThreadPool_Schedule(&args));
}

kmvn_threads threads_of(Caller& caller) {
  int64_t threads = 1;
  XLA_FFI_ThreadPool_NumThreads_Args args{};
  args.struct_size = XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE;
  args.ctx = caller.context;
  args.num_threads = &threads;
  if (settled(caller.api, caller.api->XLA_FFI_ThreadPool_NumThreads(&args))) threads = 1;
  return {int(threads), submit, &caller, nullptr};
}

template <class Arguments>
XLA_FFI_Error* call(XLA_FFI_CallFrame* frame, const Arguments& arguments,
                    int (*f32)(const Arguments*, kmvn_threads),
                    int (*f64)(const Arguments*, kmvn_threads)) {
  Caller caller{frame->api, frame->ctx};
  const XLA_FFI_DataType dtype = argument(frame, 0).dtype;
  const auto run = dtype == XLA_FFI_DataType_F32 ? f32 : dtype == XLA_FFI_DataType_F64 ? f64 : nullptr;
  if (!run) return fail(frame->api, "keras_mvn: expected float32 or float64");
  if (run(&arguments, threads_of(caller)) != 0)
    return fail(frame->api, "keras_mvn: a structure that this library does not know, or sizes");
  return nullptr;
}

}  // namespace

// (y_pred, y[, observed]) → (mahalanobis, log_scale, [variance,] [z, v])
extern "C" KMVN_API XLA_FFI_Error* kmvn_xla_elliptical_forward(XLA_FFI_CallFrame* frame) {
  if (answered_metadata(frame)) return nullptr;
  const int64_t results = frame->rets.size;
  kmvn_forward arguments{};
  arguments.structure = attribute<int32_t>(frame, "structure");
  const bool variance = attribute<int32_t>(frame, "variance") != 0;
  const int64_t values = variance ? 3 : 2;
  if (frame->args.size < 2 || (results != values && results != values + 2) ||
      !read_sizes(argument(frame, 0), argument(frame, 1), arguments) ||
      (results > values && !holds_kept(result_buffer(frame, values), arguments)))
    return fail(frame->api, "keras_mvn: buffers that don't belong together");
  arguments.observed = frame->args.size > 2 ? argument(frame, 2).data : nullptr;
  arguments.mahalanobis = result(frame, 0);
  arguments.log_scale = result(frame, 1);
  arguments.variance = variance ? result(frame, 2) : nullptr;
  arguments.z = results > values ? result(frame, values) : nullptr;
  arguments.v = results > values ? result(frame, values + 1) : nullptr;
  return call(frame, arguments, kmvn_elliptical_forward_f32, kmvn_elliptical_forward_f64);
}

// (y_pred, y, z, v, mahalanobis_bar, log_scale_bar, mean_bar[, observed]) → y_pred_bar
extern "C" KMVN_API XLA_FFI_Error* kmvn_xla_elliptical_backward(XLA_FFI_CallFrame* frame) {
  if (answered_metadata(frame)) return nullptr;
  kmvn_backward arguments{};
  arguments.structure = attribute<int32_t>(frame, "structure");
  arguments.fixed_mean = attribute<int32_t>(frame, "fixed_mean");
  if (frame->args.size < 7 || frame->rets.size != 1 ||
      !read_sizes(argument(frame, 0), argument(frame, 1), arguments) ||
      !holds_kept(argument(frame, 2), arguments))
    return fail(frame->api, "keras_mvn: buffers that don't belong together");
  arguments.z = argument(frame, 2).data;
  arguments.v = argument(frame, 3).data;
  arguments.mahalanobis_bar = argument(frame, 4).data;
  arguments.log_scale_bar = argument(frame, 5).data;
  arguments.mean_bar = argument(frame, 6).data;
  arguments.observed = frame->args.size > 7 ? argument(frame, 7).data : nullptr;
  arguments.y_pred_bar = result(frame, 0);
  return call(frame, arguments, kmvn_elliptical_backward_f32, kmvn_elliptical_backward_f64);
}

// (raw, bias, origin mean, stddev, scale, shape, strengths) → (y_pred, penalty)
extern "C" KMVN_API XLA_FFI_Error* kmvn_xla_parameters_forward(XLA_FFI_CallFrame* frame) {
  if (answered_metadata(frame)) return nullptr;
  kmvn_parameters_forward arguments{};
  arguments.radius = attribute<double>(frame, "radius");
  if (frame->args.size != 7 || frame->rets.size != 2 ||
      !read_raw(argument(frame, 0), argument(frame, 1), argument(frame, 2), arguments) ||
      !read_strengths(argument(frame, 6), arguments))
    return fail(frame->api, "keras_mvn: buffers that don't belong together");
  arguments.origin_mean = argument(frame, 2).data;
  arguments.origin_stddev = argument(frame, 3).data;
  arguments.origin_scale = argument(frame, 4).data;
  arguments.origin_shape = argument(frame, 5).data;
  arguments.y_pred = result(frame, 0);
  arguments.penalty = result(frame, 1);
  return call(frame, arguments, kmvn_parameters_forward_f32, kmvn_parameters_forward_f64);
}

// (raw, bias, origin stddev, scale, strengths, y_pred_bar, penalty_bar) → raw_bar
extern "C" KMVN_API XLA_FFI_Error* kmvn_xla_parameters_backward(XLA_FFI_CallFrame* frame) {
  if (answered_metadata(frame)) return nullptr;
  kmvn_parameters_backward arguments{};
  arguments.radius = attribute<double>(frame, "radius");
  if (frame->args.size != 7 || frame->rets.size != 1 ||
      !read_raw(argument(frame, 0), argument(frame, 1), argument(frame, 2), arguments) ||
      !read_strengths(argument(frame, 4), arguments))
    return fail(frame->api, "keras_mvn: buffers that don't belong together");
  arguments.origin_stddev = argument(frame, 2).data;
  arguments.origin_scale = argument(frame, 3).data;
  arguments.y_pred_bar = argument(frame, 5).data;
  arguments.penalty_bar = argument(frame, 6).data;
  arguments.raw_bar = result(frame, 0);
  return call(frame, arguments, kmvn_parameters_backward_f32, kmvn_parameters_backward_f64);
}
