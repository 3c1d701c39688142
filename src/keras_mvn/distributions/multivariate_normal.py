"""Batches of predicted multivariate normals, for analysis in NumPy float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self, final

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.covariances import DEFAULT, CovarianceLike
from keras_mvn.distributions import _exchange
from keras_mvn.distributions._algebra import Algebra
from keras_mvn.distributions._comparison import Comparison
from keras_mvn.distributions._normal_law import NORMAL
from keras_mvn.distributions._questions import Questions
from keras_mvn.distributions._reading import decoded, from_matrix
from keras_mvn.distributions._storage import State
from keras_mvn.distributions._updating import Updating
from keras_mvn.layouts import Reader

__all__ = ["MultivariateNormal"]


@final
class MultivariateNormal(Questions, Algebra, Updating, Comparison):
    """A batch of multivariate normal distributions N(μ, Σ), for analysis in float64.

    Create it from a model's predictions with `head.distribution(y_pred)` or `from_prediction`, or
    from a mean and exactly one of covariance, scale_tril and precision. There may be any number of
    batch axes, including none; `len`, indexing and slicing act on them.

    Args:
        mean: μ, (..., d), in the units of y.
        covariance: Σ, (..., d, d) symmetric positive definite, in squared units of y.
        scale_tril: L with Σ = L Lᵀ, (..., d, d) lower triangular with a positive diagonal.
        precision: Σ⁻¹, (..., d, d) symmetric positive definite.
        target_names: d names. None takes the columns of a DataFrame or the index of a Series; if
            mean and matrix both have labels, the matrix is put in the order of the mean.

    Raises:
        ValueError: not exactly one of the three is given, shapes do not fit, values are not
            finite, a matrix is not symmetric positive definite, or labels are those of other
            targets.

    >>> import numpy as np
    >>> normal = MultivariateNormal([1.0, 2.0], covariance=[[4.0, 3.0], [3.0, 9.0]])
    >>> normal.stddev, normal.correlation[0, 1]
    (array([2., 3.]), np.float64(0.5))
    >>> normal.log_prob([1.0, 2.0]).round(4)
    np.float64(-3.4858)

    """

    format: ClassVar[str] = "keras_mvn.MultivariateNormal"

    def __init__(
        self,
        mean: Any,
        *,
        covariance: Any = None,
        scale_tril: Any = None,
        precision: Any = None,
        target_names: Sequence[str] | None = None,
    ) -> None:
        matrices = {"covariance": covariance, "scale_tril": scale_tril, "precision": precision}
        gaussian, names = from_matrix("MultivariateNormal", mean, matrices, target_names)
        self._gaussian, self._law, self._target_names = gaussian, NORMAL, names

    @classmethod
    def from_prediction(
        cls,
        y_pred: Any,
        covariance: CovarianceLike = DEFAULT,
        from_raw: bool = False,
        layout: str = "packed",
        target_names: Sequence[str] | None = None,
    ) -> Self:
        """Create the distributions that a model predicted.

        Args:
            y_pred: output of `model.predict`, (..., 2 d + k) in the packed layout.
            covariance: covariance structure of the head, which `head.distribution` knows.
            from_raw: as passed to the loss.
            layout: as passed to the loss.
            target_names: d names, or None.

        Raises:
            ValueError: y_pred has a width that the structure cannot read, values are not finite,
                or scales are not positive.

        >>> normal = MultivariateNormal.from_prediction([[1.0, 2.0, 0.5, 0.5, 0.0]])
        >>> normal
        MultivariateNormal(batch_shape=(1,), event_size=2, covariance='cholesky')

        """
        gaussian, nu = decoded(y_pred, Reader(covariance, from_raw, layout))
        if nu is not None:  # the normal with the mean and the covariance of the Student's t
            gaussian = gaussian.rescale(np.sqrt(nu / (nu - 2.0))[..., None])
        return cls._of(gaussian, NORMAL, target_names)

    @property
    def precision(self) -> Array:
        """The precision matrix Σ⁻¹: (..., d, d)."""
        k = self._gaussian.whitening()
        return np.asarray(np.swapaxes(k, -1, -2) @ k)

    def moments(self) -> Self:
        """The distributions themselves, which are normal."""
        return self

    # --- conversion and files --------------------------------------------------------------------

    def to_scipy(self) -> Any:
        """Convert to a frozen `scipy.stats.multivariate_normal`, or a list of them for a batch.

        Raises:
            ImportError: SciPy is not installed.

        """
        return _exchange.to_scipy(self)

    def to_torch(self) -> Any:
        """Convert to `torch.distributions.MultivariateNormal`, or its low-rank form, in float64.

        Raises:
            ImportError: PyTorch is not installed.

        """
        return _exchange.to_torch(self._gaussian)

    def to_numpyro(self) -> Any:
        """Convert to `numpyro.distributions.MultivariateNormal`, or its low-rank form.

        The precision is that of JAX.

        Raises:
            ImportError: NumPyro is not installed.

        """
        return _exchange.to_numpyro(self._gaussian)

    def _state(self) -> State:
        return State.of_gaussian(self.format, self._gaussian, self.target_names)

    @classmethod
    def _from_state(cls, state: State) -> Self:
        return cls._of(state.gaussian(), NORMAL, state.names)

    def __repr__(self) -> str:
        targets = "" if self.target_names is None else f", targets={list(self.target_names)}"
        return (
            f"MultivariateNormal(batch_shape={self.batch_shape}, event_size={self.event_size}, "
            f"covariance={self._gaussian.structure.name!r}{targets})"
        )
