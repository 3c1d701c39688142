"""Batches of multivariate distributions that can be conditioned, sampled, scored and saved."""

from keras_mvn.distributions._highest_density import (
    HighestDensityRegion as HighestDensityRegion,
)
from keras_mvn.distributions.base import Distribution as Distribution
from keras_mvn.distributions.mixture import Mixture as Mixture
from keras_mvn.distributions.multivariate_normal import MultivariateNormal as MultivariateNormal
from keras_mvn.distributions.multivariate_student_t import (
    MultivariateStudentT as MultivariateStudentT,
)
from keras_mvn.distributions.transformed_distribution import (
    TransformedDistribution as TransformedDistribution,
)
from keras_mvn.distributions.transformed_distribution import TransformedRegion as TransformedRegion

__all__ = [
    "Distribution",
    "HighestDensityRegion",
    "Mixture",
    "MultivariateNormal",
    "MultivariateStudentT",
    "TransformedDistribution",
    "TransformedRegion",
]
