"""The questions that `keras-mvn demo` asks of a fitted model, and their answers."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from keras_mvn import plots, scores
from keras_mvn._core.files import read_json
from keras_mvn._core.types import Array
from keras_mvn.covariances import moments
from keras_mvn.distributions import Distribution, MultivariateNormal
from keras_mvn_cli import _assessing
from keras_mvn_cli._console import Output
from keras_mvn_cli._findings import Findings
from keras_mvn_cli._model import stream, table_and_model
from keras_mvn_cli._table_options import TableOptions
from keras_mvn_cli._weather import target
from keras_mvn_cli.fitting.networks import compared_in_words

__all__ = ["Compared", "Demonstration", "compared", "fitted", "ridge_with_constant_covariance"]


def fitted(folder: Path, frame: Any, file: Path) -> Demonstration:
    """Load a fitted model, and predict all rows of its table."""
    output = Output(quiet=True)
    output.console.quiet = True  # that the model was fitted to this table
    findings = Findings(output, strict=False)
    table, model = table_and_model(file, folder, TableOptions(), findings)
    with contextlib.redirect_stderr(io.StringIO()):
        parts = [rows.normal for rows in stream(model, table, findings)]
    joined: Any = type(parts[0])
    about, test = read_json(folder / "fit.json"), np.load(folder / "split.npz")["test"]
    return Demonstration(folder, frame, joined.concatenate(parts), about, test)


LEVEL = 0.9
RIDGE = "ridge and one Σ"


class Compared(NamedTuple):
    """Scores of one method on the test rows."""

    name: str
    nll: float
    """Nats per row."""
    energy: float
    """Energy score of a row, in standard deviations of the targets."""
    coverage: float
    worse: tuple[float, float] | None
    """Paired difference of the row's NLL to the model, and two standard errors, by weeks."""
    worse_energy: tuple[float, float] | None


