"""Measure how much two measured pollutants improve predictions of the other four (air.csv).

Three networks (2 × 64 gelu, Adam 2e-3, averaged weights, stopped on their own validation loss) are
trained on the same 6000 rows of each of 5 random splits: one without correlations (diagonal), one
with all of them (Cholesky), and one built for this single question, whose inputs include the two
measured pollutants. The first is used as it is, the second is conditioned on the measurements.

    KERAS_BACKEND=torch OMP_NUM_THREADS=1 python benchmarks/conditioning.py --data ../shared/data

takes about 10 minutes and writes benchmarks/results/conditioning.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np

import keras_mvn as kmvn
from tables import air, divide

SPLITS = 5
SIZES = (6000, 1000)
NAMES = ["PM2.5", "NO2", "O3", "PM10", "CO", "SO2"]
PAIRS = [("NO2", "PM2.5"), ("PM10", "O3")]
RESULTS = Path(__file__).parent / "results" / "conditioning.md"


def train(parts, covariance, seed):
    """Train a small network with this structure; return its distributions for the last part."""
    keras.utils.set_random_seed(seed)
    (x, y), validation, (x_test, _) = parts
    head = kmvn.layers.MultivariateNormalHead(y.shape[1], covariance)
    head.adapt(y)
    hidden = [keras.layers.Dense(64, "gelu") for _ in range(2)]
    model = keras.Sequential([keras.Input((x.shape[1],)), *hidden, head])
    optimizer = keras.optimizers.Adam(2e-3, use_ema=True, ema_momentum=0.99)
    model.compile(optimizer, loss=kmvn.losses.BalancedNegativeLogLikelihood(covariance))
    callbacks = [
        keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
        keras.callbacks.EarlyStopping(patience=10, restore_best_weights=True),
    ]
    model.fit(
        x, y, validation_data=validation, epochs=100, batch_size=128, callbacks=callbacks, verbose=0
    )
    return head.distribution(model.predict(x_test, verbose=0, batch_size=1024))


def one_split(x, y, seed):
    """Return the NLL per target of the other four, by measured pair, then by method."""
    order = np.random.default_rng(seed).permutation(len(x))
    rows = np.split(order, np.cumsum(SIZES))
    parts = divide(x, y, rows)
    joint, separate = train(parts, "cholesky", seed), train(parts, "diagonal", seed)
    truth = parts[2][1].astype("float64")
    scores = {}
    for pair in PAIRS:
        given = [NAMES.index(name) for name in pair]
        rest = [j for j in range(len(NAMES)) if j not in given]
        asked = divide(np.concatenate([x, y[:, given]], axis=1), y[:, rest], rows)
        forecasts = {
            "no correlations (diagonal)": separate.marginal(rest),
            "joint, nothing measured": joint.marginal(rest),
            "joint, conditioned on the two": joint.condition({j: truth[:, j] for j in given}),
            "built for this question": train(asked, "cholesky", seed),
        }
        scores[pair] = {
            name: float(-normal.log_prob(truth[:, rest]).mean() / len(rest))
            for name, normal in forecasts.items()
        }
    return scores


def report(splits):
    lines = [
        "# What two measured pollutants are worth",
        "",
        f"NLL per target of the other four pollutants on 3000 test rows, {SPLITS} random splits: "
        "median (smallest to largest),",
        "and the gain over the network without correlations, split by split. "
        "`benchmarks/conditioning.py` says how.",
    ]
    for pair in PAIRS:
        lines += ["", f"## Given {' and '.join(pair)}", ""]
        lines += ["| forecast | NLL per target | gain | better on |", "| --- | --- | --- | --- |"]
        baseline, *_ = splits[0][pair]
        for name in splits[0][pair]:
            values = np.array([split[pair][name] for split in splits])
            gain = np.array([split[pair][baseline] for split in splits]) - values
            lines.append(
                f"| {name} | {np.median(values):.3f} ({values.min():.3f} to {values.max():.3f}) | "
                f"{np.median(gain):+.3f} ({gain.min():+.3f} to {gain.max():+.3f}) | "
                f"{(gain > 0).sum()} of {len(gain)} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    x, y = air(parser.parse_args().data)
    splits = []
    for seed in range(SPLITS):
        splits.append(one_split(x, y, seed))
        print(seed, splits[-1], flush=True)
    RESULTS.write_text(report(splits), encoding="utf-8")
    print(report(splits))
