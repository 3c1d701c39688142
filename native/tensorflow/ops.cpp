// TensorFlow: the kernels as operations, registered when `tf.load_op_library` loads this file.
//
// Uses only TensorFlow's C interface, whose functions are looked up in the process that loads the
// file: building does not need TensorFlow, and no C++ types cross the boundary.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <initializer_list>

#include "elliptical.h"
#include "parameters.h"

extern "C" {
struct TF_Status;
struct TF_Tensor;
struct TF_OpDefinitionBuilder;
struct TF_ShapeInferenceContext;
struct TF_ShapeHandle;
struct TF_KernelBuilder;
struct TF_OpKernelConstruction;
struct TF_OpKernelContext;
}

namespace {

enum Type { Float = 1, Double = 2 };                               // TF_DataType
enum Code { Ok = 0, InvalidArgument = 3, ResourceExhausted = 8 };  // TF_Code
constexpr const char* framework =
#if defined(__APPLE__)
    "libtensorflow_framework.2.dylib";
#else
    "libtensorflow_framework.so.2";
#endif

// A function of TensorFlow's C interface. All are looked up before anything is registered.
class Symbol {
 public:
  explicit Symbol(const char* name) : name_(name), next_(first()) { first() = this; }

  static const char* first_missing() {
    void* const library = dlopen(framework, RTLD_NOLOAD | RTLD_LAZY);
    for (Symbol* symbol = first(); symbol; symbol = symbol->next_) {
      symbol->address_ = dlsym(library ? library : RTLD_DEFAULT, symbol->name_);
      if (!symbol->address_) return symbol->name_;
    }
    return nullptr;
  }

 protected:
  void* address_ = nullptr;

 private:
  static Symbol*& first() {
    static Symbol* symbol = nullptr;
    return symbol;
  }

  const char* const name_;
  Symbol* const next_;
};

template <class Signature>
class Function;

template <class Result, class... Arguments>
class Function<Result(Arguments...)> : private Symbol {
 public:
  using Symbol::Symbol;

