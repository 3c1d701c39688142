"""How much each input moves what a model says: means, spreads, correlations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from keras_mvn._core.checks import whole
from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.explain._inputs import inputs_of, predict_of
from keras_mvn.explain.quantities import Quantity

__all__ = ["Importance", "permutation_importance"]


@final
@dataclass(frozen=True, eq=False)
class Importance:
    """How much each input moves each quantity; see `permutation_importance`."""

    features: tuple[Any, ...]
    """Names of the inputs, or their numbers."""
    quantities: tuple[str, ...]
    """Names of the quantities."""
    values: Array
    """(quantities, features), in the units of the quantities."""
    errors: Array
    """Standard errors of the values from the repetitions: (quantities, features)."""
    spread: Array
    """The standard deviation of each quantity over the rows: (quantities,)."""

    def ranked(self, quantity: int | str = 0) -> list[tuple[Any, float]]:
        """Return (input, value) for a quantity, given by position or name, the largest first."""
        at = self.quantities.index(quantity) if isinstance(quantity, str) else quantity
        order = np.argsort(-self.values[at], kind="stable")
        return [(self.features[j], float(self.values[at, j])) for j in order]

    def to_frame(self) -> Any:
        """Return a pandas table with a row for each quantity and a column for each input."""
        pandas = require("pandas", "Importance.to_frame")
        return pandas.DataFrame(self.values, index=self.quantities, columns=list(self.features))


def permutation_importance(
    model: Any,
    X: Any,  # noqa: N803
    quantities: Sequence[Quantity],
    n_repeats: int = 5,
    random_state: int = 0,
) -> Importance:
    """Return how much each input moves each quantity.

    The root of half of the mean squared change of q when the values of input j are exchanged
    between rows:

        Iⱼ = √( ½ E (q(x) − q(x with xⱼ of another row))² ),

    the standard deviation that q owes to the input, alone and with others, in the units of q. With
    independent inputs, Iⱼ² / Var q is the total-effect index of Sobol. It is a statement about the
    model, not about the world: of two inputs that say the same, the model may use either.

    Args:
        model: has `predict_distribution`, as a `MultivariateNormalRegressor`, a `DeepEnsemble` or a
            `serving.FittedModel`; or a function from inputs to distributions.
        X: inputs of some hundred rows: an array, a data frame or an Arrow table.
        quantities: what to explain.
        n_repeats: number of permutations of each input.
        random_state: seed of the permutations.

    Raises:
        ValueError: there are fewer than two rows, or no quantities.

    Source: Breiman, "Random forests", Machine Learning 45 (2001); Jansen, "Analysis of variance
    designs for model output", Computer Physics Communications 117 (1999), for the formula.

    >>> import numpy as np
    >>> from keras_mvn import MultivariateNormal
    >>> from keras_mvn.explain import Stddev
    >>> def predict(x):  # the second input moves the spread, the third nothing
    ...     return MultivariateNormal(x[:, :1], covariance=np.exp(x[:, 1])[:, None, None])
    >>> x = np.random.default_rng(0).normal(size=(200, 3))
    >>> [name for name, _ in permutation_importance(predict, x, [Stddev(0)]).ranked()][0]
    1

    """
    inputs, predict = inputs_of(X), predict_of(model)
    n, repeats = len(inputs), whole(n_repeats, "n_repeats", "the number of permutations", 1)
    if n < 2 or not quantities:
        raise ValueError(
            f"permutation_importance received {n} rows and {len(quantities)} quantities; at least "
            "two rows and one quantity are needed."
        )
    rng = np.random.default_rng(random_state)
    answer = predict(inputs.data)
    plain = np.stack([one.of(answer) for one in quantities])
    features = inputs.names
    squares = np.zeros((len(quantities), len(features), repeats))
    same = np.tile(np.arange(n), repeats)
    for j in range(len(features)):
        rows = np.tile(same, (len(features), 1))
        rows[j] = np.concatenate([rng.permutation(n) for _ in range(repeats)])
        answer = predict(inputs.mixed(rows))
        moved = np.stack([one.of(answer) for one in quantities]).reshape(-1, repeats, n)
        squares[:, j] = 0.5 * ((moved - plain[:, None]) ** 2).mean(axis=-1)
    values = np.sqrt(squares.mean(axis=-1))
    error = squares.std(axis=-1, ddof=1) / np.sqrt(repeats) if repeats > 1 else np.nan * values
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = np.where(values > 0, 0.5 * error / values, 0.0)
    names = tuple(one.name for one in quantities)
    return Importance(tuple(features), names, values, errors, plain.std(axis=1))
