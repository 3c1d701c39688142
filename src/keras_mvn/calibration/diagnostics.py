"""Diagnosis of whether a model is calibrated, and if not, how it deviates."""

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
from keras_mvn.calibration._excess_risk import excess_risk
from keras_mvn.calibration._rows import matched_rows, require_components
from keras_mvn.calibration._slices import Slice, columns_of, judged, quantile_bins
from keras_mvn.calibration._standardized import Standardized
from keras_mvn.distributions.base import Distribution
from keras_mvn.scores._estimates import uniformity
from keras_mvn.scores._observations import Observations

__all__ = ["LEVELS", "Diagnosis", "Direction", "diagnose"]

LEVELS = (*(i / 20 for i in range(1, 20)), 0.99)
"""Levels at which coverage is counted: 5 %, 10 %, … 95 %, 99 %."""

HEADLINE = 0.9
"""Level of the coverage that the text report states."""

FEW_ROWS = 50
"""Number of rows below which the text report calls the evidence weak."""

SIGNIFICANT = 0.01
"""Adjusted p-value below which the text report calls a deviation significant."""


@final
@dataclass(frozen=True, eq=False)
class Direction:
    """A linear combination of standardized errors and its dispersion.

    Args:
        weights: (d,), coefficients of (y − μ)/σ, a unit vector.
        dispersion: mean square of the combination, divided by the variance that the predicted
            correlations imply.

    """

    weights: Array
    dispersion: float


