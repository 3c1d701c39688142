// The part of XLA's C interface for foreign functions that the kernels use.
//
// It is declared here, with our own names, so that building does not need jaxlib and no foreign
// header is copied. Only the layout of fields matters. XLA keeps it while the major version of the
// interface is 0, and the part used here has not changed since 0.1. XLA's names are in comments.
// tests/check_xla_ffi.cpp compares everything with the header of an installed jaxlib.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kmvn::xla {

// The version that the handlers are written for. XLA accepts older versions for at least a year.
constexpr int api_major = 0, api_minor = 1;  // XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR

enum class Code : int { InvalidArgument = 3, ResourceExhausted = 8 };  // XLA_FFI_Error_Code
enum class Type : int { Int32 = 4, Float32 = 11, Float64 = 12 };       // XLA_FFI_DataType
enum class AttributeKind : int { Scalar = 3 };                         // XLA_FFI_AttrType
enum class ExtensionKind : int { Metadata = 1 };                       // XLA_FFI_Extension_Type

struct Error;    // XLA_FFI_Error
struct Context;  // XLA_FFI_ExecutionContext

struct Extension {  // XLA_FFI_Extension_Base
  size_t size;
  ExtensionKind kind;
  Extension* next;
};

// First member of most structures. The creator sets the size up to which a structure is filled.
struct Head {
  size_t size = 0;
  Extension* extensions = nullptr;
};

// --- metadata requested before a handler is called -----------------------------------------------

struct Version {  // XLA_FFI_Api_Version
  Head head;
  int major, minor;
};

struct Metadata {  // XLA_FFI_Metadata; created by XLA, may have further fields
  size_t size;
  Version version;
  uint32_t traits;
};

struct MetadataExtension {  // XLA_FFI_Metadata_Extension
  Extension extension;
  Metadata* metadata;
};

// --- functions that a handler can call: each takes one structure ---------------------------------

struct CreateError {  // XLA_FFI_Error_Create_Args
  Head head{offsetof(CreateError, code) + sizeof(Code)};
  const char* message;
  Code code;
};

struct DestroyError {  // XLA_FFI_Error_Destroy_Args
  Head head{sizeof(DestroyError)};
  Error* error;
};

struct Schedule {  // XLA_FFI_ThreadPool_Schedule_Args
  Head head{sizeof(Schedule)};
  Context* context;
  void (*task)(void*);
  void* data;
};

struct CountThreads {  // XLA_FFI_ThreadPool_NumThreads_Args
  Head head{sizeof(CountThreads)};
  Context* context;
  int64_t* threads;
};

struct Api {  // XLA_FFI_Api, which has further fields
  Head head;
  Version version;
  const void* internal;
  Error* (*create_error)(CreateError*);
  void (*not_used)();
  void (*destroy_error)(DestroyError*);
  void (*not_used_either[8])();
  Error* (*schedule)(Schedule*);
  Error* (*count_threads)(CountThreads*);
};

// --- arguments of a handler ----------------------------------------------------------------------

struct Buffer {  // XLA_FFI_Buffer
  Head head;
  Type type;
  void* data;
  int64_t rank;
  int64_t* dims;
};

struct Buffers {  // XLA_FFI_Args, XLA_FFI_Rets
  Head head;
  int64_t size;
  void* kinds;
  void** buffers;
};

struct Text {  // XLA_FFI_ByteSpan
  const char* data;
  size_t size;
};

struct Scalar {  // XLA_FFI_Scalar
  Type type;
  void* value;
};

struct Attributes {  // XLA_FFI_Attrs
  Head head;
  int64_t size;
  AttributeKind* kinds;
  Text** names;
  void** values;
};

struct CallFrame {  // XLA_FFI_CallFrame, which has further fields
  Head head;
  const Api* api;
  Context* context;
  int stage;
  Buffers arguments, results;
  Attributes attributes;
};

}  // namespace kmvn::xla
