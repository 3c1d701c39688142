"""The base class of covariance structures.

A structure is a small, frozen, serializable configuration. It holds neither weights nor d, and is
the only code that knows how to read `shape_params`. Every covariance is Σ = S R S with
S = diag(scale); a structure defines R. The notation is explained in `keras_mvn._core.types`.

A new structure takes one file, with a final subclass of `Covariance`, and one export line;
docs/add_a_covariance.md walks through an example.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, final

import keras
import numpy as np

from keras_mvn._core.names import to_snake_case
from keras_mvn._core.numeric import constant_like, differentiable, namespace
from keras_mvn._core.tensorflow_loops import inside_vectorized_map
from keras_mvn._core.types import Array, Tensor
from keras_mvn.covariances import links
from keras_mvn.covariances._bound import into_ball, out_of_ball
from keras_mvn.covariances._missing_targets import whiten_marginal
from keras_mvn.covariances._solver_free import cholesky
from keras_mvn.covariances.moments import Moments

__all__ = ["REGISTERED", "Covariance", "register"]

REGISTERED: dict[str, type[Covariance]] = {}
"""The structures of this package by name, filled in by `register`."""


@dataclass(frozen=True)
class Covariance(abc.ABC):
    """A parametrization of a covariance matrix Σ = S R S by the outputs of a network.

    A structure must implement `whiten`, `color`, `shape_size`, `shape_matrix` and
    `from_covariance`; the rest is derived here, and overridden only where a structure has a
    cheaper way. All methods except `from_covariance` take both backend tensors and NumPy arrays.
    """

    # --- sizes -----------------------------------------------------------------------------------

    @abc.abstractmethod
    def shape_size(self, event_size: int) -> int:
        """Return k, the number of dimensionless parameters of R for d = `event_size` targets."""

    def raw_size(self, event_size: int) -> int:
        """Return the number of unconstrained network outputs for the covariance: d + k."""
        return event_size + self.shape_size(event_size)

    @property
    def event_size(self) -> int | None:
        """The only d that this structure supports, or None for any number of targets."""
        return None

    @final
    def require(self, event_size: int) -> None:
        """Check that the structure supports this number of targets.

        Raises:
            ValueError: the structure was made for a different d.

        """
        if self.event_size not in (None, event_size):
            raise ValueError(
                f"covariance={self.name!r} was made for {self.event_size} targets, but received "
                f"{event_size}. Use event_size={self.event_size}, or change the arguments of "
                f"{type(self).__name__}."
            )

    def scale_raw_size(self, event_size: int) -> int | None:
        """Return how many of the raw numbers, at the start, set only the scale: d.

        None if scale and shape depend on the same numbers.
        """
        return event_size

    @final
    def packed_size(self, event_size: int) -> int:
        """Return the width of y_pred = [mean | scale | shape_params]: 2 d + k."""
        return 2 * event_size + self.shape_size(event_size)

    # --- the arithmetic --------------------------------------------------------------------------

    @abc.abstractmethod
    def whiten(self, shape_params: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return z = R^(−½) u, standard normal under the model, and half_log_det = ½ log det R."""

    @abc.abstractmethod
    def color(self, shape_params: Tensor, z: Tensor) -> Tensor:
        """Return u = R^½ z, the inverse of `whiten`, used to draw samples."""

    def whiten_vjp(
        self, shape_params: Tensor, u: Tensor, z: Tensor, z_bar: Tensor, half_log_det_bar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return (shape_params_bar, u_bar), the analytic backward pass of `whiten`.

        It holds for any z_bar, so all losses share it. Optional: without this method, the backend
        differentiates `whiten`.
        """
        raise NotImplementedError(
            f"{self.name!r} defines no whiten_vjp; the backend differentiates whiten."
        )

    def whitening_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return K with z = K u, as `whiten` computes it: (..., d, d).

        This whitens the columns of the identity; override it if K is available directly.
        """
        xp = namespace(shape_params)
        batch = xp.sum(shape_params, axis=-1)[..., None, None] * 0.0
        columns = constant_like(np.eye(event_size), shape_params) + batch
        return xp.swapaxes(self.whiten_rows(shape_params, columns), -1, -2)

    def whiten_rows(self, shape_params: Tensor, rows: Tensor) -> Tensor:
        """Whiten m vectors u of each distribution: (..., k), (..., m, d) → (..., m, d).

        This repeats `shape_params` for each vector; override it if reading them once is enough.
        """
        batch = namespace(rows).zeros_like(rows[..., :1])
        return self.whiten_with_vjp(shape_params[..., None, :] + batch, rows)[0]

    def whiten_observed(
        self, shape_params: Tensor, u: Tensor, observed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return z and ½ log det R_oo of the exact marginal of the observed targets.

        ‖z‖² = u_oᵀ R_oo⁻¹ u_o; z has d entries regardless of how many targets are missing. In
        general this takes a QR factorization per row, O(d³).

        Args:
            shape_params: (..., k).
            u: (..., d), finite everywhere; values of missing targets are ignored.
            observed: (..., d), 1 where observed and 0 where missing.

        """
        whitening = self.whitening_matrix(shape_params, u.shape[-1])
        z, half_log_det = whiten_marginal(whitening, u, observed)
        _, whole = self.whiten_with_vjp(shape_params, namespace(u).zeros_like(u))
        return z, whole + half_log_det

    fused_form: ClassVar[str | None] = None
    """The name of the format of `shape_params` in `keras_mvn.kernels`; None if it has none."""

    triangular: ClassVar[bool] = False
    """Whether `coloring_matrix` is lower triangular."""

    def coloring_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return F with u = F z, as `color` computes it, so that R = F Fᵀ: (..., d, d).

        This colors the columns of the identity; override it if F is available directly.
        """
        xp = namespace(shape_params)
        batch = xp.sum(shape_params, axis=-1)[..., None, None] * 0.0
        columns = constant_like(np.eye(event_size), shape_params) + batch
        u = self.color(shape_params[..., None, :] + batch * columns[..., :1], columns)
        return xp.swapaxes(u, -1, -2)

    def inverse_fisher(
        self, scale: Tensor, shape_params: Tensor, scale_bar: Tensor, shape_bar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return F⁻¹ (scale_bar, shape_bar), the natural gradient in (scale, shape_params).

        F is the Fisher matrix of N(μ, Σ). The default uses that of the scales of independent
        targets, 2/scale², and leaves the gradient of the shape unchanged.
        """
        return 0.5 * scale * scale * scale_bar, shape_bar

    @abc.abstractmethod
    def shape_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return the dense shape matrix R: (..., k) → (..., d, d)."""

    @abc.abstractmethod
    def from_covariance(self, covariance: Array) -> tuple[Array, Array]:
        """Return scale and shape_params of Σ: (..., d, d) → (..., d), (..., k), in float64 NumPy.

        Exact if the structure can represent Σ; otherwise the closest approximation, in the sense
        that the structure's docstring defines.
        """

    def moments_rank(self, event_size: int) -> int | None:
        """Return the rank p of the moments that `from_moments` needs (see `moments.estimate`).

        None, the default: the dense covariance. 0: standard deviations only. p: these and the p
        leading directions of the correlation matrix, so that no d × d matrix is formed.
        """
        return None

    def from_moments(self, moments: Moments) -> tuple[Array, Array]:
        """Return scale and shape_params that describe training targets, in float64 NumPy.

        This calls `from_covariance`, unless `moments_rank` asks for less than the dense covariance.
        """
        return self.from_covariance(moments.dense())

    def loadings(self, shape_params: Tensor, event_size: int) -> Tensor | None:
        """Return V (..., d, r) with R = I + V Vᵀ if the structure has this form; otherwise None.

        `merge_last_axes(V)` gives back `shape_params`, for any d, so the structure can also
        represent a V whose rows or columns have been changed.
        """
        return None

    # --- from the raw outputs of a network -------------------------------------------------------

    def shape_bound(self, event_size: int) -> float | None:
        """Return the length below which `constrain` keeps shape_params; None if unbounded."""
        return None

    def constrain(self, raw: Tensor, event_size: int) -> tuple[Tensor, Tensor]:
        """Map unconstrained (..., raw_size) to scale (..., d) and shape_params (..., k).

        Zeros give scale 1 and R = I. Valid for any finite `raw`. The scales go through the link;
        the other numbers stay unchanged, or are mapped smoothly into the ball of `shape_bound`.
        """
        bound = self.shape_bound(event_size)
        shape_params = raw[..., event_size:]
        if bound is not None:
            shape_params = into_ball(shape_params, bound)
        return links.positive(raw[..., :event_size]), shape_params

    def unconstrain(self, scale: Tensor, shape_params: Tensor) -> Tensor:
        """Return the raw numbers that `constrain` maps to these parameters; its inverse.

        Raises:
            ValueError: shape_params in a NumPy array exceed `shape_bound` (tensors give NaN).

        """
        d = scale.shape[-1]
        bound = self.shape_bound(d)
        raw_shape = shape_params
        if bound is not None:
            raw_shape = out_of_ball(shape_params, bound, self.name, d)
        return namespace(raw_shape).concatenate([links.positive_inverse(scale), raw_shape], axis=-1)

    def relocate(
        self, scale: Tensor, shape_params: Tensor, origin_scale: Tensor, origin_shape: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Shift the result of `constrain` so that raw zeros give the covariance of the origin.

        The origin is what `MultivariateNormalHead.adapt` measured on the data, in the units of y.
        """
        return origin_scale * scale, origin_shape + shape_params

    # --- recombination of errors -----------------------------------------------------------------

    @property
    def recombined(self) -> Covariance:
        """The structure of the result of `recombine`: `Cholesky`, which can represent any Σ."""
        return REGISTERED["cholesky"]()

    def recombine(self, scale: Tensor, shape_params: Tensor, lower: Array) -> tuple[Tensor, Tensor]:
        """Return scale and shape_params, for the `recombined` structure, of Σ' = L C Cᵀ Lᵀ.

        L is the Cholesky factor of Σ = L Lᵀ.

        Args:
            scale: (..., d).
            shape_params: (..., k).
            lower: (d, d), the constant C, lower triangular with a positive diagonal.

        """
        unit = namespace(scale).ones_like(scale)
        factor = self.scale_tril(unit, shape_params) @ constant_like(lower, scale)
        relative, shape_params = self.recombined.from_matrix(factor)
        return scale * relative, shape_params

    def from_matrix(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and shape_params from the d × d matrix in `layout="stacked"`.

        Raises:
            ValueError: this structure has no matrix form for the output of a network.

        """
        raise self._no_matrix_form()

    def raw_from_matrix(self, matrix: Tensor) -> Tensor:
        """Return the input of `constrain` from an unconstrained d × d matrix in `layout="stacked"`.

        Raises:
            ValueError: this structure has no matrix form for the output of a network.

        """
        raise self._no_matrix_form()

    def _no_matrix_form(self) -> ValueError:
        return ValueError(
            f"layout='stacked' contains a d × d matrix, which covariance={self.name!r} does not "
            "support. Use 'cholesky' (the factor of Σ), 'precision_cholesky' (the factor of Σ⁻¹) "
            "or 'symmetric' (Σ itself), or layout='packed'."
        )

    # --- derived ---------------------------------------------------------------------------------

    @property
    def links_separately(self) -> bool:
        """Whether `constrain` and `relocate` are not overridden; one kernel can then do both."""
        own = type(self)
        return own.constrain is Covariance.constrain and own.relocate is Covariance.relocate

    @property
    def wire(self) -> Covariance:
        """The structure that reads y_pred: this one, or one that differs only in `constrain`."""
        return self

    @property
    def name(self) -> str:
        """The name of this structure in `keras_mvn.covariances.get`."""
        return to_snake_case(type(self).__name__)

    @final
    def standardize(
        self,
        residual: Tensor,
        scale: Tensor,
        shape_params: Tensor,
        observed: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return z and half_log_det = ½ log det Σ for y − mean, which determine the likelihood.

        −log p(y) = ½ ‖z‖² + half_log_det + ½ d log 2π. Differentiable in all arguments, with the
        structure's analytic gradient. The residual is divided by the scale before anything is
        squared, so units cause neither overflow nor underflow.

        Args:
            residual: (..., d), y − mean, with any finite number for a missing value.
            scale: (..., d), positive.
            shape_params: (..., k).
            observed: (..., d), 1 where observed and 0 where missing; None if all are observed. With
                it, z and half_log_det are those of the observed targets, whose number takes the
                place of d. For a batch without missing values, this costs nothing extra.

        """
        xp = namespace(residual)
        u = differentiable(
            lambda residual, scale: residual / scale,
            lambda u_bar, u, _, scale: (u_bar / scale, -(u_bar * u) / scale),
            residual,
            scale,
        )
        if observed is None:
            z, half_log_det = self.whiten_with_vjp(shape_params, u)
            return z, xp.sum(xp.log(scale), axis=-1) + half_log_det
        z, half_log_det = self._whiten_where_observed(shape_params, u, observed)
        return z, xp.sum(xp.log(scale) * observed, axis=-1) + half_log_det

    def _whiten_where_observed(
        self, shape_params: Tensor, u: Tensor, observed: Tensor
    ) -> tuple[Tensor, Tensor]:
        xp = namespace(u, observed)

        def with_gaps() -> tuple[Tensor, Tensor]:
            return self.whiten_observed(shape_params, u, observed)

        def without_gaps() -> tuple[Tensor, Tensor]:
            return self.whiten_with_vjp(shape_params, u)

        if xp is np:
            return without_gaps() if (observed > 0).all() else with_gaps()
        if inside_vectorized_map():  # each element would take both branches
            return with_gaps()
        return xp.cond(xp.all(observed > 0), without_gaps, with_gaps)

    @final
    def whiten_with_vjp(self, shape_params: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Call `whiten` with the gradient of `whiten_vjp`, for structures composed of others."""
        if type(self).whiten_vjp is Covariance.whiten_vjp:
            return self.whiten(shape_params, u)
        xp = namespace(u)

        def forward(shape_params: Tensor, u: Tensor) -> Tensor:
            z, half_log_det = self.whiten(shape_params, u)
            return xp.concatenate([z, half_log_det[..., None]], axis=-1)

        def vjp(bar: Tensor, output: Tensor, shape_params: Tensor, u: Tensor) -> Any:
            return self.whiten_vjp(shape_params, u, output[..., :-1], bar[..., :-1], bar[..., -1])

        output = differentiable(forward, vjp, shape_params, u)
        return output[..., :-1], output[..., -1]

    @final
    def scale_tril(self, scale: Tensor, shape_params: Tensor) -> Tensor:
        """Return the lower Cholesky factor L of Σ = L Lᵀ: (..., d, d)."""
        if self.triangular:
            return scale[..., None] * self.coloring_matrix(shape_params, scale.shape[-1])
        r = self.shape_matrix(shape_params, scale.shape[-1])
        return scale[..., None] * cholesky(r)

    def variance(self, scale: Tensor, shape_params: Tensor) -> Tensor:
        """Return the diagonal of Σ: (..., d)."""
        xp = namespace(scale)
        r = self.shape_matrix(shape_params, scale.shape[-1])
        return scale * scale * xp.diagonal(r, axis1=-2, axis2=-1)

    @final
    def covariance(self, scale: Tensor, shape_params: Tensor) -> Tensor:
        """Return the dense covariance matrix Σ = S R S: (..., d, d)."""
        r = self.shape_matrix(shape_params, scale.shape[-1])
        return scale[..., :, None] * r * scale[..., None, :]

    # --- configuration ---------------------------------------------------------------------------

    @final
    def get_config(self) -> dict[str, Any]:
        """Return the fields of the structure, including nested structures, serialized by Keras."""
        return {field.name: _serialized(getattr(self, field.name)) for field in fields(self)}

    @final
    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Create the structure from its configuration."""
        return cls(**config)

    @final
    def explain_sizes(self, event_size: int) -> str:
        """Describe the width of y_pred for d targets, for error messages."""
        d, k = event_size, self.shape_size(event_size)
        return (
            f"{self.name!r} needs {2 * d + k} numbers for {d} targets "
            f"({d} for the mean, {d} for the scale, {k} for the shape)"
        )

    @final
    def event_size_of(self, width: int) -> int | None:
        """Return the d for which y_pred has this width, or None if there is none."""
        return next((d for d in self._event_sizes(width) if self.packed_size(d) == width), None)

    @final
    def event_size_of_raw(self, width: int) -> int | None:
        """Return the d for which `[mean (d) | raw (raw_size)]` has this width, or None."""
        return next((d for d in self._event_sizes(width) if d + self.raw_size(d) == width), None)

    def _event_sizes(self, width: int) -> Iterable[int]:
        return range(1, width + 1) if self.event_size is None else (self.event_size,)


def register(cls: type[Covariance]) -> type[Covariance]:
    """Register a structure under its name, and make it loadable from a `.keras` file."""
    REGISTERED[to_snake_case(cls.__name__)] = cls
    keras.saving.register_keras_serializable(package="keras_mvn.covariances")(cls)
    return cls


def _serialized(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_serialized(element) for element in value]
    return keras.saving.serialize_keras_object(value) if isinstance(value, Covariance) else value
