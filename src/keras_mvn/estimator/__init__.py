"""The scikit-learn estimator."""

from keras_mvn.estimator.regressor import MultivariateNormalRegressor as MultivariateNormalRegressor

__all__ = [
    "MultivariateNormalRegressor",
]
