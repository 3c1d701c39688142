"""The negative log-likelihood, trained with its natural gradient."""

from __future__ import annotations

from typing import ClassVar, final

import keras
from keras import ops

from keras_mvn._core.numeric import differentiable
from keras_mvn._core.types import Tensor
from keras_mvn.covariances import Covariance
from keras_mvn.kernels import elliptical
from keras_mvn.layouts import PackedParameters, Parameters
from keras_mvn.layouts._y_true import Targets
from keras_mvn.losses._gradients import gradient_only, squared_error
from keras_mvn.losses.base import UnitFreeLoss
from keras_mvn.ops._density import from_elliptical

__all__ = ["NaturalGradientNegativeLogLikelihood"]


@final
@keras.saving.register_keras_serializable(package="keras_mvn.losses")
class NaturalGradientNegativeLogLikelihood(UnitFreeLoss):
    """The NLL, with its gradient premultiplied by the inverse Fisher matrix, row by row.

    F is the Fisher matrix of the normal distribution in (μ, factor of Σ), in the coordinates that
    the head's last layer outputs: raw outputs receive F⁻¹ g where backpropagation would give g.
    For the mean, μ = m + t · raw, this is −(y − μ)/t, a plain residual that does not depend on Σ.
    For the factor, it is the closed form `Covariance.inverse_fisher`, exact for "diagonal",
    "cholesky" and "precision_cholesky" where the link is exponential (raw between −3 and 3). Other
    structures use the Fisher matrix of their scales alone and the ordinary gradient of the shape
    parameters. For a partly missing row, it is the Fisher matrix of the whole row, as in the EM
    algorithm, with residual 0 where nothing was observed.

    This is not the loss to start with: an outlier's natural gradient of the factor grows with its
    square, and in layers shared by mean and covariance it drowns out the mean's (docs/choosing.md
    has the comparison). With `stop_trunk=True` on the head, the mean is that of the squared error.

    Args:
        covariance: as in `NegativeLogLikelihood`.
        target_scale: as in `UnitFreeLoss`; None takes the standard deviations of y from the head.
        **kwargs: the other arguments of `NegativeLogLikelihood`.

    Raises:
        ValueError: y_pred does not come from a head and there is no `target_scale`; or as for
            `NegativeLogLikelihood`.

    Source: Amari, "Natural gradient works efficiently in learning", Neural Computation 10 (1998);
    for normal heads: Immer et al., "Effective Bayesian heteroscedastic regression with deep neural
    networks", NeurIPS 2023.

    >>> import numpy as np
    >>> loss = NaturalGradientNegativeLogLikelihood(covariance="diagonal", target_scale=1.0)
    >>> round(float(loss(np.array([[1.0]]), np.array([[0.0, 2.0]]))), 4)  # −log N(1; 0, 2²)
    1.7371

    """

    has_kernel: ClassVar[bool] = True

    def row_loss(self, targets: Targets, parameters: Parameters) -> Tensor:
        """Return −log p of each row (...), with the natural gradient."""
        structure = self.reader.covariance.wire
        natural = _with_natural_gradient(structure, parameters)
        found = elliptical(structure, targets, natural, fixed_mean=True, fused=self.fused)
        nll = from_elliptical(found, targets)
        return nll + gradient_only(squared_error(targets, parameters.mean))


def _with_natural_gradient(structure: Covariance, parameters: Parameters) -> PackedParameters:
    """Return the same parameters, with cotangents such that raw outputs receive F⁻¹ g.

    Backpropagation multiplies the cotangent by Jᵀ of the map raw → (scale, shape_params), but
    J⁻¹ F⁻¹ is needed, so J⁻ᵀ J⁻¹ F⁻¹ has to be passed on: with an exponential link,
    J = diag(scale) for the scales and 1 for the shape parameters. The mean's cotangent is 0.
    """
    d = parameters.mean.shape[-1]

    def vjp(bar: Tensor, _: Tensor, packed: Tensor) -> Tensor:
        _, scale, shape_params = PackedParameters.of(packed, d)
        mean_bar, scale_bar, shape_bar = PackedParameters.of(bar, d)
        scale_dot, shape_dot = structure.inverse_fisher(scale, shape_params, scale_bar, shape_bar)
        natural = [ops.zeros_like(mean_bar), scale_dot / scale / scale, shape_dot]
        return ops.concatenate(natural, axis=-1)

    packed = parameters.packed
    if packed is None:
        packed = ops.concatenate(list(parameters), axis=-1)
    return PackedParameters.of(differentiable(lambda packed: packed + 0.0, vjp, packed), d)
