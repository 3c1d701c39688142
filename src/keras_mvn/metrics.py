"""Streaming metrics that read y_pred in the same way as the losses."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple, final

import keras
from keras import ops

from keras_mvn._core.checks import probability
from keras_mvn._core.dtypes import at_least_float32
from keras_mvn._core.names import to_snake_case
from keras_mvn._core.targets import checked_missing
from keras_mvn._core.types import Tensor
from keras_mvn.covariances import DEFAULT, CovarianceLike
from keras_mvn.kernels import elliptical
from keras_mvn.layouts import Parameters, Reader
from keras_mvn.layouts._y_true import Targets, as_tensor, product, read_targets, weighted_events
from keras_mvn.ops._laws import law_of, negative_log_density

__all__ = [
    "CovarianceMetric",
    "Coverage",
    "CoverageError",
    "MeanHalfLogDet",
    "NegativeLogLikelihood",
    "RootMeanSquaredError",
]


class CovarianceMetric(keras.metrics.Metric, abc.ABC):
    """The weighted mean over rows of a statistic of y_true and the parameters in y_pred.

    Subclasses implement `row_statistic`, and `result` if the metric is not the mean itself. Rows of
    weight 0 and masked rows do not count, even where y_true is NaN.

    Args:
        covariance: the structure that wrote y_pred, or its name; use the head's.
        from_raw: bool, whether y_pred holds unconstrained numbers; the same as for the loss.
        layout: "packed", "student_t", "stacked" or "mean_log_variance"; the same as for the loss.
        missing: "marginalize" treats NaN in y_true as missing, and rows with nothing observed do
            not count; the same as for the loss.
        name: as in `keras.metrics.Metric`; None for the class name in snake case.
        dtype: as in `keras.metrics.Metric`; at least float32.

    """

    def __init__(
        self,
        covariance: CovarianceLike = DEFAULT,
        from_raw: bool = False,
        layout: str = "packed",
        missing: str = "propagate",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            name=name or to_snake_case(type(self).__name__), dtype=at_least_float32(dtype)
        )
        self.reader = Reader(covariance, from_raw, layout)
        self.missing = checked_missing(missing, "propagate")
        self.add_totals()

    def add_totals(self) -> None:
        """Create the variables that accumulate the sums over batches."""
        self.total = self.add_variable((), "zeros", name="total", dtype=self.dtype)
        self.weight = self.add_variable((), "zeros", name="weight", dtype=self.dtype)

    def decode(self, y_pred: Tensor) -> Parameters:
        """Return the parameters that are passed to `row_statistic`: normals, for a t also."""
        return self.reader.decode(y_pred)

    @abc.abstractmethod
    def row_statistic(self, targets: Targets, parameters: Parameters) -> Tensor:
        """Return the statistic of each row (...), which is then averaged."""

    @final
    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Add a batch to the metric.

        Raises:
            ValueError: y_true and y_pred do not match (shapes, structure).

        """
        y_true, y_pred = as_tensor(y_true), as_tensor(y_pred)
        self.reader.check(y_true, y_pred, type(self).__name__)
        parameters = self.decode(ops.cast(y_pred, self.dtype))
        mean = parameters.mean
        y_true, weight, mask = weighted_events(y_true, y_pred, mean, sample_weight, self.missing)
        rows = product(ops.ones_like(mean[..., 0]), weight, mask)
        targets = read_targets(y_true, mean, self.missing)
        self.accumulate(self.row_statistic(targets, parameters), self.row_weight(targets, rows))

    def row_weight(self, targets: Targets, weight: Tensor) -> Tensor:
        """Return the weight of each row in the mean (...), from its sample weight (...)."""
        return weight

    def accumulate(self, values: Tensor, weights: Tensor) -> None:
        """Add the statistics of a batch of rows."""
        self.total.assign_add(ops.sum(values * weights))
        self.weight.assign_add(ops.sum(weights))

    def result(self) -> Tensor:
        """Return the weighted mean so far; 0 before the first row."""
        return ops.divide_no_nan(self.total, self.weight)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "missing": self.missing,
            **self.reader.get_config(),
        }


