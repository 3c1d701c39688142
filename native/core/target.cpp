// Compiled once for each instruction set: KMVN_TARGET is its name, KMVN_BYTES its vector width.
#include "target.h"

#include "elliptical_kernel.h"
#include "parameters_kernel.h"

#define KMVN_STRING_(x) #x
#define KMVN_STRING(x) KMVN_STRING_(x)
#define KMVN_JOIN_(x, y) x##y
#define KMVN_JOIN(x, y) KMVN_JOIN_(x, y)

namespace kmvn {

const Target KMVN_JOIN(target_, KMVN_TARGET) = {
    KMVN_STRING(KMVN_TARGET),
    KMVN_TARGET::elliptical_forward<float>,
    KMVN_TARGET::elliptical_forward<double>,
    KMVN_TARGET::elliptical_backward<float>,
    KMVN_TARGET::elliptical_backward<double>,
    KMVN_TARGET::parameters_forward<float>,
    KMVN_TARGET::parameters_forward<double>,
    KMVN_TARGET::parameters_backward<float>,
    KMVN_TARGET::parameters_backward<double>,
};

}  // namespace kmvn
