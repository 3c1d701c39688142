"""Train the three models of common hand-written losses by changing only `loss=`.

Energy efficiency (UCI 242, read from your file: 768 buildings, 8 inputs, heating and cooling load),
with targets standardized as those models require. Each is compared with a constant covariance: an
MSE network of the same size and one covariance of its residuals. Test NLL per target, 5 splits.

    KERAS_BACKEND=tensorflow python benchmarks/handwritten_models.py energy_efficiency.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np

import keras_mvn as kmvn

D = 2


def square_output():
    return [keras.layers.Dense(D * (1 + D)), keras.layers.Reshape((D, 1 + D))]


MODELS = {  # name: (the model's own output layers, what its loss becomes)
    "1. Cholesky factor, (batch, d, 1 + d)": (
        square_output,
        {"covariance": "cholesky", "from_raw": True, "layout": "stacked"},
        None,
    ),
    "2. mean and log-variances, (batch, 2 d)": (
        lambda: [keras.layers.Dense(2 * D)],
        {"layout": "mean_log_variance"},
        None,
    ),
    "3. covariance with L1, (batch, d, 1 + d)": (
        square_output,
        {"covariance": "symmetric", "from_raw": True, "layout": "stacked"},
        kmvn.regularizers.CovarianceL1(0.01),
    ),
}


def load(path, seed):
    table = np.genfromtxt(path, delimiter=",", skip_header=1, encoding="utf-8-sig")
    table = table[~np.isnan(table).any(axis=1)]
    table = (table - table.mean(0)) / table.std(0)
    rows = np.random.default_rng(seed).permutation(len(table))
    parts = np.split(table[rows], [int(0.6 * len(rows)), int(0.8 * len(rows))])
    return [(part[:, :8], part[:, 8:]) for part in parts]


def fit(output, loss, train, validation, seed):
    keras.utils.set_random_seed(seed)
    hidden = [keras.layers.Dense(64, "gelu"), keras.layers.Dense(64, "gelu")]
    model = keras.Sequential([keras.Input((8,)), *hidden, *output()])
    model.compile(keras.optimizers.Adam(3e-3), loss=loss)
    stop = keras.callbacks.EarlyStopping(patience=30, restore_best_weights=True)
    history = model.fit(*train, validation_data=validation, epochs=400, verbose=0, callbacks=[stop])
    assert np.isfinite(history.history["loss"]).all()
    return model


def constant(train, validation, test, seed):
    model = fit(lambda: [keras.layers.Dense(D)], "mse", train, validation, seed)
    r = np.concatenate([y - model.predict(x, verbose=0) for x, y in (train, validation)])
    return kmvn.MultivariateNormal(model.predict(test[0], verbose=0), covariance=r.T @ r / len(r))


def handwritten(kind, train, validation, test, seed):
    output, reading, penalty = MODELS[kind]
    loss = kmvn.losses.NegativeLogLikelihood(**reading, regularizer=penalty)
    model = fit(output, loss, train, validation, seed)
    return kmvn.MultivariateNormal.from_prediction(model.predict(test[0], verbose=0), **reading)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/handwritten_models.md")
    )
    arguments = parser.parse_args()
    scores = {name: [] for name in ("constant Σ", *MODELS)}
    for seed in range(arguments.seeds):
        parts = load(arguments.data, seed)
        for name in scores:
            method = constant if name == "constant Σ" else handwritten
            prefix = () if name == "constant Σ" else (name,)
            normal = method(*prefix, *parts, seed)
            scores[name].append(-normal.log_prob(parts[2][1]).mean() / D)
            print(f"split {seed + 1}, {name}: {scores[name][-1]:.3f}", flush=True)
    lines = [
        f"Test NLL per target, standardized, {arguments.seeds} splits, {keras.backend.backend()}",
        "",
        "| model | median (range) | better than constant Σ |",
        "| --- | --- | --- |",
    ]
    for name, values in scores.items():
        wins = sum(a < b for a, b in zip(values, scores["constant Σ"], strict=True))
        lines.append(
            f"| {name} | {np.median(values):.3f} ({min(values):.3f} to {max(values):.3f}) "
            f"| {'' if name == 'constant Σ' else f'{wins} of {len(values)}'} |"
        )
    text = "\n".join(lines) + "\n"
    print(text)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text)


if __name__ == "__main__":
    main()
