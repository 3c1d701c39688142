"""Keras layers: the head that predicts means and covariances, and layers for its inputs."""

from keras_mvn.layers.multivariate_mixture_head import MultivariateMixtureHead
from keras_mvn.layers.multivariate_normal_head import MultivariateNormalHead
from keras_mvn.layers.periodic_embedding import PeriodicEmbedding
from keras_mvn.layers.soft_clip import SoftClip

__all__ = [
    "MultivariateMixtureHead",
    "MultivariateNormalHead",
    "PeriodicEmbedding",
    "SoftClip",
]
