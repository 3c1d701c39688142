"""Time a training epoch with a full covariance, as a multiple of one with squared error.

    python benchmarks/epoch_speed.py                   # every backend, 5 minutes
    python benchmarks/epoch_speed.py --backend torch --d 32

The quick start's network, 2 × 64 gelu, Adam, one epoch of `model.fit`, in four versions: a Cholesky
head for d targets with the defaults (shrinkage, balanced loss); the same head with the NLL and no
shrinkage, since MSE has none either; MSE with d outputs; and MSE with as many outputs as y_pred has
(2 d + d(d − 1)/2), which accounts for the cost of the last layer. Epochs of the four are
interleaved, in one process per backend; a figure is the ratio of two medians.

Writes results/epoch_speed.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results" / "epoch_speed.md"
BACKENDS = ("jax", "torch", "tensorflow")
SIZES = (4, 32, 64)
FEATURES, BATCH, BATCHES = 16, 256, 64
EPOCHS = 7


def networks(d):
    """Return name → (model, inputs, targets), all trained in the same way."""
    import keras

    import keras_mvn as kmvn

    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH * BATCHES, FEATURES)).astype("float32")
    y = (x @ rng.normal(size=(FEATURES, d)) + rng.normal(size=(len(x), d))).astype("float32")
    width = kmvn.covariances.Cholesky().packed_size(d)
    wide = np.resize(y, (len(y), width))

    def trunk(last):
        layers = [keras.layers.Dense(64, "gelu"), keras.layers.Dense(64, "gelu")]
        return keras.Sequential([keras.Input((FEATURES,)), *layers, last])

    def head(**options):
        made = kmvn.layers.MultivariateNormalHead(d, **options)
        made.adapt(y)
        return made

    found = {
        "keras-mvn": (trunk(head()), kmvn.losses.BalancedNegativeLogLikelihood(), y),
        "plain": (trunk(head(shrinkage=None)), kmvn.losses.NegativeLogLikelihood(), y),
        "mse, d outputs": (trunk(keras.layers.Dense(d)), "mse", y),
        "mse, as many outputs": (trunk(keras.layers.Dense(width)), "mse", wide),
    }
    for model, loss, _ in found.values():
        model.compile("adam", loss=loss)
    return {name: (model, x, targets) for name, (model, _, targets) in found.items()}


def medians(contenders):
    times = {name: [] for name in contenders}
    for epoch in range(EPOCHS + 1):
        for name, (model, x, y) in contenders.items():
            began = time.perf_counter()
            model.fit(x, y, batch_size=BATCH, verbose=0)
            if epoch:  # the first compiles
                times[name].append(time.perf_counter() - began)
    return {name: float(np.median(values)) for name, values in times.items()}


def in_a_process(backend, sizes):
    command = [sys.executable, __file__, "--only", backend, "--d", *map(str, sizes)]
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def table(found):
    lines = [
        "| backend | d | epoch, s | over MSE with d outputs | over MSE with as many outputs | "
        "the same, NLL without shrinkage |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for cell in found:
        ours, plain, few, many = cell["seconds"].values()
        lines.append(
            f"| {cell['backend']} | {cell['d']} | {ours:.2f} | {ours / few:.2f} | "
            f"{ours / many:.2f} | {plain / many:.2f} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", nargs="+", default=BACKENDS, choices=BACKENDS)
    parser.add_argument("--d", nargs="+", type=int, default=SIZES)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        for d in arguments.d:
            cell = {"backend": arguments.only, "d": d, "seconds": medians(networks(d))}
            print(json.dumps(cell), flush=True)
        return
    found = [cell for name in arguments.backend for cell in in_a_process(name, arguments.d)]
    text = table(found)
    print(text)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        f"# What a training epoch costs\n\n{BATCHES} batches of {BATCH} rows, 2 × 64 gelu, "
        f"float32, {os.cpu_count()} cores; medians of {EPOCHS} epochs. "
        "`benchmarks/epoch_speed.py`\n\n"
        f"{text}\n"
    )


if __name__ == "__main__":
    main()
