"""Time one loss step: value and gradient from packed output, as multiples of copying it.

    python benchmarks/loss_speed.py                      # all backends, 10 minutes
    python benchmarks/loss_speed.py --backend jax --d 16 32 64
    python benchmarks/loss_speed.py --tfp /path/to/python  # TensorFlow Probability, see below

"Copy" is an out-of-place `y_pred * c` by the same backend at the same shape. Repetitions of all
contenders are interleaved, and a figure is the ratio of two medians of one run; nothing else is
meaningful on a shared machine. Every contender gets the same y_pred = [mean | scale | N], and its
gradient is checked against the others'.

The contenders: `torch.distributions`, numpyro, TensorFlow Probability (`MultivariateNormalTriL`),
each with the factor L = S (I + N) built from y_pred; and a precision factor as in BayesFlow, a
dense matrix product in Keras operations. TensorFlow Probability requires Keras 2, hence an
environment of its own, whose python is passed as --tfp:
`pip install tensorflow-cpu tensorflow-probability tf-keras`.

Writes results/loss_speed.md and results/loss_speed.png.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"
SIZES = (2, 4, 8, 16, 32, 64, 128)
BATCHES = (256, 1024, 4096)
BACKENDS = ("jax", "torch", "tensorflow")
SECONDS = 1.5
"""Time for each cell, all contenders together."""

FEWEST, MOST = 5, 200
"""Bounds on the number of repetitions."""

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def packed(n, d):
    rng = np.random.default_rng(0)
    scale = np.exp(0.3 * rng.normal(size=(n, d)))
    shape = 0.3 / math.sqrt(d) * rng.normal(size=(n, d * (d - 1) // 2))
    y_pred = np.concatenate([rng.normal(size=(n, d)), scale, shape], axis=1)
    return y_pred.astype("float32"), rng.normal(size=(n, d)).astype("float32")


def lower_triangle(d):
    """Return rows and columns of N's entries, and their (d, d) places in [N, 0, 1]."""
    rows, columns = np.tril_indices(d, -1)
    places = np.full((d, d), len(rows))
    places[rows, columns] = np.arange(len(rows))
    places[np.arange(d), np.arange(d)] = len(rows) + 1
    return rows, columns, places.ravel()


# --- contenders: name → a function without arguments that gives (value, gradient) ----------------


def of_torch(y_pred, y, d):
    import torch

    import keras_mvn as kmvn
    from keras_mvn.kernels.elliptical import torch as operators

    y_pred, y = torch.tensor(y_pred, requires_grad=True), torch.tensor(y)
    rows, columns, places = (torch.tensor(x) for x in lower_triangle(d))

    def step(value):
        def run():
            loss = value()
            (gradient,) = torch.autograd.grad(loss, y_pred)
            return loss, gradient

        return run

    def operator():
        _, q, log_scale, *_ = operators._with_gradient(y_pred, y, None, 0, False, False)
        return (0.5 * q + log_scale).mean() + d * HALF_LOG_2PI

    def distributions():
        lower = torch.diag_embed(torch.ones_like(y))
        lower[:, rows, columns] = y_pred[:, 2 * d :]
        tril = y_pred[:, d : 2 * d, None] * lower
        normal = torch.distributions.MultivariateNormal(
            y_pred[:, :d], scale_tril=tril, validate_args=False
        )
        return -normal.log_prob(y).mean()

    def precision_factor():
        constants = torch.zeros(len(y), 2)
        constants[:, 1] = 1.0
        matrix = torch.cat([y_pred[:, 2 * d :], constants], dim=1)[:, places].reshape(-1, d, d)
        scale = y_pred[:, d : 2 * d]
        z = torch.einsum("nij,nj->ni", matrix, (y - y_pred[:, :d]) / scale)
        return (0.5 * (z * z).sum(-1) + scale.log().sum(-1)).mean() + d * HALF_LOG_2PI

    def reference():
        return kmvn.losses.NegativeLogLikelihood(fused=False)(y, y_pred)

    whole, balanced = (
        kmvn.losses.NegativeLogLikelihood(),
        kmvn.losses.BalancedNegativeLogLikelihood(),
    )
    detached = y_pred.detach()
    return {
        "copy": lambda: (detached * 1.5,),
        "keras-mvn operator": step(operator),
        "keras-mvn loss": step(lambda: whole(y, y_pred)),
        "keras-mvn default loss": step(lambda: balanced(y, y_pred)),
        "keras-mvn reference": step(reference),
        "torch.distributions": step(distributions),
        "precision factor": step(precision_factor),
    }


