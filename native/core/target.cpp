// Compiled once for each set of instructions; KMVN_TARGET is its name, KMVN_BYTES its vector.
#include "target.h"

#include "kernel.h"

#define KMVN_STRING_(x) #x
#define KMVN_STRING(x) KMVN_STRING_(x)
#define KMVN_JOIN_(x, y) x##y
#define KMVN_JOIN(x, y) KMVN_JOIN_(x, y)

namespace kmvn {

const Target KMVN_JOIN(target_, KMVN_TARGET) = {
    KMVN_STRING(KMVN_TARGET),
    KMVN_TARGET::forward<float>,
    KMVN_TARGET::forward<double>,
    KMVN_TARGET::backward<float>,
    KMVN_TARGET::backward<double>,
};

}  // namespace kmvn
