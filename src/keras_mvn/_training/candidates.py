"""What "auto" chooses from: structures, which of them depend on x, tails, inputs."""

from __future__ import annotations

from typing import NamedTuple

from keras_mvn import covariances
from keras_mvn.covariances import Covariance

__all__ = ["Candidate", "candidates", "constant_covariance", "independent", "label_of"]

DENSE_UP_TO = 100
"""Number of targets above which d(d + 1)/2 numbers per row are too many (docs/choosing.md)."""

LOW_RANK_FROM = 20
"""Number of targets below which a low rank saves nothing."""


class Candidate(NamedTuple):
    """A covariance structure, which part of it does not depend on x, its tails, and its inputs.

    Each row may have a mixture of several components. Its inputs may be embedded, and may have the
    predictions of a regressor of some name beside them, which the network then corrects.
    """

    name: str
    covariance: Covariance
    constant: str | None
    tails: str = "normal"
    embedding: str | None = None
    mean: str | None = None
    n_components: int = 1

    @property
    def label(self) -> str:
        """Its name, with its tails unless they are normal, and what its inputs are."""
        return label_of(self.name, self.tails, self.embedding, self.mean, self.n_components)

    def folder(self, member: int) -> str:
        """Folder name for one of its networks when candidates are compared."""
        kind = self.label.replace(", ", "-").replace(" ", "_")
        return f"{kind}-member_{member}"


def label_of(
    name: str,
    tails: str,
    embedding: str | None = None,
    mean: str | None = None,
    n_components: int = 1,
) -> str:
    """Return the name of a structure, with its tails unless normal, and what inputs are."""
    over = None if mean is None else f"over {mean}"
    several = f"{n_components} components" if n_components > 1 else None
    kept = [None if tails == "normal" else tails, embedding, over, several]
    return ", ".join([name, *filter(None, kept)])


def independent() -> Candidate:
    """Return the candidate with independent targets."""
    return Candidate("diagonal", covariances.Diagonal(), None)


def constant_covariance(event_size: int) -> Candidate:
    """Return the candidate with one full covariance (one variance if d = 1) for all rows."""
    one = event_size == 1
    full: Covariance = covariances.Diagonal() if one else covariances.Cholesky()
    return Candidate("constant covariance", full, "covariance")


def candidates(event_size: int) -> list[Candidate]:
    """Return what "auto" tries for d targets, the most promising first, as time may run out."""
    if event_size == 1:
        return [independent(), constant_covariance(event_size)]
    found = [independent()]
    if event_size >= LOW_RANK_FROM:
        rank = min(10, event_size // 4)
        found.insert(0, Candidate("low_rank", covariances.LowRank(rank=rank), None))
    if event_size <= DENSE_UP_TO:
        full = covariances.Cholesky()
        found = [
            Candidate("cholesky", full, None),
            Candidate("constant shape", full, "shape"),
            *found,
            Candidate("precision_cholesky", covariances.PrecisionCholesky(), None),
            constant_covariance(event_size),
        ]
    return found
