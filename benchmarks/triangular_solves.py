"""Compare substitution on JAX with LAPACK's calls: time, compile time, difference.

    python benchmarks/triangular_solves.py

Times are medians of 30 calls in one process; read them as ratios. jaxlib's batched calls can stop
for good where several run side by side (`keras_mvn/_core/jax_substitution.py`), which is why the
library uses substitution on CPUs.
"""

from __future__ import annotations

import os
import statistics
import time

os.environ["KERAS_BACKEND"] = "jax"

import jax
import numpy as np

from keras_mvn._core.jax_substitution import solve_lower

SIZES = [(64, 3, 1), (1024, 8, 1), (1024, 8, 8), (1024, 32, 1), (256, 32, 32), (256, 128, 1)]


def lapack(factor, b):
    return jax.lax.linalg.triangular_solve(factor, b, left_side=True, lower=True)


def substitution(factor, b):
    return solve_lower(factor, b, transposed=False)


def measure(function, factor, b):
    """Seconds of a call, seconds of the first one, and its result."""
    compiled, began = jax.jit(function), time.perf_counter()
    result = compiled(factor, b).block_until_ready()
    first, times = time.perf_counter() - began, []
    for _ in range(30):
        began = time.perf_counter()
        compiled(factor, b).block_until_ready()
        times.append(time.perf_counter() - began)
    return statistics.median(times), first, np.asarray(result)


def main():
    rng = np.random.default_rng(0)
    print("  rows    d    m   lapack µs   substitution µs   ratio   compile ratio   difference")
    jax.jit(lapack)(np.eye(2)[None], np.ones((1, 2, 1)))  # the first use of LAPACK loads it
    for rows, d, m in SIZES:
        factor = (np.tril(rng.normal(size=(rows, d, d)), -1) / 5 + np.eye(d)).astype("float32")
        b = rng.normal(size=(rows, d, m)).astype("float32")
        (old, old_first, expected), (new, new_first, found) = (
            measure(function, factor, b) for function in (lapack, substitution)
        )
        difference = np.abs(found - expected).max() / np.abs(expected).max()
        print(
            f"{rows:6d} {d:4d} {m:4d} {1e6 * old:11.0f} {1e6 * new:17.0f} {new / old:7.2f}"
            f" {new_first / old_first:15.2f} {difference:12.0e}"
        )


if __name__ == "__main__":
    main()
