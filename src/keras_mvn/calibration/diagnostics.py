"""Whether a model is calibrated, and if not, in which way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np

from keras_mvn._core.checks import group_labels, probability, whole
from keras_mvn._core.json_values import json_value
from keras_mvn._core.optional import require
from keras_mvn._core.targets import target_names_of
from keras_mvn._core.types import Array
from keras_mvn.calibration import _hypotheses
from keras_mvn.calibration._coverage import CoverageCurve
from keras_mvn.calibration._rows import calibration_rows
from keras_mvn.calibration._slices import Slice, columns_of, judged, quantile_bins
from keras_mvn.distributions import MultivariateNormal
from keras_mvn.scores._estimates import uniformity
from keras_mvn.scores._observations import Observations

__all__ = ["LEVELS", "Diagnosis", "Direction", "diagnose"]

LEVELS = (*(i / 20 for i in range(1, 20)), 0.99)
"""At which coverage is counted: 5 %, 10 %, … 95 %, 99 %."""

HEADLINE = 0.9
"""The level that the report names."""

FEW_ROWS = 50
"""Below which it says that they tell little."""

SIGNIFICANT = 0.01
"""Adjusted p-values below this are called a deviation in the report."""


@final
@dataclass(frozen=True, eq=False)
class Direction:
    """A linear combination of standardized errors, and how far it scatters.

    Args:
        weights: (d,), of (y − μ)/σ, a unit vector.
        dispersion: its mean square, divided by the variance that the correlations predict.

    """

    weights: Array
    dispersion: float


@final
@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis:
    """What `diagnose` found. `print` it for a report in words; `to_dict` for numbers.

    q is the squared Mahalanobis distance of a row in the margin of what was observed, χ² of as
    many degrees of freedom; e = (y − μ)/σ and z = Σ^(−½) (y − μ).

    Args:
        rows: n, rows with at least one observed target.
        target_names: d names.
        squared_distances: q of every row given, 0 where nothing was observed.
        observed_counts: degrees of freedom of q, as many.
        pit: P(χ² ≤ q), (n,), uniform if calibrated.
        calibration_error: ∫ `|F(p) − p|` dp of the PIT's distribution function F: by how much the
            coverage is wrong, averaged over levels.
        expected_calibration_error: what n rows of a calibrated model show on average, 0.313/√n.
        joint: coverage of the ellipsoids.
        marginal: coverage of the central intervals of each target alone.
        bias: mean of e, (d,).
        dispersion: mean of e², (d,).
        directions: of the largest and of the smallest dispersion, and all between, at most d;
            empty for n ≤ d rows without gaps.
        second_moment_error: ‖mean(z zᵀ) − I‖ (Frobenius), of rows without gaps.
        expected_second_moment_error: √(d (d + 1)/n), its root mean square for a calibrated model.
        p_values: "size" (Σ q), "radial" (the PIT, Kolmogorov–Smirnov), "tails" (the scatter of
            distances), "bias" (Hotelling) and "covariance" (likelihood ratio of mean z zᵀ = I).
        groups: the slices of `groups`, the one that deviates most first.

    """

    rows: int
    target_names: tuple[str, ...]
    squared_distances: Array
    observed_counts: np.ndarray
    pit: Array
    calibration_error: float
    expected_calibration_error: float
    joint: CoverageCurve
    marginal: CoverageCurve
    bias: Array
    dispersion: Array
    directions: tuple[Direction, ...]
    second_moment_error: float
    expected_second_moment_error: float
    p_values: dict[str, float]
    groups: tuple[Slice, ...]

    @property
    def temperature(self) -> float:
        """The factor on all standard deviations that would mend their size."""
        return float(np.sqrt(self.squared_distances.sum() / self.observed_counts.sum()))

    @property
    def adjusted_p_values(self) -> dict[str, float]:
        """`p_values` corrected for the number of tests (Holm 1979); those that are NaN stay so.

        Of a calibrated model, any of them is below α with probability α at most.
        """
        known = [name for name, p in self.p_values.items() if not np.isnan(p)]
        adjusted = _hypotheses.holm(np.array([self.p_values[name] for name in known]))
        return {**self.p_values, **dict(zip(known, adjusted.tolist(), strict=True))}

    @property
    def deviations(self) -> tuple[str, ...]:
        """Names of the tests that find a deviation beyond chance: adjusted p-values < 0.01."""
        return tuple(name for name, p in self.adjusted_p_values.items() if p < SIGNIFICANT)

    def histogram(self, bins: int = 10) -> np.ndarray:
        """Rows in equally wide bins of the PIT, n/bins in each if calibrated: (bins,)."""
        return np.histogram(self.pit, bins=bins, range=(0.0, 1.0))[0]

    def worst_slices(self, features: Any, bins: int = 4, n: int | None = 5) -> tuple[Slice, ...]:
        """Where the model is least calibrated: parts of each feature, the worst first.

        A feature is cut at its quantiles, or, with few values or of names, at each value. The
        p-values hold if errors are normal: heavy tails make them too small, the ranking less so.

        Args:
            features: a data frame, a mapping from name to column, or an array (rows, features),
                one row for each that was diagnosed; not only those the model was given.
            bins: into which a feature is cut.
            n: how many slices to return; None: all. The correction for multiplicity counts all.

        Raises:
            ValueError: another number of rows.

        """
        whole(bins, "bins", "the number of parts of a feature", 1)
        columns = columns_of(features, len(self.squared_distances))
        named = [
            part for name, column in columns.items() for part in quantile_bins(name, column, bins)
        ]
        return judged(named, self.squared_distances, self.observed_counts)[:n]

    def to_dict(self) -> dict[str, Any]:
        """All but the rows' own numbers, in what JSON knows; NaN is None."""
        found = {
            "rows": self.rows,
            "target_names": list(self.target_names),
            "temperature": self.temperature,
            "calibration_error": self.calibration_error,
            "expected_calibration_error": self.expected_calibration_error,
            "pit_histogram": self.histogram().tolist(),
            "joint": self.joint.to_dict(),
            "marginal": self.marginal.to_dict(),
            "bias": self.bias.tolist(),
            "dispersion": self.dispersion.tolist(),
            "directions": [
                {"weights": one.weights.tolist(), "dispersion": one.dispersion}
                for one in self.directions
            ],
            "second_moment_error": self.second_moment_error,
            "expected_second_moment_error": self.expected_second_moment_error,
            "p_values": dict(self.p_values),
            "adjusted_p_values": self.adjusted_p_values,
            "groups": [asdict(one) for one in self.groups],
        }
        return dict(json_value(found))

    def __str__(self) -> str:
        return "\n".join(_sentences(self))

    def __repr__(self) -> str:
        return (
            f"Diagnosis(rows={self.rows}, event_size={len(self.target_names)}, "
            f"temperature={self.temperature:.3f})"
        )


