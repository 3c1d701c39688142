"""Densities, levels, draws and moments on tensors, for custom training loops and losses.

Every function reads y_pred, the flat tensor that a head writes (or, with `from_raw` or `layout`,
that of another model), in the same way as `keras_mvn.losses`, including checks. The functions run
on every backend, eagerly and compiled, inside a layer, a loss or a training step; gradients flow to
y and y_pred, through the structure's analytic gradient. Values are float32, or float64 if y_pred
is. With `layout="student_t"`, they read the multivariate Student's t of a head with
`degrees_of_freedom`, and gradients flow to ν, too.

For analysis after `predict`, use `keras_mvn.MultivariateNormal` and
`keras_mvn.MultivariateStudentT`, which compute in float64 NumPy.

>>> import keras
>>> y_pred = keras.ops.convert_to_tensor([[1.0, 2.0, 2.0, 3.0, 0.5]])  # mean, scale, shape_params
>>> y = sample(y_pred, seed=keras.random.SeedGenerator(0))
>>> y.shape == (1, 2), log_prob(y, y_pred).shape == (1,)
(True, True)
"""

from keras_mvn.ops._functions import covariance as covariance
from keras_mvn.ops._functions import entropy as entropy
from keras_mvn.ops._functions import kl_divergence as kl_divergence
from keras_mvn.ops._functions import log_prob as log_prob
from keras_mvn.ops._functions import mahalanobis as mahalanobis
from keras_mvn.ops._functions import mean as mean
from keras_mvn.ops._functions import region_level as region_level
from keras_mvn.ops._functions import sample as sample
from keras_mvn.ops._functions import scale_tril as scale_tril
from keras_mvn.ops._functions import stddev as stddev
from keras_mvn.ops._functions import variance as variance

__all__ = [
    "covariance",
    "entropy",
    "kl_divergence",
    "log_prob",
    "mahalanobis",
    "mean",
    "region_level",
    "sample",
    "scale_tril",
    "stddev",
    "variance",
]
