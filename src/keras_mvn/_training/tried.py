"""Candidates that were trained, and their scores on held-out rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from keras_mvn._training.candidates import Candidate
from keras_mvn._training.recipe import Recipe
from keras_mvn._training.scoring import Scored
from keras_mvn._training.train import Trained

__all__ = ["Tried", "best_first"]


class Tried(NamedTuple):
    """A trained candidate."""

    candidate: Candidate
    validation_nll: float
    """Mean over the held-out rows; for a candidate that was given up, an estimate."""
    recipe: Recipe
    trained: list[Trained]
    """One network for each part, or fewer if the first ones were clearly worse than others."""
    scored: Scored

    weight: float = 0.0
    """Its weight in the mixture that predicts."""

    def summary(self) -> dict[str, Any]:
        """Return a summary for users."""
        return {
            **self.candidate._asdict(),
            "weight": self.weight,
            "validation_nll": self.validation_nll,
            "networks": len(self.trained),
            "epochs": max(one.epochs for one in self.trained),
            "seconds": sum(one.seconds for one in self.trained),
        }


def best_first(tried: Iterable[Tried]) -> list[Tried]:
    """Sort candidates by their NLL on the validation rows."""
    return sorted(
        tried, key=lambda one: np.inf if np.isnan(one.validation_nll) else one.validation_nll
    )