@final
@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis:
    """Result of `diagnose`: `print` it for a report in words, call `to_dict` for numbers.

    q is the squared Mahalanobis distance of a row's observed targets under their marginal, χ² with
    as many degrees of freedom as there are observed targets; e = (y − μ)/σ and
    z = Σ^(−½) (y − μ).

    Args:
        rows: int n, number of rows with at least one observed target.
        target_names: d names.
        squared_distances: q of every row, 0 where nothing was observed.
        observed_counts: degrees of freedom of q for every row.
        pit: P(χ² ≤ q), (n,), uniform if calibrated.
        calibration_error: ∫ `|F(p) − p|` dp of the PIT's distribution function F: the error of the
            coverage, averaged over levels.
        expected_calibration_error: its mean for n rows of a calibrated model, 0.313/√n.
        joint: coverage of the ellipsoids.
        marginal: coverage of the central intervals of each target.
        bias: mean of e, (d,).
        dispersion: mean of e², (d,).
        directions: at most d directions, from the largest dispersion to the smallest; empty if
            there are n ≤ d complete rows.
        second_moment_error: ‖mean(z zᵀ) − I‖ (Frobenius) of the complete rows.
        expected_second_moment_error: √(d (d + 1)/n), its root mean square for a calibrated model.
        p_values: "size" (Σ q), "radial" (the PIT, Kolmogorov–Smirnov), "tails" (the spread of
            distances), "bias" (Hotelling) and "covariance" (likelihood ratio of mean z zᵀ = I).
        groups: one slice for each group, the one that deviates most first.

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
        """The factor on all standard deviations that would correct their size."""
        return float(np.sqrt(self.squared_distances.sum() / self.observed_counts.sum()))

    @property
    def adjusted_p_values(self) -> dict[str, float]:
        """The `p_values` corrected for the number of tests (Holm 1979); NaN stays NaN.

        For a calibrated model, the probability that any of them is below α is at most α.
        """
        known = [name for name, p in self.p_values.items() if not np.isnan(p)]
        adjusted = _hypotheses.holm(np.array([self.p_values[name] for name in known]))
        return {**self.p_values, **dict(zip(known, adjusted.tolist(), strict=True))}

    @property
    def deviations(self) -> tuple[str, ...]:
        """Names of the tests that find a deviation beyond chance: adjusted p-values < 0.01."""
        return tuple(name for name, p in self.adjusted_p_values.items() if p < SIGNIFICANT)

    def histogram(self, bins: int = 10) -> np.ndarray:
        """Return row counts in equal-width bins of the PIT, n/bins each if calibrated: (bins,)."""
        return np.histogram(self.pit, bins=bins, range=(0.0, 1.0))[0]

    def worst_slices(self, features: Any, bins: int = 4, n: int | None = 5) -> tuple[Slice, ...]:
        """Find slices of the features in which the model is least calibrated, worst first.

        A feature is binned at its quantiles; one with few values, or of names, has one slice per
        value. The p-values assume normal errors: heavy tails make them too small, and affect the
        ranking less.

        Args:
            features: a data frame, a mapping from name to column, or an array (rows, features),
                one row for each row diagnosed; may include features the model did not use.
            bins: int, number of bins per feature.
            n: int, number of slices to return; None: all. The correction for multiplicity counts
                all slices.

        Raises:
            ValueError: features has a different number of rows.

        """
        whole(bins, "bins", "the number of bins per feature", 1)
        columns = columns_of(features, len(self.squared_distances))
        named = [
            part for name, column in columns.items() for part in quantile_bins(name, column, bins)
        ]
        return judged(named, self.squared_distances, self.observed_counts)[:n]

    def excess_risk(
        self, features: Any, level: float = 0.9, classifier: Any = None, folds: int = 5
    ) -> float:
        """Estimate how far coverage depends on x: `E |P(y inside | x) − level|`, from below.

        The excess risk of the target coverage (ERT) for the absolute loss, as PyPI's `covmetrics`
        defines it: a classifier learns from four fifths of the rows which are inside their regions,
        and the mean of sign(p(x) − level) (inside − level) is taken over the others. 0 if nothing
        can be learned; a weak classifier, or few rows, give a smaller number, down to slightly
        negative ones. `covmetrics` uses LightGBM, this scikit-learn's boosted trees unless
        you pass another classifier, so compare numbers of one classifier only.

        Args:
            features: as in `worst_slices`.
            level: coverage of the regions.
            classifier: a scikit-learn classifier with `predict_proba`.
            folds: int, number of folds.

        Raises:
            ValueError: features has a different number of rows, or level is not between 0 and 1.
            ImportError: scikit-learn is not installed.

        Source: Braun, Berta, Jordan & Bach, "Multivariate standardized residuals for conformal
        prediction", 2026, for the score.

        """
        columns = columns_of(features, len(self.squared_distances))
        seen = self.observed_counts > 0
        inside = self.pit <= probability(level, "level")
        whole(folds, "folds", "a number of folds", 2)
        rows = {name: np.asarray(column)[seen] for name, column in columns.items()}
        return excess_risk(inside, rows, level, classifier, folds)

    def to_dict(self) -> dict[str, Any]:
        """Return everything except per-row values in JSON types, with NaN as None."""
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
    normal: Distribution,
    y: Any,
    groups: Any = None,
    levels: Sequence[float] = LEVELS,
    missing: str = "raise",
) -> Diagnosis:
    """Compare predictions with observed values, on rows that were not used for training.

    Args:
        normal: predictions: a `MultivariateNormal`, a `MultivariateStudentT` or a `Mixture` of
            these, whose regions are those of highest density, found by draws.
        y: (..., d), observed values, one row per distribution.
        groups: (...), group of each row, to assess each group separately.
        levels: levels at which coverage is counted.
        missing: "marginalize" treats NaN in y as missing; by default NaN is an error. Directions
            and the tests of bias and covariance then use only the complete rows.

    Raises:
        ValueError: there are no rows, shapes do not match, values are not finite, a target is
            never observed, or levels are not between 0 and 1.
        ImportError: SciPy is not installed.

    >>> import numpy as np
    >>> from keras_mvn import MultivariateNormal
    >>> normal = MultivariateNormal(np.zeros((500, 2)), covariance=np.stack([np.eye(2)] * 500))
    >>> print(diagnose(normal, normal.rescale(1.2).sample(seed=0)))
    The 90 % region covers 80.8 % of 500 rows (95 % confidence: 77.1–84.2 %; expected if \
calibrated: 87.2–92.6 %): overconfident.
    A single temperature of 1.17 would correct the size of the regions.
    Standard deviations should be 1.19 (target 0) and 1.16 (target 1) times as large.
    Deviations beyond chance (p < 0.01, corrected for 5 tests): size, radial, covariance.

    """
    chosen = np.array([probability(float(level), "levels") for level in np.atleast_1d(levels)])
    require_components(normal, "diagnose")
    rows = matched_rows(normal, y, missing, "diagnose")
    group_of = None if groups is None else group_labels(groups, normal.batch_shape).reshape(-1)
    squares, e, z = Standardized.of(rows)
    dof = rows.is_observed.sum(axis=-1)
    seen = dof > 0
    pit = np.asarray(require("scipy.special", "diagnose").chdtr(dof[seen], squares[seen]))
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
        directions=_directions(rows.complete(), e[~np.isnan(e).any(axis=1)]),
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
    """Return the level of the smallest central interval that contains y: (n, d)."""
    return np.asarray(require("scipy.special", "diagnose").erf(np.abs(e) / np.sqrt(2.0)))


def _second_moment_error(z: Array) -> float:
    if not len(z):
        return float("nan")
    return float(np.linalg.norm(z.T @ z / len(z) - np.eye(z.shape[-1])))


def _directions(rows: Observations, e: Array) -> tuple[Direction, ...]:
    """Return eigenvectors of mean(e eᵀ) relative to the mean correlation, widest first."""
    n, d = rows.y.shape
    if n <= d:
        return ()
    predicted = np.zeros((d, d))
    for part in rows.parts(2 * d * d):
        predicted += part.answer.correlation.sum(axis=0)
    eigh = require("scipy.linalg", "diagnose").eigh
    dispersions, vectors = eigh(e.T @ e / n, predicted / n)
    vectors = vectors / np.linalg.norm(vectors, axis=0)
    return tuple(Direction(vectors[:, i], float(dispersions[i])) for i in reversed(range(d)))


# --- text report ---------------------------------------------------------------------------------


def _sentences(found: Diagnosis) -> list[str]:
    deviations = found.deviations
    sentences = [_headline(found, deviations)]
    if "size" in deviations:
        sentences.append(
            f"A single temperature of {found.temperature:.2f} would correct the size of the "
            "regions."
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
        sentences.append("The spread of the distances differs from that of a normal distribution.")
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
    verdict = "no evidence of miscalibration"
    if "size" in deviations:
        verdict = "overconfident" if found.temperature > 1.0 else "underconfident"
    elif found.rows < FEW_ROWS and not deviations:
        verdict += ", but there are too few rows to be sure"
    elif deviations:
        verdict = f"the right size on average, but not calibrated ({', '.join(deviations)})"
    return (
        f"The {100 * HEADLINE:.0f} % region covers {100 * float(coverage.fraction[0]):.1f} % of "
        f"{found.rows} rows (95 % confidence: {low:.1f}–{high:.1f} %; expected if calibrated: "
        f"{expected_low:.1f}–{expected_high:.1f} %): {verdict}."
    )


def _per_target(found: Diagnosis) -> str:
    order = np.argsort(-np.abs(np.log(np.maximum(found.dispersion, 1e-300))))
    shown = [f"{np.sqrt(found.dispersion[i]):.2f} ({found.target_names[i]})" for i in order[:3]]
    text = " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
    return f"Standard deviations should be {text} times as large."


def _widest(found: Diagnosis) -> list[str]:
    """Describe the most deviating combination of targets, if worse than any single target."""
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
        f"The combination {text} scatters {np.sqrt(worst.dispersion):.2f} times as far as "
        "predicted (in standard deviations of each): correlations are off."
    ]
