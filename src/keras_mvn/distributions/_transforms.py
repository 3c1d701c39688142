"""Monotone transforms T of targets, after which they are normal, and moments of T⁻¹.

Quantiles go back through T⁻¹ as they are; means do not: E T⁻¹(t) ≠ T⁻¹(E t).
"""

from __future__ import annotations

import abc
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.targets import target_names_of
from keras_mvn._core.types import Array
from keras_mvn.distributions.multivariate_normal import MultivariateNormal

__all__ = [
    "BoxCox",
    "Log",
    "SklearnTransform",
    "TargetTransform",
    "YeoJohnson",
    "fit_target_transform",
]

NODES = 32
"""Of the Gauss–Hermite rule: exact for polynomials up to degree 63."""

UNSEEN = 1e3
"""Ranges of the targets away from their median, at which a y without end is cut."""

BEYOND = -4.75
"""Standard deviations from the cut, z, with Φ(z) = 1e-6: more is worth a warning."""

FAR = 12.0
"""Standard deviations of the targets: normal distributions of them have nothing further out."""

ROWS_AT_ONCE = 1 << 14
"""In sums over nodes."""


class TargetTransform(abc.ABC):
    """A strictly monotone function of each target, (..., d) → (..., d) in float64."""

    increasing: np.ndarray
    """(d,), boolean."""

    lowest: ClassVar[float] = -np.inf
    """No target is below this."""

    @abc.abstractmethod
    def forward(self, y: Array) -> Array:
        """T(y); NaN stays NaN."""

    @abc.abstractmethod
    def inverse(self, t: Array) -> Array:
        """T⁻¹(t)."""

    @abc.abstractmethod
    def log_derivative(self, y: Array) -> Array:
        """log |T'(y)| of each target; NaN stays NaN."""

    @abc.abstractmethod
    def of(self, index: np.ndarray) -> TargetTransform:
        """That of these targets alone."""

    def of_limits(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """The box of t that is the box lower ≤ y ≤ upper; limits may be infinite."""
        a = np.where(lower <= self.lowest, -np.inf, lower)
        b = np.where(upper < self.lowest, -np.inf, upper)
        ends = [self._of_limit(a), self._of_limit(b)]
        return np.where(self.increasing, *ends), np.where(self.increasing, *ends[::-1])

    def _of_limit(self, y: Array) -> Array:
        infinite = np.isinf(y)
        with np.errstate(divide="ignore"):
            t = self.forward(np.where(infinite, np.nan, y))
        return np.where(infinite, np.where(self.increasing, y, -y), t)

    def check(self, y: Array, names: list[str]) -> None:
        """Refuse values outside the domain.

        Raises:
            ValueError: there are some; the message names the targets.

        """
        return

    def warn_of_ends(self, normal: MultivariateNormal) -> None:
        """Warn if T⁻¹(t) has no mean."""
        return

    def moments(self, normal: MultivariateNormal, dense: bool) -> tuple[Array, Array]:
        """Mean and variance (..., d) of T⁻¹(t), or mean and covariance (..., d, d).

        With T⁻¹(μ + σ z) = Σ_k a_k h_k(z), h_k the normalized Hermite polynomials, the mean is
        a_0, and Mehler's formula gives the covariance: Σ_{k ≥ 1} a_ik a_jk ρ_ij^k.
        """
        self.warn_of_ends(normal)
        batch, d = normal.batch_shape, normal.event_size
        rows = normal if len(batch) == 1 else normal[np.ones(batch, bool)] if batch else None
        if rows is None:
            return self._moments(normal, dense)
        parts = [
            self._moments(rows[start : start + ROWS_AT_ONCE], dense)
            for start in range(0, len(rows), ROWS_AT_ONCE)
        ]
        if not parts:
            return np.zeros((*batch, d)), np.zeros((*batch, d, d) if dense else (*batch, d))
        mean, second = (np.concatenate(column) for column in zip(*parts, strict=True))
        return mean.reshape(*batch, d), second.reshape(*batch, *second.shape[1:])

    def _moments(self, normal: MultivariateNormal, dense: bool) -> tuple[Array, Array]:
        z, weights, hermite = _hermite_rule()
        steps = z.reshape(-1, *(1 for _ in normal.mean.shape))
        values = self.inverse(normal.mean + steps * normal.stddev)
        a = np.tensordot(hermite * weights, values, axes=1)
        if not dense:
            return a[0], (a[1:] ** 2).sum(axis=0)
        correlation = normal.correlation
        covariance = np.zeros_like(correlation)
        for coefficients in a[:0:-1]:  # Horner's rule, the highest power first
            covariance += coefficients[..., :, None] * coefficients[..., None, :]
            covariance *= correlation
        return a[0], covariance


def _hermite_rule() -> tuple[Array, Array, Array]:
    """Nodes and weights for a standard normal z, and h_k(z) at the nodes: (k, nodes)."""
    z, w = np.polynomial.hermite_e.hermegauss(NODES)
    h = np.ones((NODES, NODES))
    h[1] = z
    for k in range(1, NODES - 1):
        h[k + 1] = (z * h[k] - np.sqrt(k) * h[k - 1]) / np.sqrt(k + 1.0)
    return z, w / w.sum(), h


@final
class Log(TargetTransform):
    """T(y) = log y, y > 0: y is log-normal, and its moments are exact.

    Mean m = exp(μ + σ²/2), covariance mᵢ mⱼ (exp(Σᵢⱼ) − 1).
    """

    lowest: ClassVar[float] = 0.0

    def __init__(self, event_size: int) -> None:
        self.increasing = np.ones(event_size, dtype=bool)

    def of(self, index: np.ndarray) -> TargetTransform:
        return Log(len(index))

    def forward(self, y: Array) -> Array:
        return np.log(y)

    def inverse(self, t: Array) -> Array:
        return np.exp(t)

    def log_derivative(self, y: Array) -> Array:
        return -np.log(y)

    def check(self, y: Array, names: list[str]) -> None:
        _require_positive(y, names, "log")

    def _moments(self, normal: MultivariateNormal, dense: bool) -> tuple[Array, Array]:
        mean = np.exp(normal.mean + 0.5 * normal.variance)
        if not dense:
            return mean, mean**2 * np.expm1(normal.variance)
        return mean, mean[..., :, None] * mean[..., None, :] * np.expm1(normal.covariance)


@final
class BoxCox(TargetTransform):
    """T(y) = ((y/s)^λ − 1)/λ for y > 0, log(y/s) for λ = 0; s the geometric mean of the targets.

    λ is kept at 0 or above, where every moment of y exists. For λ > 0 the normal has some mass
    below T(0) = −1/λ, which stands for y = 0.

    Source: Box & Cox, "An analysis of transformations", JRSS B 26 (1964).
    """

    lowest: ClassVar[float] = 0.0

    def __init__(self, power: Array, unit: Array) -> None:
        self.power, self.unit = power, unit
        self.increasing = np.ones(len(power), dtype=bool)

    def of(self, index: np.ndarray) -> TargetTransform:
        return BoxCox(self.power[index], self.unit[index])

    def forward(self, y: Array) -> Array:
        return _power(np.log(y / self.unit), self.power)

    def inverse(self, t: Array) -> Array:
        return self.unit * np.exp(_power_inverse(t, self.power))

    def log_derivative(self, y: Array) -> Array:
        return (self.power - 1.0) * np.log(y / self.unit) - np.log(self.unit)

    def check(self, y: Array, names: list[str]) -> None:
        _require_positive(y, names, "box-cox")


@final
class YeoJohnson(TargetTransform):
    """Box–Cox of 1 + |y/s|, with λ above 0 and 2 − λ below; s the standard deviation of the target.

    λ is kept in [0, 2], where T maps all of ℝ to all of ℝ.

    Source: Yeo & Johnson, "A new family of power transformations to improve normality or
    symmetry", Biometrika 87 (2000).
    """

    def __init__(self, power: Array, unit: Array) -> None:
        self.power, self.unit = power, unit
        self.increasing = np.ones(len(power), dtype=bool)

    def of(self, index: np.ndarray) -> TargetTransform:
        return YeoJohnson(self.power[index], self.unit[index])

    def forward(self, y: Array) -> Array:
        return np.sign(y) * _power(np.log1p(np.abs(y) / self.unit), self._power_at(y))

    def inverse(self, t: Array) -> Array:
        return np.sign(t) * self.unit * np.expm1(_power_inverse(np.abs(t), self._power_at(t)))

    def log_derivative(self, y: Array) -> Array:
        grown = np.log1p(np.abs(y) / self.unit)
        return (self._power_at(y) - 1.0) * grown - np.log(self.unit)

    def _power_at(self, values: Array) -> Array:
        return np.where(values < 0, 2.0 - self.power, self.power)


def _power(log_y: Array, power: Array) -> Array:
    """(y^λ − 1)/λ, also where λ is almost 0."""
    safe = np.where(power == 0, 1.0, power)
    return np.where(power == 0, log_y, np.expm1(safe * log_y) / safe)


def _power_inverse(t: Array, power: Array) -> Array:
    """log y; −∞ for t ≤ −1/λ."""
    safe = np.where(power == 0, 1.0, power)
    with np.errstate(divide="ignore"):
        log_y = np.log1p(np.maximum(safe * t, -1.0)) / safe
    return np.where(power == 0, t, log_y)


@final
class SklearnTransform(TargetTransform):
    """A scikit-learn transformer that acts on each column alone; T' by differences of T⁻¹."""

    def __init__(self, transformer: Any, y: Array, names: list[str]) -> None:
        self.transformer = transformer
        complete = y[~np.isnan(y).any(axis=1)]
        if len(complete) < 2:
            raise ValueError(
                f"target_transform={transformer!r} needs at least 2 rows of y without gaps; there "
                f"are {len(complete)}."
            )
        with warnings.catch_warnings():
            # FunctionTransformer only warns of what is refused below.
            warnings.filterwarnings("ignore", ".*strictly inverse", UserWarning)
            transformer.fit(complete)
        self._typical = np.median(complete, axis=0)
        sample = complete[:: max(1, len(complete) // 512)]
        t = self.forward(sample)
        self._step = 1e-3 * np.maximum(t.std(axis=0), 1e-8)
        self.increasing = np.ones(y.shape[1], dtype=bool)
        self._require_elementwise(sample, t)
        self._require_monotone(sample, t, names)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values without an image: they are looked for
            self._ends, self._cut = self._found_ends(sample, t)

    def of(self, index: np.ndarray) -> TargetTransform:
        return _Part(self, index)

    @property
    def typical(self) -> Array:
        """A value of each target that the transformer takes: (d,)."""
        return self._typical

    def forward(self, y: Array) -> Array:
        seen = ~np.isnan(y)
        filled = np.where(seen, y, self._typical)
        return np.where(seen, self._apply(self.transformer.transform, filled), np.nan)

    def inverse(self, t: Array) -> Array:
        """T⁻¹(t); beyond an end of T's range, what is there: √y goes back to 0 from below 0."""
        return self._back(np.clip(t, *self._ends))

    def _back(self, t: Array) -> Array:
        return self._apply(self.transformer.inverse_transform, t)

    def _found_ends(self, y: Array, t: Array) -> tuple[list[Array], list[Array]]:
        """Where T(T⁻¹(t)) = t ends, below and above, infinite if that is further than `FAR`.

        And those of them at which y has no end: it is cut far from all targets seen.
        """
        middle, scale = np.median(t, axis=0), np.maximum(t.std(axis=0), 1e-8)
        limit = UNSEEN * np.ptp(y, axis=0)
        ends, cut = [], []
        for sign in (-1.0, 1.0):
            end = self._found_end(middle, sign * scale, np.full_like(limit, np.inf))
            there = self._back(np.where(np.isfinite(end), end, middle))
            endless = ~(np.abs(there - self._typical) <= limit)
            nearer = self._found_end(middle, sign * scale, limit)
            ends.append(np.where(endless, nearer, end))
            cut.append(np.where(endless, nearer, sign * np.inf))
        return ends, cut

    def _found_end(self, start: Array, scale: Array, limit: Array) -> Array:
        origin = self._back(start)
        up = np.where(self.increasing, 1.0, -1.0) * np.sign(scale)

        def goes_back(steps: Array) -> np.ndarray:
            t = start + steps * scale
            y = self._back(t)
            known = np.isfinite(y) & (np.abs(y - self._typical) <= limit)
            known &= up * (y - origin) >= 0  # −1/t goes back on the other side of its pole, too
            again = self.forward(np.where(known, y, self._typical))
            return known & (np.abs(again - t) <= 1e-4 * np.abs(scale))

        grid = np.linspace(0.0, FAR, 97)[:, None] * np.ones_like(start)
        fine = goes_back(grid)
        first_bad = np.where(fine.all(axis=0), len(grid) - 1, np.argmin(fine, axis=0))
        bad = np.take_along_axis(grid, first_bad[None], axis=0)[0]
        good = np.maximum(bad - FAR / 96, 0.0)
        for _ in range(50):
            middle = 0.5 * (good + bad)
            still = goes_back(middle[None])[0]
            good, bad = np.where(still, middle, good), np.where(still, bad, middle)
        end = start + good * scale
        return np.where(fine.all(axis=0), np.copysign(np.inf, scale), end)

    def log_derivative(self, y: Array) -> Array:
        """−log |d T⁻¹/dt|, central differences of fourth order."""
        seen = ~np.isnan(y)
        t, h = self.forward(np.where(seen, y, self._typical)), self._step
        near = self._back(t + h) - self._back(t - h)
        far = self._back(t + 2 * h) - self._back(t - 2 * h)
        slope = (8.0 * near - far) / (12.0 * h)
        with np.errstate(divide="ignore"):
            return np.where(seen, -np.log(np.abs(slope)), np.nan)

    def check(self, y: Array, names: list[str]) -> None:
        bad = ~np.isfinite(self.forward(y)) & ~np.isnan(y)
        if bad.any():
            targets = [names[j] for j in np.flatnonzero(bad.any(axis=tuple(range(y.ndim - 1))))]
            raise ValueError(
                f"target_transform={self.transformer!r} gives NaN or infinite values for targets "
                f"{targets}."
            )

    def _apply(self, function: Any, values: Array) -> Array:
        rows = values.reshape(-1, values.shape[-1])
        with np.errstate(all="ignore"):  # judged by those who call
            return np.asarray(function(rows), dtype=np.float64).reshape(values.shape)

    def _require_elementwise(self, y: Array, t: Array) -> None:
        shifted = y.copy()
        shifted[:, ::2] = y[::-1, ::2]
        expected = t.copy()
        expected[:, ::2] = t[::-1, ::2]
        if t.shape != y.shape or not np.allclose(self.forward(shifted), expected, equal_nan=True):
            raise ValueError(
                f"target_transform={self.transformer!r} must act on each target alone: the "
                "transformed value of a target depends on other targets or on other rows."
            )

    def _require_monotone(self, y: Array, t: Array, names: list[str]) -> None:
        for j, name in enumerate(names):
            values, first = np.unique(y[:, j], return_index=True)
            steps = np.diff(t[first, j])
            if not ((steps > 0).all() or (steps < 0).all()) or not np.isfinite(t).all():
                raise ValueError(
                    f"target_transform={self.transformer!r} must be strictly monotone and finite; "
                    f"for target {name!r} it is not."
                )
            back = self._back(t[first])[:, j]
            if not np.allclose(back, values, rtol=1e-4, atol=1e-4 * np.ptp(values)):
                raise ValueError(
                    f"inverse_transform of target_transform={self.transformer!r} does not give "
                    f"target {name!r} back."
                )
            self.increasing[j] = not (steps < 0).any()

    def warn_of_ends(self, normal: MultivariateNormal, index: Any = slice(None)) -> None:
        """Where T ends and y does not, a normal has probability of y = ∞, and no mean."""
        for end, sign in zip(self._cut, (-1.0, 1.0), strict=True):
            beyond = sign * (normal.mean - end[index]) / normal.stddev
            if beyond.size and beyond.max() > BEYOND:
                warnings.warn(
                    f"target_transform={self.transformer!r} never reaches {end[index].max():.3g}, "
                    "however large a target is; the normal distribution does, and so has no mean: "
                    "this is the mean of what is cut there. target_transform='yeo-johnson' keeps "
                    "to powers that have none of this.",
                    UserWarning,
                    stacklevel=4,
                )
                return


@final
class _Part(TargetTransform):
    """Some targets of a transformer that wants all of them: the others are what is typical."""

    def __init__(self, whole: SklearnTransform, index: np.ndarray) -> None:
        self.whole, self.index = whole, index
        self.increasing = whole.increasing[index]

    def of(self, index: np.ndarray) -> TargetTransform:
        return _Part(self.whole, self.index[index])

    def forward(self, y: Array) -> Array:
        return self.whole.forward(self._among(y, self.whole.typical))[..., self.index]

    def inverse(self, t: Array) -> Array:
        others = self.whole.forward(self.whole.typical)
        return self.whole.inverse(self._among(t, others))[..., self.index]

    def warn_of_ends(self, normal: MultivariateNormal) -> None:
        self.whole.warn_of_ends(normal, self.index)

    def log_derivative(self, y: Array) -> Array:
        return self.whole.log_derivative(self._among(y, self.whole.typical))[..., self.index]

    def check(self, y: Array, names: list[str]) -> None:
        all_names = [""] * len(self.whole.typical)
        for place, name in zip(self.index, names, strict=True):
            all_names[place] = name
        self.whole.check(self._among(y, self.whole.typical), all_names)

    def _among(self, values: Array, others: Array) -> Array:
        whole = np.broadcast_to(others, (*values.shape[:-1], len(others))).copy()
        whole[..., self.index] = values
        return whole


def _require_positive(y: Array, names: list[str], what: str) -> None:
    bad = (y <= 0).any(axis=tuple(range(y.ndim - 1)))
    if bad.any():
        raise ValueError(
            f"target_transform={what!r} takes positive targets; "
            f"{[names[j] for j in np.flatnonzero(bad)]} have values that are 0 or negative. Use "
            "'yeo-johnson', or shift them."
        )


def fit_target_transform(
    identifier: Any, y: Array, names: Sequence[str] | None
) -> TargetTransform | None:
    """The transform of this name, fitted to (n, d) training targets, NaN where not observed.

    Args:
        identifier: None, "log", "box-cox", "yeo-johnson", or a scikit-learn transformer with
            `inverse_transform`, which is fitted to a clone.
        y: (n, d).
        names: d names.

    Raises:
        ValueError: something else, values outside the domain, or a transformer that is not a
            strictly monotone function of each target alone.

    """
    known = target_names_of(tuple(names) if names else None, y.shape[1])
    if identifier is None:
        return None
    if isinstance(identifier, str) and identifier in _NAMED:
        return _NAMED[identifier](y, known)
    if hasattr(identifier, "inverse_transform") and hasattr(identifier, "fit"):
        clone = require("sklearn.base", "target_transform").clone
        return SklearnTransform(clone(identifier), y, known)
    raise ValueError(
        f"target_transform={identifier!r} is not known. Expected None, one of {sorted(_NAMED)}, or "
        "a scikit-learn transformer with inverse_transform."
    )


def _log(y: Array, names: list[str]) -> TargetTransform:
    _require_positive(y, names, "log")
    return Log(y.shape[1])


def _box_cox(y: Array, names: list[str]) -> TargetTransform:
    _require_positive(y, names, "box-cox")
    unit = np.exp(np.nanmean(np.log(y), axis=0))
    return BoxCox(_best_powers(y / unit, "box-cox", np.inf), unit)


def _yeo_johnson(y: Array, names: list[str]) -> TargetTransform:
    unit = np.nanstd(y, axis=0)
    unit = np.where(unit > 0, unit, 1.0)
    return YeoJohnson(_best_powers(y / unit, "yeo-johnson", 2.0), unit)


def _best_powers(y: Array, method: str, largest: float) -> Array:
    """λ of the highest likelihood of the targets alone, from 0 to `largest`."""
    preprocessing = require("sklearn.preprocessing", "target_transform")
    transformer = preprocessing.PowerTransformer(method, standardize=False)
    constant = np.nanmax(y, axis=0) == np.nanmin(y, axis=0)
    power = np.ones(y.shape[1])
    if not constant.all():
        power[~constant] = transformer.fit(y[:, ~constant]).lambdas_
    return np.clip(np.nan_to_num(power, nan=1.0), 0.0, largest)


_NAMED = {"log": _log, "box-cox": _box_cox, "yeo-johnson": _yeo_johnson}
