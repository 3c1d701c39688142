"""The object a user holds after `predict`: a batch of multivariate normals, in NumPy float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import Any, Self, final

import numpy as np

from keras_mvn._checks import (
    finite,
    names_of_targets,
    probability,
    square,
    symmetric,
    whole,
)
from keras_mvn.covariances import DEFAULT, Cholesky, Covariance, CovarianceLike, PrecisionCholesky
from keras_mvn.layouts import Reader
from keras_mvn.types import Array

__all__ = ["MultivariateNormal"]


@final
class MultivariateNormal:
    """A batch of multivariate normal distributions N(μ, Σ), for analysis in float64.

    From a model's prediction, `head.distribution(y_pred)` or `from_prediction`; or from a mean and
    exactly one of covariance, scale_tril and precision. Batch axes may be any number, none too:
    `len`, indexing and slicing act on them.

    Args:
        mean: (..., d).
        covariance: Σ, (..., d, d) symmetric positive definite, in squared units of y.
        scale_tril: L with Σ = L Lᵀ, (..., d, d) lower with a positive diagonal.
        precision: Σ⁻¹, (..., d, d) symmetric positive definite.
        target_names: d names.

    Raises:
        ValueError: not exactly one of the three, shapes that don't fit, values that are not
            finite, or a matrix that is not symmetric positive definite.

    >>> import numpy as np
    >>> normal = MultivariateNormal([1.0, 2.0], covariance=[[4.0, 3.0], [3.0, 9.0]])
    >>> normal.stddev, normal.correlation[0, 1]
    (array([2., 3.]), np.float64(0.5))
    >>> normal.log_prob([1.0, 2.0]).round(4)
    np.float64(-3.4858)

    """

    def __init__(
        self,
        mean: Any,
        *,
        covariance: Any = None,
        scale_tril: Any = None,
        precision: Any = None,
        target_names: Sequence[str] | None = None,
    ) -> None:
        location = finite(mean, "mean")
        given = {
            name: square(value, name, location.shape[-1:])
            for name, value in (
                ("covariance", covariance),
                ("scale_tril", scale_tril),
                ("precision", precision),
            )
            if value is not None
        }
        if len(given) != 1:
            raise ValueError(
                "MultivariateNormal takes exactly one of covariance, scale_tril and precision; "
                f"received {sorted(given) or 'none'}."
            )
        ((name, matrix),) = given.items()
        structure, scale, shape_params = _READ[name](matrix)
        self._set(structure, location, scale, shape_params, target_names)

    def _set(
        self,
        structure: Covariance,
        mean: Array,
        scale: Array,
        shape_params: Array,
        target_names: Sequence[str] | None,
    ) -> None:
        d = mean.shape[-1]
        batch = _common_batch(mean, scale)
        self._structure = structure.wire
        self._mean = np.broadcast_to(mean, (*batch, d))
        self._scale = np.broadcast_to(scale, (*batch, d))
        self._shape_params = np.broadcast_to(shape_params, (*batch, shape_params.shape[-1]))
        self.target_names = names_of_targets(target_names, d)

    @classmethod
    def _of(
        cls,
        structure: Covariance,
        mean: Array,
        scale: Array,
        shape_params: Array,
        target_names: Sequence[str] | None,
    ) -> Self:
        normal = cls.__new__(cls)
        normal._set(structure, mean, scale, shape_params, target_names)
        return normal

    @classmethod
    def from_prediction(
        cls,
        y_pred: Any,
        covariance: CovarianceLike = DEFAULT,
        from_raw: bool = False,
        layout: str = "packed",
        target_names: Sequence[str] | None = None,
    ) -> Self:
        """The distributions a model predicted.

        Args:
            y_pred: what `model.predict` gave, (..., 2 d + k) in the packed layout.
            covariance: the head's structure; `head.distribution` knows it.
            from_raw: as the loss was told.
            layout: as the loss was told.
            target_names: d names.

        Raises:
            ValueError: y_pred of a width that the structure cannot read, values that are not
                finite, or scales that are not positive.

        >>> normal = MultivariateNormal.from_prediction([[1.0, 2.0, 0.5, 0.5, 0.0]])
        >>> normal
        MultivariateNormal(batch_shape=(1,), event_size=2, covariance='cholesky')

        """
        reader = Reader(covariance, from_raw, layout)
        try:
            with np.errstate(all="ignore"):  # judged below
                parameters = reader.decode(finite(y_pred, "y_pred"))
            valid = (parameters.scale > 0) & np.isfinite(parameters.scale)
            if not valid.all() or not np.isfinite(parameters.shape_params).all():
                raise np.linalg.LinAlgError
        except np.linalg.LinAlgError:
            raise ValueError(
                "y_pred holds scales that are not positive, or a matrix that is not positive "
                f"definite. Is covariance={reader.covariance.name!r} the structure that wrote it? "
                "Unconstrained numbers need from_raw=True."
            ) from None
        return cls._of(reader.covariance, *parameters, target_names)

    # --- moments ---------------------------------------------------------------------------------

    @property
    def mean(self) -> Array:
        """μ, in the units of y: (..., d)."""
        return self._mean

    @property
    def covariance(self) -> Array:
        """Σ, in squared units of y: (..., d, d)."""
        return np.asarray(self._structure.covariance(self._scale, self._shape_params))

    @property
    def variance(self) -> Array:
        """The diagonal of Σ: (..., d)."""
        return np.asarray(self._structure.variance(self._scale, self._shape_params))

    @property
    def stddev(self) -> Array:
        """Standard deviations, in the units of y: (..., d)."""
        return np.sqrt(self.variance)

    @property
    def correlation(self) -> Array:
        """Correlation matrices, with an exact unit diagonal: (..., d, d)."""
        r = self._structure.shape_matrix(self._shape_params, self.event_size)
        root = np.sqrt(np.diagonal(r, axis1=-2, axis2=-1))
        correlation = r / root[..., :, None] / root[..., None, :]
        index = np.arange(self.event_size)
        correlation[..., index, index] = 1.0
        return np.asarray(correlation)

    @property
    def scale_tril(self) -> Array:
        """The lower Cholesky factor L of Σ = L Lᵀ: (..., d, d)."""
        return np.asarray(self._structure.scale_tril(self._scale, self._shape_params))

    @property
    def precision(self) -> Array:
        """Σ⁻¹: (..., d, d)."""
        d = self.event_size
        identity = np.broadcast_to(np.eye(d), (*self.batch_shape, d, d))
        columns = np.moveaxis(identity, -1, 0)
        whitened = self._whiten(columns)  # [j, ..., i] = (Σ^(−½))ᵢⱼ
        return np.einsum("i...k,j...k->...ij", whitened, whitened)

    # --- density ---------------------------------------------------------------------------------

    def _whiten(self, residual: Array, observed: Array | None = None) -> Array:
        z, _ = self._structure.standardize(
            residual,
            np.broadcast_to(self._scale, residual.shape),
            np.broadcast_to(
                self._shape_params, (*residual.shape[:-1], self._shape_params.shape[-1])
            ),
            observed,
        )
        return np.asarray(z)

    def mahalanobis(self, y: Any) -> Array:
        """√((y − μ)ᵀ Σ⁻¹ (y − μ)), the distance in standard deviations: (...).

        Args:
            y: (..., d), in the units of y; batch axes broadcast against those of the batch.

        Raises:
            ValueError: the last axis is not d, batch axes don't fit, or values are not finite.

        """
        return np.sqrt((self._whiten(self._residual(y)) ** 2).sum(axis=-1))

    def log_prob(self, y: Any) -> Array:
        """log N(y; μ, Σ), in nats: (...). Arguments and errors as for `mahalanobis`."""
        z = self._whiten(self._residual(y))
        return -0.5 * (z**2).sum(axis=-1) - self.log_scale - 0.5 * self.event_size * _LOG_2PI

    @property
    def log_scale(self) -> Array:
        """½ log det Σ: (...)."""
        zero = np.zeros(self._mean.shape)
        return np.asarray(self._structure.standardize(zero, self._scale, self._shape_params)[1])

    def entropy(self) -> Array:
        """½ log det(2πe Σ), in nats: (...)."""
        return self.log_scale + 0.5 * self.event_size * (1.0 + _LOG_2PI)

    def _residual(self, y: Any) -> Array:
        values = finite(y, "y")
        if values.shape[-1:] != (self.event_size,):
            raise ValueError(
                f"y has shape {values.shape}; these distributions have {self.event_size} targets "
                f"and batch shape {self.batch_shape}, so y must be (..., {self.event_size})."
            )
        try:
            return values - self._mean
        except ValueError:
            raise ValueError(
                f"y has batch shape {values.shape[:-1]}, which does not broadcast against the "
                f"batch shape {self.batch_shape} of the distributions."
            ) from None

    # --- use -------------------------------------------------------------------------------------

    def sample(self, n: int | None = None, seed: Any = None) -> Array:
        """Random draws: (n, ..., d), or (..., d) for n=None.

        Args:
            n: number of draws from each distribution.
            seed: an integer or `numpy.random.Generator`; the same seed gives the same draws.

        """
        draws = () if n is None else (whole(n, "n", "None or a number of draws", 0),)
        shape = (*draws, *self._mean.shape)
        z = np.random.default_rng(seed).standard_normal(shape)
        shape_params = np.broadcast_to(
            self._shape_params, (*shape[:-1], self._shape_params.shape[-1])
        )
        return self._mean + self._scale * np.asarray(self._structure.color(shape_params, z))

    def interval(self, level: float = 0.9) -> tuple[Array, Array]:
        """Lower and upper ends of the central interval of each target alone: (..., d) each.

        Each target is inside its interval with probability `level`; all of them at once are so
        less often.

        Raises:
            ValueError: level is not between 0 and 1.

        """
        central = probability(level, "level")
        reach = NormalDist().inv_cdf(0.5 + 0.5 * central) * self.stddev
        return self._mean - reach, self._mean + reach

    def rescale(self, factor: Any) -> Self:
        """The same distributions with all standard deviations multiplied: Σ' = factor² Σ.

        Args:
            factor: positive, a number or (...) one per distribution.

        """
        factors = finite(factor, "factor")
        if not (factors > 0).all() or factors.shape not in ((), self.batch_shape):
            raise ValueError(
                f"factor={factor!r} must be positive, one number or one per distribution, of shape "
                f"{self.batch_shape}."
            )
        scale = self._scale * factors[..., None]
        return self._of(self._structure, self._mean, scale, self._shape_params, self.target_names)

    def to_scipy(self) -> Any:
        """`scipy.stats.multivariate_normal`: one frozen object, or a list of them for a batch.

        Raises:
            ImportError: SciPy is not installed.

        """
        try:
            from scipy.stats import Covariance as ScipyCovariance
            from scipy.stats import multivariate_normal
        except ImportError as error:
            raise ImportError("to_scipy needs SciPy: pip install scipy") from error
        if self.batch_shape:
            return [normal.to_scipy() for normal in self]
        return multivariate_normal(self.mean, ScipyCovariance.from_cholesky(self.scale_tril))

    # --- a sequence of distributions -------------------------------------------------------------

    @property
    def event_size(self) -> int:
        """d, the number of targets."""
        return int(self._mean.shape[-1])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The batch axes; () for a single distribution."""
        return tuple(self._mean.shape[:-1])

    def __len__(self) -> int:
        if not self.batch_shape:
            raise TypeError("a single MultivariateNormal has no length")
        return self.batch_shape[0]

    def __getitem__(self, index: Any) -> Self:
        """Distributions by index, slice, mask or index array on the batch axes."""
        if not self.batch_shape:
            raise IndexError("a single MultivariateNormal has no batch axis to index")
        count = int(np.prod(self.batch_shape))
        positions = np.arange(count).reshape(self.batch_shape)[index]

        mean, scale, shape_params = (
            parameters.reshape(count, parameters.shape[-1])[positions]
            for parameters in (self._mean, self._scale, self._shape_params)
        )
        return self._of(self._structure, mean, scale, shape_params, self.target_names)

    def __bool__(self) -> bool:
        return True  # also a single one, which has no length

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        targets = "" if self.target_names is None else f", targets={list(self.target_names)}"
        return (
            f"MultivariateNormal(batch_shape={self.batch_shape}, event_size={self.event_size}, "
            f"covariance={self._structure.name!r}{targets})"
        )