  Result operator()(Arguments... arguments) const {
    return reinterpret_cast<Result (*)(Arguments...)>(address_)(arguments...);
  }
};

#define TF_FUNCTION(name, ...) Function<__VA_ARGS__> name("TF_" #name)
TF_FUNCTION(NewStatus, TF_Status*());
TF_FUNCTION(DeleteStatus, void(TF_Status*));
TF_FUNCTION(SetStatus, void(TF_Status*, int, const char*));
TF_FUNCTION(GetCode, int(const TF_Status*));
TF_FUNCTION(Message, const char*(const TF_Status*));
TF_FUNCTION(TensorData, void*(const TF_Tensor*));
TF_FUNCTION(TensorType, int(const TF_Tensor*));
TF_FUNCTION(NumDims, int(const TF_Tensor*));
TF_FUNCTION(Dim, int64_t(const TF_Tensor*, int));
TF_FUNCTION(DeleteTensor, void(TF_Tensor*));
TF_FUNCTION(NewOpDefinitionBuilder, TF_OpDefinitionBuilder*(const char*));
TF_FUNCTION(OpDefinitionBuilderAddAttr, void(TF_OpDefinitionBuilder*, const char*));
TF_FUNCTION(OpDefinitionBuilderAddInput, void(TF_OpDefinitionBuilder*, const char*));
TF_FUNCTION(OpDefinitionBuilderAddOutput, void(TF_OpDefinitionBuilder*, const char*));
TF_FUNCTION(OpDefinitionBuilderSetShapeInferenceFunction,
            void(TF_OpDefinitionBuilder*, void (*)(TF_ShapeInferenceContext*, TF_Status*)));
TF_FUNCTION(RegisterOpDefinition, void(TF_OpDefinitionBuilder*, TF_Status*));
TF_FUNCTION(NewShapeHandle, TF_ShapeHandle*());
TF_FUNCTION(DeleteShapeHandle, void(TF_ShapeHandle*));
TF_FUNCTION(ShapeInferenceContextGetInput,
            void(TF_ShapeInferenceContext*, int, TF_ShapeHandle*, TF_Status*));
TF_FUNCTION(ShapeInferenceContextSetUnknownShape, void(TF_ShapeInferenceContext*, TF_Status*));
TF_FUNCTION(ShapeInferenceContextSubshape,
            void(TF_ShapeInferenceContext*, TF_ShapeHandle*, int64_t, int64_t, TF_ShapeHandle*,
                 TF_Status*));
TF_FUNCTION(ShapeInferenceContextSetOutput,
            void(TF_ShapeInferenceContext*, int, TF_ShapeHandle*, TF_Status*));
TF_FUNCTION(NewKernelBuilder,
            TF_KernelBuilder*(const char*, const char*, void* (*)(TF_OpKernelConstruction*),
                              void (*)(void*, TF_OpKernelContext*), void (*)(void*)));
TF_FUNCTION(KernelBuilder_TypeConstraint, void(TF_KernelBuilder*, const char*, int, TF_Status*));
TF_FUNCTION(RegisterKernelBuilder, void(const char*, TF_KernelBuilder*, TF_Status*));
TF_FUNCTION(OpKernelConstruction_GetAttrInt32,
            void(TF_OpKernelConstruction*, const char*, int32_t*, TF_Status*));
TF_FUNCTION(OpKernelConstruction_GetAttrFloat,
            void(TF_OpKernelConstruction*, const char*, float*, TF_Status*));
TF_FUNCTION(OpKernelConstruction_Failure, void(TF_OpKernelConstruction*, TF_Status*));
TF_FUNCTION(OpKernelContext_Failure, void(TF_OpKernelContext*, TF_Status*));
TF_FUNCTION(GetInput, void(TF_OpKernelContext*, int, TF_Tensor**, TF_Status*));
TF_FUNCTION(NumInputs, int(TF_OpKernelContext*));
TF_FUNCTION(AllocateOutput, TF_Tensor*(TF_OpKernelContext*, int, int, const int64_t*, int, size_t,
                                       TF_Status*));

// A status, deleted at the end of the scope.
class Status {
 public:
  Status() : status_(NewStatus()) {}
  ~Status() { DeleteStatus(status_); }
  Status(const Status&) = delete;
  Status& operator=(const Status&) = delete;
  operator TF_Status*() const { return status_; }
  bool ok() const { return GetCode(status_) == Ok; }

 private:
  TF_Status* const status_;
};

// --- kernels -------------------------------------------------------------------------------------

struct Settings {
  int32_t structure = 0, variance = 0, fixed_mean = 0, trailing = 0, threads = 1;
  float radius = 0;
};

void read(TF_OpKernelConstruction* construction, const char* name, int32_t* to) {
  Status status;
  OpKernelConstruction_GetAttrInt32(construction, name, to, status);
  if (!status.ok()) OpKernelConstruction_Failure(construction, status);
}

void* create_forward(TF_OpKernelConstruction* construction) {
  auto* settings = new Settings;
  read(construction, "structure", &settings->structure);
  read(construction, "variance", &settings->variance);
  read(construction, "trailing", &settings->trailing);
  read(construction, "threads", &settings->threads);
  return settings;
}

void* create_backward(TF_OpKernelConstruction* construction) {
  auto* settings = new Settings;
  read(construction, "structure", &settings->structure);
  read(construction, "fixed_mean", &settings->fixed_mean);
  read(construction, "trailing", &settings->trailing);
  read(construction, "threads", &settings->threads);
  return settings;
}

void* create_parameters(TF_OpKernelConstruction* construction) {
  auto* settings = new Settings;
  read(construction, "threads", &settings->threads);
  Status status;
  OpKernelConstruction_GetAttrFloat(construction, "radius", &settings->radius, status);
  if (!status.ok()) OpKernelConstruction_Failure(construction, status);
  return settings;
}

void destroy(void* settings) { delete static_cast<Settings*>(settings); }

constexpr int64_t vector = -1;  // number of columns that stands for an array with one axis

// The inputs and outputs of one call, deleted when it ends.
class Call {
 public:
  explicit Call(TF_OpKernelContext* context) : context_(context) {
    const int count = NumInputs(context);
    for (int i = 0; i < count && i < most; ++i) {
      GetInput(context, i, &tensors_[i], status_);
      if (!status_.ok()) return;
      count_ = i + 1;
    }
  }

