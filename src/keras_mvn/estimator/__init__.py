"""scikit-learn estimator for multivariate normal regression."""

from keras_mvn.estimator.error_covariance import ErrorCovariance as ErrorCovariance
from keras_mvn.estimator.regressor import MultivariateNormalRegressor as MultivariateNormalRegressor

__all__ = [
    "ErrorCovariance",
    "MultivariateNormalRegressor",
]
