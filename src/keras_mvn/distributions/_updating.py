"""The measurement update of the Kalman filter, which needs normal distributions."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from keras_mvn._core.checks import (
    explained_shapes,
    finite,
    fitting,
    linear_functions,
    positive,
    square,
    symmetric,
)
from keras_mvn._core.types import Array
from keras_mvn.covariances._from_dense import cholesky
from keras_mvn.distributions._elliptical import Elliptical

__all__ = ["Updating"]


class Updating(Elliptical):
    """Noisy measurements of linear functions of the targets."""

    def update(
        self, values: Any, matrix: Any = None, *, variance: Any = None, covariance: Any = None
    ) -> Self:
        """The distribution of all targets, given noisy measurements of linear functions of them.

        values = A y + e with e ~ N(0, T): the measurement update of the Kalman filter. If their
        errors are independent, measurements may arrive one after another:
        `normal.update(...).update(...)` gives the same result as a single update.

        Args:
            values: (..., m), measured values.
            matrix: A, (m, d) or (..., m, d), or (d,) for one measurement; None if each target is
                measured.
            variance: variances of independent errors, positive: one number, (m,) or (..., m).
            covariance: T, (m, m) or (..., m, m), positive definite, in place of `variance`.

        Raises:
            ValueError: shapes do not fit, values are not finite, variances are not positive, or
                not exactly one of variance and covariance is given.

        >>> from keras_mvn import MultivariateNormal
        >>> normal = MultivariateNormal([1.0, 2.0], covariance=[[4.0, 3.0], [3.0, 9.0]])
        >>> normal.update([5.0], [[1.0, 1.0]], variance=0.01).sum().mean.round(3)  # almost 5
        array([4.999])

        """
        if (variance is None) == (covariance is None):
            raise ValueError("update takes exactly one of variance and covariance.")
        measured = np.atleast_1d(finite(values, "values"))
        m, d = measured.shape[-1], self.event_size
        rows = linear_functions(np.eye(d) if matrix is None else matrix, "matrix", d)
        if rows.shape[-2] != m:
            raise ValueError(
                f"values has shape {measured.shape} and matrix has shape {rows.shape}: {m} "
                f"measurements of {rows.shape[-2]} functions of the targets. The two numbers must "
                "be equal."
            )
        if covariance is None:
            noise = fitting(positive(variance, "variance"), (m,), "variance")
            if matrix is None:
                return self._update_targets(measured, noise)
            noise_lower = np.sqrt(noise)[..., :, None] * np.eye(m)
        else:
            matrix = symmetric(square(covariance, "covariance", (m,)), "covariance")
            noise_lower = cholesky(matrix, "covariance")
        expected = (rows @ self.mean[..., None])[..., 0]
        with explained_shapes("values", measured.shape, self.batch_shape):
            posterior = self._gaussian.update(rows, measured - expected, noise_lower)
        return self._like(posterior, self.target_names)

    def _update_targets(self, measured: Array, noise: Array) -> Self:
        """Update by measurements of all targets with independent errors; keeps a low rank."""
        with explained_shapes("values", measured.shape, self.batch_shape):
            residual = measured - self.mean
        every = np.arange(self.event_size)
        posterior = self._gaussian.condition(every, residual, noise, np.zeros(len(every), bool))
        return self._like(posterior, self.target_names)
