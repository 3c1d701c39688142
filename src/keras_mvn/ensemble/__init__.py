"""Deep ensembles: networks trained from different starts, whose predictions form a mixture."""

from keras_mvn.ensemble.deep_ensemble import DeepEnsemble as DeepEnsemble

__all__ = [
    "DeepEnsemble",
]
