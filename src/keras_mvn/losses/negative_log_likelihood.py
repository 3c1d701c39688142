"""The negative log-likelihood, the proper score that trains mean and covariance together."""

from __future__ import annotations

from typing import ClassVar, final

import keras

from keras_mvn._core.types import Tensor
from keras_mvn.layouts import Parameters
from keras_mvn.layouts._y_true import Targets
from keras_mvn.losses.base import CovarianceLoss
from keras_mvn.ops._density import row_negative_log_likelihood

__all__ = ["NegativeLogLikelihood"]


@final
@keras.saving.register_keras_serializable(package="keras_mvn.losses")
class NegativeLogLikelihood(CovarianceLoss):
    """−log N(y; μ, Σ) = ½ ‖z‖² + ½ log det Σ + ½ d log 2π, with z = Σ^(−½)(y − μ), in nats.

    No inverse, no determinant, no factorization: the structure's own factor is substituted or
    multiplied, and the gradient is analytic. Rows of weight 0 and masked rows have no effect,
    also where y_true is NaN; NaN in a row that weighs something makes the loss NaN, unless
    `missing="marginalize"`. A loss that is NaN from the first step on means that y_pred is not
    valid: the output of a plain `Dense`, for one, needs `from_raw=True`.

    Args:
        covariance: the structure that wrote y_pred, or its name; the head's.
        from_raw: y_pred is an ordinary Dense output, `[mean | raw]`, to which the structure's
            link is applied. Standardize y, which a head with `adapt` does for you.
        layout: "packed" is a head's y_pred. "stacked" reads (batch, d, 1 + d): column 0 the mean,
            then the factor ("cholesky", "precision_cholesky") or Σ ("symmetric").
            "mean_log_variance" reads (batch, 2 d) and implies "diagonal".
        missing: "marginalize" reads NaN in y_true as "not observed": the likelihood of a row is
            the exact marginal of what was observed, −log N(y_o; μ_o, Σ_oo), and a row with
            nothing observed weighs nothing. "propagate" lets NaN make the loss NaN.
        regularizer: a penalty from `keras_mvn.regularizers`.
        reduction: as in `keras.losses.Loss`.
        name: as in `keras.losses.Loss`.
        dtype: None computes in the dtype of y_pred, float32 at least.

    Raises:
        ValueError: unknown names; and when called, before any training step, y_true and y_pred of
            shapes that don't belong together, or a head that wrote another structure.

    >>> import numpy as np
    >>> y_pred = np.array([[0.0, 0.0, 2.0, 3.0, 0.5]])  # mean, scale, one shape parameter
    >>> loss = NegativeLogLikelihood(covariance="cholesky")
    >>> round(float(loss(np.array([[2.0, 3.0]]), y_pred)), 4)
    4.2546

    """

    has_kernel: ClassVar[bool] = True

    def row_loss(self, targets: Targets, parameters: Parameters) -> Tensor:
        """−log p of each row (...)."""
        return row_negative_log_likelihood(
            self.reader.covariance, targets, parameters, fused=self.fused
        )
