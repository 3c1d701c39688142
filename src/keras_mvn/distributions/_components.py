"""Checks of the components and weights of mixtures."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mvn._core.checks import finite
from keras_mvn._core.types import Array
from keras_mvn.distributions.base import Distribution

__all__ = ["check_components", "checked_log_weights"]


def check_components(components: Any) -> None:
    """Check that components are distributions of the same targets and batch shape.

    Raises:
        TypeError: one is no distribution.
        ValueError: there is none, or they differ.

    """
    if not isinstance(components, Distribution):
        for one in components:
            if not isinstance(one, Distribution):
                raise TypeError(
                    "Mixture: components must be distributions, or one batch of them whose first "
                    f"axis is over the components; received a {type(one).__name__}."
                )
    elif not components.batch_shape:
        raise ValueError(
            "Mixture: components must have a first batch axis, over at least one component, or be "
            "a sequence of distributions; received batch_shape=()."
        )
    if not len(components):
        raise ValueError("Mixture: components must have at least one component; received none.")
    for one in components[1:]:
        components[0].check_same_targets(one)
        if one.batch_shape != components[0].batch_shape:
            raise ValueError(
                f"Mixture: components have the batch shapes {components[0].batch_shape} and "
                f"{one.batch_shape}; they must be equal."
            )


def checked_log_weights(weights: Any, k: int, batch: tuple[int, ...]) -> Array:
    """Return the logarithms of the weights: (k,), or (k, ...) if they differ by row.

    Raises:
        ValueError: they are not k non-negative numbers with sum 1.

    """
    if weights is None:
        return np.full(k, -np.log(k))
    checked = finite(weights, "weights")
    fits = checked.shape in ((k,), (k, *batch)) and not (checked < 0).any()
    if not fits or (np.abs(checked.sum(axis=0) - 1.0) > 1e-6).any():
        raise ValueError(
            f"weights={weights!r} must be {k} numbers ≥ 0 with sum 1, one per component, or "
            f"{(k, *batch)} if they differ by row; received shape {checked.shape} with sum "
            f"{np.ravel(checked.sum(axis=0))[:3].round(6).tolist()}."
        )
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(checked / checked.sum(axis=0)))
