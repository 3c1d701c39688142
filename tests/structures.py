"""Every structure of the library, with the oracle's name for it: the one list of all batteries."""

import dataclasses
from collections.abc import Callable
from typing import Any

from keras_mvn import covariances
from keras_mvn.covariances import Covariance


@dataclasses.dataclass(frozen=True)
class Case:
    """A structure for any number of targets, and what the oracle calls the one on the wire."""

    name: str
    make: Callable[[int], Covariance]
    wire: Callable[[int], Any]
    holds_everything: bool = True
    """Whether every Σ can be written in it (for d ≤ 3, if not for more)."""


def plain(name, wire=None, **options):
    return Case(name, lambda d: covariances.get(name), lambda d: wire or name, **options)


def table(d):
    """The shape of d targets as a table."""
    return (2, d // 2) if d % 2 == 0 else (1, d)


def groups(d):
    """Two groups of d targets, interleaved and out of order; one if there is only one."""
    return (tuple(range(1, d, 2))[::-1], tuple(range(0, d, 2))) if d > 1 else ((0,),)


def block_diagonal(d, structures):
    return covariances.BlockDiagonal(list(zip(groups(d), structures, strict=False)))


def block_oracle(d, names):
    return "block_diagonal", list(zip(groups(d), names, strict=False))


CASES = [
    plain("isotropic", "diagonal", holds_everything=False),
    plain("diagonal", holds_everything=False),
    plain("cholesky"),
    plain("precision_cholesky"),
    plain("symmetric", "cholesky"),
    plain("correlation"),
    Case("low_rank", lambda d: covariances.LowRank(rank=2), lambda d: ("low_rank", 2)),
    Case("banded", lambda d: covariances.Banded(bandwidth=2), lambda d: ("banded", 2)),
    Case(
        "kronecker",
        lambda d: covariances.Kronecker(table(d)),
        lambda d: ("kronecker", table(d), "precision_cholesky", "precision_cholesky"),
    ),
    Case(
        "block_diagonal",
        lambda d: block_diagonal(d, ["cholesky", covariances.LowRank(1)]),
        lambda d: block_oracle(d, ["cholesky", ("low_rank", 1)]),
        holds_everything=False,
    ),
]
COMPOSED = [
    Case(
        "kronecker of cholesky and correlation",
        lambda d: covariances.Kronecker(table(d), "cholesky", "correlation"),
        lambda d: ("kronecker", table(d), "cholesky", "correlation"),
    ),
    Case(
        "kronecker of low_rank and symmetric",
        lambda d: covariances.Kronecker(table(d), covariances.LowRank(1), "symmetric"),
        lambda d: ("kronecker", table(d), ("low_rank", 1), "cholesky"),
    ),
    Case(
        "blocks of symmetric and isotropic",
        lambda d: block_diagonal(d, ["symmetric", "isotropic"]),
        lambda d: block_oracle(d, ["cholesky", "diagonal"]),
    ),
    Case(
        "blocks of banded and correlation",
        lambda d: block_diagonal(d, [covariances.Banded(1), "correlation"]),
        lambda d: block_oracle(d, [("banded", 1), "correlation"]),
    ),
]
"""Compositions, for the arithmetic of blocks and factors."""

_BLOCKS = [([0, 2], "cholesky"), ([3, 1], "precision_cholesky")]
_OF_FOUR = [
    (covariances.Isotropic(), "diagonal"),
    (covariances.Diagonal(), "diagonal"),
    (covariances.Cholesky(), "cholesky"),
    (covariances.PrecisionCholesky(), "precision_cholesky"),
    (covariances.Symmetric(), "cholesky"),
    (covariances.Correlation(), "correlation"),
    (covariances.LowRank(2), ("low_rank", 2)),
    (covariances.Banded(1), ("banded", 1)),
    (covariances.BlockDiagonal(_BLOCKS), ("block_diagonal", _BLOCKS)),
    (
        covariances.Kronecker((2, 2)),
        ("kronecker", (2, 2), "precision_cholesky", "precision_cholesky"),
    ),
]
STRUCTURES = [structure for structure, _ in _OF_FOUR]
"""One of each, for four targets."""

ORACLE = {structure.name: wire for structure, wire in _OF_FOUR}
"""What the oracle calls those."""

PLAIN = ["isotropic", "diagonal", "cholesky", "precision_cholesky", "symmetric"]
"""Names that need no argument, one for each kind of arithmetic."""


def named(structure):
    return structure.name
