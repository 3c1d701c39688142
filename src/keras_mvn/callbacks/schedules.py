"""Callbacks that schedule training over epochs: mean warm-up and annealing of β."""

from __future__ import annotations

from typing import Any, final

import keras
import numpy as np

from keras_mvn._core.checks import probability, whole
from keras_mvn.callbacks._running_model import find_head, retrace
from keras_mvn.layers import MultivariateNormalHead

__all__ = ["BetaAnnealing", "MeanWarmUp"]


@final
class MeanWarmUp(keras.callbacks.Callback):
    """Train the mean first: for some epochs the covariance stays fixed at what `adapt` measured.

    A covariance that is trained together with a poor mean explains the misfit as noise, and the
    mean then stops learning. During the warm-up, all weights of the head except those of the mean
    are zero, which gives the adapted covariance Σ₀ for every row, and the loss trains only the
    mean and the trunk: ½ (y − μ)ᵀ Σ₀⁻¹ (y − μ) + constant, whatever the units of y. After that,
    both are trained.

    The covariance weights start from zero after the warm-up: their learned or initial values are
    discarded, unless training resumes after epoch 0. Nothing changes them during the warm-up,
    neither weight decay nor a regularizer, but the optimizer keeps accumulating their gradients,
    so that its first steps are of normal size. The training step is recompiled once at the end.

    Args:
        epochs: int ≥ 0, length of the warm-up in epochs.
        fraction: float between 0 and 1, length of the warm-up as a fraction of the epochs of
            `fit`, as an alternative to `epochs`. The default is 0.25 if neither is given.
        head: the head, if the model has several.

    Raises:
        ValueError: both lengths are given, or one is invalid; in `fit`, the model has no head or
            several.

    Source: Nix & Weigend, "Estimating the mean and variance of the target probability
    distribution", ICNN (1994), train the mean alone first; Sluijterman et al., "Optimal training
    of mean variance estimation neural networks", Neurocomputing 597 (2024), measure the effect.

    >>> import keras, numpy as np
    >>> from keras_mvn.layers import MultivariateNormalHead
    >>> from keras_mvn.losses import NegativeLogLikelihood
    >>> model = keras.Sequential([keras.Input((1,)), MultivariateNormalHead(2)])
    >>> model.compile("adam", NegativeLogLikelihood())
    >>> x, y = np.ones((4, 1)), np.ones((4, 2))
    >>> history = model.fit(x, y, epochs=2, verbose=0, callbacks=[MeanWarmUp(epochs=2)])
    >>> model.predict(x, verbose=0)[0, 2:].tolist()  # scales and shape parameter: N(0, I) still
    [1.0, 1.0, 0.0]

    """

    def __init__(
        self,
        epochs: int | None = None,
        fraction: float | None = None,
        head: MultivariateNormalHead | None = None,
    ) -> None:
        super().__init__()
        if epochs is not None and fraction is not None:
            raise ValueError(
                f"MeanWarmUp takes either epochs or fraction, not both; received epochs={epochs} "
                f"and fraction={fraction}."
            )
        self.epochs = None if epochs is None else whole(epochs, "epochs", "a number of epochs", 0)
        self.fraction = probability(0.25 if fraction is None else fraction, "fraction")
        self.head = head
        self._length = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Find the head, and set the length of the warm-up."""
        self._head = find_head(self.model, self.head, "MeanWarmUp")
        share = round(self.fraction * self.params["epochs"])
        self._length = share if self.epochs is None else self.epochs
        self._release()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Freeze the covariance during the warm-up, and release it afterwards."""
        held = "apply" in vars(self.model.optimizer)
        if epoch < self._length and not held:
            self._hold(start=epoch == 0)
        elif epoch >= self._length and held:
            self._release()

    def on_train_end(self, logs: Any = None) -> None:
        """Restore the optimizer."""
        self._release()

    def _hold(self, start: bool) -> None:
        mean = {id(variable) for variable in self._head.mean_dense.variables}
        frozen = [v for v in self._head.trainable_variables if id(v) not in mean]
        if start:
            for variable in frozen:
                variable.assign(np.zeros(variable.shape))
        self.model.optimizer.apply = _apply_except(frozen, self.model.optimizer)
        retrace(self.model)

    def _release(self) -> None:
        if vars(self.model.optimizer).pop("apply", None) is not None:
            retrace(self.model)


