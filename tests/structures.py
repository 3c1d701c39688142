"""One of every structure, for four targets."""

from keras_mvn import covariances

STRUCTURES = [
    covariances.Isotropic(),
    covariances.Diagonal(),
    covariances.Cholesky(),
    covariances.PrecisionCholesky(),
    covariances.Symmetric(),
    covariances.Correlation(),
    covariances.LowRank(2),
    covariances.Banded(1),
    covariances.BlockDiagonal([([0, 2], "cholesky"), ([3, 1], "precision_cholesky")]),
    covariances.Kronecker((2, 2)),
]


def named(structure):
    return structure.name
