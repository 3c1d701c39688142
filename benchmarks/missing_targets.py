"""Compare `missing="marginalize"` with manual treatment of missing targets.

* air_quality_uci.csv: UCI 360, an Italian city hourly for a year. 5 reference concentrations
  (logarithms, as they are positive and skewed) from 5 sensors, temperature, humidity, hour of day
  and day of week. −200 means missing. NMHC was measured only in the first seven weeks.
  Days are split at random 60/20/20: neighboring hours are nearly copies of each other, so random
  rows would leak; days with and without NMHC are split separately, so that every part has both.
* air.csv: US EPA air quality, 15 inputs, 6 pollutants; 30 % of the training and validation
  targets are deleted at random. The test rows are complete.

The quick start's network (two gelu layers, `head.adapt`, early stopping), Adam (3e-3), batches of
256 or an eighth of the rows if that is less. Every method starts from the same seed on the same
split, stops on the validation rows as it sees them, and is scored on the same test rows by the
exact marginal of what was observed there: `metrics.NegativeLogLikelihood(missing="marginalize")`.

    KERAS_BACKEND=torch python benchmarks/missing_targets.py --data ../shared/data --jobs 2

The cost of a training step is measured on each installed backend, in a process of its own, in CPU
time, so that other programs on the machine do not count.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib.util
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

import keras_mvn as kmvn

TARGETS = ("CO(GT)", "NMHC(GT)", "C6H6(GT)", "NOx(GT)", "NO2(GT)")
NMHC = TARGETS.index("NMHC(GT)")
MISSING = -200.0
BATCH = 256
AIR_ROWS = 2000  # for training; half as many for validation and as many for the test


Scores = dict[str, np.ndarray]


class Table(NamedTuple):
    """Rows of inputs and targets, NaN where a target was not observed."""

    x: np.ndarray
    y: np.ndarray

    def of(self, rows: np.ndarray) -> Table:
        return Table(self.x[rows], self.y[rows])

    def complete(self) -> Table:
        return self.of(~np.isnan(self.y).any(axis=1))

    def without(self, target: int) -> Table:
        return Table(self.x, np.delete(self.y, target, axis=1))

    def only(self, *targets: int) -> Table:
        """Return a table of the same shape with all targets but this one missing."""
        kept = np.isin(np.arange(self.y.shape[1]), targets)
        return Table(self.x, np.where(kept, self.y, np.nan))


class Split(NamedTuple):
    train: Table
    validation: Table
    test: Table
    full_train: Table  # nothing deleted, where that is known
    full_validation: Table


# --- data -----------------------------------------------------------------------------------------


def uci(data: Path) -> tuple[Table, np.ndarray, int]:
    """Return the rows with inputs, the day of each, and how many rows had no inputs."""
    with (data / "air_quality_uci.csv").open() as file:
        records = list(csv.DictReader(file))
    inputs = [name for name in records[0] if name not in (*TARGETS, "Date", "Time")]
    table = np.array([[float(record[name]) for name in inputs] for record in records])
    y = np.array([[float(record[name]) for name in TARGETS] for record in records])
    days = [datetime.datetime.strptime(record["Date"], "%d/%m/%Y") for record in records]
    hour = np.array([float(record["Time"][:2]) for record in records]) / 24
    weekday = np.array([day.weekday() for day in days]) / 7
    circles = [f(2 * np.pi * t) for t in (hour, weekday) for f in (np.sin, np.cos)]
    known = (table != MISSING).all(axis=1)
    y = np.log(np.where(y == MISSING, np.nan, y))
    whole = Table(np.column_stack([table, *circles]), y)
    ordinals = np.array([day.toordinal() for day in days])
    return whole.of(known), ordinals[known], int((~known).sum())


def air(data: Path) -> Table:
    with (data / "air.csv").open() as file:
        header, *rows = csv.reader(file)
    table = np.array(rows, dtype=float)
    target = np.array([name.startswith("max_") for name in header])
    return Table(table[:, ~target], table[:, target])


def split_by_days(table: Table, day: np.ndarray, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    has_nmhc = np.unique(day[~np.isnan(table.y[:, NMHC])])
    groups = (has_nmhc, np.setdiff1d(day, has_nmhc))
    parts: list[list[np.ndarray]] = [[], [], []]
    for group in groups:
        shuffled = rng.permutation(group)
        cuts = [round(0.6 * len(group)), round(0.8 * len(group))]
        for part, days in zip(parts, np.split(shuffled, cuts), strict=True):
            part.append(days)
    train, validation, test = (table.of(np.isin(day, np.concatenate(part))) for part in parts)
    return standardized(Split(train, validation, test, train, validation))


def split_with_deletion(table: Table, share: float, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(table.x))
    cuts = np.cumsum([AIR_ROWS, AIR_ROWS // 2, AIR_ROWS])
    train, validation, test, _ = (table.of(rows) for rows in np.split(order, cuts))

    def with_gaps(part: Table) -> Table:
        return Table(part.x, np.where(rng.random(part.y.shape) < share, np.nan, part.y))

    return standardized(Split(with_gaps(train), with_gaps(validation), test, train, validation))


def standardized(split: Split) -> Split:
    mean, sd = split.train.x.mean(axis=0), split.train.x.std(axis=0)
    sd = np.where(sd > 0, sd, 1.0)
    return Split(
        *(Table((t.x - mean).astype("f4") / sd.astype("f4"), t.y.astype("f4")) for t in split)
    )


# --- methods --------------------------------------------------------------------------------------


def mean_imputed(split: Split) -> tuple[Table, Table]:
    mean = np.nanmean(split.train.y, axis=0)
    return tuple(
        Table(t.x, np.where(np.isnan(t.y), mean, t.y)) for t in (split.train, split.validation)
    )


class Method(NamedTuple):
    """The training and validation rows of a method, and its covariance."""

    rows: Callable[[Split], tuple[Table, Table]]
    covariance: str = "cholesky"


COMPLETE = Method(lambda s: (s.train.complete(), s.validation.complete()))
ALL_ROWS = Method(lambda s: (s.train, s.validation))
OURS = "all rows, marginalize"
METHODS = {
    "complete rows only": COMPLETE,
    OURS: ALL_ROWS,
    "all rows, mean imputation": Method(mean_imputed),
    "all rows, marginalize, diagonal": ALL_ROWS._replace(covariance="diagonal"),
}
FULL = {"nothing deleted (the bound)": Method(lambda s: (s.full_train, s.full_validation))}


def fitted(train: Table, validation: Table, covariance: str, seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    d = train.y.shape[1]
    head = kmvn.layers.MultivariateNormalHead(d, covariance)
    head.adapt(train.y)
    hidden = [keras.layers.Dense(64, "gelu") for _ in range(2)]
    model = keras.Sequential([keras.Input((train.x.shape[1],)), *hidden, head])
    gaps = np.isnan(train.y).any() or np.isnan(validation.y).any()
    loss = kmvn.losses.NegativeLogLikelihood(
        covariance, missing="marginalize" if gaps else "propagate"
    )
    model.compile(keras.optimizers.Adam(3e-3), loss=loss)
    stop = keras.callbacks.EarlyStopping(patience=10, restore_best_weights=True)
    model.fit(
        *train, validation_data=tuple(validation), epochs=200, verbose=0,
        batch_size=min(BATCH, len(train.x) // 8), validation_batch_size=4096, callbacks=[stop],
    )  # fmt: skip
    return model


# --- scores ---------------------------------------------------------------------------------------


def nll(y_pred: np.ndarray, test: Table, covariance: str) -> float:
    """Return the NLL in nats per observed target."""
    if np.isnan(test.y).all():
        return np.nan
    metric = kmvn.metrics.NegativeLogLikelihood(covariance, missing="marginalize")
    metric.update_state(test.y, y_pred)
    observed = ~np.isnan(test.y)
    return float(metric.result()) * observed.any(axis=1).sum() / observed.sum()


def scores(y_pred: np.ndarray, test: Table, covariance: str) -> dict[str, float]:
    d = test.y.shape[1]
    complete = ~np.isnan(test.y).any(axis=1)
    found = {
        "all": nll(y_pred, test, covariance),
        "complete": nll(y_pred[complete], test.of(complete), covariance),
    }
    rmse = np.sqrt(np.nanmean((test.y - y_pred[:, :d]) ** 2, axis=0))
    for j in range(d):
        found[f"rmse {j}"] = float(rmse[j])
        found[f"nll {j}"] = nll(y_pred, test.only(j), covariance)
    return found


class Experiment(NamedTuple):
    splits: Callable[[Path, int], list[Split]]
    methods: dict[str, Method]


def uci_splits(data: Path, n: int) -> list[Split]:
    table, day, _ = uci(data)
    return [split_by_days(table, day, seed) for seed in range(n)]


def four_splits(data: Path, n: int) -> list[Split]:
    return [Split(*(t.without(NMHC) for t in split)) for split in uci_splits(data, n)]


def air_splits(data: Path, n: int) -> list[Split]:
    table = air(data)
    return [split_with_deletion(table, 0.3, seed) for seed in range(n)]


EXPERIMENTS = {
    "uci": Experiment(uci_splits, METHODS),
    "four": Experiment(four_splits, {OURS: METHODS[OURS], "complete rows only": COMPLETE}),
    "air": Experiment(air_splits, {**METHODS, **FULL}),
}


def run(data: Path, n: int, experiment: str, name: str) -> Scores:
    """Return one value per split for every score."""
    found = []
    method = EXPERIMENTS[experiment].methods[name]
    for seed, split in enumerate(EXPERIMENTS[experiment].splits(data, n)):
        train, validation = method.rows(split)
        model = fitted(train, validation, method.covariance, seed)
        y_pred = model.predict(split.test.x, batch_size=4096, verbose=0)
        one = scores(y_pred, split.test, method.covariance)
        found.append({**one, "rows": float(len(train.x))})
    print(f"{experiment}: {name} done", flush=True)
    return {key: np.array([f[key] for f in found]) for key in found[0]}


def run_all(data: Path, n: int, jobs: int) -> dict[str, dict[str, Scores]]:
    """Return {experiment: {method: scores}}, running `jobs` methods at a time."""
    # Spawned, because backends do not survive a fork.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        started = {
            experiment: {name: pool.submit(run, data, n, experiment, name) for name in methods}
            for experiment, (_, methods) in EXPERIMENTS.items()
        }
        return {
            experiment: {name: future.result() for name, future in futures.items()}
            for experiment, futures in started.items()
        }


# --- cost -----------------------------------------------------------------------------------------

STEPS, ROUNDS = 10, 9
COST_CASES = {  # loss, and the share of targets that are missing; None: one target per batch
    "without missing=": ("propagate", 0.0),
    "missing=, no gaps": ("marginalize", 0.0),
    "missing=, one gap per batch": ("marginalize", None),
    "missing=, 30 % gaps": ("marginalize", 0.3),
}


def cost() -> dict[str, dict[str, float]]:
    """Return CPU milliseconds per step of `model.fit`, medians of interleaved rounds."""
    return {
        f"{covariance}, d = {d}": cost_of(covariance, d)
        for d in (5, 32)
        for covariance in ("cholesky",)
    }


def cost_of(covariance: str, d: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH * STEPS, 16)).astype("float32")
    y = rng.normal(size=(BATCH * STEPS, d)).astype("float32")
    models = {name: cost_model(covariance, d, name) for name in ("propagate", "marginalize")}
    targets = {}
    for name, (_, share) in COST_CASES.items():
        gaps = rng.random(y.shape) < (share or 0.0)
        if share is None:
            gaps[::BATCH, 0] = True
        targets[name] = np.where(gaps, np.float32(np.nan), y)
    seconds: dict[str, list[float]] = {name: [] for name in COST_CASES}
    for _ in range(ROUNDS + 1):
        for name, (missing, _) in COST_CASES.items():
            began = time.process_time()
            models[missing].fit(x, targets[name], batch_size=BATCH, shuffle=False, verbose=0)
            seconds[name].append(time.process_time() - began)
    # The first round compiles.
    return {name: 1e3 * float(np.median(s[1:])) / STEPS for name, s in seconds.items()}


def cost_model(covariance: str, d: int, missing: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    head = kmvn.layers.MultivariateNormalHead(d, covariance)
    hidden = [keras.layers.Dense(64, "gelu") for _ in range(2)]
    model = keras.Sequential([keras.Input((16,)), *hidden, head])
    model.compile("adam", loss=kmvn.losses.NegativeLogLikelihood(covariance, missing=missing))
    return model


def cost_of_backends() -> dict[str, dict[str, dict[str, float]]]:
    found = {}
    for backend in ("jax", "torch", "tensorflow"):
        if importlib.util.find_spec(backend) is None:
            continue
        one_thread = dict.fromkeys(
            ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1"
        )
        # XLA's thread pool can lock up on two cores (docs/how_it_works.md, limits).
        one_thread["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
        done = subprocess.run(
            [sys.executable, __file__, "--cost-here"],
            env={**os.environ, **one_thread, "KERAS_BACKEND": backend},
            check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        found[backend] = json.loads(done.stdout.splitlines()[-1])
        print(f"cost on {backend} measured", flush=True)
    return found


# --- tables ---------------------------------------------------------------------------------------


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["", *("| " + " | ".join(line) + " |" for line in lines)]


def spread(values: np.ndarray) -> str:
    return f"{np.median(values):.3f} ({values.min():.3f} to {values.max():.3f})"


def better(values: np.ndarray, reference: np.ndarray) -> str:
    """Format how often, and by how much, the reference is lower on the same split."""
    return f"{np.median(values - reference):+.3f}, {(reference < values).sum()} of {len(values)}"


def likelihood_table(results: dict[str, Scores], keys: dict[str, str], reference: str) -> list[str]:
    header = ["method", "training rows"]
    for title in keys.values():
        header += [title, "marginalize is lower by"]
    rows = []
    for name, found in results.items():
        row = [name, f"{np.median(found['rows']):.0f}"]
        for key in keys:
            gain = "" if name == reference else better(found[key], results[reference][key])
            row += [spread(found[key]), gain]
        rows.append(row)
    return table(header, rows)


def per_target_table(results: dict[str, Scores], names: tuple[str, ...], score: str) -> list[str]:
    rows = [
        [name, *(f"{np.median(found[f'{score} {j}']):.3f}" for j in range(len(names)))]
        for name, found in results.items()
    ]
    return table(["method", *names], rows)


def cost_table(costs: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    plain, *others = COST_CASES
    rows = [
        [
            backend,
            case,
            f"{ms[plain]:.2f} ms",
            *(f"{ms[name] / ms[plain]:.2f} ×" for name in others),
        ]
        for backend, cases in costs.items()
        for case, ms in cases.items()
    ]
    return table(["backend", "covariance", plain, *others], rows)


def observed_share(table: Table) -> str:
    share = 100 * (~np.isnan(table.y)).mean(axis=0)
    return ", ".join(f"{name} {s:.0f} %" for name, s in zip(TARGETS, share, strict=True))


def report(data: Path, n: int, results: dict[str, dict[str, Scores]]) -> list[str]:
    whole, day, dropped = uci(data)
    splits = uci_splits(data, n)
    per_target = "NLL per observed target"
    return [
        "",
        "## air_quality_uci.csv",
        "",
        f"{len(whole.x)} rows on {len(np.unique(day))} days; {dropped} rows without inputs are "
        f"left out. Complete: {len(whole.complete().x)}. Observed: {observed_share(whole)}. "
        f"Test rows: {np.median([len(s.test.x) for s in splits]):.0f}, of which "
        f"{np.median([len(s.test.complete().x) for s in splits]):.0f} are complete.",
        *likelihood_table(
            results["uci"],
            {"all": f"{per_target}, all test rows", "complete": "complete test rows"},
            OURS,
        ),
        "",
        "NLL of each target by itself (nats, of the logarithm), all test rows:",
        *per_target_table(results["uci"], TARGETS, "nll"),
        "",
        "RMSE of each target (of the logarithm), all test rows:",
        *per_target_table(results["uci"], TARGETS, "rmse"),
        "",
        "NMHC left out of the table, so that most rows are complete:",
        *likelihood_table(
            results["four"],
            {"all": f"{per_target}, all test rows", "complete": "complete test rows"},
            OURS,
        ),
        "",
        "## air.csv, 30 % deleted at random",
        *likelihood_table(results["air"], {"all": f"{per_target}, complete test rows"}, OURS),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="number of methods trained at a time")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/missing_targets.md"))
    parser.add_argument("--cost-here", action="store_true", help="cost on this backend, as JSON")
    arguments = parser.parse_args()
    if arguments.cost_here:
        print(json.dumps(cost()))
        return

    began = time.perf_counter()
    results = run_all(arguments.data, arguments.splits, arguments.jobs)
    lines = report(arguments.data, arguments.splits, results)
    head = (
        f"Medians (ranges) of {arguments.splits} paired splits, nats, lower is better; "
        f'"marginalize is lower by": median difference, and on how many splits. '
        f"{keras.backend.backend()}, {time.perf_counter() - began:.0f} s in all."
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("\n".join([head, *lines]) + "\n")
    cost_lines = [
        "",
        "## Cost",
        "",
        f"A training step of `model.fit` with {BATCH} rows and two layers of 64: CPU milliseconds "
        f"without `missing=`, then as multiples of it. Medians of {ROUNDS} rounds of {STEPS} "
        "steps that take turns.",
        *cost_table(cost_of_backends()),
    ]
    text = "\n".join([head, *lines, *cost_lines]) + "\n"
    print(text)
    arguments.out.write_text(text)


if __name__ == "__main__":
    main()