@final
@keras.saving.register_keras_serializable(package="keras_mvn.metrics")
class NegativeLogLikelihood(CovarianceMetric):
    """The mean of −log p(y) per row, in nats: the loss without penalties. Lower is better.

    With missing values, it is that of the observed targets of each row. With `layout="student_t"`,
    p is the density of the Student's t, as in `keras_mvn.losses.StudentT`.

    Arguments are those of `keras_mvn.losses.NegativeLogLikelihood`.

    >>> import numpy as np
    >>> metric = NegativeLogLikelihood()
    >>> metric.update_state(np.zeros((1, 1)), np.array([[0.0, 1.0]]))
    >>> round(float(metric.result()), 4)  # ½ log 2π
    0.9189
    """

    _direction = "down"

    def decode(self, y_pred: Tensor) -> Parameters:
        """Return the parameters as stored, with ν for a Student's t, or of all components."""
        return self.reader.decode_any(y_pred)

    def row_statistic(self, targets: Targets, parameters: Parameters) -> Tensor:
        """Return −log p of each row (...)."""
        return negative_log_density(self.reader.covariance, targets, parameters)


@final
@keras.saving.register_keras_serializable(package="keras_mvn.metrics")
class RootMeanSquaredError(CovarianceMetric):
    """The root mean squared error √mean (y − μ)² over rows and targets, in the units of y.

    Lower is better. Keras' own metric would also compare y with the scales. Targets of different
    units are averaged as they are, so the target with the largest numbers dominates. Safe for y
    from 1e-30 to 1e30.

    Arguments are those of `keras_mvn.losses.NegativeLogLikelihood`.

    >>> import numpy as np
    >>> metric = RootMeanSquaredError()
    >>> metric.update_state(np.array([[3.0]]), np.array([[1.0, 7.0]]))
    >>> float(metric.result())
    2.0
    """

    _direction = "down"

    def add_totals(self) -> None:
        """Create the sums: one of small errors, one of ordinary and one of large ones."""
        self.total = self.add_variable((3,), "zeros", name="total", dtype=self.dtype)
        self.weight = self.add_variable((), "zeros", name="weight", dtype=self.dtype)

    def row_weight(self, targets: Targets, weight: Tensor) -> Tensor:
        """Return the weight of each row, in proportion to its number of observed targets (...)."""
        return weight * targets.observed_count() / targets.values.shape[-1]

    def row_statistic(self, targets: Targets, parameters: Parameters) -> Tensor:
        """Return the root mean square over the observed targets of each row (...)."""
        residual = targets.of_observed(targets.values - parameters.mean)
        largest = _positive(ops.max(ops.abs(residual), axis=-1, keepdims=True, initial=0.0))
        relative = residual / largest
        count = ops.cast(targets.observed_count(), residual.dtype)
        return largest[..., 0] * ops.sqrt(
            ops.divide_no_nan(ops.sum(relative * relative, axis=-1), count)
        )

    def accumulate(self, values: Tensor, weights: Tensor) -> None:
        """Add squares, of which 1e30² and 1e-30² would be infinite and 0, in three units.

        The units are constants, so that sums of several replicas add up.
        """
        ends = _ENDS[keras.backend.standardize_dtype(values.dtype)]
        small, large = values < ends.small, values > ends.large
        ordinary = ops.logical_not(ops.logical_or(small, large))  # NaN too
        groups = zip((small, ordinary, large), ends.units, strict=True)
        squares = [
            ops.where(group, values / unit, ops.zeros_like(values)) ** 2 for group, unit in groups
        ]
        self.total.assign_add(ops.stack([ops.sum(square * weights) for square in squares]))
        self.weight.assign_add(ops.sum(weights))

    def result(self) -> Tensor:
        """Return the root mean squared error so far; 0 before the first row."""
        total = ops.convert_to_tensor(self.total)
        units = _ENDS[keras.backend.standardize_dtype(total.dtype)].units
        roots = ops.sqrt(ops.divide_no_nan(total, self.weight))
        roots = roots * ops.convert_to_tensor(units, dtype=total.dtype)
        largest = _positive(ops.max(roots))
        return largest * ops.sqrt(ops.sum((roots / largest) ** 2))


class _Ends(NamedTuple):
    """Where squares begin to underflow and overflow, and units for numbers beyond."""

    small: float
    large: float
    units: tuple[float, float, float]
    """For numbers below `small`, between the two, and above `large`."""


_ENDS = {
    "float32": _Ends(2.0**-63, 2.0**52, (2.0**-75, 1.0, 2.0**76)),
    "float64": _Ends(2.0**-511, 2.0**486, (2.0**-537, 1.0, 2.0**538)),
}
"""Source: Blue, "A portable Fortran program to find the Euclidean norm of a vector", ACM
Transactions on Mathematical Software 4 (1978), with the constants of LAPACK's nrm2."""