  ~Call() {
    for (int i = 0; i < count_; ++i) DeleteTensor(tensors_[i]);
    for (int i = 0; i < outputs_; ++i) DeleteTensor(made_[i]);
    if (!status_.ok()) OpKernelContext_Failure(context_, status_);
  }

  bool ok() const { return status_.ok(); }
  int inputs() const { return count_; }
  void* input(int i) const { return i < count_ ? TensorData(tensors_[i]) : nullptr; }
  int type() const { return TensorType(tensors_[0]); }

  // Whether input i has this shape; `vector` columns mean one axis. If not, sets an error.
  bool has(int i, int64_t rows, int64_t columns) {
    if (i < count_ && NumDims(tensors_[i]) == (columns == vector ? 1 : 2) &&
        Dim(tensors_[i], 0) == rows && (columns == vector || Dim(tensors_[i], 1) == columns))
      return true;
    refuse("keras_mvn: tensors of shapes that don't belong together");
    return false;
  }

  // Whether input i is absent or a valid mask of observed targets.
  template <class Arguments>
  bool has_observed(int i, const Arguments& of) {
    return i >= count_ || has(i, of.rows, of.d);
  }

  // Reads sizes and data of y_pred, whose last columns are not read, and y, the first two inputs.
  template <class Arguments>
  bool read_sizes(int64_t trailing, Arguments& to) {
    const bool matrices = count_ > 1 && NumDims(tensors_[0]) == 2 && NumDims(tensors_[1]) == 2;
    if (matrices) {
      to.rows = Dim(tensors_[1], 0);
      to.d = Dim(tensors_[1], 1);
      to.stride = Dim(tensors_[0], 1);
      to.k = to.stride - 2 * to.d - trailing;
      to.y_pred = input(0);
      to.y = input(1);
      if (Dim(tensors_[0], 0) == to.rows && to.d > 0) return true;
    }
    refuse("keras_mvn: y_pred and y don't belong together");
    return false;
  }

  // Reads sizes and data of raw numbers and bias, the first two inputs, with d from the third.
  template <class Arguments>
  bool read_raw(Arguments& to) {
    if (count_ > 2 && NumDims(tensors_[0]) == 2 && NumDims(tensors_[1]) == 1 &&
        NumDims(tensors_[2]) == 1) {
      to.rows = Dim(tensors_[0], 0);
      to.d = Dim(tensors_[2], 0);
      to.k = Dim(tensors_[0], 1) - 2 * to.d;
      to.raw = input(0);
      to.bias = input(1);
      if (to.k >= 0 && Dim(tensors_[1], 0) == Dim(tensors_[0], 1)) return true;
    }
    refuse("keras_mvn: raw numbers, bias and origin don't belong together");
    return false;
  }

  // Reads the strengths of d + k numbers; an empty input means no shrinkage.
  template <class Arguments>
  bool read_strengths(int index, Arguments& to) {
    const int64_t numbers =
        count_ > index && NumDims(tensors_[index]) == 1 ? Dim(tensors_[index], 0) : -1;
    to.strengths = numbers > 0 ? input(index) : nullptr;
    if (numbers == 0 || numbers == to.d + to.k) return true;
    refuse("keras_mvn: raw numbers and strengths don't belong together");
    return false;
  }

