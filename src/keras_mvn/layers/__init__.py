"""The output layer that predicts a multivariate normal for each row, and a limit for inputs."""

from keras_mvn.layers.multivariate_normal_head import (
    MultivariateNormalHead as MultivariateNormalHead,
)
from keras_mvn.layers.soft_clip import SoftClip as SoftClip

__all__ = [
    "MultivariateNormalHead",
    "SoftClip",
]
