"""A check for functions whose formulas need a normal distribution."""

from __future__ import annotations

from typing import Any

from keras_mvn.distributions.multivariate_normal import MultivariateNormal

__all__ = ["require_normal"]


def require_normal(given: Any) -> None:
    """Check that scores or calibration received a MultivariateNormal.

    Raises:
        TypeError: it is something else, such as a prediction with a target_transform.

    """
    if isinstance(given, MultivariateNormal):
        return
    if hasattr(given, "moments"):
        way_out = " Its closest normal is `.moments()`; pass that instead."
    elif hasattr(given, "transform"):
        way_out = (
            " It is normal only after a transform T of the targets: pass `.normal`, the "
            "distribution of T(y), and T(y) = `.transform.forward(y)` in place of y."
        )
    else:
        way_out = " For the predictions of a model, pass `head.distribution(y_pred)`."
    raise TypeError(f"Expected a MultivariateNormal, received {type(given).__name__}.{way_out}")
