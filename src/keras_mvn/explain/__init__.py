"""What drives a prediction: which inputs move means, spreads, correlations and volumes.

`permutation_importance` ranks inputs, `partial_dependence` shows how one of them acts, and
`shapley_values` splits the prediction of a single row. All explain a `Quantity` of a model's
predicted distributions.
"""

from keras_mvn.explain.dependence import PartialDependence as PartialDependence
from keras_mvn.explain.dependence import partial_dependence as partial_dependence
from keras_mvn.explain.importance import Importance as Importance
from keras_mvn.explain.importance import permutation_importance as permutation_importance
from keras_mvn.explain.quantities import AleatoricStddev as AleatoricStddev
from keras_mvn.explain.quantities import Correlation as Correlation
from keras_mvn.explain.quantities import EpistemicStddev as EpistemicStddev
from keras_mvn.explain.quantities import LogVolume as LogVolume
from keras_mvn.explain.quantities import Mean as Mean
from keras_mvn.explain.quantities import Quantity as Quantity
from keras_mvn.explain.quantities import Stddev as Stddev
from keras_mvn.explain.shapley import shapley_values as shapley_values

__all__ = [
    "AleatoricStddev",
    "Correlation",
    "EpistemicStddev",
    "Importance",
    "LogVolume",
    "Mean",
    "PartialDependence",
    "Quantity",
    "Stddev",
    "partial_dependence",
    "permutation_importance",
    "shapley_values",
]
