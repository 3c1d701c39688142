"""Gaussians from a mean and a matrix, with or without labels, and from a model's predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_mvn._core.checks import finite, lower_triangular, square, symmetric
from keras_mvn._core.targets import names_of_targets
from keras_mvn._core.types import Array
from keras_mvn.covariances import Cholesky, Covariance, PrecisionCholesky
from keras_mvn.distributions._arguments import labels, mean_in_order, ordered_by_labels
from keras_mvn.distributions._gaussian import Gaussian
from keras_mvn.layouts import Reader

__all__ = ["decoded", "from_matrix"]

Names = tuple[str, ...] | None


def from_matrix(
    who: str,
    mean: Any,
    matrices: Mapping[str, Any],
    target_names: Sequence[str] | None,
    mean_name: str = "mean",
) -> tuple[Gaussian, Names]:
    """Return the Gaussian of a mean and exactly one matrix, and the names of its targets.

    Args:
        who: name of the class, for error messages.
        mean: (..., d).
        matrices: the arguments that hold a matrix, all but one of them None.
        target_names: names, or None for the labels of mean or matrix.
        mean_name: name of the argument `mean`.

    Raises:
        ValueError: as for `MultivariateNormal`.

    """
    given = {name: value for name, value in matrices.items() if value is not None}
    if len(given) != 1:
        *others, last = matrices
        raise ValueError(
            f"{who} takes exactly one of {', '.join(others)} and {last}; "
            f"received {sorted(given) or 'none'}."
        )
    ((name, value),) = given.items()
    found = labels(mean) if target_names is None else target_names
    location = finite(mean_in_order(mean, found), mean_name)
    matrix = square(ordered_by_labels(value, name, found), name, location.shape[-1:])
    gaussian = _on_common_batch(location, *_READ[name](matrix, name), mean_name)
    return gaussian, names_of_targets(found or labels(value), location.shape[-1])


def decoded(y_pred: Any, reader: Reader) -> tuple[Gaussian, Array | None]:
    """Return the Gaussian of a model's predictions, and ν if the layout has it.

    Raises:
        ValueError: as for `MultivariateNormal.from_prediction`.

    """
    try:
        with np.errstate(all="ignore"):  # checked below
            parameters, nu = reader.decode_student_t(finite(y_pred, "y_pred"))
        valid = (parameters.scale > 0) & np.isfinite(parameters.scale)
        if not valid.all() or not np.isfinite(parameters.shape_params).all():
            raise np.linalg.LinAlgError
    except np.linalg.LinAlgError:
        raise ValueError(
            "y_pred contains scales that are not positive, or a matrix that is not positive "
            f"definite. Is covariance={reader.covariance.name!r} the structure of the head? "
            "For unconstrained outputs, pass from_raw=True."
        ) from None
    mean, scale, shape_params = parameters
    gaussian = _on_common_batch(mean, reader.covariance, scale, shape_params, "mean")
    return gaussian, None if nu is None else np.asarray(nu, dtype=np.float64)


def _on_common_batch(
    mean: Array, structure: Covariance, scale: Array, shape_params: Array, mean_name: str
) -> Gaussian:
    try:
        batch = np.broadcast_shapes(mean.shape[:-1], scale.shape[:-1])
    except ValueError:
        raise ValueError(
            f"{mean_name} has batch shape {mean.shape[:-1]} and the matrices have "
            f"{scale.shape[:-1]}, which do not broadcast."
        ) from None
    return Gaussian(structure.wire, mean, scale, shape_params).on_batch(batch)


def _from_covariance(matrix: Array, name: str) -> tuple[Covariance, Array, Array]:
    return Cholesky(), *Cholesky().from_covariance(symmetric(matrix, name))


def _from_precision(matrix: Array, name: str) -> tuple[Covariance, Array, Array]:
    structure = PrecisionCholesky()
    return structure, *structure.from_precision(symmetric(matrix, name))


def _from_scale_tril(matrix: Array, name: str) -> tuple[Covariance, Array, Array]:
    return Cholesky(), *Cholesky().from_matrix(lower_triangular(matrix, name))


_READ = {
    "covariance": _from_covariance,
    "scale_matrix": _from_covariance,
    "scale_tril": _from_scale_tril,
    "precision": _from_precision,
}
