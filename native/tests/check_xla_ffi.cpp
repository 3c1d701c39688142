// Compares our declarations of XLA's C interface with the header of a jaxlib: the test is that this
// file compiles. tests/kernels/test_kernels.py compiles it if jaxlib is installed.
//
// Fields are compared by offset and size. Structures that XLA creates may grow at the end; those
// that we create and those nested in others may not.
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "xla/ffi/api/c_api.h"
#include "xla_ffi.h"

namespace xla = kmvn::xla;

namespace {

#define SAME_FIELD(ours, field, theirs, name)                                                      \
  static_assert(offsetof(ours, field) == offsetof(theirs, name), #theirs "." #name);               \
  static_assert(sizeof(ours::field) == sizeof(theirs::name), "size of " #theirs "." #name);        \
  static_assert(std::is_pointer_v<decltype(ours::field)> ==                                        \
                    std::is_pointer_v<decltype(theirs::name)>,                                     \
                "kind of " #theirs "." #name)

#define SAME_HEAD(ours, theirs)                                                                    \
  static_assert(offsetof(ours, head) == 0 && offsetof(theirs, struct_size) == 0, #theirs);         \
  static_assert(offsetof(xla::Head, extensions) == offsetof(theirs, extension_start), #theirs);    \
  static_assert(std::is_same_v<decltype(theirs::struct_size), size_t>, #theirs);                   \
  static_assert(std::is_same_v<decltype(theirs::extension_start), XLA_FFI_Extension_Base*>, #theirs)

#define SAME_SIZE(ours, theirs) static_assert(sizeof(ours) == sizeof(theirs), "size of " #theirs)

// For a structure that XLA creates.
#define MAY_GROW(ours, theirs) static_assert(sizeof(ours) <= sizeof(theirs), "size of " #theirs)

// For a structure that we create: the size up to which it is filled.
#define SAME_FILLED_SIZE(ours, theirs)                                                             \
  static_assert(ours{}.head.size == theirs##_STRUCT_SIZE, "filled size of " #theirs)

#define SAME_VALUE(ours, theirs)                                                                   \
  static_assert(int(ours) == int(theirs), #theirs);                                                \
  static_assert(sizeof(ours) == sizeof(theirs), "size of " #theirs)

#define IS(type, ...) static_assert(std::is_same_v<type, __VA_ARGS__>, #type)

// --- version and values --------------------------------------------------------------------------

static_assert(xla::api_major == XLA_FFI_API_MAJOR, "major version");
static_assert(xla::api_minor <= XLA_FFI_API_MINOR, "minor version");

SAME_VALUE(xla::Code::InvalidArgument, XLA_FFI_Error_Code_INVALID_ARGUMENT);
SAME_VALUE(xla::Code::ResourceExhausted, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED);
SAME_VALUE(xla::Type::Int32, XLA_FFI_DataType_S32);
SAME_VALUE(xla::Type::Float32, XLA_FFI_DataType_F32);
SAME_VALUE(xla::Type::Float64, XLA_FFI_DataType_F64);
SAME_VALUE(xla::AttributeKind::Scalar, XLA_FFI_AttrType_SCALAR);
SAME_VALUE(xla::ExtensionKind::Metadata, XLA_FFI_Extension_Metadata);

// --- metadata requested before a handler is called -----------------------------------------------

SAME_SIZE(xla::Extension, XLA_FFI_Extension_Base);
SAME_FIELD(xla::Extension, size, XLA_FFI_Extension_Base, struct_size);
SAME_FIELD(xla::Extension, kind, XLA_FFI_Extension_Base, type);
SAME_FIELD(xla::Extension, next, XLA_FFI_Extension_Base, next);

SAME_SIZE(xla::Version, XLA_FFI_Api_Version);
SAME_HEAD(xla::Version, XLA_FFI_Api_Version);
SAME_FIELD(xla::Version, major, XLA_FFI_Api_Version, major_version);
SAME_FIELD(xla::Version, minor, XLA_FFI_Api_Version, minor_version);

MAY_GROW(xla::Metadata, XLA_FFI_Metadata);
SAME_FIELD(xla::Metadata, size, XLA_FFI_Metadata, struct_size);
SAME_FIELD(xla::Metadata, version, XLA_FFI_Metadata, api_version);
SAME_FIELD(xla::Metadata, traits, XLA_FFI_Metadata, traits);

MAY_GROW(xla::MetadataExtension, XLA_FFI_Metadata_Extension);
SAME_FIELD(xla::MetadataExtension, extension, XLA_FFI_Metadata_Extension, extension_base);
SAME_FIELD(xla::MetadataExtension, metadata, XLA_FFI_Metadata_Extension, metadata);

// --- functions that a handler can call -----------------------------------------------------------

SAME_SIZE(xla::CreateError, XLA_FFI_Error_Create_Args);
SAME_FILLED_SIZE(xla::CreateError, XLA_FFI_Error_Create_Args);
SAME_HEAD(xla::CreateError, XLA_FFI_Error_Create_Args);
SAME_FIELD(xla::CreateError, message, XLA_FFI_Error_Create_Args, message);
SAME_FIELD(xla::CreateError, code, XLA_FFI_Error_Create_Args, errc);

SAME_SIZE(xla::DestroyError, XLA_FFI_Error_Destroy_Args);
SAME_FILLED_SIZE(xla::DestroyError, XLA_FFI_Error_Destroy_Args);
SAME_HEAD(xla::DestroyError, XLA_FFI_Error_Destroy_Args);
SAME_FIELD(xla::DestroyError, error, XLA_FFI_Error_Destroy_Args, error);

SAME_SIZE(xla::Schedule, XLA_FFI_ThreadPool_Schedule_Args);
SAME_FILLED_SIZE(xla::Schedule, XLA_FFI_ThreadPool_Schedule_Args);
SAME_HEAD(xla::Schedule, XLA_FFI_ThreadPool_Schedule_Args);
SAME_FIELD(xla::Schedule, context, XLA_FFI_ThreadPool_Schedule_Args, ctx);
SAME_FIELD(xla::Schedule, task, XLA_FFI_ThreadPool_Schedule_Args, task);
SAME_FIELD(xla::Schedule, data, XLA_FFI_ThreadPool_Schedule_Args, data);
IS(XLA_FFI_Task, void(void*));

SAME_SIZE(xla::CountThreads, XLA_FFI_ThreadPool_NumThreads_Args);
SAME_FILLED_SIZE(xla::CountThreads, XLA_FFI_ThreadPool_NumThreads_Args);
SAME_HEAD(xla::CountThreads, XLA_FFI_ThreadPool_NumThreads_Args);
SAME_FIELD(xla::CountThreads, context, XLA_FFI_ThreadPool_NumThreads_Args, ctx);
SAME_FIELD(xla::CountThreads, threads, XLA_FFI_ThreadPool_NumThreads_Args, num_threads);
IS(decltype(XLA_FFI_ThreadPool_NumThreads_Args::num_threads), int64_t*);

MAY_GROW(xla::Api, XLA_FFI_Api);
SAME_HEAD(xla::Api, XLA_FFI_Api);
SAME_FIELD(xla::Api, version, XLA_FFI_Api, api_version);
SAME_FIELD(xla::Api, create_error, XLA_FFI_Api, XLA_FFI_Error_Create);
SAME_FIELD(xla::Api, destroy_error, XLA_FFI_Api, XLA_FFI_Error_Destroy);
SAME_FIELD(xla::Api, schedule, XLA_FFI_Api, XLA_FFI_ThreadPool_Schedule);
SAME_FIELD(xla::Api, count_threads, XLA_FFI_Api, XLA_FFI_ThreadPool_NumThreads);
IS(XLA_FFI_Error_Create, XLA_FFI_Error*(XLA_FFI_Error_Create_Args*));
IS(XLA_FFI_Error_Destroy, void(XLA_FFI_Error_Destroy_Args*));
IS(XLA_FFI_ThreadPool_Schedule, XLA_FFI_Error*(XLA_FFI_ThreadPool_Schedule_Args*));
IS(XLA_FFI_ThreadPool_NumThreads, XLA_FFI_Error*(XLA_FFI_ThreadPool_NumThreads_Args*));

// --- arguments of a handler ----------------------------------------------------------------------

MAY_GROW(xla::Buffer, XLA_FFI_Buffer);
SAME_HEAD(xla::Buffer, XLA_FFI_Buffer);
SAME_FIELD(xla::Buffer, type, XLA_FFI_Buffer, dtype);
SAME_FIELD(xla::Buffer, data, XLA_FFI_Buffer, data);
SAME_FIELD(xla::Buffer, rank, XLA_FFI_Buffer, rank);
SAME_FIELD(xla::Buffer, dims, XLA_FFI_Buffer, dims);
IS(decltype(XLA_FFI_Buffer::rank), int64_t);
IS(decltype(XLA_FFI_Buffer::dims), int64_t*);

SAME_SIZE(xla::Buffers, XLA_FFI_Args);
SAME_HEAD(xla::Buffers, XLA_FFI_Args);
SAME_FIELD(xla::Buffers, size, XLA_FFI_Args, size);
SAME_FIELD(xla::Buffers, buffers, XLA_FFI_Args, args);
IS(decltype(XLA_FFI_Args::args), void**);

SAME_SIZE(xla::Buffers, XLA_FFI_Rets);
SAME_HEAD(xla::Buffers, XLA_FFI_Rets);
SAME_FIELD(xla::Buffers, size, XLA_FFI_Rets, size);
SAME_FIELD(xla::Buffers, buffers, XLA_FFI_Rets, rets);
IS(decltype(XLA_FFI_Rets::rets), void**);

MAY_GROW(xla::Text, XLA_FFI_ByteSpan);
SAME_FIELD(xla::Text, data, XLA_FFI_ByteSpan, ptr);
SAME_FIELD(xla::Text, size, XLA_FFI_ByteSpan, len);

MAY_GROW(xla::Scalar, XLA_FFI_Scalar);
SAME_FIELD(xla::Scalar, type, XLA_FFI_Scalar, dtype);
SAME_FIELD(xla::Scalar, value, XLA_FFI_Scalar, value);

MAY_GROW(xla::Attributes, XLA_FFI_Attrs);
SAME_HEAD(xla::Attributes, XLA_FFI_Attrs);
SAME_FIELD(xla::Attributes, size, XLA_FFI_Attrs, size);
SAME_FIELD(xla::Attributes, kinds, XLA_FFI_Attrs, types);
SAME_FIELD(xla::Attributes, names, XLA_FFI_Attrs, names);
SAME_FIELD(xla::Attributes, values, XLA_FFI_Attrs, attrs);
IS(decltype(XLA_FFI_Attrs::types), XLA_FFI_AttrType*);
IS(decltype(XLA_FFI_Attrs::names), XLA_FFI_ByteSpan**);
IS(decltype(XLA_FFI_Attrs::attrs), void**);

MAY_GROW(xla::CallFrame, XLA_FFI_CallFrame);
SAME_HEAD(xla::CallFrame, XLA_FFI_CallFrame);
SAME_FIELD(xla::CallFrame, api, XLA_FFI_CallFrame, api);
SAME_FIELD(xla::CallFrame, context, XLA_FFI_CallFrame, ctx);
SAME_FIELD(xla::CallFrame, arguments, XLA_FFI_CallFrame, args);
SAME_FIELD(xla::CallFrame, results, XLA_FFI_CallFrame, rets);
// The last field that we declare; XLA's further fields come after it.
static_assert(offsetof(xla::CallFrame, attributes) == offsetof(XLA_FFI_CallFrame, attrs), "attrs");

IS(XLA_FFI_Handler, XLA_FFI_Error*(XLA_FFI_CallFrame*));

}  // namespace