def diagnose(
    normal: MultivariateNormal,
    y: Any,
    groups: Any = None,
    levels: Sequence[float] = LEVELS,
    missing: str = "raise",
) -> Diagnosis:
    """Compare predictions with what was observed, on rows that were not trained on.

    Args:
        normal: predictions.
        y: (..., d), what was observed, one row for each distribution.
        groups: (...), the group of each row, to judge each on its own.
        levels: at which coverage is counted.
        missing: "marginalize" reads NaN in y as "not observed"; by default it is an error.
            Directions, bias test and covariance are then those of the rows without gaps.

    Raises:
        ValueError: no rows, shapes that don't fit, values that are not finite, a target that no
            row observes, or levels that are no probabilities.
        ImportError: SciPy is not installed.

    >>> import numpy as np
    >>> normal = MultivariateNormal(np.zeros((500, 2)), covariance=np.stack([np.eye(2)] * 500))
    >>> print(diagnose(normal, normal.rescale(1.2).sample(seed=0)))
    The 90 % region holds 80.8 % of 500 rows (95 % confidence: 77.1–84.2 %; of a calibrated model \
87.2–92.6 %): overconfident.
    One temperature of 1.17 would mend the size of the regions.
    Standard deviations should be 1.19 (target 0) and 1.16 (target 1) times as large.
    Deviations beyond chance (p < 0.01, corrected for 5 tests): size, radial, covariance.

    """
    chosen = np.array([probability(float(level), "levels") for level in np.atleast_1d(levels)])
    rows = calibration_rows(normal, y, missing, "diagnose")
    group_of = None if groups is None else group_labels(groups, normal.batch_shape).reshape(-1)
    squares, dof = rows.squared_distances, rows.is_observed.sum(axis=-1)
    seen = dof > 0
    pit = np.asarray(require("scipy.special", "diagnose").chdtr(dof[seen], squares[seen]))
    e, complete = rows.standardized(), rows.complete()
    z = complete.normal.whiten(complete.y) if len(complete.y) else complete.y
    d, n = normal.event_size, len(pit)
    slices: tuple[Slice, ...] = ()
    if group_of is not None:
        slices = judged([(str(g), group_of == g) for g in np.unique(group_of)], squares, dof)
    return Diagnosis(
        rows=n,
        target_names=tuple(target_names_of(normal.target_names, d)),
        squared_distances=squares,
        observed_counts=dof,
        pit=pit,
        calibration_error=float(uniformity(pit).value),
        expected_calibration_error=float(np.sqrt(np.pi / 32.0 / n)),
        joint=CoverageCurve.of_pit(pit, chosen),
        marginal=CoverageCurve.of_pit(_marginal_pit(e), chosen),
        bias=np.nanmean(e, axis=0),
        dispersion=np.nanmean(e**2, axis=0),
        directions=_directions(complete),
        second_moment_error=_second_moment_error(z),
        expected_second_moment_error=float(np.sqrt(d * (d + 1) / max(len(z), 1))),
        p_values={
            "size": _hypotheses.size(squares[seen], dof[seen]),
            "radial": _hypotheses.radial(pit),
            "tails": _hypotheses.tails(squares[seen], dof[seen]),
            "bias": _hypotheses.bias(z),
            "covariance": _hypotheses.covariance(z),
        },
        groups=slices,
    )


