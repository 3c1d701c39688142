"""Time the methods of 100 000 distributions of 10 targets, and of one of 2000 targets.

    KERAS_BACKEND=torch OMP_NUM_THREADS=1 python benchmarks/distribution_speed.py

takes about three minutes and writes benchmarks/results/distribution_speed.md. Seconds depend on the
machine, so each time is also given as a multiple of one Cholesky factorization of all 100 000
matrices by `numpy.linalg.cholesky` in the same run.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

import keras_mvn as kmvn
from keras_mvn import MultivariateNormal, covariances

RESULTS = Path(__file__).parent / "results" / "distribution_speed.md"
STRUCTURES = {
    "Cholesky": covariances.Cholesky(),
    "precision Cholesky": covariances.PrecisionCholesky(),
    "low rank, r = 2": covariances.LowRank(2),
}
REPEATS = 3


def batch(structure, rows, d, rng):
    """Return distributions with random covariances."""
    raw = 0.3 * rng.normal(size=(rows, structure.raw_size(d)))
    scale, shape_params = structure.constrain(raw, d)
    packed = np.concatenate([rng.normal(size=(rows, d)), scale, shape_params], axis=-1)
    return MultivariateNormal.from_prediction(packed, structure)


def questions(normal, y, slow):
    """Return name → the call to time; `slow` ones are timed once."""
    other = normal * 1.1 + 0.1
    region = normal.ellipsoid(0.9)
    given = {0: y[:, 0], 4: y[:, 4], 7: y[:, 7]}
    asked = {
        "log_prob": lambda: normal.log_prob(y),
        "sample, 10 draws": lambda: normal.sample(10, seed=0),
        "marginal of 3": lambda: normal.marginal([8, 2, 5]),
        "condition on 3": lambda: normal.condition(given),
        "condition on 3, noisy": lambda: normal.condition(given, 0.1),
        "update, 2 functions": lambda: normal.update(y[:, :2], np.eye(2, 10), variance=1.0),
        "sum": lambda: normal.sum(),
        "ellipsoid: contains": lambda: region.contains(y),
        "ellipsoid: volume": lambda: region.volume,
        "ellipsoid: radii": lambda: region.radii,
        "ellipsoid: axes": lambda: region.axes,
        "kl_divergence": lambda: normal.kl_divergence(other),
        "bhattacharyya": lambda: normal.bhattacharyya(other),
        "combine": lambda: normal.combine(other),
        "probability of a box, 1000 rows": lambda: normal[:1000].probability(upper=y[:1000]),
        "energy score": lambda: kmvn.scores.energy_score(normal, y),
        "variogram score": lambda: kmvn.scores.variogram_score(normal, y),
        "evaluate: all scores": lambda: kmvn.evaluate(normal, y),
    }
    return {name: (call, 1 if name in slow else REPEATS) for name, call in asked.items()}


def seconds(call, repeats=REPEATS):
    """Return the seconds of the fastest repetition."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def main():
    rng = np.random.default_rng(0)
    slow = {"evaluate: all scores", "variogram score", "energy score"}
    table, unit = {}, 0.0
    for label, structure in STRUCTURES.items():
        normal = batch(structure, 100_000, 10, rng)
        y = normal.sample(seed=0)
        sigma = normal.covariance
        unit = unit or seconds(lambda sigma=sigma: np.linalg.cholesky(sigma))
        for name, (call, repeats) in questions(normal, y, slow).items():
            table.setdefault(name, {})[label] = seconds(call, repeats)
            print(label, name, f"{table[name][label]:.2f}", flush=True)
    lines = [
        "# What asking distributions costs",
        "",
        "100 000 rows, d = 10, float64, one thread: seconds, and in brackets the multiple of one",
        f"`numpy.linalg.cholesky` of all matrices ({unit:.2f} s).",
        "`benchmarks/distribution_speed.py` says how.",
        "",
        f"| question | {' | '.join(STRUCTURES)} |",
        "| --- |" + " --- |" * len(STRUCTURES),
    ]
    lines += [
        f"| {name} | " + " | ".join(f"{s:.2f} ({s / unit:.1f})" for s in row.values()) + " |"
        for name, row in table.items()
    ]
    many = batch(covariances.LowRank(10), 100, 2000, rng)
    y = many.sample(seed=0)
    lines += ["", "100 rows, d = 2000, rank 10, nothing of size d × d:", ""]
    for name, call in {
        "condition on 500 targets": lambda: many.condition({j: y[:, j] for j in range(500)}),
        "marginal of 1000": lambda: many.marginal(slice(1000)),
        "kl_divergence": lambda: many.kl_divergence(many * 1.1),
        "P(all below), 4096 points": lambda: many[:10].probability(upper=5.0),
        "energy score": lambda: kmvn.scores.energy_score(many, y),
    }.items():
        lines.append(f"* {name}: {seconds(call, 1):.2f} s")
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(RESULTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
