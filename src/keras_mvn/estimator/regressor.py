"""scikit-learn estimator that combines head, losses, training recipe and calibration."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from keras_mvn._core.checks import unmasked
from keras_mvn._core.files import read_json, write_json
from keras_mvn._core.interrupts import deferred_interrupts
from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn._training.absent_inputs import DONORS, Donors, predict_beyond
from keras_mvn._training.data import thinned
from keras_mvn._training.members import Fitter
from keras_mvn._training.prediction import from_bytes, to_bytes
from keras_mvn._training.recipe import Recipe
from keras_mvn._training.scoring import subsample
from keras_mvn.distributions import Distribution, TransformedDistribution, TransformedRegion
from keras_mvn.distributions._fit_transform import fit_target_transform
from keras_mvn.distributions.transformed_distribution import ordered
from keras_mvn.ensemble import DeepEnsemble
from keras_mvn.estimator import _rows as rows_of
from keras_mvn.estimator._calibration import calibration_kind
from keras_mvn.estimator._cross_fitting import as_of_the_ensemble
from keras_mvn.estimator._data import Data
from keras_mvn.estimator._division import division, given_validation
from keras_mvn.estimator._material import Materials
from keras_mvn.estimator._networks import Weighted, all_members, networks_of, weighted
from keras_mvn.estimator._parameters import choices_of, recipe_of
from keras_mvn.estimator._selection import selected
from keras_mvn.layers._find_heads import heads

_base: Any = require("sklearn.base", "keras_mvn.estimator")
_validation: Any = require("sklearn.utils.validation", "keras_mvn.estimator")

__all__ = ["MultivariateNormalRegressor"]

_FLOATS = [np.float64, np.float32]
"""Data types that are kept; anything else is converted to the first."""

TRANSFORM_SEES = 100_000
"""Maximum number of training rows to which a target transform is fitted."""


class MultivariateNormalRegressor(
    _base.RegressorMixin, _base.MultiOutputMixin, _base.BaseEstimator
):
    """Regressor for tables that predicts several targets and the covariance of their errors.

    It trains a network with a `MultivariateNormalHead` by the recipe of docs/training.md: inputs
    are standardized inside the network, and the head is adapted to y (and, for up to 2000 training
    rows, to the out-of-fold errors of a ridge regression). Training uses Adam with averaged
    weights and early stopping, and keeps the best weights. Predictions are recalibrated on rows
    that the network has not seen, by cross-fitting (see `cv`) or, on large tables, held out.

    X must be a dense table of finite numbers (encode categories and impute missing inputs with a
    `ColumnTransformer`), and may be larger than memory (`numpy.memmap`, float32 or float64). y may
    have missing values, NaN.

    Args:
        covariance: name or instance of a structure from `keras_mvn.covariances`; or "auto": the
            best of several on the validation rows, listed in `selection_`.
        loss: "balanced", "nll", "faithful", "beta", "natural_gradient", "student_t",
            "energy_score", "crps"; or a class or an instance from `keras_mvn.losses`.
        tails: "normal"; "t": predictions are a `MultivariateStudentT` with one trained number of
            degrees of freedom; "t_per_row": one that depends on x; "auto": of the former two, the
            better one on the validation rows (twice the training; a normal without them). Losses
            other than "balanced" and "nll" are for normals; "student_t" is "t".
        n_components: int, number of components of a mixture for each row, for targets with several
            modes given X: predictions are then a `Mixture`, and regions those of highest density.
            "auto": 1, or 2, 4 or 8 where held-out rows gain 0.03 nats per target each time (from
            500 rows on; 1 if `tails` is not "auto").
        hidden: sequence of int, widths of the hidden layers.
        activation: activation of the hidden layers; smooth ones do better.
        dropout: float in [0, 1), dropout rate after each hidden layer.
        embedding: None; "periodic": inputs pass through `layers.PeriodicEmbedding`, which helps
            where trees do well (coordinates, steps, counts); "auto": the better one on held-out
            rows (half as much training again; plain without them, or for too many inputs).
        builder: in place of the four above, a function from the standardized inputs, a Keras
            tensor (rows, features), to the inputs of the head, (rows, units). Called once for
            each network; pickled and cloned with the estimator.
        constant: part of the covariance that is the same for all rows: None, "shape" (the
            correlations) or "covariance" (see `MultivariateNormalHead`); with few rows often the
            better model.
        mean: None: networks alone predict; "ridge"; "trees" (scikit-learn's boosting); or a
            regressor: networks correct its predictions, which they get beside the inputs. It is
            cross-fitted. With `sklearn.frozen.FrozenEstimator(model)`, means stay those of `model`,
            fitted to other rows, and networks learn the covariance of its errors. "auto": None or
            the better of "ridge" and (where they take seconds) "trees", as held-out rows say (a
            third as much training again; None without them, for large tables, with a builder).
        learning_rate: float > 0, learning rate of Adam.
        epochs: int, maximum number of epochs.
        batch_size: int, rows per step; "auto": an eighth of small tables, 32 to 128, and up to
            1024 for large ones.
        patience: int, number of epochs without a better validation loss after which training
            stops.
        validation_fraction: fraction of rows (of groups) for early stopping; at least 20 rows, but
            at most a quarter. 0 trains for all epochs.
        calibration: "temperature" (the maximum-likelihood factor), "coverage" (the factor for which
            90 % regions contain 90 %; see `calibration.Temperature`), "per_target", "matrix", or a
            subclass of `Recalibration`: corrects the covariances. "conformal": keeps them, and
            gives regions and intervals guaranteed coverage. None: neither.
        calibration_fraction: fraction of rows (of groups) for calibration; at least 20 rows.
            Calibration is skipped with a warning if these would be more than a quarter.
        cv: "auto", None, a number of folds (at least 3), or a splitter of scikit-learn whose folds
            contain each row once. With folds, each stops the training of a network that learns
            from the others, and all rows, predicted by networks that have not seen them, select and
            recalibrate: no row is held out, except for "conformal". None holds out rows as the two
            fractions say. "auto": 5 folds for 20 to 10 000 rows on JAX,
            which trains them in one pass; to 2000 elsewhere.
        n_members: int, number of networks, but at least one for each fold; more than one make a
            deep ensemble, whose predictions have the mean and the covariance of the mixture.
        stack: bool, whether what "auto" chooses from (networks with plain and embedded inputs, over
            regressors, and the regressors without a network) is mixed where held-out rows say that
            the mixture is better than the best one. False: the best network alone.
        target_transform: None, "log", "box-cox", "yeo-johnson", or a scikit-learn transformer that
            is monotone in each target: the network then predicts T(y). All results are in the units
            of y: means are means of y (not T⁻¹ of means; exact for "log", otherwise by
            Gauss–Hermite quadrature), likelihoods include the Jacobian, and intervals and regions
            are transformed.
        missing: "marginalize" treats NaN in y as missing; "raise" raises an error.
        isolated: what single values far from all others are (at most 2 % of a column, more than 100
            spreads from its median, ten times as far as the next; of inputs also a number such as
            −9999 in up to a fifth): "missing", for targets in training and validation rows, while
            inputs are limited to the range of the others; or "keep", as they are.
        time_budget: float, seconds after which `fit` stops training and keeps the best weights;
            None: no limit. With "auto" and several members, each gets its share. Results then
            depend on the speed of the machine.
        random_state: int for a `fit` that is reproducible on one backend and machine.
        verbose: int; 0: silent, 1: one line per network, 2: also Keras' line per epoch.

    Attributes:
        model_: the trained `keras.Model`, whose input is raw X, if there is one network.
        ensemble_: the trained `DeepEnsemble` of several networks, in which a regressor without a
            network has one that ignores X.
        weights_: (networks,), their weights in the mixture that predicts.
        head_: the head of the (first) model.
        calibration_: the fitted calibration, or None. `model_` does not include it;
            `calibration_.apply(model_)` returns a model that does.
        history_: losses by epoch, as in `keras.callbacks.History.history`; a list for ensembles.
        selection_: with "auto", a dictionary for each candidate and its weight, the best first.
        means_: with `mean`, the fitted regressors of each fold. The networks over them are
            functions of X and of d further columns, m(X), and predict y − m(X).
        split_: row numbers in X: "train", "validation", "calibration".
        folds_: row numbers of each fold, or None; network i has not seen those of fold i modulo
            their number.
        target_transform_: the fitted transform, or None.
        target_names_: names of the columns of y, or None.
        interrupted_: whether Ctrl-C ended training.
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
        tails: str = "auto",
        n_components: int | str = "auto",
        hidden: Sequence[int] = (64, 64),
        activation: Any = "gelu",
        dropout: float = 0.0,
        embedding: str | None = "auto",
        builder: Callable[[Any], Any] | None = None,
        constant: str | None = None,
        mean: Any = "auto",
        learning_rate: float = 5e-3,
        epochs: int = 1000,
        batch_size: int | str = "auto",
        patience: int = 60,
        validation_fraction: float = 0.15,
        calibration: Any = "temperature",
        calibration_fraction: float = 0.15,
        cv: Any = "auto",
        n_members: int = 1,
        stack: bool = True,
        target_transform: Any = None,
        missing: str = "marginalize",
        isolated: str = "missing",
        time_budget: float | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.covariance = covariance
        self.loss = loss
        self.tails = tails
        self.n_components = n_components
        self.hidden = hidden
        self.activation = activation
        self.dropout = dropout
        self.embedding = embedding
        self.builder = builder
        self.constant = constant
        self.mean = mean
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.calibration = calibration
        self.calibration_fraction = calibration_fraction
        self.cv = cv
        self.n_members = n_members
        self.stack = stack
        self.target_transform = target_transform
        self.missing = missing
        self.isolated = isolated
        self.time_budget = time_budget
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # a log-likelihood has no threshold of 0.5
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
        """Train the network or networks, and calibrate the predictions.

        Args:
            X: (n, features).
            y: (n, d) or (n,), NaN where missing; rows without any value are dropped.
            sample_weight: (n,), non-negative weights in the loss of training and validation rows.
                Calibration ignores them, but rows of weight 0 are not used at all.
            validation_data: (X, y) for early stopping, instead of rows from X.
            groups: (n,) labels; all rows of a group go to the same part: training, validation or
                calibration; or to the same fold.
            split: mapping with row numbers for "train" and, optionally, "validation" and
                "calibration", in place of a random split. With a number of folds as `cv`, those for
                training are divided into folds, and there are none for validation.
            callbacks: function that returns additional Keras callbacks for each network.
            backup_dir: folder for the state of training. If the process is killed, the same call
                resumes training, with the same result; if random_state is None, the seed is kept
                there, too. Use an empty folder for every new fit.

        Raises:
            ValueError: an argument or parameter is invalid; the message names it.
            KeyboardInterrupt: Ctrl-C. After the first epoch, the estimator is fitted nevertheless,
                with the best weights so far, and `interrupted_` is True: training ends after the
                current step, and calibration still runs. A second Ctrl-C interrupts immediately.
                If SIGINT has a custom handler, that handler is called instead.

        Warns:
            UserWarning: there are too few rows for the calibration; or single values are far from
                all others (see `isolated`).

        """
        recipe = recipe_of(self)
        ends = None if self.time_budget is None else time.monotonic() + self.time_budget
        folder = None if backup_dir is None else Path(backup_dir)
        data = self._checked(X, y, sample_weight)
        seed = self._seed(folder)
        divided = division(self, data, seed, groups, split, validation_data is not None)
        rows, observed = divided.split, data
        rows_of.tell_two_values(data.y, rows.train, data.names)
        if self.isolated != "keep":
            data = data._replace(y=rows_of.without_isolated(data.y, rows, data.names))
            rows_of.tell_isolated_inputs(data.x, rows.train, self)
        seen = np.asarray(data.y[thinned(rows.train, TRANSFORM_SEES)], np.float64)
        transform = fit_target_transform(self.target_transform, seen, data.names)
        observed, data = observed.in_units_of(transform), data.in_units_of(transform)
        given = None
        if validation_data is not None:
            given = given_validation(validation_data, data, transform, self._inputs)
        materials = Materials(data, divided, given, self.isolated != "keep", seed)
        with deferred_interrupts() as interruption:
            fitter = Fitter(
                materials.first(self.mean),
                seed,
                regressors=materials,
                target_names=data.names,
                callbacks=callbacks,
                folder=folder,
                ends=ends,
                interruption=interruption,
                verbose=int(self.verbose),
            )
            members = self._train(fitter, recipe, seed)
            self._one_dimensional = data.one_dimensional
            self.target_names_ = data.names
            self.target_transform_ = transform
            self.split_, self.folds_ = rows._asdict(), divided.folds or None
            self._donors = Donors(observed.x[thinned(rows.train, DONORS)])
            self._over = [one.recipe.mean for one in members]
            self._centers, self.means_ = materials.of_networks(self.mean, self._over)
            self._calibrate(observed, divided.calibrating)
        self.interrupted_ = fitter.interrupted or interruption.requested
        if self.interrupted_:
            raise KeyboardInterrupt
        return self

    def _train(self, fitter: Fitter, recipe: Recipe, seed: int) -> list[Weighted]:
        """Train the networks, and return them with their weights."""
        for name in ("model_", "ensemble_", "selection_", "interrupted_"):  # from an earlier fit
            if hasattr(self, name):
                delattr(self, name)
        n = max(int(self.n_members), fitter.smallest_ensemble)
        tried = selected(fitter, recipe, n - fitter.smallest_ensemble, choices_of(self))
        if tried:
            self.selection_ = [one.summary() for one in tried]
        found = weighted(fitter, recipe, n, tried)
        self.weights_ = np.array([one.weight for one in found])
        self.head_ = found[0].trained.head
        if n == len(found) == 1:
            self.model_ = found[0].trained.model
            self.history_: Any = found[0].trained.history
        else:
            models = [one.trained.model for one in found]
            self.ensemble_ = DeepEnsemble.from_members(models, seed)
            self.history_ = [one.trained.history for one in found]
        return found

    def _seed(self, folder: Path | None) -> int:
        """Return a seed from random_state, or that of the run to resume."""
        check_random_state = require("sklearn.utils", "random_state").check_random_state
        kept = None if folder is None else folder / "seed.json"
        if kept is not None and self.random_state is None and kept.is_file():
            return int(read_json(kept))
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_json(kept, seed)
        return seed

    # --- data ------------------------------------------------------------------------------------

    def _checked(self, X: Any, y: Any, sample_weight: Any) -> Data:  # noqa: N803
        of_x = {"dtype": _FLOATS, "ensure_min_samples": rows_of.SMALLEST_TABLE}
        of_y = {"dtype": _FLOATS, "ensure_2d": False, "ensure_all_finite": "allow-nan"}
        rows_of.require_unmasked(X)
        names = rows_of.names_of(y)
        y = unmasked(y)
        x, values = _validation.validate_data(self, X, y, validate_separately=(of_x, of_y))
        _validation.check_consistent_length(x, values)
        one_dimensional = values.ndim == 1
        values = values[:, None] if one_dimensional else values
        if self.missing == "raise" and rows_of.has_gaps(values):
            raise ValueError(
                "Input y contains NaN. Pass missing='marginalize' to treat NaN as missing."
            )
        weight = None
        if sample_weight is not None:
            weight = rows_of.checked_weight(sample_weight, x)
        inputs = getattr(self, "feature_names_in_", None)
        inputs = None if inputs is None else tuple(inputs)
        return Data(x, values, weight, one_dimensional, names, inputs)

    def _inputs(self, X: Any) -> Any:  # noqa: N803
        rows_of.require_unmasked(X)
        return _validation.validate_data(self, X, reset=False, dtype=_FLOATS)

    # --- calibration -----------------------------------------------------------------------------

    def _calibrate(self, observed: Data, rows: Sequence[np.ndarray]) -> None:
        """Fit the calibration to rows of which network i has not seen those of rows[i]."""
        kind = calibration_kind(self.calibration)
        self.calibration_: Any = None
        self._conformal = kind is not None and kind.conformal
        if kind is None:
            return
        members = all_members(vars(self))
        rows = [subsample(part, self.head_) for part in rows[: len(members)]]
        if not kind.takes_gaps:
            rows = [part[~np.isnan(observed.y[part]).any(axis=1)] for part in rows]
        y = np.asarray(np.concatenate([observed.y[part] for part in rows]), np.float64)
        why_not = rows_of.too_little_to_calibrate(y, kind.needs_every_target, self.target_names_)
        if why_not is not None:
            self._conformal = False
            warnings.warn(
                f"calibration={self.calibration!r} was skipped: {why_not}. Predictions that are "
                "not recalibrated are usually overconfident. Pass more rows, a larger "
                "calibration_fraction, or another calibration (None for no calibration).",
                stacklevel=3,
            )
            return
        self.calibration_ = kind.fit(as_of_the_ensemble(members, observed.x, rows), y)

    # --- prediction ------------------------------------------------------------------------------

    def _raw(self, x: Any) -> Distribution:
        """Predict the distribution of T(y), not calibrated."""
        # On another scale, such as that of logarithms, more spread would move the mean of y.
        widens = self.target_transform_ is None
        donors = getattr(self, "_donors", None) if widens else None  # none in old pickles
        return predict_beyond(all_members(vars(self)), x, donors)

    def _predicted(self, X: Any) -> Distribution:  # noqa: N803
        """Predict the distribution of T(y), recalibrated."""
        _validation.check_is_fitted(self)
        normal = self._raw(self._inputs(X))
        if self.calibration_ is None or self._conformal:
            return normal
        return self.calibration_.apply(normal)

    def predict_distribution(self, X: Any) -> Distribution:  # noqa: N803
        """Predict the distribution of the targets of each row.

        Args:
            X: (n, features).

        Returns:
            A `MultivariateNormal` or `MultivariateStudentT` of batch shape (n,), depending on
            `tails`, or a `Mixture` of these (`n_components`); with a target transform a
            `TransformedDistribution` of `.base`, that of T(y).

        """
        normal = self._predicted(X)
        if self.target_transform_ is None:
            return normal
        return TransformedDistribution(normal, self.target_transform_)

    def pred_dist(self, X: Any) -> Distribution:  # noqa: N803
        """Alias of `predict_distribution`, the name that NGBoost uses."""
        return self.predict_distribution(X)

    def predict(
        self,
        X: Any,  # noqa: N803
        return_std: bool = False,
        return_cov: bool = False,
    ) -> Any:
        """Predict expected targets and, optionally, standard deviations or covariances.

        Like `GaussianProcessRegressor.predict`, with one difference: rows are independent, and the
        covariances are between the targets of a row.

        Args:
            X: (n, features).
            return_std: bool, whether to return (mean, standard deviations), in the units of y.
            return_cov: bool, whether to return (mean, covariances), (n, d, d), in squared units.

        Returns:
            The mean, (n, d), or (n,) if y was one-dimensional (standard deviations likewise).

        Raises:
            RuntimeError: return_std and return_cov are both True.

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
        """Predict lower and upper ends of each target's central interval: (n, d) each, or (n,).

        Args:
            X: (n, features).
            level: float, coverage of each interval; guaranteed with calibration="conformal".
            simultaneous: as in `MultivariateNormal.interval`, for intervals that contain all
                targets jointly. With calibration="conformal", every method uses the largest
                standardized error of each row.

        """
        normal = self._predicted(X)
        if self._conformal:
            lower, upper = self.calibration_.interval(normal, level, simultaneous)
        else:
            lower, upper = normal.interval(level, simultaneous)
        if self.target_transform_ is not None:
            lower, upper = ordered(self.target_transform_, lower, upper)
        return self._flat(lower), self._flat(upper)

    def predict_quantiles(self, X: Any, q: Any) -> Array:  # noqa: N803
        """Predict the q quantiles of each target; calibration="conformal" does not change them.

        Args:
            X: (n, features).
            q: one probability, for a result of shape (n, d), or (m,) probabilities, for
                (m, n, d); without the axis d if y was one-dimensional.

        """
        return self._flat(self.predict_distribution(X).quantile(q))

    def predict_region(self, X: Any, level: float = 0.9) -> Any:  # noqa: N803
        """Predict the region that contains all targets of a row with probability `level`.

        It is an ellipsoid (of mixtures, the region of highest density), whose coverage is
        guaranteed with calibration="conformal"; with a target transform, it is the image of one,
        with `contains` and `log_volume`.
        """
        answer = self._predicted(X)
        found = self.calibration_ if self._conformal else None
        region = answer.region(level) if found is None else found.region(answer, level)
        if self.target_transform_ is None:
            return region
        return TransformedRegion(region, self.target_transform_)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: N803
        """Return the mean log-likelihood per row, in nats: larger is better.

        Unlike R², this is a proper score of mean and covariance. It is in the units of y (including
        the Jacobian of a target transform), so models with different structures, losses and
        transforms are comparable. NaN in y is marginalized if `missing` allows it.

        Args:
            X: (n, features).
            y: (n, d) or (n,).
            sample_weight: (n,), non-negative.

        """
        distribution = self.predict_distribution(X)
        values = rows_of.targets(y, distribution.event_size, "y", distribution.target_names)
        _validation.check_consistent_length(X, values)
        log_prob = distribution.log_prob(values, self.missing)
        weight = None if sample_weight is None else rows_of.checked_weight(sample_weight, values)
        return float(np.average(log_prob, weights=weight))

    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = 0) -> Array:  # noqa: N803
        """Draw random samples: (n, d, n_samples), or (n, n_samples) if y was one-dimensional.

        Like `GaussianProcessRegressor.sample_y`; the targets of a row are drawn jointly, rows
        independently.
        """
        generator = require("sklearn.utils", "sample_y").check_random_state(random_state)
        seed = int(generator.randint(np.iinfo(np.int32).max))
        draws = self.predict_distribution(X).sample(n_samples, seed)
        return np.moveaxis(self._flat(draws), 0, -1)

    def _flat(self, values: Array) -> Array:
        """Drop the target axis if y was one-dimensional."""
        return values[..., 0] if self._one_dimensional else values

    def __getattr__(self, name: str) -> Any:
        if name == "model_" and "ensemble_" in vars(self):
            n = len(self.ensemble_.members)
            raise AttributeError(
                f"This estimator has {n} networks, in `ensemble_`, instead of one `model_`. For a "
                "single network, pass stack=False, cv=None and n_members=1."
            )
        raise AttributeError(f"{type(self).__name__} object has no attribute {name!r}")

    # --- copies ----------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        models = networks_of(state)
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
