"""The output layer that predicts a multivariate normal for each row."""

from keras_mvn.layers.multivariate_normal_head import (
    MultivariateNormalHead as MultivariateNormalHead,
)

__all__ = [
    "MultivariateNormalHead",
]
