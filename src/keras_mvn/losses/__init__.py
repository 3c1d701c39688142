"""Losses: one loss is one file over `CovarianceLoss`."""

from keras_mvn.losses.base import CovarianceLoss as CovarianceLoss
from keras_mvn.losses.negative_log_likelihood import NegativeLogLikelihood as NegativeLogLikelihood

__all__ = ["CovarianceLoss", "NegativeLogLikelihood"]
