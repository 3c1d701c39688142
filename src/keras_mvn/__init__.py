"""keras-mvn: Keras 3 networks that predict a multivariate normal, mean and covariance, per row."""

import importlib as _importlib

try:
    import keras as _keras  # noqa: F401  (a missing backend is explained here, once)
except ModuleNotFoundError as error:
    from keras_mvn._core.backends import BACKENDS, explain_missing_backend

    if error.name not in BACKENDS:
        raise
    raise ImportError(explain_missing_backend(error.name)) from error

from keras_mvn import calibration as calibration
from keras_mvn import callbacks as callbacks
from keras_mvn import covariances as covariances
from keras_mvn import distributions as distributions
from keras_mvn import ensemble as ensemble
from keras_mvn import kernels as kernels
from keras_mvn import layers as layers
from keras_mvn import layouts as layouts
from keras_mvn import losses as losses
from keras_mvn import metrics as metrics
from keras_mvn import ops as ops
from keras_mvn import regularizers as regularizers
from keras_mvn import scores as scores
from keras_mvn._core.version import __version__ as __version__
from keras_mvn.distributions import Mixture as Mixture
from keras_mvn.distributions import MultivariateNormal as MultivariateNormal
from keras_mvn.distributions import MultivariateStudentT as MultivariateStudentT
from keras_mvn.distributions import regions as regions
from keras_mvn.exporting import export as export
from keras_mvn.scores import evaluate as evaluate

__all__ = [
    "Mixture",
    "MultivariateNormal",
    "MultivariateStudentT",
    "calibration",
    "callbacks",
    "covariances",
    "distributions",
    "ensemble",
    "evaluate",
    "export",
    "kernels",
    "layers",
    "layouts",
    "losses",
    "metrics",
    "ops",
    "regions",
    "regularizers",
    "scores",
]


def __getattr__(name: str) -> object:
    """The estimator, which needs scikit-learn, is imported when it is asked for."""
    if name in ("MultivariateNormalRegressor", "estimator"):
        module = _importlib.import_module("keras_mvn.estimator")
        return module if name == "estimator" else module.MultivariateNormalRegressor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
