"""Transforms of the targets by scikit-learn transformers."""

from __future__ import annotations

import warnings
from typing import Any, final

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.distributions._transforms import BEYOND, FAR, UNSEEN, TargetTransform
from keras_mvn.distributions.multivariate_normal import MultivariateNormal

__all__ = ["SklearnTransform"]


@final
class SklearnTransform(TargetTransform):
    """A scikit-learn transformer that acts on each column alone; T' by differences of T⁻¹."""

    def __init__(self, transformer: Any, y: Array, names: list[str]) -> None:
        self.transformer = transformer
        complete = y[~np.isnan(y).any(axis=1)]
        if len(complete) < 2:
            raise ValueError(
                f"target_transform={transformer!r} needs at least 2 rows of y without missing "
                f"values; there are {len(complete)}."
            )
        with warnings.catch_warnings():
            # FunctionTransformer only warns of what is an error below.
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
            warnings.simplefilter("ignore")  # of values outside the domain, which this looks for
            self._ends, self._cut = self._found_ends(sample, t)

    def of(self, index: np.ndarray) -> TargetTransform:
        return _Part(self, index)

    @property
    def typical(self) -> Array:
        """A value of each target that the transformer accepts: (d,)."""
        return self._typical

    def forward(self, y: Array) -> Array:
        seen = ~np.isnan(y)
        filled = np.where(seen, y, self._typical)
        return np.where(seen, self._apply(self.transformer.transform, filled), np.nan)

    def inverse(self, t: Array) -> Array:
        """The inverse T⁻¹(t), t clipped to the range of T: with T(y) = √y, t below 0 gives 0."""
        return self._back(np.clip(t, *self._ends))

    def _back(self, t: Array) -> Array:
        return self._apply(self.transformer.inverse_transform, t)

    def _found_ends(self, y: Array, t: Array) -> tuple[list[Array], list[Array]]:
        """Return the lower and upper ends of the t with T(T⁻¹(t)) = t, infinite beyond `FAR`.

        Also return the ends at which y is unbounded, and cut far from all targets seen; the others
        are infinite.
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
            known &= up * (y - origin) >= 0  # −1/t also goes back on the other side of its pole
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
        """The logarithm −log |d T⁻¹/dt| = log |T'|, by fourth-order central differences."""
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
                f"target_transform={self.transformer!r} gives NaN or infinite values for the "
                f"targets {targets}."
            )

    def _apply(self, function: Any, values: Array) -> Array:
        rows = values.reshape(-1, values.shape[-1])
        with np.errstate(all="ignore"):  # checked by the callers
            return np.asarray(function(rows), dtype=np.float64).reshape(values.shape)

    def _require_elementwise(self, y: Array, t: Array) -> None:
        shifted = y.copy()
        shifted[:, ::2] = y[::-1, ::2]
        expected = t.copy()
        expected[:, ::2] = t[::-1, ::2]
        if t.shape != y.shape or not np.allclose(self.forward(shifted), expected, equal_nan=True):
            raise ValueError(
                f"target_transform={self.transformer!r} must act on each target alone, but the "
                "transformed value of a target depends on other targets or other rows."
            )

    def _require_monotone(self, y: Array, t: Array, names: list[str]) -> None:
        for j, name in enumerate(names):
            values, first = np.unique(y[:, j], return_index=True)
            steps = np.diff(t[first, j])
            if not ((steps > 0).all() or (steps < 0).all()) or not np.isfinite(t).all():
                raise ValueError(
                    f"target_transform={self.transformer!r} must be strictly monotone and finite, "
                    f"but is not for target {name!r}."
                )
            back = self._back(t[first])[:, j]
            if not np.allclose(back, values, rtol=1e-4, atol=1e-4 * np.ptp(values)):
                raise ValueError(
                    f"inverse_transform of target_transform={self.transformer!r} does not give "
                    f"back target {name!r}."
                )
            self.increasing[j] = not (steps < 0).any()

    def warn_of_ends(self, normal: MultivariateNormal, index: Any = slice(None)) -> None:
        """Warn if the normal goes beyond an end of T at which y is unbounded: y has no mean."""
        for end, sign in zip(self._cut, (-1.0, 1.0), strict=True):
            beyond = sign * (normal.mean - end[index]) / normal.stddev
            if beyond.size and beyond.max() > BEYOND:
                warnings.warn(
                    f"target_transform={self.transformer!r} never reaches {end[index].max():.3g}, "
                    "however large a target is, but the normal distribution does, and so has no "
                    "mean in the units of y. The mean returned is that of the distribution cut off "
                    "there. target_transform='yeo-johnson' has only powers that avoid this.",
                    UserWarning,
                    stacklevel=4,
                )
                return


@final
class _Part(TargetTransform):
    """A transform of some of a transformer's targets; the others are set to typical values."""

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
