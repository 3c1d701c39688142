"""scikit-learn estimator for multivariate normal regression."""

from keras_mvn.estimator.regressor import MultivariateNormalRegressor as MultivariateNormalRegressor

__all__ = [
    "MultivariateNormalRegressor",
]
