"""The training recipe for tables: network, loss and optimizer (docs/training.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import keras
import numpy as np

from keras_mvn import losses
from keras_mvn._core.types import Tensor
from keras_mvn._training.data import Moments, Part
from keras_mvn.covariances import Covariance
from keras_mvn.layers import (
    MultivariateMixtureHead,
    MultivariateNormalHead,
    PeriodicEmbedding,
    SoftClip,
)
from keras_mvn.layers._head import Head
from keras_mvn.losses import CovarianceLoss
from keras_mvn.losses._student_t import StudentTLoss

__all__ = [
    "LOSSES",
    "Recipe",
    "Schedule",
    "batch_size_for",
    "likelihood_of",
    "limits_around",
    "loss_for",
    "network",
    "optimizer",
    "predicts_tails",
    "schedule",
]

AVERAGED_STEPS = 100
AVERAGED_EPOCHS = 2.5
"""Weights are averaged over about this many steps, but at most these epochs (docs/training.md)."""

LOSSES: dict[str, type[CovarianceLoss]] = {
    "balanced": losses.BalancedNegativeLogLikelihood,
    "nll": losses.NegativeLogLikelihood,
    "faithful": losses.FaithfulNegativeLogLikelihood,
    "beta": losses.BetaNegativeLogLikelihood,
    "natural_gradient": losses.NaturalGradientNegativeLogLikelihood,
    "student_t": losses.StudentT,
    "energy_score": losses.EnergyScore,
    "crps": losses.CRPS,
}
"""Losses by the names that the estimator accepts."""


@final
@dataclass(frozen=True)
class Recipe:
    """The network to train, and how to train it."""

    covariance: Covariance
    loss: Any
    """A name from `LOSSES`, a loss class or a loss instance."""
    n_components: int = 1
    """How many components the mixture of each row has; 1 for no mixture."""
    constant: str | None = None
    tails: str = "normal"
    """"normal"; "t" for a Student's t with one trained number of degrees of freedom; "t_per_row"
    for one whose degrees of freedom depend on x."""
    hidden: tuple[int, ...] = (64, 64)
    activation: Any = "gelu"
    dropout: float = 0.0
    embedding: str | None = None
    """"periodic" for inputs of more than two values embedded by waves, before the hidden layers."""
    mean: str | None = None
    """Name of the regressor whose predictions the network corrects, of those that were chosen from;
    None if there was no choice."""
    centered: bool = False
    """Whether the network predicts a mean of 0, as the targets are errors of a model to keep."""
    builder: Callable[[Tensor], Tensor] | None = None
    """Function from standardized inputs to the head's input, in place of the hidden layers."""
    learning_rate: float = 5e-3
    epochs: int = 1000
    batch_size: int | None = None
    """None for `batch_size_for`."""
    patience: int = 60


def network(
    recipe: Recipe,
    loss: CovarianceLoss,
    part: Part,
    inputs: Moments,
    target_names: Sequence[str] | None,
) -> Any:
    """Build the model of raw inputs: limits → standardization → hidden layers → head."""
    training = part.training
    head = _head(recipe, loss, training.y.shape[1], target_names)
    head.adapt(training.targets(), part.residuals, training.measured_targets())
    raw = keras.Input((training.x.shape[1],))
    x = limits_around(inputs)(raw)
    x = keras.layers.Normalization(mean=inputs.mean, variance=inputs.variance)(x)
    if recipe.embedding is not None:
        x = PeriodicEmbedding(inputs=np.flatnonzero(~inputs.binary))(x)
    x = _hidden(x, recipe) if recipe.builder is None else _built(recipe.builder, x)
    return keras.Model(raw, head(x))


def _head(
    recipe: Recipe, loss: CovarianceLoss, event_size: int, target_names: Sequence[str] | None
) -> Head:
    """Return the output layer: of one distribution per row, or of a mixture."""
    given: dict[str, Any] = {
        "covariance": recipe.covariance,
        "target_names": target_names,
        "constant": recipe.constant,
        "degrees_of_freedom": _degrees_of_freedom(recipe, loss),
    }
    if recipe.n_components > 1:
        return MultivariateMixtureHead(event_size, recipe.n_components, **given)
    return MultivariateNormalHead(event_size, **given, centered=recipe.centered)


def limits_around(inputs: Moments) -> SoftClip:
    """Return the layer that limits inputs to what training rows had."""
    spread = np.where(inputs.upper > inputs.lower, np.sqrt(inputs.variance), 0.0)
    return SoftClip.around(inputs.lower, inputs.upper, spread)


