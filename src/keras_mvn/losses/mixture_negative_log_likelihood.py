"""The negative log-likelihood of mixtures, for targets with several modes."""

from __future__ import annotations

from typing import Any, ClassVar, final

import keras

from keras_mvn._core.checks import whole
from keras_mvn._core.types import Tensor
from keras_mvn.covariances import DEFAULT, CovarianceLike
from keras_mvn.layouts import Parameters, get
from keras_mvn.layouts._y_true import Targets
from keras_mvn.losses.base import CovarianceLoss
from keras_mvn.ops._laws import negative_log_density

__all__ = ["MixtureNegativeLogLikelihood"]


@final
@keras.saving.register_keras_serializable(package="keras_mvn.losses")
class MixtureNegativeLogLikelihood(CovarianceLoss):
    """The negative log-likelihood of a mixture of normals or Student's t, in nats.

    −log p(y) = −log Σ_m w_m p_m(y), with weights w = softmax(logits): of the y_pred of a
    `MultivariateMixtureHead`. The sum is of logarithms (log-sum-exp), so that components far from y
    neither under- nor overflow. Each component is evaluated by the kernels of the other losses;
    with missing targets, by its exact marginal density. A penalty is the mean of those of the
    components.

    Args:
        n_components: int, number of components.
        covariance: the structure of the components, or its name; use the head's.
        component_layout: "packed" for normals, "student_t" for a head with `degrees_of_freedom`.
        **kwargs: the other arguments of `NegativeLogLikelihood`, except for `layout`.

    Raises:
        ValueError: as for `NegativeLogLikelihood`.

    Source: Bishop, "Mixture density networks", Aston University (1994).

    >>> import numpy as np
    >>> loss = MixtureNegativeLogLikelihood(2, covariance="diagonal")
    >>> y_pred = np.array([[0.0, 0.0, -1.0, 1.0, 1.0, 1.0]])  # logits, then mean and scale of each
    >>> round(float(loss(np.array([[0.0]]), y_pred)), 4)  # -scipy.stats.norm.logpdf(1.0)
    1.4189

    """

    has_kernel: ClassVar[bool] = True

    def __init__(
        self,
        n_components: int = 2,
        covariance: CovarianceLike = DEFAULT,
        component_layout: str = "packed",
        **kwargs: Any,
    ) -> None:
        self.n_components = whole(n_components, "n_components", "the number of components", 1)
        if component_layout not in ("packed", "student_t"):
            raise ValueError(
                f"component_layout={component_layout!r}: expected 'packed' or 'student_t'."
            )
        self.component_layout = component_layout
        suffix = "" if component_layout == "packed" else f"_{component_layout}"
        layout = get(f"mixture_{self.n_components}{suffix}").name
        super().__init__(covariance, layout=layout, **kwargs)

    def decode(self, y_pred: Tensor) -> Parameters:
        """Return the parameters of all components, and their logits."""
        return self.reader.decode_any(y_pred)

    def row_loss(self, targets: Targets, parameters: Parameters) -> Tensor:
        """Return −log p of the observed targets of each row (...)."""
        return negative_log_density(self.reader.covariance, targets, parameters, fused=self.fused)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        config = super().get_config()
        del config["layout"]
        return {
            **config,
            "n_components": self.n_components,
            "component_layout": self.component_layout,
        }
