"""Deep ensembles: networks trained from several starts, whose mixture is the prediction."""

from keras_mvn.ensemble.deep_ensemble import DeepEnsemble as DeepEnsemble

__all__ = [
    "DeepEnsemble",
]
