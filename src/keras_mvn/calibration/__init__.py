"""Diagnosis, recalibration and conformal regions, from rows that were not used for training."""

from keras_mvn.calibration._conformal_scores import ConformalScores as ConformalScores
from keras_mvn.calibration._coverage import CoverageCurve as CoverageCurve
from keras_mvn.calibration._slices import Slice as Slice
from keras_mvn.calibration.adaptive_conformal import AdaptiveConformal as AdaptiveConformal
from keras_mvn.calibration.base import Recalibration as Recalibration
from keras_mvn.calibration.conformal_predictor import ConformalPredictor as ConformalPredictor
from keras_mvn.calibration.conformal_predictor import ConformalRegion as ConformalRegion
from keras_mvn.calibration.diagnostics import Diagnosis as Diagnosis
from keras_mvn.calibration.diagnostics import Direction as Direction
from keras_mvn.calibration.diagnostics import diagnose as diagnose
from keras_mvn.calibration.layer import CovarianceMap as CovarianceMap
from keras_mvn.calibration.matrix_scaling import MatrixScaling as MatrixScaling
from keras_mvn.calibration.mondrian_conformal import MondrianConformal as MondrianConformal
from keras_mvn.calibration.per_target import PerTarget as PerTarget
from keras_mvn.calibration.radial_isotonic import RadialIsotonic as RadialIsotonic
from keras_mvn.calibration.split_conformal import SplitConformal as SplitConformal
from keras_mvn.calibration.temperature import Temperature as Temperature

__all__ = [
    "AdaptiveConformal",
    "ConformalPredictor",
    "ConformalRegion",
    "ConformalScores",
    "CovarianceMap",
    "CoverageCurve",
    "Diagnosis",
    "Direction",
    "MatrixScaling",
    "MondrianConformal",
    "PerTarget",
    "RadialIsotonic",
    "Recalibration",
    "Slice",
    "SplitConformal",
    "Temperature",
    "diagnose",
]
