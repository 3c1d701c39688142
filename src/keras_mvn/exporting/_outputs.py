"""Named outputs that an exported file can have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras

from keras_mvn._core.numeric import namespace
from keras_mvn._core.types import Tensor
from keras_mvn.covariances.packing import diagonal
from keras_mvn.exporting._moments import Mixed, Moments
from keras_mvn.layouts import Parameters, Reader

__all__ = ["OUTPUTS", "Output", "checked_outputs", "require_of_its_kind"]


class Output(NamedTuple):
    """One named output."""

    of: Callable[[Reader, Parameters, Tensor], Tensor]
    """Function of the reader, the mean and covariance read from y_pred, and y_pred itself."""
    meaning: str
    """Description for the file's metadata: quantity, shape, units."""
    of_moments: Callable[[Moments], Tensor] | None = None
    """Function of the moments of an ensemble; None if not available for ensembles."""
    of_student_t: bool = False
    """Whether it is that of a Student's t alone."""
    of_mixed: Callable[[Mixed], Tensor] | None = None
    """Function of the components of a network's mixture; None for that of its moments."""

    @property
    def is_of_mixtures(self) -> bool:
        """Whether a network that predicts a mixture has it."""
        return self.of_mixed is not None or self.of_moments is not None

    def computed(self, mixed: Mixed) -> Tensor:
        """Compute the output of a network that predicts a mixture."""
        if self.of_mixed is not None:
            return self.of_mixed(mixed)
        assert self.of_moments is not None  # checked before anything is computed
        return self.of_moments(mixed.moments())


def _stddev(reader: Reader, normal: Parameters, y_pred: Tensor) -> Tensor:
    variance = reader.covariance.variance(normal.scale, normal.shape_params)
    return namespace(variance).sqrt(variance)


def _stddev_of_moments(moments: Moments) -> Tensor:
    variance = moments.variance()
    return namespace(variance).sqrt(variance)


def _correlation(reader: Reader, normal: Parameters, y_pred: Tensor) -> Tensor:
    r = reader.covariance.shape_matrix(normal.shape_params, normal.scale.shape[-1])
    root = namespace(r).sqrt(diagonal(r))
    return r / root[..., :, None] / root[..., None, :]


def _correlation_of_moments(moments: Moments) -> Tensor:
    sigma = moments.covariance()
    root = namespace(sigma).sqrt(diagonal(sigma))
    return sigma / root[..., :, None] / root[..., None, :]


def _covariance(reader: Reader, normal: Parameters, y_pred: Tensor) -> Tensor:
    return reader.covariance.covariance(normal.scale, normal.shape_params)


def _scale_tril(reader: Reader, normal: Parameters, y_pred: Tensor) -> Tensor:
    return reader.covariance.scale_tril(normal.scale, normal.shape_params)


def _scale_matrix(reader: Reader, normal: Parameters, y_pred: Tensor) -> Tensor:
    t, _ = reader.decode_student_t(y_pred)
    return reader.covariance.covariance(t.scale, t.shape_params)


def _degrees_of_freedom(reader: Reader, normal: Parameters, y_pred: Tensor) -> Tensor:
    nu = reader.decode_student_t(y_pred)[1]
    assert nu is not None  # checked before anything is computed
    return nu


def _of_one(reader: Reader, normal: Parameters, y_pred: Tensor) -> Tensor:
    raise AssertionError("outputs of mixtures are refused for other networks")


def _component_covariances(mixed: Mixed) -> Tensor:
    found = [mixed.structure.covariance(one.scale, one.shape_params) for one in mixed.components]
    return keras.ops.stack(found, axis=-3)


OUTPUTS = {
    "mean": Output(
        lambda reader, normal, y_pred: normal.mean,
        "expected targets, (..., d), in the units of the targets",
        lambda moments: moments.mean,
    ),
    "covariance": Output(
        _covariance,
        "covariance matrix of the targets, (..., d, d), in the products of their units",
        lambda moments: moments.covariance(),
    ),
    "scale_tril": Output(
        _scale_tril,
        "lower Cholesky factor L of the covariance L L^T, (..., d, d), row i in the unit of "
        "target i",
    ),
    "stddev": Output(
        _stddev,
        "standard deviations of the targets, (..., d), in the units of the targets",
        _stddev_of_moments,
    ),
    "correlation": Output(
        _correlation,
        "correlation matrix of the targets, (..., d, d), no unit",
        _correlation_of_moments,
    ),
    "scale_matrix": Output(
        _scale_matrix,
        "scale matrix of a Student's t, covariance (nu - 2)/nu, (..., d, d), in the products of "
        "the units of the targets",
        of_student_t=True,
    ),
    "degrees_of_freedom": Output(
        _degrees_of_freedom,
        "degrees of freedom nu of a Student's t, (...), no unit",
        of_student_t=True,
    ),
    "component_weights": Output(
        _of_one,
        "weights of the components of a mixture, (..., n), no unit",
        of_mixed=lambda mixed: keras.ops.stack(mixed.weights, axis=-1),
    ),
    "component_means": Output(
        _of_one,
        "expected targets of each component of a mixture, (..., n, d), in the units of the targets",
        of_mixed=lambda mixed: keras.ops.stack([one.mean for one in mixed.components], axis=-2),
    ),
    "component_covariances": Output(
        _of_one,
        "covariance matrix of each component of a mixture, (..., n, d, d), in the products of the "
        "units of the targets",
        of_mixed=_component_covariances,
    ),
    "y_pred": Output(
        lambda reader, normal, y_pred: y_pred,
        "output of the Keras model, in keras-mvn's own layout",
        of_mixed=lambda mixed: mixed.y_pred,
    ),
}
"""Values that `export(outputs=…)` accepts, in the order of the documentation."""


def checked_outputs(outputs: str | Sequence[str], of_ensemble: bool = False) -> tuple[str, ...]:
    """Check output names and return them as a tuple.

    Raises:
        ValueError: there is no name, or one is unknown, repeated, or not available for ensembles.

    """
    names = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    if not names or len(set(names)) < len(names) or not set(names) <= set(OUTPUTS):
        raise ValueError(
            f"outputs={outputs!r} must name one or more of {list(OUTPUTS)}, each once."
        )
    offered = [name for name, one in OUTPUTS.items() if one.of_moments is not None]
    if of_ensemble and not set(names) <= set(offered):
        raise ValueError(
            f"outputs={outputs!r}: the prediction of an ensemble is a mixture, for which only "
            f"{offered} can be exported. Export a single network for the others."
        )
    return names


def require_of_its_kind(outputs: Sequence[str], reader: Reader) -> None:
    """Check that outputs of a Student's t or of a mixture are asked of a model that predicts one.

    Raises:
        ValueError: the model predicts something else.

    """
    mixture = reader.layout.component is not None
    of_others = [
        name
        for name in outputs
        if (not OUTPUTS[name].is_of_mixtures if mixture else OUTPUTS[name].of is _of_one)
    ]
    if of_others:
        what = "a mixture for each row" if mixture else "one distribution for each row"
        raise ValueError(
            f"outputs={tuple(outputs)!r}: the model predicts {what}, which has no {of_others}. "
            "Leave them out."
        )
    of_t = [name for name in outputs if OUTPUTS[name].of_student_t]
    if of_t and not reader.layout.has_degrees_of_freedom:
        raise ValueError(
            f"outputs={tuple(outputs)!r}: {of_t} are of a Student's t, but the model predicts "
            "normals. Leave them out, or train a head with degrees_of_freedom=…."
        )