_LOG_2PI = float(np.log(2.0 * np.pi))


def _common_batch(mean: Array, scale: Array) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(mean.shape[:-1], scale.shape[:-1])
    except ValueError:
        raise ValueError(
            f"mean has batch shape {mean.shape[:-1]} and the matrices have {scale.shape[:-1]}, "
            "which do not broadcast."
        ) from None


def _from_covariance(matrix: Array) -> tuple[Covariance, Array, Array]:
    return Cholesky(), *Cholesky().from_covariance(symmetric(matrix, "covariance"))


def _from_precision(matrix: Array) -> tuple[Covariance, Array, Array]:
    structure = PrecisionCholesky()
    return structure, *structure.from_precision(symmetric(matrix, "precision"))


def _from_scale_tril(matrix: Array) -> tuple[Covariance, Array, Array]:
    if not (np.diagonal(matrix, axis1=-2, axis2=-1) > 0).all():
        raise ValueError("scale_tril must have a positive diagonal.")
    if np.triu(matrix, 1).any():
        raise ValueError(
            "scale_tril must be lower triangular; entries above its diagonal are not zero. Pass a "
            "covariance matrix as covariance=."
        )
    return Cholesky(), *Cholesky().from_matrix(matrix)


_READ = {
    "covariance": _from_covariance,
    "scale_tril": _from_scale_tril,
    "precision": _from_precision,
}