def _positive(x: Tensor) -> Tensor:
    return ops.where(x > 0, x, ops.ones_like(x))


class _EllipsoidMetric(CovarianceMetric):
    """The share of rows inside the joint ellipsoid of probability `level`."""

    def __init__(
        self,
        level: float = 0.9,
        covariance: CovarianceLike = DEFAULT,
        from_raw: bool = False,
        layout: str = "packed",
        missing: str = "propagate",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        self.level = probability(level, "level")
        name = name or f"{to_snake_case(type(self).__name__)}_{100 * self.level:g}"
        super().__init__(covariance, from_raw, layout, missing, name, dtype)

    def decode(self, y_pred: Tensor) -> Parameters:
        """Return the parameters as stored, with ν for a Student's t."""
        return self.reader.decode_elliptical(y_pred)

    def row_statistic(self, targets: Targets, parameters: Parameters) -> Tensor:
        """Return 1 for rows inside, 0 for rows outside, NaN where y is NaN (...)."""
        squared = elliptical(self.reader.covariance, targets, parameters).squared_mahalanobis
        inside = law_of(parameters).inside(squared, targets, self.level)
        return ops.where(ops.isnan(squared), squared, ops.cast(inside, squared.dtype))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "level": self.level}


@final
@keras.saving.register_keras_serializable(package="keras_mvn.metrics")
class Coverage(_EllipsoidMetric):
    """The share of rows inside the joint ellipsoid of probability `level`.

    The ellipsoid is (y − μ)ᵀ Σ⁻¹ (y − μ) ≤ c, where c is the `level` quantile of χ²_d; with
    `layout="student_t"`, Σ is the scale matrix, and c/d is the quantile of F with d and ν degrees
    of freedom. With missing values, d is the number of observed targets of the row. A calibrated
    model has coverage `level`; with less, it is overconfident. Neither higher nor lower is better,
    so monitor `CoverageError`.

    Args:
        level: float between 0 and 1, probability of the ellipsoid.
        name: None for `coverage_90` with level 0.9.

    The other arguments are those of `keras_mvn.losses.NegativeLogLikelihood`.

    Raises:
        ValueError: level is not between 0 and 1.

    >>> import numpy as np
    >>> metric = Coverage(0.9)
    >>> metric.update_state(np.array([[1.0], [2.0]]), np.array([[0.0, 1.0], [0.0, 1.0]]))
    >>> float(metric.result())  # |z| ≤ 1.645
    0.5

    """


@final
@keras.saving.register_keras_serializable(package="keras_mvn.metrics")
class CoverageError(_EllipsoidMetric):
    """The error `|coverage − level|` of the joint ellipsoid's coverage. Lower is better.

    Arguments are those of `Coverage`; the name defaults to `coverage_error_90` for level 0.9.

    >>> import numpy as np
    >>> metric = CoverageError(0.9)
    >>> metric.update_state(np.array([[1.0], [2.0]]), np.array([[0.0, 1.0], [0.0, 1.0]]))
    >>> round(float(metric.result()), 6)
    0.4
    """

    _direction = "down"

    def result(self) -> Tensor:
        """Return `|coverage so far − level|`."""
        return ops.abs(super().result() - self.level)


@final
@keras.saving.register_keras_serializable("keras_mvn.metrics", "MeanLogScale")  # as in 0.1.0
class MeanHalfLogDet(CovarianceMetric):
    """The mean of ½ log det Σ: the log-volume of the predicted ellipsoids, up to a constant.

    Σ is the covariance; for a Student's t, that is ν/(ν − 2) times its scale matrix.

    A falling value means that the model becomes more certain, which is good only while it stays
    calibrated; neither higher nor lower is better. In log units of y, summed over the targets.

    Arguments are those of `keras_mvn.losses.NegativeLogLikelihood`.

    >>> import numpy as np
    >>> metric = MeanHalfLogDet()
    >>> metric.update_state(np.zeros((1, 2)), np.array([[0.0, 0.0, 1.0, np.e, 0.3]]))
    >>> round(float(metric.result()), 6)
    1.0
    """

    def row_statistic(self, targets: Targets, parameters: Parameters) -> Tensor:
        """Return ½ log det Σ of each row (...) for all targets, including missing ones."""
        mean, scale, shape_params = parameters
        zero = ops.zeros_like(mean)
        return self.reader.covariance.standardize(zero, scale, shape_params)[1]
