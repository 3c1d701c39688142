"""Time one loss step of a Student's t as a multiple of a normal's, in one run.

    python benchmarks/student_t_speed.py --backend jax

Value and gradient with respect to y_pred, compiled on JAX. "fixed ν": `StudentT(5)` on a normal's
layout; "ν of the head": `StudentT("learned")` on a layout with ν as its last column, which is how
a head writes one ν for all rows and one per row. Repetitions are interleaved; figures are ratios
of medians.
"""

from __future__ import annotations

import argparse
import os
import time


def steps(d, rows, backend):
    import keras
    import numpy as np

    from keras_mvn import losses

    rng = np.random.default_rng(0)
    k = d * (d - 1) // 2
    scale = np.exp(0.1 * rng.normal(size=(rows, d)))
    packed = np.hstack([rng.normal(size=(rows, d)), scale, 0.1 * rng.normal(size=(rows, k))])
    nu = 4.0 + rng.uniform(size=(rows, 1))
    y = keras.ops.convert_to_tensor(rng.normal(size=(rows, d)).astype("float32"))
    given = {
        "normal": (losses.NegativeLogLikelihood(), packed),
        "fixed ν": (losses.StudentT(5.0), packed),
        "ν of the head": (losses.StudentT("learned"), np.hstack([packed, nu])),
    }
    return {
        name: _step(loss, y, y_pred.astype("float32"), backend)
        for name, (loss, y_pred) in given.items()
    }


def _step(loss, y, y_pred, backend):
    if backend == "jax":
        import jax

        step = jax.jit(jax.value_and_grad(lambda y_pred: loss(y, y_pred)))
        return lambda: jax.block_until_ready(step(y_pred))
    import torch

    tensor = torch.tensor(y_pred, requires_grad=True)

    def step():
        tensor.grad = None
        loss(y, tensor).backward()

    return step


def medians(steps, seconds):
    import numpy as np

    taken = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(3):
            step()
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            taken[name].append(time.perf_counter() - began)
    return {name: float(np.median(found)) for name, found in taken.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backend", default="jax", choices=("jax", "torch"))
    parser.add_argument("--d", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--rows", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    os.environ["KERAS_BACKEND"] = arguments.backend
    print(f"{arguments.backend:8s} rows    d   normal, µs   fixed ν   ν of the head")
    for d in arguments.d:
        for rows in arguments.rows:
            found = medians(steps(d, rows, arguments.backend), arguments.seconds)
            unit = found["normal"]
            print(
                f"{'':8s} {rows:4d} {d:4d} {1e6 * unit:12.0f} {found['fixed ν'] / unit:9.2f}"
                f" {found['ν of the head'] / unit:15.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