def of_jax(y_pred, y, d):
    import jax
    import jax.numpy as jnp
    import numpyro

    import keras_mvn as kmvn

    y_pred, y = jnp.asarray(y_pred), jnp.asarray(y)
    rows, columns, places = lower_triangle(d)

    def step(value):
        function = jax.jit(jax.value_and_grad(value))
        return lambda: jax.block_until_ready(function(y_pred))

    def numpyro_loss(y_pred):
        lower = jnp.broadcast_to(jnp.eye(d), (len(y), d, d))
        lower = lower.at[:, rows, columns].set(y_pred[:, 2 * d :])
        tril = y_pred[:, d : 2 * d, None] * lower
        normal = numpyro.distributions.MultivariateNormal(y_pred[:, :d], scale_tril=tril)
        return -normal.log_prob(y).mean()

    def precision_factor(y_pred):
        constants = jnp.tile(jnp.asarray([[0.0, 1.0]]), (len(y), 1))
        matrix = jnp.concatenate([y_pred[:, 2 * d :], constants], axis=1)[:, places]
        scale = y_pred[:, d : 2 * d]
        z = jnp.einsum("nij,nj->ni", matrix.reshape(-1, d, d), (y - y_pred[:, :d]) / scale)
        return (0.5 * (z * z).sum(-1) + jnp.log(scale).sum(-1)).mean() + d * HALF_LOG_2PI

    double = jax.jit(lambda x: x * 1.5)
    return {
        "copy": lambda: (jax.block_until_ready(double(y_pred)),),
        "keras-mvn loss": step(lambda p: kmvn.losses.NegativeLogLikelihood()(y, p)),
        "keras-mvn default loss": step(lambda p: kmvn.losses.BalancedNegativeLogLikelihood()(y, p)),
        "keras-mvn reference": step(lambda p: kmvn.losses.NegativeLogLikelihood(fused=False)(y, p)),
        "numpyro": step(numpyro_loss),
        "precision factor": step(precision_factor),
    }


def of_tensorflow(y_pred, y, d, losses=True):
    """Return the TensorFlow contenders: this library's with `losses`, otherwise TFP's."""
    import tensorflow as tf

    y_pred, y = tf.constant(y_pred), tf.constant(y)
    _, _, places = lower_triangle(d)

    def step(value, jit_compile=False):
        @tf.function(jit_compile=jit_compile)
        def run():
            with tf.GradientTape() as tape:
                tape.watch(y_pred)
                loss = value(y_pred)
            return loss, tape.gradient(loss, y_pred)

        return run

    def precision_factor(y_pred):
        constants = tf.tile([[0.0, 1.0]], (len(y), 1))
        matrix = tf.gather(tf.concat([y_pred[:, 2 * d :], constants], axis=1), places, axis=1)
        scale = y_pred[:, d : 2 * d]
        u = (y - y_pred[:, :d]) / scale
        z = tf.linalg.matvec(tf.reshape(matrix, (-1, d, d)), u)
        squares, logs = tf.reduce_sum(z * z, -1), tf.reduce_sum(tf.math.log(scale), -1)
        return tf.reduce_mean(0.5 * squares + logs) + d * HALF_LOG_2PI

    double = tf.function(lambda x: x * 1.5)
    contenders = {"copy": lambda: (double(y_pred),)}
    if losses:
        import keras_mvn as kmvn

        whole = kmvn.losses.NegativeLogLikelihood()
        balanced = kmvn.losses.BalancedNegativeLogLikelihood()
        reference = kmvn.losses.NegativeLogLikelihood(fused=False)
        return contenders | {
            "keras-mvn loss": step(lambda p: whole(y, p)),
            "keras-mvn default loss": step(lambda p: balanced(y, p)),
            "keras-mvn reference": step(lambda p: reference(y, p)),
            "precision factor": step(precision_factor),
        }
    import tensorflow_probability as tfp

    def probability(y_pred):
        constants = tf.tile([[0.0, 1.0]], (len(y), 1))
        matrix = tf.gather(tf.concat([y_pred[:, 2 * d :], constants], axis=1), places, axis=1)
        tril = y_pred[:, d : 2 * d, None] * tf.reshape(matrix, (-1, d, d))
        normal = tfp.distributions.MultivariateNormalTriL(y_pred[:, :d], tril)
        return -tf.reduce_mean(normal.log_prob(y))

    return contenders | {
        "TensorFlow Probability, graph": step(probability),
        "TensorFlow Probability, XLA": step(probability, jit_compile=True),
    }


CONTENDERS = {
    "torch": of_torch,
    "jax": of_jax,
    "tensorflow": of_tensorflow,
    "tfp": lambda *data: of_tensorflow(*data, losses=False),
}

OTHER_GRADIENT = ("precision factor", "keras-mvn default loss", "copy")
"""Contenders with another density, or intentionally another gradient."""


# --- timing --------------------------------------------------------------------------------------


