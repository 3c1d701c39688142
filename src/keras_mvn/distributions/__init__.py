"""Batches of multivariate distributions that can be conditioned, sampled, scored and saved."""

from keras_mvn.distributions.mixture import Mixture as Mixture
from keras_mvn.distributions.multivariate_normal import MultivariateNormal as MultivariateNormal
from keras_mvn.distributions.transformed_normal import TransformedNormal as TransformedNormal
from keras_mvn.distributions.transformed_normal import TransformedRegion as TransformedRegion

__all__ = [
    "Mixture",
    "MultivariateNormal",
    "TransformedNormal",
    "TransformedRegion",
]
