"""Compare our network with published results and NGBoost on a problem with a known truth.

O'Malley et al. 2021, "Multivariate probabilistic regression with natural gradient boosting",
Table 1: one input, two targets, a mean, two variances and a correlation that all vary with x.
KL(predicted || true) averaged over 1000 test points, 300 validation points for early stopping.

    python benchmarks/known_truth.py                       # N = 1000, 20 repetitions, 4 minutes
    python benchmarks/known_truth.py --n 500 1000 10000 --ngboost
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import keras
import numpy as np

import keras_mvn as kmvn

PAPER = {  # N: (their network, NGBoost multivariate, NGBoost independent), mean of 50 repetitions
    500: (1.285, 0.564, 1.633),
    1000: (0.320, 0.257, 1.150),
    3000: (0.149, 0.106, 0.884),
    5000: (0.128, 0.081, 0.878),
    10000: (0.130, 0.043, 0.831),
}


LOSSES = {
    "balanced": kmvn.losses.BalancedNegativeLogLikelihood,
    "nll": kmvn.losses.NegativeLogLikelihood,
}


def truth(x):
    mean = np.stack(
        [np.sin(2.5 * x) * np.sin(1.5 * x) + x, np.cos(3.5 * x) * np.cos(0.5 * x) - x**2], -1
    )
    v1 = 0.01 + 0.25 * (1 - np.sin(2.5 * x)) ** 2
    v2 = 0.01 + 0.25 * (1 - np.cos(3.5 * x)) ** 2
    c = np.sin(2.5 * x) * np.cos(0.5 * x) * np.sqrt(v1 * v2)
    covariance = np.stack([np.stack([v1, c], -1), np.stack([c, v2], -1)], -1)
    return kmvn.MultivariateNormal(mean, covariance=covariance)


def draw(rng, n):
    x = rng.uniform(0, np.pi, n)
    return x[:, None], truth(x).sample(seed=rng)


def kl(p, q):
    """Return KL(p || q) of two batches, row by row."""
    solved = np.linalg.solve(q.covariance, p.covariance)
    r = q.mean - p.mean
    mahalanobis = np.einsum("ni,ni->n", r, np.linalg.solve(q.covariance, r[..., None])[..., 0])
    trace = np.trace(solved, axis1=-2, axis2=-1)
    return 0.5 * (trace + mahalanobis - p.event_size) + q.half_log_det - p.half_log_det


def ours(train, validation, x_test, covariance, loss, seed):
    """Train the quick start's network: standardized input, gelu layers, adapt, early stopping.

    Early stopping sees a moving average of the weights (Keras' own), which removes the noise of
    the last steps from the covariance.
    """
    keras.utils.set_random_seed(seed)
    normalization = keras.layers.Normalization()
    normalization.adapt(train[0])
    head = kmvn.layers.MultivariateNormalHead(event_size=2, covariance=covariance)
    head.adapt(train[1])
    hidden = [keras.layers.Dense(32, "gelu", kernel_initializer="lecun_uniform") for _ in range(3)]
    model = keras.Sequential([keras.Input((1,)), normalization, *hidden, head])
    averaged = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.99)
    model.compile(averaged, loss=LOSSES[loss](covariance))
    average = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)  # before EarlyStopping
    stop = keras.callbacks.EarlyStopping(patience=50, restore_best_weights=True)
    model.fit(
        *train, validation_data=validation, epochs=1200, batch_size=500, verbose=0,
        validation_batch_size=300, callbacks=[average, stop],
    )  # fmt: skip
    return head.distribution(model.predict(x_test, verbose=0))


def ngboost(train, validation, x_test, seed):
    from ngboost import NGBRegressor
    from ngboost.distns import MultivariateNormal

    model = NGBRegressor(
        Dist=MultivariateNormal(2), n_estimators=2000, verbose=False, random_state=seed
    )
    model.fit(*train, X_val=validation[0], Y_val=validation[1], early_stopping_rounds=50)
    predicted = model.pred_dist(x_test, max_iter=model.best_val_loss_itr)
    return kmvn.MultivariateNormal(predicted.mean(), covariance=predicted.cov)


def run(n, draws, methods):
    scores = {name: [] for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        train, validation, (x_test, _) = draw(rng, n), draw(rng, 300), draw(rng, 1000)
        for name, method in methods.items():
            began = time.perf_counter()
            predicted = method(train, validation, x_test, seed)
            seconds[name] += time.perf_counter() - began
            scores[name].append(float(kl(predicted, truth(x_test[:, 0])).mean()))
            print(f"  N = {n}, draw {seed + 1}: {name} {scores[name][-1]:.3f}", flush=True)
    return {
        name: (np.median(s), np.mean(s), np.max(s), seconds[name] / draws)
        for name, s in scores.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--n", type=int, nargs="+", default=[1000], choices=sorted(PAPER))
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--covariance", nargs="+", default=["cholesky"])
    parser.add_argument("--loss", nargs="+", default=["balanced"], choices=sorted(LOSSES))
    parser.add_argument("--ngboost", action="store_true", help="also run NGBoost on the same draws")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/known_truth.md"))
    arguments = parser.parse_args()

    methods = {
        f"keras-mvn {name}, {loss}": lambda *a, name=name, loss=loss: ours(*a[:3], name, loss, a[3])
        for name in arguments.covariance
        for loss in arguments.loss
    }
    if arguments.ngboost:
        methods["NGBoost here"] = ngboost
    columns = [f"{name}: median / mean (worst)" for name in methods]
    lines = [
        f"KL(predicted || true), {arguments.draws} repetitions (the paper's columns: means of 50), "
        f"{keras.backend.backend()}",
        "",
        "| N | paper's network | paper's NGBoost | paper's NGBoost, independent | "
        + " | ".join(columns)
        + " | seconds each |",
        "|" + " --- |" * (len(columns) + 5),
    ]
    for n in arguments.n:
        result = run(n, arguments.draws, methods)
        ours_cells = [f"{r[0]:.3f} / {r[1]:.3f} ({r[2]:.3f})" for r in result.values()]
        seconds = " / ".join(f"{r[3]:.0f}" for r in result.values())
        paper = [f"{value:.3f}" for value in PAPER[n]]
        lines.append(f"| {n} | " + " | ".join([*paper, *ours_cells, seconds]) + " |")
    text = "\n".join(lines) + "\n"
    print(text)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text)


if __name__ == "__main__":
    main()