def medians(contenders):
    """Return the median seconds of each contender, from interleaved repetitions."""
    check(contenders)
    began = time.perf_counter()
    times = {name: [] for name in contenders}
    while len(times["copy"]) < MOST and (
        len(times["copy"]) < FEWEST or time.perf_counter() - began < SECONDS
    ):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in times.items()}


def check(contenders):
    """Check that all give the same gradient; this first, untimed call also compiles."""
    gradients = {name: np.asarray(run()[-1]) for name, run in contenders.items()}
    same = [g for name, g in gradients.items() if name not in OTHER_GRADIENT]
    for other in same[1:]:
        error = np.abs(other - same[0]).max() / np.abs(same[0]).max()
        assert error < 1e-4, error


def cells(backend, sizes, batches):
    for n in batches:
        for d in sizes:
            found = medians(CONTENDERS[backend](*packed(n, d), d))
            print(json.dumps({"backend": backend, "n": n, "d": d, "seconds": found}), flush=True)


def in_a_process(backend, arguments, python=sys.executable):
    """Run a backend in a process of its own, so that thread pools do not interfere."""
    name = "tensorflow" if backend == "tfp" else backend
    command = [python, __file__, "--only", backend, "--d", *map(str, arguments.d)]
    environment = {**os.environ, "KERAS_BACKEND": name, "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        [*command, "--batch", *map(str, arguments.batch)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    found = []
    for line in process.stdout:
        if line.startswith("{"):
            found.append(json.loads(line))
            print(*row(found[-1]), flush=True)
    if process.wait():
        raise SystemExit(f"{backend}: exit code {process.returncode}")
    return found


# --- the table -----------------------------------------------------------------------------------


def row(cell):
    copy = cell["seconds"]["copy"]
    ratios = {k: v / copy for k, v in cell["seconds"].items() if k != "copy"}
    yield f"{cell['backend']:>10} n={cell['n']:<5} d={cell['d']:<4} copy {1e3 * copy:8.3f} ms:"
    yield ", ".join(f"{name} {ratio:.1f}" for name, ratio in ratios.items())


def table(found, backend):
    mine = [cell for cell in found if cell["backend"] == backend]
    names = [name for name in mine[0]["seconds"] if name != "copy"]
    lines = [
        f"## {backend}\n",
        f"| rows | d | copy, ms | {' | '.join(names)} |",
        f"| --- | --- | --- |{' --- |' * len(names)}",
    ]
    for cell in mine:
        copy = cell["seconds"]["copy"]
        ratios = " | ".join(f"{cell['seconds'][name] / copy:.1f}" for name in names)
        lines.append(f"| {cell['n']} | {cell['d']} | {1e3 * copy:.3f} | {ratios} |")
    return "\n".join(lines)


def write(found):
    backends = list(dict.fromkeys(cell["backend"] for cell in found))
    text = (
        "# What one loss step costs\n\nValue and gradient from packed output, float32, as "
        "multiples of an out-of-place copy of y_pred by the same backend in the same run (medians "
        f"of interleaved repetitions, {os.cpu_count()} cores). `benchmarks/loss_speed.py`\n\n"
    )
    RESULTS.mkdir(exist_ok=True)
    body = "\n\n".join(table(found, backend) for backend in backends)
    (RESULTS / "loss_speed.md").write_text(text + body + "\n")
    plot(found, backends)


def plot(found, backends):
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    n = max(cell["n"] for cell in found)
    figure, axes = plt.subplots(
        1, len(backends), figsize=(4 * len(backends), 3.6), sharey=True, squeeze=False
    )
    for axis, backend in zip(axes[0], backends, strict=True):
        mine = [cell for cell in found if cell["backend"] == backend and cell["n"] == n]
        for name in mine[0]["seconds"]:
            if name == "copy":
                continue
            ratios = [cell["seconds"][name] / cell["seconds"]["copy"] for cell in mine]
            ours = name.startswith("keras-mvn")
            axis.plot([c["d"] for c in mine], ratios, "o-" if ours else "s--", label=name, ms=4)
        axis.set(title=f"{backend}, {n} rows", xscale="log", yscale="log", xlabel="targets d")
        axis.set_xticks([c["d"] for c in mine], [str(c["d"]) for c in mine])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    axes[0, 0].set_ylabel("value and gradient, in copies of y_pred")
    figure.tight_layout()
    figure.savefig(RESULTS / "loss_speed.png", dpi=120)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", nargs="+", default=BACKENDS, choices=BACKENDS)
    parser.add_argument("--d", nargs="+", type=int, default=SIZES)
    parser.add_argument("--batch", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--tfp", help="python of an environment with TensorFlow Probability")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        cells(arguments.only, arguments.d, arguments.batch)
        return
    found = [cell for backend in arguments.backend for cell in in_a_process(backend, arguments)]
    if arguments.tfp:
        found += in_a_process("tfp", arguments, arguments.tfp)
    write(found)


if __name__ == "__main__":
    main()
