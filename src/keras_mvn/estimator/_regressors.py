"""The regressors of the expected targets that `mean=` knows by name."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array

__all__ = [
    "NAMED",
    "PENALTIES",
    "Forest",
    "GaussianProcess",
    "NamedRegressor",
    "Ridge",
    "Trees",
]


PENALTIES = np.logspace(-2, 4, 13)
"""Of ridge regressions, for standardized inputs."""


class NamedRegressor(ABC):
    """A regressor of scikit-learn, and what it costs."""

    name: ClassVar[str]
    words: ClassVar[str]
    """What several of them are called."""
    stored: ClassVar[tuple[str, ...]] = ()
    """Classes in a file of it, besides those that skops trusts."""

    @abstractmethod
    def unfitted(self) -> Any:
        """Return a new regressor."""

    def tuned(self, regressor: Any, x: Array, y: Array, seed: int) -> Sequence[Any]:
        """Return what is to be fitted to rows: one regressor for all targets, or one for each.

        Args:
            regressor: a new one, with its random states seeded.
            x: inputs of these rows, (n, features).
            y: their targets, (n, d), NaN where missing.
            seed: seed of the rows that are drawn.

        """
        return [regressor]

    @abstractmethod
    def seconds(self, rows: int, features: int, targets: int) -> float:
        """Return about how long five folds take on one core; infinite where it is no use."""


@final
class Ridge(NamedRegressor):
    """Ridge regression, whose penalty is chosen by leave-one-out errors."""

    name, words = "ridge", "ridge regressions"

    def unfitted(self) -> Any:
        """Return a new regressor."""
        return _standardized(require("sklearn.linear_model", _what(self)).RidgeCV(PENALTIES))

    def seconds(self, rows: int, features: int, targets: int) -> float:
        """Next to nothing: `_selection` bounds the size of the table."""
        return 0.0


@final
class Trees(NamedRegressor):
    """Boosted trees of binned inputs."""

    name, words = "trees", "boosted trees"
    stored = ("sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",)

    def unfitted(self) -> Any:
        """Return a new regressor."""
        return require("sklearn.ensemble", _what(self)).HistGradientBoostingRegressor()

    def seconds(self, rows: int, features: int, targets: int) -> float:
        """Return about how long five folds take on one core."""
        return 0.5 * targets * (1.0 + rows * features / 20_000)


@final
class Forest(NamedRegressor):
    """Extremely randomized trees, which overfit small tables less than boosting does.

    Source: Geurts, Ernst & Wehenkel, "Extremely randomized trees", Machine Learning 63 (2006).
    """

    name, words = "forest", "forests of randomized trees"
    stored = ("sklearn.tree._tree.Tree",)

    MOST_ROWS: ClassVar[int] = 1000
    """Rows above which boosting is better, and forests are large to keep."""

    def unfitted(self) -> Any:
        """Return a new regressor."""
        forest = require("sklearn.ensemble", _what(self)).ExtraTreesRegressor
        return forest(100, min_samples_leaf=2)

    def seconds(self, rows: int, features: int, targets: int) -> float:
        """Return about how long five folds take on one core."""
        return math.inf if rows > self.MOST_ROWS else 0.5 + rows * features / 10_000


@final
class GaussianProcess(NamedRegressor):
    """Gaussian process regression: a smooth function, a linear one, and noise, for each target.

    Its length and variances maximize the likelihood of at most 200 rows.

    Source: Rasmussen & Williams, "Gaussian Processes for Machine Learning", 2006, chapter 5.
    """

    name, words = "gaussian_process", "Gaussian processes"
    stored = tuple(
        f"sklearn.gaussian_process.kernels.{kernel}"
        for kernel in ("ConstantKernel", "DotProduct", "Product", "RBF", "Sum", "WhiteKernel")
    )

    MOST_ROWS: ClassVar[int] = 2000
    """Rows above which the cube of their number is too long to wait."""
    TUNED_ON: ClassVar[int] = 200

    def unfitted(self) -> Any:
        """Return a new regressor."""
        gaussian_process = require("sklearn.gaussian_process", _what(self))
        kernels = gaussian_process.kernels
        kernel = (
            kernels.ConstantKernel(1.0, (1e-3, 1e3)) * kernels.RBF(4.0, (0.05, 1e3))
            + kernels.ConstantKernel(0.1, (1e-4, 1e3)) * kernels.DotProduct(1.0, (1e-2, 1e2))
            + kernels.WhiteKernel(0.1, (1e-6, 10.0))
        )
        return _standardized(
            gaussian_process.GaussianProcessRegressor(kernel, normalize_y=True), _STEP
        )

    def tuned(self, regressor: Any, x: Array, y: Array, seed: int) -> Sequence[Any]:
        """Return a regressor for each target, with its kernel found."""
        clone = require("sklearn.base", _what(self)).clone
        found = []
        for values in y.T:
            seen = np.flatnonzero(~np.isnan(values))
            rows = np.random.default_rng(seed).permutation(seen)[: self.TUNED_ON]
            own = clone(regressor)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # parameters at the ends of their ranges
                kernel = own.fit(x[rows], values[rows]).named_steps[_STEP].kernel_
            found.append(
                clone(regressor).set_params(
                    **{f"{_STEP}__kernel": kernel, f"{_STEP}__optimizer": None}
                )
            )
        return found

    def seconds(self, rows: int, features: int, targets: int) -> float:
        """Return about how long five folds take on one core."""
        if rows > self.MOST_ROWS:
            return math.inf
        return targets * (1.0 + 5.0 * (rows / self.MOST_ROWS) ** 3)


_STEP = "gaussian_process"


def _standardized(regressor: Any, name: str = "regressor") -> Any:
    """Return a pipeline that standardizes the inputs first."""
    scaler = require("sklearn.preprocessing", "mean=").StandardScaler()
    return require("sklearn.pipeline", "mean=").Pipeline([("scaler", scaler), (name, regressor)])


def _what(named: NamedRegressor) -> str:
    return f"mean={named.name!r}"


NAMED: dict[str, NamedRegressor] = {
    one.name: one for one in (Ridge(), Trees(), Forest(), GaussianProcess())
}
"""By name; the cheapest first."""
