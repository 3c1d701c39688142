"""Scores based on the predicted density at the observed values."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.distributions.base import Distribution, require_distribution
from keras_mvn.scores._observations import Observations

__all__ = ["dawid_sebastiani", "dawid_sebastiani_of", "log_score"]


def log_score(answer: Distribution, y: Any, missing: str = "raise") -> Array:
    """Return the log score −log p(y), the negative log-likelihood in nats: (...).

    Strictly proper, and the only such score that depends on nothing but the density at y (Bernardo
    1979). Changing the units of y adds a constant.

    Args:
        answer: predicted distributions with batch shape (...).
        y: (..., d), observed values in the units of y; batch axes broadcast against those of the
            predictions.
        missing: "marginalize" treats NaN in y as missing: the score is that of the marginal
            distribution of the observed targets, 0 if there are none. By default NaN is an error.

    Raises:
        ValueError: the last axis is not d, batch axes do not fit, or values are not finite.

    Source: Gneiting & Raftery, "Strictly proper scoring rules, prediction, and estimation", JASA
    102 (2007).

    >>> from keras_mvn import MultivariateNormal
    >>> normal = MultivariateNormal([1.0, 2.0], covariance=[[4.0, 3.0], [3.0, 9.0]])
    >>> log_score(normal, [1.0, 2.0]).round(4)
    np.float64(3.4858)

    """
    return -require_distribution(answer).log_prob(y, missing)


def dawid_sebastiani(answer: Distribution, y: Any, missing: str = "raise") -> Array:
    """Return the Dawid–Sebastiani score log det Σ + (y − μ)ᵀ Σ⁻¹ (y − μ): (...).

    Twice the log score minus a constant. It is also proper for predictions that are not normal,
    because it uses only their mean and covariance. Changing the units of y adds a constant.

    Arguments and errors are those of `log_score`; log det Σ is in log squared units of y.

    Source: Dawid & Sebastiani, "Coherent dispersion criteria for optimal experimental design",
    Annals of Statistics 27 (1999).

    >>> from keras_mvn import MultivariateNormal
    >>> normal = MultivariateNormal([1.0, 2.0], covariance=[[4.0, 0.0], [0.0, 9.0]])
    >>> dawid_sebastiani(normal, [3.0, 5.0]).round(4)  # log 36 + 1 + 1
    np.float64(5.5835)

    """
    return Observations.read(answer, y, missing).score(dawid_sebastiani_of)


def dawid_sebastiani_of(rows: Observations) -> Array:
    """Return the score of the observed targets of each row: (n,)."""
    gaussian = rows.answer.moments().parts()[0].gaussian
    z, half_log_det = gaussian.whiten(rows.residual, rows.observed)
    return np.asarray((z**2).sum(axis=-1) + 2.0 * half_log_det)