@final
@dataclass(frozen=True)
class Demonstration:
    """A fitted model and the table it was fitted to."""

    folder: Path
    """The fit directory."""
    frame: Any
    """The table."""
    answers: Distribution
    """Predictions for all rows of the table."""
    about: dict[str, Any]
    """The contents of `fit.json`."""
    test: np.ndarray
    """Row numbers of the test rows."""

    @property
    def targets(self) -> list[str]:
        """Names of the targets."""
        return list(self.about["targets"])

    def observed(self, rows: np.ndarray) -> Array:
        """Return what was measured later: (n, d)."""
        return np.asarray(self.frame[self.targets].to_numpy(np.float64)[rows])

    def on_test_rows(self) -> tuple[dict[str, Distribution], Array, Array, Array]:
        """Return the methods' predictions, what was measured, its standard deviations, and weeks.

        The first method is the model; the last are ridge regressions with a constant covariance.
        """
        rows = self.test
        y, weeks = self.observed(rows), self.frame["week"].to_numpy()
        kept = _assessing.load_test(self.folder / "test")[0]
        names = (_assessing.MODEL, _assessing.CONSTANT, _assessing.DIAGONAL)
        found = {name: kept[name] for name in names if name in kept}
        rest = np.setdiff1d(np.arange(len(self.frame)), rows)
        inputs = self.frame.drop(columns=["time", "week", *self.targets])
        x = inputs.fillna(inputs.iloc[rest].median()).to_numpy(np.float64)
        seen = self.observed(rest)
        found[RIDGE] = ridge_with_constant_covariance(x[rest], seen, weeks[rest], x[rows])
        return found, y, seen.std(axis=0), weeks[rows]

    def chosen(self) -> str:
        """Tell what held-out rows chose."""
        d = len(self.targets)
        said = [compared_in_words(one, d) for one in self.about["selection"]]
        return "By NLL per target on held-out rows: " + "; ".join(said) + "."

    # --- questions -------------------------------------------------------------------------------

    def morning(self) -> int:
        """Return the number of the test row of 6 o'clock whose noon was forecast worst."""
        hours = self.frame["time"].str[-5:].to_numpy()
        rows = self.test[hours[self.test] == "06:00"]
        noon = self.targets.index(target("JFK", "temp", 6))
        found = self.answers[rows]
        error = (self.observed(rows)[:, noon] - found.mean[:, noon]) / found.stddev[:, noon]
        return int(rows[np.argmax(np.abs(error))])

    def evening(self, row: int) -> str:
        """Tell what the evening will be, before and after noon was measured, and what it was."""
        noon, evening = target("JFK", "temp", 6), target("JFK", "temp", 12)
        before, after, measured, came = self._around_noon(row)
        return (
            f"{self.frame['time'].iloc[row]} at JFK, the morning whose noon was the greatest "
            f"surprise. Forecast: noon {_with_error(before, noon)} °C, evening "
            f"{_with_error(before, evening)} °C. Noon was measured: {measured:.1f} °C. Given that, "
            f"the evening is {_with_error(after, evening)} °C. It was {came:.1f} °C. "
            f"{self._all_evenings()}"
        )

    def _all_evenings(self) -> str:
        """Tell what knowing noon is worth, over all test rows."""
        noon, evening = target("JFK", "temp", 6), target("JFK", "temp", 12)
        answers: Any = self.answers[self.test]
        y = self.observed(self.test)
        came = y[:, self.targets.index(evening)]
        given = answers.condition({noon: y[:, self.targets.index(noon)]}).marginal(evening)
        before, after = (
            float(np.sqrt(np.mean((one.mean[:, 0] - came) ** 2)))
            for one in (answers.marginal(evening), given)
        )
        return (
            f"Over all test rows, knowing the former takes the error of the latter from "
            f"{before:.1f} to {after:.1f} °C."
        )

    def _around_noon(self, row: int) -> tuple[Any, Any, float, float]:
        noon, evening = target("JFK", "temp", 6), target("JFK", "temp", 12)
        before: Any = self.answers[row]
        y = self.observed(np.array([row]))[0]
        measured = float(y[self.targets.index(noon)])
        after = before.condition({noon: measured})
        return before, after, measured, float(y[self.targets.index(evening)])

    def frost_and_wind(self) -> str:
        """Tell how probable frost and strong wind are, jointly, and as if they were independent."""
        pair = [target("JFK", "temp", 12), target("JFK", "wind", 12)]
        found = self.answers[self.test].marginal(pair)
        both = found.probability(lower=[-np.inf, WINDY], upper=[0.0, np.inf])
        below = found.marginal_cdf([0.0, WINDY])
        independent = below[:, 0] * (1.0 - below[:, 1])
        at = int(np.argmax(np.abs(both - independent)))
        y = self.observed(self.test)[:, [self.targets.index(name) for name in pair]]
        happened = np.mean((y[:, 0] < 0.0) & (y[:, 1] > WINDY))
        return (
            f"Frost and more than {WINDY:.0f} m/s of wind at JFK, in twelve hours. At "
            f"{self.frame['time'].iloc[self.test[at]]} it was {both[at]:.0%}; as if errors were "
            f"independent, {independent[at]:.0%}. Of all test rows, {both.mean():.1%} were "
            f"expected, {independent.mean():.1%} as if independent; {happened:.1%} came."
        )

    def by_month(self, month: int) -> Distribution:
        """Return the predictions of one month."""
        months = self.frame["time"].str[5:7].astype(int).to_numpy()
        found: Distribution = self.answers[np.flatnonzero(months == month)]
        return found

    def winter_and_summer(self) -> str:
        """Tell which errors move together differently in January and in July."""
        january, july = (_correlation(self.by_month(month)) for month in (1, 7))
        rows, columns = np.triu_indices(len(self.targets), 1)
        order = np.argsort(-np.abs(january - july)[rows, columns])[:3]
        told = [
            f"  {self.targets[rows[k]]} and {self.targets[columns[k]]}: "
            f"{january[rows[k], columns[k]]:.2f} in January, "
            f"{july[rows[k], columns[k]]:.2f} in July"
            for k in order
        ]
        return "The correlations that differ most:\n" + "\n".join(told)

    # --- pictures --------------------------------------------------------------------------------

    def draw(self, row: int, predictions: dict[str, Distribution], path: Path) -> None:
        """Draw the evening given noon, calibration, and the correlations of two months."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(13, 10), layout="constrained")
        grid: Any = figure.subplots(2, 2)
        noon, evening = target("JFK", "temp", 6), target("JFK", "temp", 12)
        _, _, measured, _ = self._around_noon(row)
        elsewhere = target("LGA", "temp", 12)
        plots.conditioning(
            grid[0, 0],
            self.answers[row],
            {noon: measured},
            (evening, elsewhere),
            y=self.observed(np.array([row]))[0],
        )
        grid[0, 0].set_title(f"{self.frame['time'].iloc[row]}: before and after noon was measured")
        plots.joint_calibration(grid[0, 1], predictions, self.observed(self.test))
        grid[0, 1].set_title(f"joint calibration on {len(self.test)} test rows")
        for ax, month, name in ((grid[1, 0], 1, "January"), (grid[1, 1], 7, "July")):
            plots.correlation_heatmap(ax, self.by_month(month))
            ax.set_title(f"mean correlation of the errors in {name}")
        figure.savefig(path, dpi=110)


WINDY = 8.0
"""m/s: a fresh breeze."""


def _with_error(answer: Any, name: str) -> str:
    one = answer.marginal(name)
    return f"{float(one.mean[0]):.1f} ± {float(one.stddev[0]):.1f}"


def _correlation(answers: Any) -> Array:
    found: Array = np.tanh(np.arctanh(np.clip(answers.correlation, -0.999, 0.999)).mean(axis=0))
    return found


def ridge_with_constant_covariance(
    x: Array, y: Array, groups: Array, new: Array
) -> MultivariateNormal:
    """Predict as one does without a network: ridge regressions, and one Σ of their errors."""
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import RobustScaler

    model = make_pipeline(RobustScaler(), RidgeCV(np.logspace(-2, 4, 13)))
    folds = GroupKFold(5).split(x, y, groups)
    errors = y - cross_val_predict(model, x, y, cv=list(folds))
    found = moments.estimate(errors, y.shape[1], [], None).covariance
    assert found is not None
    mean = model.fit(x, y).predict(new)
    return MultivariateNormal(mean, covariance=np.tile(found, (len(mean), 1, 1)))


def compared(
    predictions: dict[str, Distribution], y: Array, stddev: Array, weeks: Array
) -> list[Compared]:
    """Score predictions, and compare all with the model's, the first; pairs are by week."""
    found: list[Compared] = []
    first: tuple[Array, Array] | None = None
    for name, answer in predictions.items():
        scaled = answer / stddev
        nll, energy = scores.log_score(answer, y), scores.energy_score(scaled, y / stddev)
        coverage = float(np.mean(answer.region_level(y) <= LEVEL))
        worse = None if first is None else _difference(nll, first[0], weeks)
        worse_energy = None if first is None else _difference(energy, first[1], weeks)
        first = first or (nll, energy)
        found.append(
            Compared(name, float(nll.mean()), float(energy.mean()), coverage, worse, worse_energy)
        )
    return found


def _difference(score: Array, other: Array, weeks: Array) -> tuple[float, float]:
    found = scores.mean_difference(score, other, groups=weeks)
    return float(found.value), 2.0 * float(found.standard_error)