def _marginal_pit(e: Array) -> Array:
    """The level of the smallest central interval that holds y: (n, d)."""
    return np.asarray(require("scipy.special", "diagnose").erf(np.abs(e) / np.sqrt(2.0)))


def _second_moment_error(z: Array) -> float:
    if not len(z):
        return float("nan")
    return float(np.linalg.norm(z.T @ z / len(z) - np.eye(z.shape[-1])))


def _directions(rows: Observations) -> tuple[Direction, ...]:
    """Eigenvectors of mean(e eᵀ) relative to the mean predicted correlation, the widest first."""
    n, d = rows.y.shape
    if n <= d:
        return ()
    e = rows.standardized()
    predicted = np.zeros((d, d))
    for part in rows.parts(2 * d * d):
        predicted += part.normal.correlation.sum(axis=0)
    eigh = require("scipy.linalg", "diagnose").eigh
    dispersions, vectors = eigh(e.T @ e / n, predicted / n)
    vectors = vectors / np.linalg.norm(vectors, axis=0)
    return tuple(Direction(vectors[:, i], float(dispersions[i])) for i in reversed(range(d)))


# --- in words ------------------------------------------------------------------------------------


def _sentences(found: Diagnosis) -> list[str]:
    deviations = found.deviations
    sentences = [_headline(found, deviations)]
    if "size" in deviations:
        sentences.append(
            f"One temperature of {found.temperature:.2f} would mend the size of the regions."
        )
    if "covariance" in deviations:
        sentences.append(_per_target(found))
        sentences.extend(_widest(found))
    if "bias" in deviations:
        largest = int(np.argmax(np.abs(found.bias)))
        sentences.append(
            f"Means are off: {found.target_names[largest]} by {found.bias[largest]:+.2f} standard "
            "deviations."
        )
    if "tails" in deviations and not set(deviations) & {"size", "covariance"}:
        sentences.append("Distances scatter more, or less, than those of a normal distribution.")
    sentences.extend(str(one) + "." for one in found.groups if one.adjusted_p_value < SIGNIFICANT)
    if deviations:
        tests = sum(not np.isnan(p) for p in found.p_values.values())
        sentences.append(
            f"Deviations beyond chance (p < {SIGNIFICANT}, corrected for {tests} tests): "
            f"{', '.join(deviations)}."
        )
    return sentences


def _headline(found: Diagnosis, deviations: Sequence[str]) -> str:
    coverage = CoverageCurve.of_pit(found.pit, np.array([HEADLINE]))
    ends = (*coverage.band(), *coverage.expected_band())
    low, high, expected_low, expected_high = (100.0 * float(end[0]) for end in ends)
    verdict = "nothing speaks against its calibration"
    if "size" in deviations:
        verdict = "overconfident" if found.temperature > 1.0 else "underconfident"
    elif found.rows < FEW_ROWS and not deviations:
        verdict += ", but so few rows tell little"
    elif deviations:
        verdict = f"of the right size on average, but not calibrated ({', '.join(deviations)})"
    return (
        f"The {100 * HEADLINE:.0f} % region holds {100 * float(coverage.fraction[0]):.1f} % of "
        f"{found.rows} rows (95 % confidence: {low:.1f}–{high:.1f} %; of a calibrated model "
        f"{expected_low:.1f}–{expected_high:.1f} %): {verdict}."
    )


def _per_target(found: Diagnosis) -> str:
    order = np.argsort(-np.abs(np.log(np.maximum(found.dispersion, 1e-300))))
    shown = [f"{np.sqrt(found.dispersion[i]):.2f} ({found.target_names[i]})" for i in order[:3]]
    text = " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
    return f"Standard deviations should be {text} times as large."


def _widest(found: Diagnosis) -> list[str]:
    """The combination of targets that deviates most, if it does so more than any single one."""
    if not found.directions:
        return []
    ends = found.directions[0], found.directions[-1]
    worst = max(ends, key=lambda one: abs(np.log(max(one.dispersion, 1e-300))))
    single = np.abs(np.log(np.maximum(found.dispersion, 1e-300))).max()
    if abs(np.log(max(worst.dispersion, 1e-300))) < single + np.log(1.2):
        return []
    order = np.argsort(-np.abs(worst.weights))[:3]
    rounded = np.round(worst.weights, 2) + 0.0  # −0 becomes 0
    text = " ".join(f"{rounded[i]:+.2f} {found.target_names[i]}" for i in order)
    return [
        f"Together, {text} scatters {np.sqrt(worst.dispersion):.2f} times as far as predicted "
        "(in standard deviations of each): correlations are off."
    ]
