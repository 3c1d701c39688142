"""What one odd row, or one in a hundred, costs all others: the estimator as it comes.

    python benchmarks/robustness.py --rows 300 --seeds 0 1 2 3 4

Two targets of four inputs, with normal or Student's t errors (ν = 3). One row of the training, the
validation or the calibration rows, or 1 % of all rows, has an input or a target at 1e3, 1e6 or 1e12
standard deviations. `cost` is the NLL per target of 2000 clean test rows, less that of the fit to
the clean table with the same seed; its mean and its largest value over the seeds.
"""

from __future__ import annotations

import argparse
import os
import warnings

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np

from keras_mvn import scores
from keras_mvn.estimator import MultivariateNormalRegressor

PARTS = ("train", "validation", "calibration")
SIZES = (1e3, 1e6, 1e12)


def table(rows, errors, rng):
    x = rng.normal(size=(rows, 4))
    mean = np.stack([np.sin(2.0 * x[:, 0]) + x[:, 1], x[:, 2] * x[:, 1]], axis=1)
    z = rng.normal(size=(rows, 2)) if errors == "normal" else rng.standard_t(3, size=(rows, 2))
    z[:, 1] = 0.8 * z[:, 0] + 0.6 * z[:, 1]
    return x, mean + 0.3 * np.exp(0.5 * x[:, 3:]) * z


def split_of(rows, rng):
    order = rng.permutation(rows)
    held = max(20, round(0.15 * rows))
    return dict(zip(PARTS, (order[2 * held :], order[:held], order[held : 2 * held]), strict=True))


def fitted(x, y, split, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MultivariateNormalRegressor(random_state=seed).fit(x, y, split=split)


def nll(model, x, y):
    return scores.log_score(model.predict_distribution(x), y).mean() / y.shape[1]


def spoiled(x, y, where, rows, size, rng):
    """Return copies with one value of each of these rows far out, in x or in y."""
    x, y = x.copy(), y.copy()
    given = x if where == "x" else y
    given[rows, rng.integers(given.shape[1], size=len(rows))] = size * rng.choice(
        [-1, 1], len(rows)
    )
    return x, y


def cases(split, rng, sizes=SIZES):
    """Yield the name of a case, x or y, the rows and the size."""
    for where in "xy":
        for part in PARTS:
            for size in sizes:
                yield f"one of {part}", where, split[part][:1], size
        everyone = np.concatenate(list(split.values()))
        some = rng.choice(everyone, size=max(2, len(everyone) // 100), replace=False)
        yield "1 % of all", where, some, 10.0 ** rng.uniform(3, 12, size=len(some))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--errors", default="normal,t")
    parser.add_argument("--sizes", type=float, nargs="+", default=SIZES)
    arguments = parser.parse_args()
    for errors in arguments.errors.split(","):
        costs = {}
        for seed in arguments.seeds:
            rng = np.random.default_rng(seed)
            x, y = table(arguments.rows, errors, rng)
            x_test, y_test = table(2000, errors, rng)
            split = split_of(arguments.rows, rng)
            clean = nll(fitted(x, y, split, seed), x_test, y_test)
            costs.setdefault(("clean", "", 0.0), []).append(clean)
            for name, where, rows, size in cases(split, rng, arguments.sizes):
                model = fitted(*spoiled(x, y, where, rows, size, rng), split, seed)
                key = (name, where, float(np.max(size)) if name != "1 % of all" else 0.0)
                costs.setdefault(key, []).append(nll(model, x_test, y_test) - clean)
        print(f"{arguments.rows} rows, {errors} errors, {len(arguments.seeds)} seeds")
        for (name, where, size), found in costs.items():
            of_size = f"{size:.0e}" if size else ""
            print(f"  {name:20s} {where:1s} {of_size:6s} {np.mean(found):8.3f} {max(found):8.3f}")
        print(flush=True)


if __name__ == "__main__":
    main()