def _degrees_of_freedom(recipe: Recipe, loss: CovarianceLoss) -> float | str | None:
    """Return what the head writes for this loss: a fixed number, if the user's loss has one."""
    if not loss.reader.layout.has_degrees_of_freedom:
        return None
    if recipe.tails == "t_per_row":
        return "per_row"
    given = getattr(recipe.loss, "degrees_of_freedom", None)
    return given if isinstance(given, float) else "constant"


def _hidden(x: Tensor, recipe: Recipe) -> Tensor:
    for units in recipe.hidden:
        x = keras.layers.Dense(units, recipe.activation)(x)
        if recipe.dropout > 0:
            x = keras.layers.Dropout(recipe.dropout)(x)
    return x


def _built(builder: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    hidden = builder(x)
    if not isinstance(hidden, keras.KerasTensor) or len(hidden.shape) != 2:
        raise ValueError(
            "builder must take the standardized inputs, a Keras tensor (rows, features), and "
            f"return the head's input, a Keras tensor (rows, units); it returned {hidden!r}. For "
            "example, builder=lambda x: keras.layers.Dense(64, 'gelu')(x)."
        )
    return hidden


def optimizer(learning_rate: float, steps_per_epoch: int) -> Any:
    """Return Adam with averaged weights."""
    window = min(AVERAGED_STEPS, AVERAGED_EPOCHS * steps_per_epoch)
    return keras.optimizers.Adam(learning_rate, use_ema=True, ema_momentum=1.0 - 1.0 / window)


class Schedule(NamedTuple):
    """Rows per step, and steps per epoch."""

    batch_size: int
    steps: int


def schedule(recipe: Recipe, rows: int) -> Schedule:
    """Return the schedule for so many training rows."""
    size = min(recipe.batch_size or batch_size_for(rows), rows)
    return Schedule(size, rows // size)


def batch_size_for(rows: int) -> int:
    """Return 32 to 1024 rows: 8 steps per epoch on small tables, 200 on large ones."""
    return max(min(max(rows // 8, 32), 128), min(rows // 200, 1024))


def likelihood_of(loss: Any) -> bool:
    """Whether a loss is a likelihood that has a counterpart with tails."""
    return loss in ("balanced", "nll") or predicts_tails(loss)


def predicts_tails(loss: Any) -> bool:
    """Whether a loss is that of Student's t, given by its name, its class or an instance."""
    kind = LOSSES.get(loss) if isinstance(loss, str) else loss
    return issubclass(kind if isinstance(kind, type) else type(kind), StudentTLoss)


def loss_for(
    loss: Any, covariance: Covariance, missing: str, tails: str = "normal", n_components: int = 1
) -> CovarianceLoss:
    """Return the loss for this structure, given by a name, a class or an instance.

    That of Student's t always reads ν from y_pred, where the head writes it. Mixtures have one
    loss, their likelihood.

    Raises:
        ValueError: the name is unknown, or `loss` is something else.

    """
    agreed: dict[str, Any] = {"covariance": covariance, "missing": missing}
    if n_components > 1:
        component = "packed" if tails == "normal" else "student_t"
        return losses.MixtureNegativeLogLikelihood(
            n_components, component_layout=component, **agreed
        )
    if predicts_tails(loss):
        kind: Any = LOSSES[loss] if isinstance(loss, str) else loss
        given = loss.get_config() if isinstance(loss, CovarianceLoss) else {}
        kind = kind if isinstance(kind, type) else type(kind)
        found: CovarianceLoss = kind.from_config(
            {**given, **agreed, "degrees_of_freedom": "learned"}
        )
        return found
    if tails != "normal" and likelihood_of(loss):
        with_tails = losses.StudentT if loss == "nll" else losses.BalancedStudentT
        return with_tails("learned", **agreed)
    if isinstance(loss, str) and loss in LOSSES:
        return LOSSES[loss](**agreed)
    if isinstance(loss, type) and issubclass(loss, CovarianceLoss):
        return loss(**agreed)
    if isinstance(loss, CovarianceLoss):
        return type(loss).from_config({**loss.get_config(), **agreed})
    raise ValueError(
        f"loss={loss!r} is not known. Expected one of {sorted(LOSSES)}, or a class or instance "
        "from keras_mvn.losses."
    )
