"""Covariance structures: parametrizations of a covariance matrix by the outputs of a network.

Each structure has its own file. `get` resolves a name, an instance or a saved configuration.
"""

from __future__ import annotations

from keras_mvn._core.numeric import namespace as namespace
from keras_mvn.covariances._lookup import CovarianceLike as CovarianceLike
from keras_mvn.covariances._lookup import get as get
from keras_mvn.covariances.banded import Banded as Banded
from keras_mvn.covariances.base import Covariance as Covariance
from keras_mvn.covariances.block_diagonal import BlockDiagonal as BlockDiagonal
from keras_mvn.covariances.cholesky import Cholesky as Cholesky
from keras_mvn.covariances.correlation import Correlation as Correlation
from keras_mvn.covariances.diagonal import Diagonal as Diagonal
from keras_mvn.covariances.isotropic import Isotropic as Isotropic
from keras_mvn.covariances.kronecker import Kronecker as Kronecker
from keras_mvn.covariances.low_rank import LowRank as LowRank
from keras_mvn.covariances.precision_cholesky import PrecisionCholesky as PrecisionCholesky
from keras_mvn.covariances.symmetric import Symmetric as Symmetric
from keras_mvn.covariances.target_summary import TargetSummary as TargetSummary

__all__ = [
    "Banded",
    "BlockDiagonal",
    "Cholesky",
    "Correlation",
    "Covariance",
    "Diagonal",
    "Isotropic",
    "Kronecker",
    "LowRank",
    "PrecisionCholesky",
    "Symmetric",
    "TargetSummary",
    "get",
    "namespace",
]

DEFAULT = "cholesky"
"""The default structure of the head, losses, metrics and distribution (docs/defaults.md)."""
