"""The contract of a covariance structure.

A structure is a small, frozen, serializable configuration. It holds no weights and no d; it is
the only code that knows how to read `shape_params`. Every covariance is Σ = S R S with
S = diag(scale); a structure says what R is. The notation is in `keras_mvn._core.types`.

A new structure is one file with a final class over `Covariance` and one export line:
docs/add_a_covariance.md walks through one.
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
from keras_mvn._core.types import Array, Tensor
from keras_mvn.covariances import links
from keras_mvn.covariances._bound import into_ball, out_of_ball
from keras_mvn.covariances._marginal import whiten_marginal
from keras_mvn.covariances._solver_free import cholesky
from keras_mvn.covariances.moments import Moments

__all__ = ["REGISTERED", "Covariance", "register"]

REGISTERED: dict[str, type[Covariance]] = {}
"""The structures of this package by name, as `register` found them."""


@dataclass(frozen=True)
class Covariance(abc.ABC):
    """How a network's numbers describe a covariance matrix Σ = S R S.

    Abstract: `whiten`, `color`, `shape_size`, `shape_matrix` and `from_covariance` make a
    structure; the rest is derived here and overridden only where a structure knows a cheaper way.
    All methods but `from_covariance` take backend tensors and NumPy arrays alike.
    """

    # --- sizes -----------------------------------------------------------------------------------

    @abc.abstractmethod
    def shape_size(self, event_size: int) -> int:
        """k, how many dimensionless numbers describe R for d = `event_size` targets."""

    def raw_size(self, event_size: int) -> int:
        """How many unconstrained numbers a network emits for the covariance: d + k."""
        return event_size + self.shape_size(event_size)

    @property
    def event_size(self) -> int | None:
        """The only d that this structure describes; None: any number of targets."""
        return None

    @final
    def require(self, event_size: int) -> None:
        """Refuse a number of targets other than the structure's own.

        Raises:
            ValueError: the structure was made for another d.

        """
        if self.event_size not in (None, event_size):
            raise ValueError(
                f"covariance={self.name!r} was made for {self.event_size} targets; here there are "
                f"{event_size}. Use event_size={self.event_size}, or give {type(self).__name__} "
                "other arguments."
            )

    def scale_raw_size(self, event_size: int) -> int | None:
        """How many of the raw numbers, the first ones, set the scale and nothing else: d.

        None if scale and shape come out of the same numbers.
        """
        return event_size

    @final
    def packed_size(self, event_size: int) -> int:
        """Width of y_pred = [mean | scale | shape_params]: 2 d + k."""
        return 2 * event_size + self.shape_size(event_size)

    # --- the arithmetic --------------------------------------------------------------------------

    @abc.abstractmethod
    def whiten(self, shape_params: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """z = R^(−½) u, standard normal under the model, and half_log_det = ½ log det R."""

    @abc.abstractmethod
    def color(self, shape_params: Tensor, z: Tensor) -> Tensor:
        """u = R^½ z, the inverse of `whiten`: how samples are drawn."""

    def whiten_vjp(
        self, shape_params: Tensor, u: Tensor, z: Tensor, z_bar: Tensor, half_log_det_bar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The analytic backward pass of `whiten`: (shape_params_bar, u_bar).

        For any z_bar, so that every loss shares it. Optional: a structure that does not override
        this method is differentiated by the backend.
        """
        raise NotImplementedError(f"{self.name!r} leaves the gradient of whiten to the backend.")

    def whitening_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """K with z = K u, as `whiten` computes it: (..., d, d).

        Whitens the columns of the identity; override it where K is at hand.
        """
        xp = namespace(shape_params)
        batch = xp.sum(shape_params, axis=-1)[..., None, None] * 0.0
        columns = constant_like(np.eye(event_size), shape_params) + batch
        return xp.swapaxes(self.whiten_rows(shape_params, columns), -1, -2)

    def whiten_rows(self, shape_params: Tensor, rows: Tensor) -> Tensor:
        """z of several u of one distribution: (..., k), (..., m, d) → (..., m, d).

        Repeats `shape_params` for each; override it where they can be read once.
        """
        batch = namespace(rows).zeros_like(rows[..., :1])
        return self.whiten_with_vjp(shape_params[..., None, :] + batch, rows)[0]

    def whiten_observed(
        self, shape_params: Tensor, u: Tensor, observed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """z and ½ log det R_oo of the observed targets alone: their exact marginal.

        ‖z‖² = u_oᵀ R_oo⁻¹ u_o; z has d entries whatever is missing. In general a QR factorization
        per row, O(d³).

        Args:
            shape_params: (..., k).
            u: (..., d); finite also where nothing was observed, where it takes no part.
            observed: (..., d), 1 or 0.

        """
        whitening = self.whitening_matrix(shape_params, u.shape[-1])
        z, half_log_det = whiten_marginal(whitening, u, observed)
        _, whole = self.whiten_with_vjp(shape_params, namespace(u).zeros_like(u))
        return z, whole + half_log_det

    fused_form: ClassVar[str | None] = None
    """The name under which `keras_mvn.kernels` knows how to read `shape_params`; None: not."""

    triangular: ClassVar[bool] = False
    """Whether `coloring_matrix` is lower triangular."""

    def coloring_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """F with u = F z, as `color` computes it, so that R = F Fᵀ: (..., d, d).

        Colors the columns of the identity; override it where F is at hand.
        """
        xp = namespace(shape_params)
        batch = xp.sum(shape_params, axis=-1)[..., None, None] * 0.0
        columns = constant_like(np.eye(event_size), shape_params) + batch
        u = self.color(shape_params[..., None, :] + batch * columns[..., :1], columns)
        return xp.swapaxes(u, -1, -2)

    def inverse_fisher(
        self, scale: Tensor, shape_params: Tensor, scale_bar: Tensor, shape_bar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """F⁻¹ (scale_bar, shape_bar): the natural gradient of (scale, shape_params).

        F is the Fisher matrix of N(μ, Σ). Unless a structure overrides it: F of the scales of
        independent targets, 2/scale², and the shape's gradient as it is.
        """
        return 0.5 * scale * scale * scale_bar, shape_bar

    @abc.abstractmethod
    def shape_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """The dense shape matrix R: (..., k) → (..., d, d)."""

    @abc.abstractmethod
    def from_covariance(self, covariance: Array) -> tuple[Array, Array]:
        """Scale and shape_params of Σ: (..., d, d) → (..., d), (..., k), in float64 NumPy.

        Exact where the structure can hold Σ, else the closest it can, as its docstring says.
        """

    def moments_rank(self, event_size: int) -> int | None:
        """What `from_moments` needs of training targets (see `moments.estimate`).

        None, the default: their dense covariance. 0: standard deviations alone. p: those, and the
        p leading directions of their correlation, so that nothing of size d × d is formed.
        """
        return None

    def from_moments(self, moments: Moments) -> tuple[Array, Array]:
        """Scale and shape_params that describe training targets, in float64 NumPy.

        `from_covariance`, unless `moments_rank` asks for less than the dense covariance.
        """
        return self.from_covariance(moments.dense())

    def loadings(self, shape_params: Tensor, event_size: int) -> Tensor | None:
        """V (..., d, r) with R = I + V Vᵀ if the structure has that form; None if it does not.

        `merge_last_axes` of such a V is the `shape_params` that it was read from, for any d: what
        is done to the rows of V or to its columns stays in the structure.
        """
        return None

    # --- from what a network emits ---------------------------------------------------------------

    def shape_bound(self, event_size: int) -> float | None:
        """The length below which `constrain` keeps shape_params; None: any length is fine."""
        return None

    def constrain(self, raw: Tensor, event_size: int) -> tuple[Tensor, Tensor]:
        """Unconstrained (..., raw_size) → scale (..., d) and shape_params (..., k).

        Zeros give scale 1 and R = I. Valid for any finite `raw`. The link for the scales; the
        other numbers as they are, or smoothly into the ball of `shape_bound`.
        """
        bound = self.shape_bound(event_size)
        shape_params = raw[..., event_size:]
        if bound is not None:
            shape_params = into_ball(shape_params, bound)
        return links.positive(raw[..., :event_size]), shape_params

    def unconstrain(self, scale: Tensor, shape_params: Tensor) -> Tensor:
        """The raw numbers that `constrain` turns into these: its inverse.

        Raises:
            ValueError: NumPy arguments with shape_params beyond `shape_bound` (NaN for tensors).

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
        """Move what `constrain` gives so that raw zeros stand for the origin's covariance.

        The origin is what `MultivariateNormalHead.adapt` read off the data, in the units of y.
        """
        return origin_scale * scale, origin_shape + shape_params

    # --- errors recombined -----------------------------------------------------------------------

    @property
    def recombined(self) -> Covariance:
        """The structure of what `recombine` gives: `Cholesky`, which holds any."""
        return REGISTERED["cholesky"]()

    def recombine(self, scale: Tensor, shape_params: Tensor, lower: Array) -> tuple[Tensor, Tensor]:
        """Scale and shape_params, as `recombined` reads them, of Σ' = L C Cᵀ Lᵀ, Σ = L Lᵀ.

        Args:
            scale: (..., d).
            shape_params: (..., k).
            lower: C, (d, d), a constant, lower triangular with a positive diagonal.

        """
        unit = namespace(scale).ones_like(scale)
        factor = self.scale_tril(unit, shape_params) @ constant_like(lower, scale)
        relative, shape_params = self.recombined.from_matrix(factor)
        return scale * relative, shape_params

    def from_matrix(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shape_params from the d × d matrix that `layout="stacked"` carries.

        Raises:
            ValueError: this structure has no matrix form that a network would emit.

        """
        raise self._no_matrix_form()

    def raw_from_matrix(self, matrix: Tensor) -> Tensor:
        """The numbers `constrain` takes, from an unconstrained d × d matrix of the same layout.

        Raises:
            ValueError: this structure has no matrix form that a network would emit.

        """
        raise self._no_matrix_form()

    def _no_matrix_form(self) -> ValueError:
        return ValueError(
            f"layout='stacked' carries a d × d matrix, which covariance={self.name!r} does not "
            "read. Use 'cholesky' (the factor of Σ), 'precision_cholesky' (the factor of Σ⁻¹) or "
            "'symmetric' (Σ itself), or layout='packed'."
        )

    # --- derived ---------------------------------------------------------------------------------

    @property
    def links_separately(self) -> bool:
        """Whether `constrain` and `relocate` are this class's own: one kernel then does both."""
        own = type(self)
        return own.constrain is Covariance.constrain and own.relocate is Covariance.relocate

    @property
    def wire(self) -> Covariance:
        """The structure that reads this one's y_pred; itself, unless only `constrain` differs."""
        return self

    @property
    def name(self) -> str:
        """The name by which `keras_mvn.covariances.get` finds this structure."""
        return to_snake_case(type(self).__name__)

    @final
    def standardize(
        self,
        residual: Tensor,
        scale: Tensor,
        shape_params: Tensor,
        observed: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """z and half_log_det = ½ log det Σ of y − mean: all that a likelihood needs.

        −log p(y) = ½ ‖z‖² + half_log_det + ½ d log 2π. Differentiable in all arguments, with the
        structure's analytic gradient; the residual is divided by the scale before anything is
        squared, so units neither over- nor underflow.

        Args:
            residual: (..., d), y − mean; any finite number where nothing was observed.
            scale: (..., d), positive.
            shape_params: (..., k).
            observed: (..., d), 1 or 0; None is all. With it, z and half_log_det are those of the
                observed targets alone, whose number takes the place of d. A batch without gaps
                costs what it costs without this argument.

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
        return xp.cond(xp.all(observed > 0), without_gaps, with_gaps)

    @final
    def whiten_with_vjp(self, shape_params: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """`whiten` with the gradient of `whiten_vjp`: for structures made of others."""
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
        """The lower Cholesky factor L of Σ = L Lᵀ: (..., d, d)."""
        if self.triangular:
            return scale[..., None] * self.coloring_matrix(shape_params, scale.shape[-1])
        r = self.shape_matrix(shape_params, scale.shape[-1])
        return scale[..., None] * cholesky(r)

    def variance(self, scale: Tensor, shape_params: Tensor) -> Tensor:
        """The diagonal of Σ: (..., d)."""
        xp = namespace(scale)
        r = self.shape_matrix(shape_params, scale.shape[-1])
        return scale * scale * xp.diagonal(r, axis1=-2, axis2=-1)

    @final
    def covariance(self, scale: Tensor, shape_params: Tensor) -> Tensor:
        """The dense covariance matrix Σ = S R S: (..., d, d)."""
        r = self.shape_matrix(shape_params, scale.shape[-1])
        return scale[..., :, None] * r * scale[..., None, :]

    # --- configuration ---------------------------------------------------------------------------

    @final
    def get_config(self) -> dict[str, Any]:
        """The fields of the structure, as Keras serializes them; structures inside one, too."""
        return {field.name: _serialized(getattr(self, field.name)) for field in fields(self)}

    @final
    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The structure of this configuration."""
        return cls(**config)

    @final
    def explain_sizes(self, event_size: int) -> str:
        """For error messages: how wide y_pred has to be for d targets."""
        d, k = event_size, self.shape_size(event_size)
        return (
            f"{self.name!r} needs {2 * d + k} numbers for {d} targets "
            f"({d} for the mean, {d} for the scale, {k} for the shape)"
        )

    @final
    def event_size_of(self, width: int) -> int | None:
        """d such that y_pred has this width, or None if there is none."""
        return next((d for d in self._event_sizes(width) if self.packed_size(d) == width), None)

    @final
    def event_size_of_raw(self, width: int) -> int | None:
        """d such that `[mean (d) | raw (raw_size)]` has this width, or None if there is none."""
        return next((d for d in self._event_sizes(width) if d + self.raw_size(d) == width), None)

    def _event_sizes(self, width: int) -> Iterable[int]:
        return range(1, width + 1) if self.event_size is None else (self.event_size,)


def register(cls: type[Covariance]) -> type[Covariance]:
    """Make a structure known by its name, and loadable from a `.keras` file."""
    REGISTERED[to_snake_case(cls.__name__)] = cls
    keras.saving.register_keras_serializable(package="keras_mvn.covariances")(cls)
    return cls


def _serialized(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_serialized(element) for element in value]
    return keras.saving.serialize_keras_object(value) if isinstance(value, Covariance) else value
