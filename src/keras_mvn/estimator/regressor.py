"""A scikit-learn estimator over head, losses, training recipe and calibration."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from keras_mvn._core.interrupts import deferred_interrupts
from keras_mvn._core.optional import require
from keras_mvn._core.targets import target_names_of
from keras_mvn._core.types import Array
from keras_mvn._training.data import Split, Table
from keras_mvn._training.members import Fitter, subsample
from keras_mvn._training.prediction import from_bytes, predict_normal, to_bytes
from keras_mvn._training.recipe import Recipe
from keras_mvn.distributions import MultivariateNormal, TransformedNormal, TransformedRegion
from keras_mvn.distributions._fit_transform import fit_target_transform
from keras_mvn.distributions._transforms import TargetTransform
from keras_mvn.distributions.regions import Ellipsoid
from keras_mvn.distributions.transformed_normal import ordered
from keras_mvn.ensemble import DeepEnsemble
from keras_mvn.estimator import _rows as rows_of
from keras_mvn.estimator._calibration import calibration_kind
from keras_mvn.estimator._parameters import is_auto, recipe_of
from keras_mvn.layers._find_heads import heads

_base: Any = require("sklearn.base", "keras_mvn.estimator")
_validation: Any = require("sklearn.utils.validation", "keras_mvn.estimator")

__all__ = ["MultivariateNormalRegressor"]

_FLOATS = [np.float64, np.float32]
"""Taken as they are; anything else becomes the first."""

TRANSFORM_SEES = 100_000
"""Training rows, at most, that a target transform is fitted to."""


class _Data(NamedTuple):
    """What `fit` was given, checked."""

    x: Any
    """(n, features)"""
    y: Any
    """(n, d), NaN where not observed."""
    weight: Array | None
    one_dimensional: bool
    names: tuple[str, ...] | None

    def in_units_of(self, transform: TargetTransform | None) -> _Data:
        """With T(y) in place of y."""
        if transform is None:
            return self
        transform.check(self.y, target_names_of(self.names, self.y.shape[1]))
        return self._replace(y=transform.forward(np.asarray(self.y, np.float64)))

    def table(self, rows: np.ndarray) -> Table:
        """Some rows, with weights of mean 1 among them: steps are as long as without weights."""
        weight = None if self.weight is None else self.weight / self.weight[rows].mean()
        return Table(self.x, self.y, weight, rows)


class MultivariateNormalRegressor(
    _base.RegressorMixin, _base.MultiOutputMixin, _base.BaseEstimator
):
    """Regression of several targets at once, with the covariance of their errors, on a table.

    A network with a `MultivariateNormalHead`, trained by the recipe of docs/training.md: inputs
    standardized inside the network, the head adapted to y (and, for up to 2000 training rows, to
    the out-of-fold errors of a ridge regression), Adam with averaged weights, early stopping on
    validation rows, the best weights kept, the predictions recalibrated on rows that nothing else
    has seen. Training, validation and calibration rows are taken from X at random; nothing is
    trained again afterwards.

    X takes dense tables of finite numbers (categories and gaps in X go through a
    `ColumnTransformer` before), arrays larger than memory (`numpy.memmap`, float32 or float64)
    too; y may have gaps, NaN.

    Args:
        covariance: name or instance of a structure of `keras_mvn.covariances`; or "auto": the best
            of a few on the validation rows, which `selection_` lists.
        loss: "balanced", "nll", "faithful", "beta", "natural_gradient", "student_t",
            "energy_score", "crps"; or a class or an instance of `keras_mvn.losses`.
        hidden: widths of the hidden layers.
        activation: of the hidden layers; smooth ones do better.
        dropout: share of units, after each hidden layer.
        builder: in place of the three above, a function from the standardized inputs, a Keras
            tensor (rows, features), to what the head is to see, (rows, units). Called anew for
            each network; estimators are pickled and cloned with it.
        constant: what of the covariance is one for all rows: None, "shape" (the correlations) or
            "covariance" (see `MultivariateNormalHead`); with few rows often the better model.
        learning_rate: of Adam.
        epochs: at most so many.
        batch_size: rows in a step; "auto" is an eighth of small tables, 32 to 128, and up to 1024
            of large ones.
        patience: epochs without a better validation loss after which training stops.
        validation_fraction: share of rows (of groups) for early stopping; 20 rows at least, but
            not more than a quarter. 0 trains all epochs.
        calibration: "temperature" (the most likely factor), "coverage" (the factor with which the
            90 % regions hold 90 %; see `calibration.Temperature`), "per_target", "matrix" (a class
            of `Recalibration` does as well): the covariances are changed. "conformal": they stay as
            they are, and regions and intervals get a guaranteed coverage. None: neither.
        calibration_fraction: share of rows (of groups) for it; 20 at least. Left out, with a
            warning, where these would be more than a quarter.
        n_members: networks of a deep ensemble; predictions have the mean and the covariance of
            their mixture.
        target_transform: None, "log", "box-cox", "yeo-johnson", or a scikit-learn transformer that
            is monotone in each target: the network then predicts T(y). All that is returned is in
            the units of y: means are means of y (not T⁻¹ of means: exact for "log", Gauss–Hermite
            quadrature else), likelihoods have the Jacobian, intervals and regions are transformed.
        missing: "marginalize" reads NaN in y as "not observed"; "raise" refuses it.
        time_budget: seconds after which `fit` stops training, with the best weights so far; None:
            no limit. With "auto" and several members each gets its share. Results then depend on
            the speed of the machine.
        random_state: an integer makes `fit` reproducible on one backend and machine.
        verbose: 0 nothing, 1 a line for each network, 2 also Keras' line for each epoch.

    Attributes:
        model_: the trained `keras.Model`, of raw X (n_members=1).
        ensemble_: the trained `DeepEnsemble` (n_members > 1).
        head_: the head of the (first) model.
        calibration_: what was fitted on the calibration rows, or None. `model_` is without it;
            `calibration_.apply(model_)` is a model with it.
        history_: losses by epoch, as `keras.callbacks.History.history`; a list for ensembles.
        selection_: with "auto", a dictionary for each structure tried, the best first.
        split_: row numbers of X: "train", "validation", "calibration".
        target_transform_: the fitted transform, or None.
        target_names_: of the columns of y, or None.
        interrupted_: whether ^C ended training.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Raises:
        ImportError: scikit-learn is not installed (on import of this module).

    >>> import numpy as np
    >>> from keras_mvn.estimator import MultivariateNormalRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 3))
    >>> y = X[:, :2] + rng.multivariate_normal([0, 0], [[1.0, 0.8], [0.8, 1.0]], size=200)
    >>> model = MultivariateNormalRegressor(hidden=(8,), epochs=20, random_state=0).fit(X, y)
    >>> mean, stddev = model.predict(X, return_std=True)
    >>> mean.shape, stddev.shape, model.predict_distribution(X).covariance.shape
    ((200, 2), (200, 2), (200, 2, 2))

    """

    def __init__(
        self,
        covariance: Any = "cholesky",
        *,
        loss: Any = "balanced",
        hidden: Sequence[int] = (64, 64),
        activation: Any = "gelu",
        dropout: float = 0.0,
        builder: Callable[[Any], Any] | None = None,
        constant: str | None = None,
        learning_rate: float = 5e-3,
        epochs: int = 1000,
        batch_size: int | str = "auto",
        patience: int = 60,
        validation_fraction: float = 0.15,
        calibration: Any = "temperature",
        calibration_fraction: float = 0.15,
        n_members: int = 1,
        target_transform: Any = None,
        missing: str = "marginalize",
        time_budget: float | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.covariance = covariance
        self.loss = loss
        self.hidden = hidden
        self.activation = activation
        self.dropout = dropout
        self.builder = builder
        self.constant = constant
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.calibration = calibration
        self.calibration_fraction = calibration_fraction
        self.n_members = n_members
        self.target_transform = target_transform
        self.missing = missing
        self.time_budget = time_budget
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # a log-likelihood, for which 0.5 means nothing
        return tags

    # --- training --------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,  # noqa: N803  (scikit-learn's name)
        y: Any,
        sample_weight: Any = None,
        *,
        validation_data: Any = None,
        groups: Any = None,
        split: Mapping[str, Any] | None = None,
        callbacks: Callable[[], Any] | None = None,
        backup_dir: str | Path | None = None,
    ) -> Self:
        """Train.

        Args:
            X: (n, features).
            y: (n, d) or (n,), NaN where not observed; rows without any value are left out.
            sample_weight: (n,), not negative: of the loss of training and validation rows.
                Calibration does not know it; rows of weight 0 take part in nothing.
            validation_data: (X, y) for early stopping; none is then taken from X.
            groups: (n,) labels: rows of a group are not divided between training, validation and
                calibration.
            split: row numbers for "train" and, if wanted, "validation" and "calibration", in place
                of a division at random.
            callbacks: a function that makes further Keras callbacks for each network.
            backup_dir: folder in which training keeps what it needs to go on. After the process
                was killed, the same call goes on, and ends as it would have; a random_state that
                was None is kept there, too. Use an empty folder for every new fit.

        Raises:
            ValueError: arguments or parameters that are wrong; the message says which.
            KeyboardInterrupt: ^C. After the first epoch the estimator is fitted all the same, with
                the best weights until then, and `interrupted_` is true: training ends after the
                step it is in, the calibration is still made. A second ^C does not wait for that.
                Where SIGINT has a handler of your own, that one is called.

        Warns:
            UserWarning: too few rows for a calibration.

        """
        recipe = recipe_of(self)
        folder = None if backup_dir is None else Path(backup_dir)
        data = self._checked(X, y, sample_weight)
        seed = self._seed(folder)
        split_ = self._split(data, seed, groups, split, validation_data is not None)
        transform = self._fitted_transform(data, split_.train)
        data = data.in_units_of(transform)
        training = data.table(split_.train)
        validation = training.of(split_.validation) if len(split_.validation) else None
        if validation_data is not None:
            validation = self._given_validation(validation_data, data, transform)
        residuals = rows_of.ridge_residuals(training)
        with deferred_interrupts() as interruption:
            fitter = Fitter(
                training,
                validation,
                seed,
                residuals=residuals,
                target_names=data.names,
                callbacks=callbacks,
                folder=folder,
                time_budget=self.time_budget,
                interruption=interruption,
                verbose=int(self.verbose),
            )
            self._train(fitter, recipe, seed)
            self._one_dimensional = data.one_dimensional
            self.target_names_ = data.names
            self.target_transform_ = transform
            self.split_ = split_._asdict()
            self._calibrate(training.of(split_.calibration))
        self.interrupted_ = fitter.interrupted or interruption.requested
        if self.interrupted_:
            raise KeyboardInterrupt
        return self

    def _train(self, fitter: Fitter, recipe: Recipe, seed: int) -> None:
        for name in ("model_", "ensemble_", "selection_", "interrupted_"):  # of an earlier fit
            if hasattr(self, name):
                delattr(self, name)
        n = int(self.n_members)
        if is_auto(self.covariance):
            tried = fitter.select(recipe, others=n - 1)
            self.selection_ = [one.summary() for one in tried]
            members = fitter.members(tried[0].recipe, n, first=tried[0].trained)
        else:
            members = fitter.members(recipe, n)
        self.head_ = members[0].head
        if n == 1:
            self.model_ = members[0].model
            self.history_: Any = members[0].history
        else:
            self.ensemble_ = DeepEnsemble.from_members([member.model for member in members], seed)
            self.history_ = [member.history for member in members]

    def _seed(self, folder: Path | None) -> int:
        """From random_state, or of the run that is to go on."""
        check_random_state = require("sklearn.utils", "random_state").check_random_state
        kept = None if folder is None else folder / "seed.json"
        if kept is not None and self.random_state is None and kept.is_file():
            return int(json.loads(kept.read_text(encoding="utf-8")))
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(seed), encoding="utf-8")
        return seed

    # --- data ------------------------------------------------------------------------------------

    def _checked(self, X: Any, y: Any, sample_weight: Any) -> _Data:  # noqa: N803
        of_x = {"dtype": _FLOATS, "ensure_min_samples": rows_of.SMALLEST_TABLE}
        of_y = {"dtype": _FLOATS, "ensure_2d": False, "ensure_all_finite": "allow-nan"}
        names = rows_of.names_of(y)
        x, values = _validation.validate_data(self, X, y, validate_separately=(of_x, of_y))
        _validation.check_consistent_length(x, values)
        one_dimensional = values.ndim == 1
        values = values[:, None] if one_dimensional else values
        if self.missing == "raise" and rows_of.has_gaps(values):
            raise ValueError(
                "Input y contains NaN. missing='marginalize' reads it as \"not observed\"."
            )
        weight = None
        if sample_weight is not None:
            weight = _checked_weight(sample_weight, x)
        return _Data(x, values, weight, one_dimensional, names)

    def _inputs(self, X: Any) -> Any:  # noqa: N803
        return _validation.validate_data(self, X, reset=False, dtype=_FLOATS)

    def _split(
        self, data: _Data, seed: int, groups: Any, split: Mapping[str, Any] | None, validated: bool
    ) -> Split:
        usable = rows_of.usable_rows(data.y, data.weight)
        if split is None:
            shares = (
                0.0 if validated else float(self.validation_fraction),
                0.0 if self.calibration is None else float(self.calibration_fraction),
            )
            parts = rows_of.random_split(usable, shares, groups, seed)
        else:
            parts = rows_of.given_split(split, usable)
            if groups is not None or (validated and len(parts.validation)):
                raise ValueError(
                    "split says which rows are which: groups, and validation_data beside "
                    "split['validation'], contradict it. Leave one out."
                )
        rows_of.require_observed(data.y, parts.train, data.names)
        return parts

    def _fitted_transform(self, data: _Data, train: np.ndarray) -> TargetTransform | None:
        some = train[:: max(1, -(-len(train) // TRANSFORM_SEES))]
        y = np.asarray(data.y[some], np.float64)
        return fit_target_transform(self.target_transform, y, data.names)

    def _given_validation(
        self, validation_data: Any, data: _Data, transform: TargetTransform | None
    ) -> Table:
        if not isinstance(validation_data, tuple | list) or len(validation_data) != 2:
            raise ValueError("validation_data must be (X, y).")
        x = self._inputs(validation_data[0])
        y = rows_of.targets(validation_data[1], data.y.shape[1], "y of validation_data")
        _validation.check_consistent_length(x, y)
        given = _Data(x, y, None, False, data.names).in_units_of(transform)
        rows = np.flatnonzero(rows_of.usable_rows(given.y, None))
        if not len(rows):
            raise ValueError("validation_data has no row in which a target was observed.")
        return given.table(rows)

    # --- calibration -----------------------------------------------------------------------------

    def _calibrate(self, table: Table) -> None:
        kind = calibration_kind(self.calibration)
        self.calibration_: Any = None
        self._conformal = kind is not None and kind.conformal
        if kind is None:
            return
        rows = subsample(table.rows, self.head_)
        y = np.asarray(table.y[rows], np.float64)
        if not kind.takes_gaps:
            complete = ~np.isnan(y).any(axis=1)
            rows, y = rows[complete], y[complete]
        why_not = rows_of.too_little_to_calibrate(y, kind.needs_every_target, self.target_names_)
        if why_not is not None:
            self._conformal = False
            warnings.warn(
                f"calibration={self.calibration!r} was left out: {why_not}. Predictions that "
                "nobody recalibrated are usually overconfident. Pass more rows, a larger "
                "calibration_fraction, or another calibration (None: none).",
                stacklevel=3,
            )
            return
        self.calibration_ = kind.fit(self._raw(np.asarray(table.x[rows])), y)

    # --- prediction ------------------------------------------------------------------------------

    def _raw(self, x: Any) -> MultivariateNormal:
        """Of T(y), not calibrated."""
        return predict_normal(_models(vars(self)), x)

    def _normal(self, X: Any) -> MultivariateNormal:  # noqa: N803
        """Of T(y), recalibrated."""
        _validation.check_is_fitted(self)
        normal = self._raw(self._inputs(X))
        if self.calibration_ is None or self._conformal:
            return normal
        return self.calibration_.apply(normal)

    def predict_distribution(self, X: Any) -> MultivariateNormal | TransformedNormal:  # noqa: N803
        """The distribution of the targets of each row.

        Args:
            X: (n, features).

        Returns:
            A `MultivariateNormal` of batch shape (n,); with a target transform a
            `TransformedNormal`, which has mean, covariance, log_prob, quantile, interval,
            ellipsoid and sample in the units of y, and `.normal`, that of T(y).

        """
        normal = self._normal(X)
        if self.target_transform_ is None:
            return normal
        return TransformedNormal(normal, self.target_transform_)

    def pred_dist(self, X: Any) -> MultivariateNormal | TransformedNormal:  # noqa: N803
        """`predict_distribution`, as NGBoost names it."""
        return self.predict_distribution(X)

    def predict(
        self,
        X: Any,  # noqa: N803
        return_std: bool = False,
        return_cov: bool = False,
    ) -> Any:
        """Expected targets, and their standard deviations or covariances.

        As `GaussianProcessRegressor.predict`, with one difference: rows are predicted each on its
        own, and the covariances are those of the targets of a row.

        Args:
            X: (n, features).
            return_std: return (mean, standard deviations), in the units of y.
            return_cov: return (mean, covariances), (n, d, d), in squared units.

        Returns:
            The mean, (n, d), or (n,) if y was one-dimensional (standard deviations likewise).

        Raises:
            RuntimeError: both were asked for.

        """
        if return_std and return_cov:
            raise RuntimeError("At most one of return_std or return_cov can be requested.")
        distribution = self.predict_distribution(X)
        if return_cov:
            return self._flat(distribution.mean), distribution.covariance
        if return_std:
            return self._flat(distribution.mean), self._flat(distribution.stddev)
        return self._flat(distribution.mean)

    def predict_interval(
        self,
        X: Any,  # noqa: N803
        level: float = 0.9,
        simultaneous: str | None = None,
    ) -> tuple[Array, Array]:
        """Lower and upper ends of the central interval of each target: (n, d) each, or (n,).

        Args:
            X: (n, features).
            level: probability that a target is inside; with calibration="conformal", guaranteed.
            simultaneous: as in `MultivariateNormal.interval`, for all targets inside at once. With
                calibration="conformal", any of its names takes the largest error of a row.

        """
        normal = self._normal(X)
        if self._conformal:
            lower, upper = self.calibration_.interval(normal, level, simultaneous)
        else:
            lower, upper = normal.interval(level, simultaneous)
        if self.target_transform_ is not None:
            lower, upper = ordered(self.target_transform_, lower, upper)
        return self._flat(lower), self._flat(upper)

    def predict_quantiles(self, X: Any, q: Any) -> Array:  # noqa: N803
        """The values below which each target lies with probability q.

        Not changed by calibration="conformal".

        Args:
            X: (n, features).
            q: a probability, which gives (n, d), or (m,) of them: (m, n, d); without d if y was
                one-dimensional.

        """
        return self._flat(self.predict_distribution(X).quantile(q))

    def predict_region(self, X: Any, level: float = 0.9) -> Ellipsoid | TransformedRegion:  # noqa: N803
        """The region that holds all targets of a row at once with probability `level`.

        An ellipsoid, with calibration="conformal" of a radius that guarantees it; with a target
        transform the image of one, with `contains` and `bounds`.
        """
        normal = self._normal(X)
        region = (
            self.calibration_.region(normal, level) if self._conformal else normal.ellipsoid(level)
        )
        if self.target_transform_ is None:
            return region
        return TransformedRegion(region, self.target_transform_)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: N803
        """The mean log-likelihood of a row, in nats: larger is better.

        Not R²: a proper score of mean and covariance, in the units of y (the Jacobian of a target
        transform is in it), so that models with different structures, losses and transforms
        compare. NaN in y is marginalized, if `missing` allows it.

        Args:
            X: (n, features).
            y: (n, d) or (n,).
            sample_weight: (n,), not negative.

        """
        distribution = self.predict_distribution(X)
        values = rows_of.targets(y, distribution.event_size, "y")
        _validation.check_consistent_length(X, values)
        log_prob = distribution.log_prob(values, self.missing)
        weight = None if sample_weight is None else _checked_weight(sample_weight, values)
        return float(np.average(log_prob, weights=weight))

    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = 0) -> Array:  # noqa: N803
        """Random draws: (n, d, n_samples), or (n, n_samples) if y was one-dimensional.

        As `GaussianProcessRegressor.sample_y`; the targets of a row are drawn together, each row
        on its own.
        """
        generator = require("sklearn.utils", "sample_y").check_random_state(random_state)
        seed = int(generator.randint(np.iinfo(np.int32).max))
        draws = self.predict_distribution(X).sample(n_samples, seed)
        return np.moveaxis(self._flat(draws), 0, -1)

    def _flat(self, values: Array) -> Array:
        """Without the axis of targets, if y had none."""
        return values[..., 0] if self._one_dimensional else values

    # --- copies ----------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        models = _models(state)
        if models:
            state["_networks"] = [to_bytes(model) for model in models]
            state["_has_ensemble"] = "ensemble_" in state
        for name in ("model_", "ensemble_", "head_"):
            state.pop(name, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        networks = [from_bytes(content) for content in state.pop("_networks", ())]
        as_ensemble = state.pop("_has_ensemble", False)
        super().__setstate__(state)
        if as_ensemble:
            self.ensemble_ = DeepEnsemble.from_members(networks)
            self.head_ = self.ensemble_.head
        elif networks:
            self.model_ = networks[0]
            self.head_ = heads(self.model_)[-1]


def _checked_weight(sample_weight: Any, rows: Any) -> Array:
    weight: Array = _validation._check_sample_weight(sample_weight, rows, dtype=np.float64)
    if (weight < 0).any() or not weight.any():
        raise ValueError("sample_weight must not be negative, and some of it must be positive.")
    return weight


def _models(state: Mapping[str, Any]) -> list[Any]:
    """The networks of a fitted estimator."""
    if "ensemble_" in state:
        return list(state["ensemble_"].members)
    return [state["model_"]] if "model_" in state else []
