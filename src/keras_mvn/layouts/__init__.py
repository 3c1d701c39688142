"""Layouts: how mean, scale and shape parameters are arranged in y_pred.

`MultivariateNormalHead` writes `"packed"` (or `"student_t"`), `MultivariateMixtureHead`
`"mixture_<n>"`; `"stacked"` and
`"mean_log_variance"` are for existing models. A `Reader` combines a structure, a layout and
`from_raw`; losses, metrics and `MultivariateNormal.from_prediction` use one to read y_pred.
"""

from keras_mvn.layouts._layouts import Layout as Layout
from keras_mvn.layouts._layouts import MeanLogVariance as MeanLogVariance
from keras_mvn.layouts._layouts import Packed as Packed
from keras_mvn.layouts._layouts import PackedParameters as PackedParameters
from keras_mvn.layouts._layouts import Parameters as Parameters
from keras_mvn.layouts._layouts import Stacked as Stacked
from keras_mvn.layouts._layouts import StudentT as StudentT
from keras_mvn.layouts._layouts import StudentTParameters as StudentTParameters
from keras_mvn.layouts._layouts import degrees_of_freedom_from as degrees_of_freedom_from
from keras_mvn.layouts._layouts import raw_degrees_of_freedom as raw_degrees_of_freedom
from keras_mvn.layouts._lookup import get as get
from keras_mvn.layouts._mixture import MixtureLayout as MixtureLayout
from keras_mvn.layouts._mixture import MixtureParameters as MixtureParameters
from keras_mvn.layouts._reader import Reader as Reader

__all__ = [
    "Layout",
    "MeanLogVariance",
    "MixtureLayout",
    "MixtureParameters",
    "Packed",
    "PackedParameters",
    "Parameters",
    "Reader",
    "Stacked",
    "StudentT",
    "StudentTParameters",
    "degrees_of_freedom_from",
    "get",
    "raw_degrees_of_freedom",
]
