"""Refusing what is not a normal distribution, where formulas are of one."""

from __future__ import annotations

from typing import Any

from keras_mvn.distributions.multivariate_normal import MultivariateNormal

__all__ = ["require_normal"]


def require_normal(given: Any) -> None:
    """Scores and calibration are of normal distributions.

    Raises:
        TypeError: it is something else, as what an estimator with a target_transform predicts.

    """
    if isinstance(given, MultivariateNormal):
        return
    if hasattr(given, "moments"):
        way_out = " A mixture's closest normal is `.moments()`."
    elif hasattr(given, "transform"):
        way_out = (
            " What is normal after a transform T of the targets has it as `.normal`: pass that, "
            "and T(y) = `.transform.forward(y)` in the place of y."
        )
    else:
        way_out = " Of a model's prediction, `head.distribution(y_pred)` makes one."
    raise TypeError(f"Expected a MultivariateNormal, received {type(given).__name__}.{way_out}")
