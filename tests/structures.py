"""The structures that every battery runs over, for four targets or any number of them."""

from keras_mvn import covariances

STRUCTURES = [
    covariances.get(n)
    for n in ("isotropic", "diagonal", "cholesky", "precision_cholesky", "symmetric")
]


def named(structure):
    return structure.name
