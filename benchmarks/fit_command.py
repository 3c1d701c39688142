"""Measure the results of `keras-mvn fit TABLE --targets …` on three real tables.

* energy_efficiency.csv: UCI 242, 8 inputs, heating and cooling load of 768 buildings.
* air.csv: US EPA air quality, 15 inputs, 6 pollutants, 10000 rows.
* air_quality_uci.csv: UCI 360, hourly; 5 pollutants, many of them missing, declared by
  `--missing-value -200`. Rows are split at random, without --time: neighboring hours help, which
  they would not in a forecast.

The command is run with its defaults and a seed for each split of the rows; further arguments are
passed on to it. Its fit directory gives the model, the model before recalibration, and the diagonal
and the constant covariance, trained and recalibrated in the same way. For energy, the smallest
table, NGBoost with a multivariate normal (O'Malley et al. 2021) is trained on the same rows: with
the best of four combinations of learning rate and tree depth by validation likelihood, and up to
4000 trees, stopped early on the same validation rows. It is also recalibrated like the model.

The results, all on the same test rows, are the NLL per target in nats, in the units of y, with
missing targets marginalized; the share of rows inside the joint 90 % region of the observed
targets; and how much the NLL is above that of the diagonal, seed by seed. ± is the standard error
over seeds, whose test rows overlap.

    KERAS_BACKEND=jax OMP_NUM_THREADS=1 python benchmarks/fit_command.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

DIAGONAL, LEVEL = "diagonal", 0.9
SEEDS = {"energy": 10, "air": 2, "uci": 2}
COMMANDS = {
    "energy": ["energy_efficiency.csv", "--targets", "Y1,Y2"],
    "air": ["air.csv", "--targets", "max_PM2.5,max_NO2,max_O3,max_PM10,max_CO,max_SO2"],
    "uci": [
        "air_quality_uci.csv",
        *("--targets", "CO(GT),NMHC(GT),C6H6(GT),NOx(GT),NO2(GT)", "--missing-value", "-200"),
    ],
}


class Score(NamedTuple):
    """Scores on the test rows of one seed."""

    nll: float
    """NLL per target."""
    coverage: float
    """Coverage of the joint 90 % region, as a fraction."""


def one_seed(name, seed, data, folder, further):
    """Return method → score, and seconds and structure of the fit."""
    file, *options = COMMANDS[name]
    program = Path(sys.executable).with_name("keras-mvn")
    command = [program, "fit", data / file, *options, "--out", folder, "--seed", str(seed)]
    subprocess.run([*command, "--overwrite", *further], check=True, stdout=subprocess.DEVNULL)
    found = json.loads((folder / "metrics.json").read_text())["test"]
    scores = {
        method: Score(*(one["scores"][s]["mean"] for s in ("nll_per_target", "coverage_90")))
        for method, one in found.items()
    }
    if name == "energy":
        scores.update(ngboost(data / file, folder, seed))
    about = json.loads((folder / "fit.json").read_text())
    return scores, about["seconds"], about["covariance"]


# --- NGBoost -------------------------------------------------------------------------------------

RATES, DEPTHS, TREES, PATIENCE = (0.02, 0.05), (3, 5), 4000, 50


def ngboost(path, folder, seed):
    """Score NGBoost, as it is and recalibrated, on the rows of a fit directory."""
    from keras_mvn.calibration import Temperature

    table = np.genfromtxt(path, delimiter=",", skip_header=1)
    with np.load(folder / "split.npz") as split:
        parts = {part: (table[rows, :-2], table[rows, -2:]) for part, rows in split.items()}
    boosted = [
        boost(rate, depth, parts["train"], parts["validation"], seed)
        for rate, depth in itertools.product(RATES, DEPTHS)
    ]
    x, y = parts["validation"]
    best = min(boosted, key=lambda one: judged(normal_of(one, x), y).nll)
    held_out, test = (normal_of(best, parts[part][0]) for part in ("calibration", "test"))
    calibration = Temperature.fit(held_out, parts["calibration"][1], objective="coverage")
    return {
        "NGBoost": judged(test, parts["test"][1]),
        "NGBoost, recalibrated": judged(calibration.apply(test), parts["test"][1]),
    }


def boost(rate, depth, train, validation, seed):
    """Train NGBoost with early stopping."""
    from ngboost import NGBRegressor
    from ngboost.distns import MultivariateNormal
    from sklearn.tree import DecisionTreeRegressor

    model = NGBRegressor(
        Dist=MultivariateNormal(train[1].shape[1]),
        Base=DecisionTreeRegressor(criterion="friedman_mse", max_depth=depth),
        n_estimators=TREES,
        learning_rate=rate,
        random_state=seed,
        verbose=False,
    )
    return model.fit(*train, *validation, early_stopping_rounds=PATIENCE)


def normal_of(model, x):
    """Return the prediction with the trees kept by early stopping."""
    import keras_mvn as kmvn

    predicted = model.pred_dist(x, max_iter=model.best_val_loss_itr)
    return kmvn.MultivariateNormal(predicted.mean(), covariance=predicted.cov)


def judged(normal, y):
    """Return the score on complete rows."""
    nll = -normal.log_prob(y).mean() / y.shape[1]
    return Score(nll, normal.ellipsoid(LEVEL).contains(y).mean())


# --- output --------------------------------------------------------------------------------------


def spread(values, digits=3, sign=""):
    """Format the mean and its standard error."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{np.mean(values):{sign}.{digits}f} ± {error:.{digits}f}"


