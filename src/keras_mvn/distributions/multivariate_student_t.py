"""Batches of multivariate Student's t distributions, for errors with tails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self, final

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.covariances import DEFAULT, CovarianceLike
from keras_mvn.distributions import _exchange
from keras_mvn.distributions._algebra import Algebra
from keras_mvn.distributions._arguments import Measurements
from keras_mvn.distributions._normal_law import NORMAL
from keras_mvn.distributions._questions import Questions
from keras_mvn.distributions._reading import decoded, from_matrix
from keras_mvn.distributions._storage import State
from keras_mvn.distributions._student_law import StudentLaw
from keras_mvn.distributions.base import Distribution
from keras_mvn.distributions.mixture import Mixture
from keras_mvn.distributions.multivariate_normal import MultivariateNormal
from keras_mvn.layouts import Reader

__all__ = ["MultivariateStudentT"]


@final
class MultivariateStudentT(Questions, Algebra):
    """A batch of multivariate Student's t distributions t_ν(μ, Σ), for analysis in float64.

    X = μ + √V L z, with z standard normal, Σ = L Lᵀ, and 1/V ~ Gamma(ν/2, rate ν/2):

        log p(y) = log Γ((ν + d)/2) − log Γ(ν/2) − (d/2) log(νπ) − ½ log det Σ
                   − ((ν + d)/2) log(1 + q/ν),    q = (y − μ)ᵀ Σ⁻¹ (y − μ).

    Rows far out are expected, where a normal gives them no probability. Σ is the *scale matrix*;
    the covariance is ν/(ν − 2) Σ and exists for ν > 2, the mean μ for ν > 1. ν = ∞ is the normal.

    Marginals and linear functions have the same ν. Measured targets teach how large the errors of
    this row are: `condition` gives ν + d_a degrees of freedom and the normal's scale matrix times
    (ν + q_a)/(ν + d_a), where q_a is the squared distance of the d_a measured values. With noisy
    measurements the result is no Student's t, but a `Mixture` of normals, one for each node of a
    quadrature over V.

    Args:
        location: μ, (..., d), in the units of y.
        degrees_of_freedom: ν > 0, one number or one per distribution (...); inf for normals.
        scale_matrix: Σ, (..., d, d) symmetric positive definite, in squared units of y.
        scale_tril: L with Σ = L Lᵀ, (..., d, d) lower triangular with a positive diagonal, in place
            of `scale_matrix`.
        target_names: d names; None takes the labels of pandas arguments, as `MultivariateNormal`.

    Raises:
        ValueError: ν is not positive, not exactly one matrix is given, shapes do not fit, or values
            are not finite.

    Source: Kotz & Nadarajah, "Multivariate t distributions and their applications", 2004; the
    conditional: Ding, "On the conditional distribution of the multivariate t distribution", The
    American Statistician 70 (2016).

    >>> t = MultivariateStudentT([1.0, 2.0], 4.0, scale_matrix=[[4.0, 3.0], [3.0, 9.0]])
    >>> t.stddev.round(4), t.log_prob([1.0, 2.0]).round(4)
    (array([2.8284, 4.2426]), np.float64(-3.4858))
    >>> t.condition({0: 1.0})
    MultivariateStudentT(batch_shape=(), event_size=1, degrees_of_freedom=5, covariance='cholesky')
    >>> t.condition({0: 1.0}).stddev.round(2), t.condition({0: 9.0}).stddev.round(2)  # far out
    (array([3.]), array([6.71]))

    """

    format: ClassVar[str] = "keras_mvn.MultivariateStudentT"

    _law: StudentLaw

    def __init__(
        self,
        location: Any,
        degrees_of_freedom: Any,
        *,
        scale_matrix: Any = None,
        scale_tril: Any = None,
        target_names: Sequence[str] | None = None,
    ) -> None:
        matrices = {"scale_matrix": scale_matrix, "scale_tril": scale_tril}
        gaussian, names = from_matrix(
            "MultivariateStudentT", location, matrices, target_names, "location"
        )
        law = _checked_law(degrees_of_freedom, gaussian.batch_shape)
        batch = np.broadcast_shapes(gaussian.batch_shape, law.degrees_of_freedom.shape)
        self._gaussian, self._law = gaussian.on_batch(batch), law.on_batch(batch)
        self._target_names = names

    @classmethod
    def from_prediction(
        cls,
        y_pred: Any,
        covariance: CovarianceLike = DEFAULT,
        from_raw: bool = False,
        layout: str = "student_t",
        degrees_of_freedom: Any = None,
        target_names: Sequence[str] | None = None,
    ) -> Self:
        """Create the distributions that a model predicted.

        Args:
            y_pred: output of `model.predict`, (..., 2 d + k + 1) in the layout "student_t".
            covariance: covariance structure of the head.
            from_raw: as passed to the loss.
            layout: as passed to the loss.
            degrees_of_freedom: ν of a model that was trained with a fixed number, whose layout
                has no column for it.
            target_names: d names, or None.

        Raises:
            ValueError: ν is in y_pred and also given, or neither; or as for
                `MultivariateNormal.from_prediction`.

        >>> MultivariateStudentT.from_prediction([[1.0, 2.0, 0.5, 0.5, 0.0, 6.0]])
        MultivariateStudentT(batch_shape=(1,), event_size=2, degrees_of_freedom=6, \
covariance='cholesky')

        """
        gaussian, nu = decoded(y_pred, Reader(covariance, from_raw, layout))
        if (nu is None) == (degrees_of_freedom is None):
            raise ValueError(
                f"degrees_of_freedom={degrees_of_freedom!r} with layout={layout!r}: "
                + (
                    "this layout has no degrees of freedom, so pass those of the loss."
                    if nu is None
                    else "the degrees of freedom are in y_pred, so pass none."
                )
            )
        law = _checked_law(degrees_of_freedom if nu is None else nu, gaussian.batch_shape)
        return cls._of(gaussian, law, target_names)

    @property
    def degrees_of_freedom(self) -> Array:
        """The degrees of freedom ν: (...)."""
        return np.array(self._law.degrees_of_freedom)[()]

    def moments(self) -> MultivariateNormal:
        """The normal with the same mean and covariance.

        Raises:
            ValueError: there is no covariance.

        """
        factor = np.sqrt(self._law.variance_factor())
        gaussian = self._gaussian.rescale(np.broadcast_to(factor, self.batch_shape)[..., None])
        return MultivariateNormal._of(gaussian, NORMAL, self.target_names)

    def normals(self, power: float = 0.0) -> Mixture:
        """These distributions as mixtures of normals N(μ, V Σ), by a quadrature over V.

        Args:
            power: what is averaged grows at most like the errors to this power: 0 for
                probabilities, 2 for covariances.

        Raises:
            ValueError: such averages do not exist.

        """
        scales, weights = self._law.nodes(power)
        node_first = np.moveaxis(np.sqrt(scales), -1, 0)[..., None]
        stacked = self._gaussian.on_batch((scales.shape[-1], *self.batch_shape)).rescale(node_first)
        components = MultivariateNormal._of(stacked, NORMAL, self.target_names)
        with np.errstate(divide="ignore"):
            return Mixture._of(components, np.log(np.moveaxis(weights, -1, 0)))

    def _conditioned(self, measured: Measurements) -> tuple[Distribution, Array]:
        if measured.exact.all():
            return super()._conditioned(measured)
        smallest = self._law.degrees_of_freedom.min(initial=np.inf)
        power = max((p for p in (1.0, 2.0) if smallest > p), default=0.0)
        return self.normals(power)._conditioned(measured)

    # --- conversion and files --------------------------------------------------------------------

    def to_scipy(self) -> Any:
        """Convert to a frozen `scipy.stats.multivariate_t`, or a list of them for a batch.

        Raises:
            ImportError: SciPy is not installed.

        """
        return _exchange.student_to_scipy(self)

    def to_torch(self) -> Any:
        """Convert to `torch.distributions.Independent(StudentT)`, for independent targets only.

        PyTorch has no multivariate Student's t.

        Raises:
            ValueError: there is more than one target.
            ImportError: PyTorch is not installed.

        """
        return _exchange.student_to_torch(self)

    def to_numpyro(self) -> Any:
        """Convert to `numpyro.distributions.MultivariateStudentT`.

        The precision is that of JAX.

        Raises:
            ImportError: NumPyro is not installed.

        """
        return _exchange.student_to_numpyro(self)

    def _state(self) -> State:
        nu = np.array(self._law.degrees_of_freedom)
        return State.of_gaussian(
            self.format, self._gaussian, self.target_names, degrees_of_freedom=nu
        )

    @classmethod
    def _from_state(cls, state: State) -> Self:
        law = StudentLaw(state.arrays["degrees_of_freedom"])
        return cls._of(state.gaussian(), law, state.names)

    def __repr__(self) -> str:
        targets = "" if self.target_names is None else f", targets={list(self.target_names)}"
        return (
            f"MultivariateStudentT(batch_shape={self.batch_shape}, event_size={self.event_size}"
            f"{self._law.label}, covariance={self._gaussian.structure.name!r}{targets})"
        )


def _checked_law(degrees_of_freedom: Any, batch: tuple[int, ...]) -> StudentLaw:
    nu = np.array(degrees_of_freedom, dtype=np.float64)
    if not (nu > 0).all():  # NaN, too
        raise ValueError(
            f"degrees_of_freedom={degrees_of_freedom!r} must be positive; inf is a normal."
        )
    try:
        np.broadcast_shapes(nu.shape, batch)
    except ValueError:
        raise ValueError(
            f"degrees_of_freedom has shape {nu.shape}, which does not broadcast against the batch "
            f"shape {batch}."
        ) from None
    return StudentLaw(nu)