  void* output(int64_t rows, int64_t columns) {
    if (!ok()) return nullptr;  // another allocation would overwrite the error
    const int64_t dims[2] = {rows, columns};
    const int64_t numbers = columns == vector ? rows : rows * columns;
    const size_t bytes = size_t(numbers) * (type() == Float ? 4 : 8);
    TF_Tensor* const tensor =
        AllocateOutput(context_, outputs_, type(), dims, columns == vector ? 1 : 2, bytes, status_);
    if (!tensor) return nullptr;
    made_[outputs_++] = tensor;
    return TensorData(tensor);
  }

  void refuse(const char* message) { SetStatus(status_, InvalidArgument, message); }

  // Handles the return value of an operation of the core.
  void settle(int found) {
    if (found == KMVN_NO_MEMORY)
      SetStatus(status_, ResourceExhausted, "keras_mvn: not enough memory");
    else if (found != KMVN_OK)
      refuse("keras_mvn: a structure that this library does not know, or sizes");
  }

 private:
  static constexpr int most = 9;
  TF_OpKernelContext* const context_;
  Status status_;
  TF_Tensor* tensors_[most] = {};
  TF_Tensor* made_[most] = {};
  int count_ = 0, outputs_ = 0;
};

void forward(void* kernel, TF_OpKernelContext* context) {
  const auto& settings = *static_cast<Settings*>(kernel);
  Call call(context);
  kmvn_forward a{};
  if (!call.ok() || !call.read_sizes(settings.trailing, a) || !call.has_observed(2, a)) return;
  a.structure = settings.structure;
  a.observed = call.input(2);
  a.squared_mahalanobis = call.output(a.rows, vector);
  a.half_log_det = call.output(a.rows, vector);
  a.z = call.output(a.rows, kmvn_kept(a.structure, a.d, a.k));
  a.v = call.output(a.rows, a.d);
  a.variance = settings.variance ? call.output(a.rows, a.d) : nullptr;
  if (!call.ok()) return;
  const auto run = call.type() == Float ? kmvn_elliptical_forward_f32 : kmvn_elliptical_forward_f64;
  call.settle(run(&a, {settings.threads, nullptr, nullptr, nullptr}));
}

void backward(void* kernel, TF_OpKernelContext* context) {
  const auto& settings = *static_cast<Settings*>(kernel);
  Call call(context);
  kmvn_backward a{};
  if (!call.ok() || !call.read_sizes(settings.trailing, a)) return;
  a.structure = settings.structure;
  a.fixed_mean = settings.fixed_mean;
  a.trailing = settings.trailing;
  const int observed = a.trailing ? 8 : 7;
  if (!call.has(2, a.rows, kmvn_kept(a.structure, a.d, a.k)) || !call.has(3, a.rows, a.d) ||
      !call.has(4, a.rows, vector) || !call.has(5, a.rows, vector) ||
      !call.has(6, a.rows, a.d) || (a.trailing && !call.has(7, a.rows, a.trailing)) ||
      !call.has_observed(observed, a))
    return;
  a.z = call.input(2);
  a.v = call.input(3);
  a.squared_mahalanobis_bar = call.input(4);
  a.half_log_det_bar = call.input(5);
  a.mean_bar = call.input(6);
  a.trailing_bar = a.trailing ? call.input(7) : nullptr;
  a.observed = call.input(observed);
  a.y_pred_bar = call.output(a.rows, a.stride);
  if (!call.ok()) return;
  const auto run =
      call.type() == Float ? kmvn_elliptical_backward_f32 : kmvn_elliptical_backward_f64;
  call.settle(run(&a, {settings.threads, nullptr, nullptr, nullptr}));
}

void parameters_forward(void* kernel, TF_OpKernelContext* context) {
  const auto& settings = *static_cast<Settings*>(kernel);
  Call call(context);
  kmvn_parameters_forward a{};
  if (!call.ok() || !call.read_raw(a) || !call.read_strengths(7, a)) return;
  if (!call.has(3, a.d, vector) || !call.has(4, a.d, vector) || !call.has(5, a.k, vector) ||
      !call.has(6, a.d, vector))
    return;
  a.radius = settings.radius;
  a.origin_mean = call.input(2);
  a.origin_stddev = call.input(3);
  a.origin_scale = call.input(4);
  a.origin_shape = call.input(5);
  a.floor = call.input(6);
  a.y_pred = call.output(a.rows, 2 * a.d + a.k);
  a.penalty = call.output(a.rows, vector);
  if (!call.ok()) return;
  const auto run = call.type() == Float ? kmvn_parameters_forward_f32 : kmvn_parameters_forward_f64;
  call.settle(run(&a, {settings.threads, nullptr, nullptr, nullptr}));
}

void parameters_backward(void* kernel, TF_OpKernelContext* context) {
  const auto& settings = *static_cast<Settings*>(kernel);
  Call call(context);
  kmvn_parameters_backward a{};
  if (!call.ok() || !call.read_raw(a) || !call.read_strengths(4, a)) return;
  if (!call.has(3, a.d, vector) || !call.has(5, a.rows, 2 * a.d + a.k) ||
      !call.has(6, a.rows, vector))
    return;
  a.radius = settings.radius;
  a.origin_stddev = call.input(2);
  a.origin_scale = call.input(3);
  a.y_pred_bar = call.input(5);
  a.penalty_bar = call.input(6);
  a.raw_bar = call.output(a.rows, 2 * a.d + a.k);
  if (!call.ok()) return;
  const auto run =
      call.type() == Float ? kmvn_parameters_backward_f32 : kmvn_parameters_backward_f64;
  call.settle(run(&a, {settings.threads, nullptr, nullptr, nullptr}));
}

// --- registration --------------------------------------------------------------------------------

// Declares that output `to` has the axes [0, end) of input `from`.
void same_shape(TF_ShapeInferenceContext* context, int from, int64_t end, int to,
                TF_Status* status) {
  TF_ShapeHandle *const shape = NewShapeHandle(), *const part = NewShapeHandle();
  ShapeInferenceContextGetInput(context, from, shape, status);
  if (GetCode(status) == Ok) ShapeInferenceContextSubshape(context, shape, 0, end, part, status);
  if (GetCode(status) == Ok) ShapeInferenceContextSetOutput(context, to, part, status);
  DeleteShapeHandle(shape);
  DeleteShapeHandle(part);
}

// The number of columns of z, output 2, depends on the structure and stays unknown.
void forward_shapes(TF_ShapeInferenceContext* context, TF_Status* status) {
  ShapeInferenceContextSetUnknownShape(context, status);
  for (int output : {0, 1, 3})
    if (GetCode(status) == Ok) same_shape(context, 1, output < 2 ? 1 : 2, output, status);
  Status there_is_none;  // variances are optional
  same_shape(context, 1, 2, 4, there_is_none);
}

// For y_pred, its cotangent and the raw numbers, which have the same shape.
void shape_of_y_pred(TF_ShapeInferenceContext* context, TF_Status* status) {
  same_shape(context, 0, 2, 0, status);
}

// The shape of the raw numbers, and one number per row.
void parameters_shapes(TF_ShapeInferenceContext* context, TF_Status* status) {
  same_shape(context, 0, 2, 0, status);
  if (GetCode(status) == Ok) same_shape(context, 0, 1, 1, status);
}

bool done(const Status& status) {
  if (!status.ok()) std::fprintf(stderr, "keras_mvn: %s\n", Message(status));
  return status.ok();
}

template <class Attributes, class Inputs, class Outputs>
bool define(const char* name, const Attributes& attributes, const Inputs& inputs,
            const Outputs& outputs, void (*shapes)(TF_ShapeInferenceContext*, TF_Status*)) {
  TF_OpDefinitionBuilder* const op = NewOpDefinitionBuilder(name);
  for (const char* attribute : attributes) OpDefinitionBuilderAddAttr(op, attribute);
  for (const char* input : inputs) OpDefinitionBuilderAddInput(op, input);
  for (const char* output : outputs) OpDefinitionBuilderAddOutput(op, output);
  OpDefinitionBuilderSetShapeInferenceFunction(op, shapes);
  Status status;
  RegisterOpDefinition(op, status);
  return done(status);
}

bool implement(const char* op, void* (*create)(TF_OpKernelConstruction*),
               void (*compute)(void*, TF_OpKernelContext*)) {
  for (int type : {int(Float), int(Double)}) {
    Status status;
    TF_KernelBuilder* const builder = NewKernelBuilder(op, "CPU", create, compute, destroy);
    KernelBuilder_TypeConstraint(builder, "T", type, status);
    if (!done(status)) return false;
    RegisterKernelBuilder(op, builder, status);
    if (!done(status)) return false;
  }
  return true;
}

bool register_all() {
  if (const char* const name = Symbol::first_missing()) {
    std::fprintf(stderr, "keras_mvn: this TensorFlow has no %s\n", name);
    return false;
  }
  const char* const forward_attributes[] = {"T: {float, double}", "gaps: int >= 0",
                                            "structure: int", "variance: int >= 0",
                                            "trailing: int >= 0", "threads: int"};
  const char* const forward_inputs[] = {"y_pred: T", "y: T", "observed: gaps * T"};
  const char* const forward_outputs[] = {"squared_mahalanobis: T", "half_log_det: T", "z: T",
                                         "v: T",
                                         "variances: variance * T"};  // one or zero
  const char* const backward_attributes[] = {"T: {float, double}", "gaps: int >= 0",
                                             "structure: int", "fixed_mean: int",
                                             "trailing: int >= 0", "threads: int"};
  const char* const backward_inputs[] = {"y_pred: T", "y: T", "z: T", "v: T",
                                         "squared_mahalanobis_bar: T", "half_log_det_bar: T",
                                         "mean_bar: T", "trailing_bar: trailing * T",
                                         "observed: gaps * T"};
  const char* const backward_outputs[] = {"y_pred_bar: T"};
  const char* const parameters_attributes[] = {"T: {float, double}", "radius: float",
                                               "threads: int"};
  const char* const parameters_inputs[] = {"raw: T", "bias: T", "origin_mean: T",
                                           "origin_stddev: T", "origin_scale: T",
                                           "origin_shape: T", "floor: T", "strengths: T"};
  const char* const parameters_outputs[] = {"y_pred: T", "penalty: T"};
  const char* const parameters_backward_inputs[] = {"raw: T", "bias: T", "origin_stddev: T",
                                                    "origin_scale: T", "strengths: T",
                                                    "y_pred_bar: T", "penalty_bar: T"};
  const char* const parameters_backward_outputs[] = {"raw_bar: T"};
  return define("KerasMvnElliptical", forward_attributes, forward_inputs, forward_outputs,
                forward_shapes) &&
         define("KerasMvnEllipticalBackward", backward_attributes, backward_inputs,
                backward_outputs, shape_of_y_pred) &&
         define("KerasMvnParameters", parameters_attributes, parameters_inputs, parameters_outputs,
                parameters_shapes) &&
         define("KerasMvnParametersBackward", parameters_attributes, parameters_backward_inputs,
                parameters_backward_outputs, shape_of_y_pred) &&
         implement("KerasMvnElliptical", create_forward, forward) &&
         implement("KerasMvnEllipticalBackward", create_backward, backward) &&
         implement("KerasMvnParameters", create_parameters, parameters_forward) &&
         implement("KerasMvnParametersBackward", create_parameters, parameters_backward);
}

[[maybe_unused]] const bool registered = register_all();

}  // namespace
