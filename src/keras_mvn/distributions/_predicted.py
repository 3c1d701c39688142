"""The distribution that a model's output describes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_mvn.covariances import Covariance
from keras_mvn.distributions.multivariate_normal import MultivariateNormal
from keras_mvn.distributions.multivariate_student_t import MultivariateStudentT

__all__ = ["Predicted", "predicted"]

Predicted = MultivariateNormal | MultivariateStudentT
"""What a head predicts."""

_BY_LAYOUT: dict[str, type[MultivariateNormal] | type[MultivariateStudentT]] = {
    "student_t": MultivariateStudentT
}


def predicted(
    y_pred: Any, covariance: Covariance, layout: str, target_names: Sequence[str] | None
) -> Predicted:
    """Return predictions as a batch of distributions.

    Args:
        y_pred: (..., width), output of `model.predict`.
        covariance: the structure of the head.
        layout: the layout of the head.
        target_names: d names, or None.

    Raises:
        ValueError: y_pred has a different width.

    """
    family = _BY_LAYOUT.get(layout, MultivariateNormal)
    return family.from_prediction(
        y_pred, covariance=covariance, layout=layout, target_names=target_names
    )