def _apply_except(frozen: list[Any], optimizer: Any) -> Any:
    """Return an `optimizer.apply` that leaves the frozen variables and their averages unchanged.

    `variable.trainable = False` would not work: on JAX, an optimizer must be applied to exactly the
    variables it was built with, and a compiled model does not notice the change.
    """
    apply = type(optimizer).apply.__get__(optimizer)

    def apply_to_the_rest(grads: Any, trainable_variables: Any = None) -> Any:
        before = [keras.ops.copy(variable) for variable in frozen]
        averaging = _weight_in_average(optimizer)
        iterations = apply(grads, trainable_variables)
        averages = _averages(optimizer)
        for variable, value in zip(frozen, before, strict=True):
            average = averages.get(id(variable))
            if average is not None:  # it includes the value that is about to be undone
                average.assign(average - averaging * (variable - value))
            variable.assign(value)
        return iterations

    return apply_to_the_rest


def _weight_in_average(optimizer: Any) -> Any:
    """Return the weight of a step in the moving averages (`use_ema`), 1 for the first step."""
    later = keras.ops.cast(optimizer.iterations != 0, "float32")
    return 1.0 - later * (optimizer.ema_momentum or 0.0)


def _averages(optimizer: Any) -> dict[int, Any]:
    """Return the moving averages by the `id` of their variable."""
    if not optimizer.use_ema:
        return {}
    variables = optimizer._trainable_variables
    averages = optimizer._model_variables_moving_average
    return {id(v): average for v, average in zip(variables, averages, strict=True)}


@final
class BetaAnnealing(keras.callbacks.Callback):
    """Change the β of a loss in equal steps from `start` to `end` over a number of epochs.

    At epoch e, β = start + (end − start) · ⌊steps · min(e/epochs, 1)⌋/steps. The β of each epoch
    is logged as `beta`. For `BetaNegativeLogLikelihood`: with β = 1 the mean learns as under
    MSE, and β = 0 is the NLL.

    On JAX, a variable of a loss is not part of the state of a compiled step, which would keep using
    its first value. The training step is therefore recompiled at each change of β, which is why
    `steps` limits the number of changes.

    Args:
        loss: a loss whose `beta` is a `keras.Variable`; None uses the loss of the model.
        start: float, β in the first epoch.
        end: float, β from epoch `epochs` on.
        epochs: int ≥ 1, length of the schedule; None is 80 % of the epochs of `fit`.
        steps: int ≥ 1, maximum number of changes of β.

    Raises:
        ValueError: `epochs` or `steps` is not an integer ≥ 1; in `fit`, the loss has no such β.

    >>> annealing = BetaAnnealing(start=1.0, end=0.0, epochs=4, steps=2)
    >>> [annealing.beta(epoch) for epoch in range(6)]
    [1.0, 1.0, 0.5, 0.5, 0.0, 0.0]

    """

    def __init__(
        self,
        loss: Any = None,
        start: float = 1.0,
        end: float = 0.0,
        epochs: int | None = None,
        steps: int = 10,
    ) -> None:
        super().__init__()
        self.loss = loss
        self.start = float(start)
        self.end = float(end)
        self.epochs = None if epochs is None else whole(epochs, "epochs", "a number of epochs", 1)
        self.steps = whole(steps, "steps", "the maximum number of changes of β", 1)
        self._traced: float | None = None

    def beta(self, epoch: int) -> float:
        """Return β in this epoch, counting from 0."""
        epochs = self.epochs or max(1, round(0.8 * self.params["epochs"]))
        done = min(self.steps * epoch // epochs, self.steps) / self.steps
        return (1.0 - done) * self.start + done * self.end

    def on_train_begin(self, logs: Any = None) -> None:
        """Find the β of the loss."""
        loss = self.model.loss if self.loss is None else self.loss
        self._variable: Any = getattr(loss, "beta", None)
        if not isinstance(self._variable, keras.Variable):
            raise ValueError(
                f"BetaAnnealing needs a loss whose beta is a keras.Variable; received {loss!r}. "
                "Pass such a loss: BetaAnnealing(loss=…), loss = BetaNegativeLogLikelihood()."
            )
        self._traced = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Set the β of this epoch."""
        beta = self.beta(epoch)
        if beta == self._traced:
            return
        self._variable.assign(beta)
        self._traced = beta
        if keras.backend.backend() == "jax":
            retrace(self.model)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write β into the logs."""
        if logs is not None:
            logs["beta"] = self.beta(epoch)
