"""The negative log-likelihood, a proper score that trains mean and covariance together."""

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
    """The negative log-likelihood −log N(y; μ, Σ), in nats.

    −log N(y; μ, Σ) = ½ ‖z‖² + ½ log det Σ + ½ d log 2π, with z = Σ^(−½)(y − μ).

    It needs no inverse, determinant or factorization: it solves with or multiplies by the
    structure's own factor, and the gradient is analytic. Rows of weight 0 and masked rows have no
    effect, even where y_true is NaN; NaN in a row with a nonzero weight makes the loss NaN, unless
    `missing="marginalize"`. If the loss is NaN from the first step on, y_pred is not valid: for
    example, the output of a plain `Dense` needs `from_raw=True`.

    Args:
        covariance: the structure that wrote y_pred, or its name; use the head's.
        from_raw: bool, whether y_pred is an ordinary Dense output, `[mean | raw]`, to which the
            structure's link is applied. If so, standardize y; a head with `adapt` does it for you.
        layout: "packed" is a head's y_pred. "stacked" is (batch, d, 1 + d): the mean in column 0,
            then the factor ("cholesky", "precision_cholesky") or Σ ("symmetric").
            "mean_log_variance" is (batch, 2 d) and implies "diagonal".
        missing: "marginalize" treats NaN in y_true as missing: the likelihood of a row is the
            exact marginal of its observed targets, −log N(y_o; μ_o, Σ_oo), and a row with nothing
            observed has weight 0. With "propagate", NaN makes the loss NaN.
        regularizer: a penalty from `keras_mvn.regularizers`.
        reduction: as in `keras.losses.Loss`.
        name: as in `keras.losses.Loss`.
        dtype: None computes in the dtype of y_pred, at least float32.

    Raises:
        ValueError: a name is unknown; or, when called, before any training step, the shapes of
            y_true and y_pred do not match, or a head wrote a different structure.

    >>> import numpy as np
    >>> y_pred = np.array([[0.0, 0.0, 2.0, 3.0, 0.5]])  # mean, scale, one shape parameter
    >>> loss = NegativeLogLikelihood(covariance="cholesky")
    >>> round(float(loss(np.array([[2.0, 3.0]]), y_pred)), 4)
    4.2546

    """

    has_kernel: ClassVar[bool] = True

    def row_loss(self, targets: Targets, parameters: Parameters) -> Tensor:
        """Return −log p of each row (...)."""
        return row_negative_log_likelihood(
            self.reader.covariance, targets, parameters, fused=self.fused
        )
