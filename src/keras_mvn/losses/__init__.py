"""Losses, one per file, all subclasses of `CovarianceLoss`."""

from keras_mvn.losses.balanced_negative_log_likelihood import (
    BalancedNegativeLogLikelihood as BalancedNegativeLogLikelihood,
)
from keras_mvn.losses.balanced_student_t import BalancedStudentT as BalancedStudentT
from keras_mvn.losses.base import CovarianceLoss as CovarianceLoss
from keras_mvn.losses.base import UnitFreeLoss as UnitFreeLoss
from keras_mvn.losses.beta_negative_log_likelihood import (
    BetaNegativeLogLikelihood as BetaNegativeLogLikelihood,
)
from keras_mvn.losses.crps import CRPS as CRPS
from keras_mvn.losses.energy_score import EnergyScore as EnergyScore
from keras_mvn.losses.faithful_negative_log_likelihood import (
    FaithfulNegativeLogLikelihood as FaithfulNegativeLogLikelihood,
)
from keras_mvn.losses.mixture_negative_log_likelihood import (
    MixtureNegativeLogLikelihood as MixtureNegativeLogLikelihood,
)
from keras_mvn.losses.natural_gradient_negative_log_likelihood import (
    NaturalGradientNegativeLogLikelihood as NaturalGradientNegativeLogLikelihood,
)
from keras_mvn.losses.negative_log_likelihood import NegativeLogLikelihood as NegativeLogLikelihood
from keras_mvn.losses.student_t import StudentT as StudentT
from keras_mvn.losses.variogram_score import VariogramScore as VariogramScore

__all__ = [
    "CRPS",
    "BalancedNegativeLogLikelihood",
    "BalancedStudentT",
    "BetaNegativeLogLikelihood",
    "CovarianceLoss",
    "EnergyScore",
    "FaithfulNegativeLogLikelihood",
    "MixtureNegativeLogLikelihood",
    "NaturalGradientNegativeLogLikelihood",
    "NegativeLogLikelihood",
    "StudentT",
    "UnitFreeLoss",
    "VariogramScore",
]