def lines_of(name, fits):
    """Yield the lines of one table; `fits` holds the results of `one_seed`."""
    scores, seconds, structures = zip(*fits, strict=True)
    counts = [f"{s} {structures.count(s)}" for s in sorted(set(structures))]
    yield f"\n## {name}\n"
    yield f"{np.mean(seconds):.0f} seconds a fit; structures taken: {', '.join(counts)}.\n"
    yield "| method | NLL per target | above the diagonal (seeds won) | joint 90 % region |"
    yield "| --- | --- | --- | --- |"
    for method in scores[0]:
        nll, coverage = np.transpose([one[method] for one in scores])
        gap = nll - [one[DIAGONAL].nll for one in scores]
        above = f"{spread(gap, sign='+')} ({np.sum(gap < 0)} of {len(gap)})"
        cells = [spread(nll), "–" if method == DIAGONAL else above, spread(100 * coverage, 1)]
        yield f"| {method} | {' | '.join(cells)} % |"


def told(fit):
    """Summarize one fit in a line."""
    scores, seconds, structure = fit
    nll = ", ".join(f"{method} {one.nll:.3f}" for method, one in scores.items())
    return f"{nll}; {structure}, {seconds:.0f} s"


def write(tables, seconds, out, given):
    """Write the tables so far, and the command-line arguments except for folders."""
    head = (
        f"    python benchmarks/fit_command.py {shlex.join(given)}\n\n"
        f"{os.environ.get('KERAS_BACKEND', 'the backend of keras.json')}, {seconds / 60:.0f} "
        "minutes. ± is the standard error over seeds; NLL in nats, smaller is better. What is "
        "compared and how: benchmarks/fit_command.py."
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join([head, *itertools.chain(*tables)]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
        epilog="Other options are passed on to `keras-mvn fit`, such as --members 3.",
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--seeds", type=int, help=f"number of seeds; default: {SEEDS}")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--fits", type=Path, help="keep the fit directories in this folder")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/fit_command.md"))
    arguments, further = parser.parse_known_args()
    folders = {str(arguments.fits), str(arguments.out), "--fits", "--out"}
    given = [word for word in sys.argv[1:] if word not in folders]

    began, tables = time.monotonic(), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.fits or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in arguments.only:
            fits, first = [], arguments.first_seed
            for seed in range(first, first + (arguments.seeds or SEEDS[name])):
                place = folder / f"{name}_{seed}"
                fits.append(one_seed(name, seed, arguments.data, place, further))
                print(f"{name}, seed {seed}: {told(fits[-1])}", flush=True)
                write(
                    [*tables, lines_of(name, fits)], time.monotonic() - began, arguments.out, given
                )
            tables.append(list(lines_of(name, fits)))
            print("\n".join(tables[-1]), flush=True)


if __name__ == "__main__":
    main()
