"""The covariance of another model's errors, as MAPIE's conformity scores ask for it."""

from __future__ import annotations

from typing import Any, Self, final

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.estimator.regressor import MultivariateNormalRegressor

__all__ = ["ErrorCovariance"]


@final
class ErrorCovariance:
    """The covariance of another model's errors, for MAPIE's standardized residuals.

    It has the methods of `CovarianceEstimator`, a protocol of `mapie.experimental` 1.6. Passed to
    `MultivariateResidualNormalisedScore`, it gives ellipsoids around the predictions of any model,
    whose shape depends on x and whose coverage MAPIE guarantees. Without MAPIE, pass the model as
    `mean=FrozenEstimator(model)` to `MultivariateNormalRegressor`, which gives distributions.

    Args:
        estimator: a `MultivariateNormalRegressor`, of which a copy is fitted; None for one with
            default parameters.

    Source: Braun, Berta, Jordan & Bach, "Multivariate standardized residuals for conformal
    prediction", arXiv 2507.20941, 2025.

    >>> import numpy as np
    >>> from keras_mvn.estimator import ErrorCovariance, MultivariateNormalRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 2))
    >>> errors = rng.multivariate_normal([0, 0], [[1.0, 0.8], [0.8, 1.0]], size=100)
    >>> quick = MultivariateNormalRegressor(epochs=5, random_state=0)
    >>> found = ErrorCovariance(quick).fit(X, X + errors, y_pred=X)
    >>> found.get_covariance_matrix(X).shape
    (100, 2, 2)

    """

    def __init__(self, estimator: MultivariateNormalRegressor | None = None) -> None:
        self.estimator = MultivariateNormalRegressor() if estimator is None else estimator

    def fit(self, X: Any, y: Any, y_pred: Any = None, **fit_params: Any) -> Self:  # noqa: N803
        """Fit the covariance of y − y_pred; without y_pred, mean and covariance of y.

        Args:
            X: (n, features).
            y: (n, d).
            y_pred: (n, d), predictions of a model that was not fitted to these rows.
            **fit_params: further arguments of `MultivariateNormalRegressor.fit`.

        """
        own = require("sklearn.base", "ErrorCovariance").clone(self.estimator)
        if y_pred is not None:
            frozen = require("sklearn.frozen", "ErrorCovariance").FrozenEstimator
            y = np.asarray(y, np.float64) - np.asarray(y_pred, np.float64)
            own.set_params(mean=frozen(_Zero(y.shape[1])))
        self.estimator_ = own.fit(X, y, **fit_params)
        return self

    def predict(self, X: Any) -> Array:  # noqa: N803
        """Predict the mean of what was fitted: (n, d), 0 for the errors of a model."""
        mean: Array = self.estimator_.predict(X)
        return mean

    def get_distribution(self, X: Any) -> tuple[Array, Array]:  # noqa: N803
        """Predict mean and covariance: (n, d) and (n, d, d)."""
        answer = self.estimator_.predict_distribution(X)
        return answer.mean, answer.covariance

    def get_covariance_matrix(self, X: Any) -> Array:  # noqa: N803
        """Predict the covariance: (n, d, d), in the squared units of y."""
        return self.get_distribution(X)[1]


@final
class _Zero:
    """A regressor that predicts 0."""

    def __init__(self, targets: int) -> None:
        self.targets = targets

    def predict(self, x: Any) -> Array:
        return np.zeros((len(x), self.targets))
