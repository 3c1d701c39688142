"""Measure the memory of a loss step, and how low-rank and banded structures grow with d.

    python benchmarks/memory_and_growth.py            # every backend, 8 minutes
    python benchmarks/memory_and_growth.py --backend torch

Every cell is a process of its own: the step (value and gradient of the NLL from packed output)
runs once on few rows, so that everything is loaded and compiled, then on all rows. "Extra" is the
rise of the resident memory during that step, with y_pred and y already allocated, as a multiple of
the size of y_pred; it includes the gradient, which has the size of y_pred. Seconds are the fastest
of three further steps, and are meaningful only relative to each other.

Writes results/memory_and_growth.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results" / "memory_and_growth.md"
BACKENDS = ("jax", "torch", "tensorflow")
DENSE = [("cholesky", d, 8192) for d in (16, 32, 64, 128)]
GROWTH = [
    (structure, d, 32) for structure in ("low_rank", "banded") for d in (100, 1000, 10_000, 100_000)
]
RANK, BANDWIDTH = 10, 10


def structure_of(name):
    from keras_mvn import covariances

    made = {
        "low_rank": lambda: covariances.LowRank(RANK),
        "banded": lambda: covariances.Banded(BANDWIDTH),
        "cholesky": covariances.Cholesky,
    }
    return made[name]()


def packed(structure, n, d):
    rng = np.random.default_rng(0)
    k = structure.packed_size(d) - 2 * d
    y_pred = np.empty((n, 2 * d + k), "float32")
    y_pred[:, :d] = rng.normal(size=(n, d))
    y_pred[:, d : 2 * d] = np.exp(0.3 * rng.normal(size=(n, d)))
    y_pred[:, 2 * d :] = 0.1 / np.sqrt(d) * rng.standard_normal((n, k), "float32")
    return y_pred, rng.normal(size=(n, d)).astype("float32")


def step_of(loss):
    """Return a function of (y_pred, y) that makes a step function for the active backend."""
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        function = jax.jit(jax.value_and_grad(lambda p, y: loss(y, p)))
        return lambda y_pred, y: lambda: jax.block_until_ready(function(y_pred, y))
    if backend == "torch":
        import torch

        def torch_step(y_pred, y):
            y_pred = y_pred.requires_grad_()
            return lambda: torch.autograd.grad(loss(y, y_pred), y_pred)

        return torch_step
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def run(y_pred, y):
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            value = loss(y, y_pred)
        return value, tape.gradient(value, y_pred)

    return lambda y_pred, y: lambda: run(y_pred, y)


def resident():
    """Return the resident memory in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_while(run):
    """Return how much the resident memory rises while `run` runs."""
    before, peak, over = resident(), 0, threading.Event()

    def watch():
        nonlocal peak
        while not over.is_set():
            peak = max(peak, resident())
            time.sleep(2e-4)

    watcher = threading.Thread(target=watch)
    watcher.start()
    run()
    over.set()
    watcher.join()
    return max(peak - before, 0)


def cell(name, d, n):
    from keras import ops

    import keras_mvn as kmvn

    structure = structure_of(name)
    step = step_of(kmvn.losses.NegativeLogLikelihood(structure))
    few = [ops.convert_to_tensor(x) for x in packed(structure, 4, d)]
    step(*few)()
    whole = [ops.convert_to_tensor(x) for x in packed(structure, n, d)]
    run = step(*whole)
    extra = peak_while(run)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    size = n * structure.packed_size(d) * 4
    return {"extra": extra / size, "megabytes": size / 1e6, "seconds": min(seconds)}


def in_a_process(backend, name, d, n):
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, __file__, "--only", name, str(d), str(n)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise SystemExit(f"{backend}, {name}, d = {d}: exit code {done.returncode}")
    return json.loads(lines[-1])


def tables(backends):
    yield "## Extra memory of a step with a dense covariance, in sizes of y_pred\n"
    yield "| backend | d | y_pred, MB | extra |"
    yield "| --- | --- | --- | --- |"
    for backend in backends:
        for name, d, n in DENSE:
            one = in_a_process(backend, name, d, n)
            yield f"| {backend} | {d} | {one['megabytes']:.0f} | {one['extra']:.2f} |"
    yield f"\n## Growth: 32 rows, rank {RANK}, bandwidth {BANDWIDTH}\n"
    yield "| backend | structure | d | y_pred, MB | extra | seconds |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for backend in backends:
        for name, d, n in GROWTH:
            one = in_a_process(backend, name, d, n)
            yield (
                f"| {backend} | {name} | {d} | {one['megabytes']:.2f} | {one['extra']:.1f} | "
                f"{one['seconds']:.4f} |"
            )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", nargs="+", default=BACKENDS, choices=BACKENDS)
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        name, d, n = arguments.only
        print(json.dumps(cell(name, int(d), int(n))))
        return
    lines = []
    for line in tables(arguments.backend):
        print(line, flush=True)
        lines.append(line)
    RESULTS.parent.mkdir(exist_ok=True)
    head = (
        "# Memory of a loss step, and growth with d\n\nfloat32. `benchmarks/memory_and_growth.py`\n"
    )
    RESULTS.write_text("\n".join([head, *lines]) + "\n")


if __name__ == "__main__":
    main()
