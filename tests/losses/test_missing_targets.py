"""NaN in y means "not observed": what training recovers, what metrics report, what could break."""

import keras
import numpy as np
import pytest
import scipy.stats
from keras import ops

import keras_mvn as kmvn
from differentiation import precision, value_and_gradients

FULL = ["cholesky", "precision_cholesky"]
EVERY = ["diagonal", *FULL]
NAN = float("nan")

B = np.array([[1.0, -2.0, 0.5], [0.3, 0.0, 2.0]])  # slopes (inputs, targets)
A = np.array([3.0, -1.0, 10.0])  # intercepts
SIGMA = np.array([[1.0, 1.2, -0.3], [1.2, 4.0, 0.2], [-0.3, 0.2, 0.25]])


def linear_gaussian(rng, n):
    x = rng.normal(size=(n, 2))
    return x, A + x @ B + rng.multivariate_normal(np.zeros(3), SIGMA, size=n)


def fit_linear(x, y, covariance, steps=150):
    """The maximum-likelihood linear mean and constant Σ, by `fit` with full batches.

    Returns intercepts, slopes and Σ.
    """
    head = kmvn.layers.MultivariateNormalHead(y.shape[1], covariance, constant="covariance")
    head.adapt(y)
    model = keras.Sequential([keras.Input((x.shape[1],)), head])
    rate = keras.optimizers.schedules.CosineDecay(0.1, steps)
    loss = kmvn.losses.NegativeLogLikelihood(covariance, missing="marginalize")
    model.compile(keras.optimizers.Adam(rate), loss=loss)
    history = model.fit(x, y, epochs=steps, batch_size=len(x), shuffle=False, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    points = np.vstack([np.zeros(x.shape[1]), np.eye(x.shape[1])])
    normal = head.distribution(model.predict(points, verbose=0))
    return normal.mean[0], normal.mean[1:] - normal.mean[0], normal.covariance[0]


def covariance_errors(sigma, n):
    """Standard errors of the entries of a sample covariance of n rows."""
    variance = np.diagonal(sigma)
    return np.sqrt((variance[:, None] * variance + sigma**2) / n)


class TestRecovery:
    @pytest.mark.once
    @pytest.mark.parametrize("covariance", EVERY)
    @pytest.mark.slow
    def test_values_missing_at_random_cost_precision_only(self, covariance, rng):
        x, y = linear_gaussian(rng, 1000)
        y[rng.random(y.shape) < 0.4] = NAN
        intercept, slopes, sigma = fit_linear(x, y, covariance)
        error = np.sqrt(np.diagonal(SIGMA) / (0.6 * len(x)))
        np.testing.assert_array_less(np.abs(intercept - A) / error, 4.5)
        np.testing.assert_array_less(np.abs(slopes - B) / error, 4.5)
        pairs = 0.36 * len(x)  # rows in which two given targets are both there
        off = np.abs(sigma - SIGMA) / covariance_errors(SIGMA, pairs)
        compared = np.diagonal(off) if covariance == "diagonal" else off
        np.testing.assert_array_less(compared, 4.5)

    @pytest.mark.once
    @pytest.mark.parametrize("covariance", FULL)
    @pytest.mark.slow
    def test_informative_gaps_bias_complete_rows_and_not_the_marginal(self, covariance, rng):
        """Target 1 is missing where target 0 lies above its mean: known from what is observed."""
        n, rho = 1000, 0.8
        sigma = np.array([[1.0, rho], [rho, 1.0]])
        x = rng.normal(size=(n, 1))
        error = rng.multivariate_normal(np.zeros(2), sigma, size=n)
        y = x * np.array([1.0, -1.0]) + error
        y[error[:, 0] > 0, 1] = NAN
        standard_error = 1 / np.sqrt(n / 2)

        intercept, _, found = fit_linear(x, y, covariance)
        assert np.abs(intercept).max() < 4.5 * standard_error / np.sqrt(1 - rho**2)
        np.testing.assert_array_less(np.abs(found - sigma), 4.5 * 2 * standard_error)

        complete = ~np.isnan(y).any(axis=1)
        dropped, _, shrunk = fit_linear(x[complete], y[complete], covariance)
        half_normal = np.sqrt(2 / np.pi)  # the mean of |z|
        exact = -half_normal * np.array([1.0, rho])
        np.testing.assert_array_less(np.abs(dropped - exact), 4.5 * standard_error)
        np.testing.assert_allclose(shrunk[0, 0], 1 - half_normal**2, atol=4.5 * standard_error)


# --- metrics --------------------------------------------------------------------------------------


def predictions(rng, n, d=3):
    """y_pred of "cholesky", and the mean and Σ = L Lᵀ, L = S (I + N), that it stands for."""
    mean, scale = rng.normal(size=(n, d)), rng.uniform(0.5, 2.0, size=(n, d))
    packed = rng.normal(size=(n, d * (d - 1) // 2))
    factor = np.tile(np.eye(d), (n, 1, 1))
    factor[:, *np.tril_indices(d, -1)] = packed
    factor = scale[..., None] * factor
    y_pred = np.concatenate([mean, scale, packed], axis=1)
    return y_pred, mean, factor @ factor.swapaxes(1, 2)


def by_hand(y, mean, sigma, level=0.7):
    """NLL and coverage of each row (NaN where nothing was observed), by SciPy on sub-matrices."""
    nll, inside = np.full(len(y), NAN), np.full(len(y), NAN)
    for i, row in enumerate(y):
        o = ~np.isnan(row)
        if o.any():
            sub = sigma[i][np.ix_(o, o)]
            nll[i] = -scipy.stats.multivariate_normal(mean[i][o], sub).logpdf(row[o])
            r = row[o] - mean[i][o]
            inside[i] = r @ np.linalg.solve(sub, r) <= scipy.stats.chi2.ppf(level, o.sum())
    return nll, inside


class TestMetrics:
    """Two batches, row weights, rows of every pattern, one row with nothing observed."""

    @pytest.fixture
    def data(self, rng):
        y_pred, mean, sigma = predictions(rng, 60)
        y = mean + np.linalg.cholesky(sigma)[..., 0] + rng.normal(size=mean.shape)
        y[rng.random(y.shape) < 0.4] = NAN
        y[7] = NAN
        y[8:12] = mean[8:12] + 0.1  # complete
        return y, y_pred, mean, sigma, rng.uniform(0.5, 2.0, len(y))

    def result(self, metric, y, y_pred, weight):
        for rows in (slice(0, 23), slice(23, None)):
            metric.update_state(y[rows], y_pred[rows], weight[rows])
        return float(metric.result())

    def mean_of(self, values, weight):
        seen = ~np.isnan(values)
        return np.average(values[seen], weights=weight[seen])

    def test_negative_log_likelihood(self, data):
        y, y_pred, mean, sigma, weight = data
        metric = kmvn.metrics.NegativeLogLikelihood(missing="marginalize")
        nll, _ = by_hand(y, mean, sigma)
        got = self.result(metric, y, y_pred, weight)
        np.testing.assert_allclose(got, self.mean_of(nll, weight), rtol=1e-5)

    def test_coverage_and_its_error(self, data):
        y, y_pred, mean, sigma, weight = data
        _, inside = by_hand(y, mean, sigma)
        expected = self.mean_of(inside, weight)
        coverage = kmvn.metrics.Coverage(0.7, missing="marginalize")
        error = kmvn.metrics.CoverageError(0.7, missing="marginalize")
        np.testing.assert_allclose(self.result(coverage, y, y_pred, weight), expected, rtol=1e-5)
        got = self.result(error, y, y_pred, weight)
        np.testing.assert_allclose(got, abs(expected - 0.7), atol=1e-6)

    def test_root_mean_squared_error(self, data):
        y, y_pred, mean, _, weight = data
        squared = (y - mean) ** 2
        each = np.broadcast_to(weight[:, None], y.shape)
        metric = kmvn.metrics.RootMeanSquaredError(missing="marginalize")
        got = self.result(metric, y, y_pred, weight)
        np.testing.assert_allclose(got, np.sqrt(self.mean_of(squared, each)), rtol=1e-5)

    def test_mean_half_log_det_is_that_of_all_targets(self, data):
        """Of rows in which anything was observed."""
        y, y_pred, _, sigma, weight = data
        values = np.where(np.isnan(y).all(axis=1), NAN, 0.5 * np.linalg.slogdet(sigma)[1])
        metric = kmvn.metrics.MeanHalfLogDet(missing="marginalize")
        got = self.result(metric, y, y_pred, weight)
        np.testing.assert_allclose(got, self.mean_of(values, weight), rtol=1e-5)

    def test_calibrated_predictions_cover_as_promised(self, rng):
        y_pred, mean, sigma = predictions(rng, 20_000)
        z = rng.normal(size=mean.shape)
        y = mean + (np.linalg.cholesky(sigma) @ z[..., None])[..., 0]
        y[rng.random(y.shape) < 0.5] = NAN
        metric = kmvn.metrics.Coverage(0.9, missing="marginalize")
        metric.update_state(y, y_pred)
        rows = (~np.isnan(y)).any(axis=1).sum()
        assert abs(float(metric.result()) - 0.9) < 4.5 * np.sqrt(0.09 / rows)


# --- what could break -----------------------------------------------------------------------------


def network(covariance="cholesky", d=3, adapt=None, **compile_arguments):
    head = kmvn.layers.MultivariateNormalHead(d, covariance, shrinkage=None)
    if adapt is not None:
        head.adapt(adapt)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(8, "gelu"), head])
    model.compile(
        keras.optimizers.Adam(0.01),
        loss=kmvn.losses.NegativeLogLikelihood(covariance, missing="marginalize"),
        metrics=[
            kmvn.metrics.NegativeLogLikelihood(covariance, missing="marginalize"),
            kmvn.metrics.CoverageError(0.9, covariance, missing="marginalize"),
            kmvn.metrics.RootMeanSquaredError(covariance, missing="marginalize"),
        ],
        **compile_arguments,
    )
    return model


def assert_finite(model, history):
    for name, values in history.history.items():
        assert np.isfinite(values).all(), name
    assert all(np.isfinite(ops.convert_to_numpy(w)).all() for w in model.weights)


class TestFit:
    """Compiled as `fit` compiles on this backend: graphs, XLA or eager."""

    @pytest.mark.parametrize("covariance", EVERY)
    def test_batches_complete_partial_and_empty_in_one_epoch(self, covariance, rng):
        x, y = linear_gaussian(rng, 90)
        y[32:64][rng.random((32, 3)) < 0.4] = NAN
        y[64:] = NAN  # the last batch, and a short one
        model = network(covariance, adapt=y)
        history = model.fit(
            x, y, batch_size=32, epochs=3, shuffle=False, verbose=0, validation_data=(x, y)
        )
        assert_finite(model, history)
        assert history.history["loss"][-1] < history.history["loss"][0]

    @pytest.mark.skipif(keras.backend.backend() == "torch", reason="compiles for minutes")
    def test_xla(self, rng):
        x, y = linear_gaussian(rng, 64)
        y[:32][rng.random((32, 3)) < 0.4] = NAN
        model = network(adapt=y, jit_compile=True)
        history = model.fit(x, y, batch_size=32, epochs=2, shuffle=False, verbose=0)
        assert_finite(model, history)

    def test_nothing_observed_moves_nothing(self, rng):
        x, y = linear_gaussian(rng, 32)
        model = network(adapt=y)
        before = [w.copy() for w in model.get_weights()]
        history = model.fit(x, np.full_like(y, NAN), epochs=2, verbose=0)
        assert history.history["loss"] == [0.0, 0.0]
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)

    def test_rows_with_nothing_observed_add_no_gradient(self, rng):
        """Training on them beside others is training with sample weights of 0."""
        x, y = linear_gaussian(rng, 32)
        empty = np.arange(32) % 2 == 1
        holes = np.where(empty[:, None], NAN, y)
        ends = []
        for targets, weight in ((holes, None), (y, 1.0 - empty)):
            keras.utils.set_random_seed(1)
            model = network(adapt=y)
            model.fit(x, targets, sample_weight=weight, epochs=3, shuffle=False, verbose=0)
            ends.append(model.get_weights())
        for one, other in zip(*ends, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("covariance", EVERY)
    @pytest.mark.elsewhere(False)
    def test_without_gaps_training_is_what_it_is_without_the_argument(self, covariance, rng):
        x, y = linear_gaussian(rng, 64)
        losses = []
        for missing in ("propagate", "marginalize"):
            keras.utils.set_random_seed(1)
            model = network(covariance, adapt=y)
            model.compile(
                keras.optimizers.Adam(0.01),
                loss=kmvn.losses.NegativeLogLikelihood(covariance, missing=missing),
            )
            losses.append(model.fit(x, y, epochs=4, verbose=0, shuffle=False).history["loss"])
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)

    def test_integer_targets(self, rng):
        x = rng.normal(size=(32, 2))
        y = rng.integers(0, 50, size=(32, 3))
        model = network(adapt=y)
        assert_finite(model, model.fit(x, y, epochs=2, verbose=0))

    def test_a_target_that_is_never_observed(self, rng):
        x, y = linear_gaussian(rng, 64)
        y[:, 1] = NAN
        with pytest.raises(ValueError, match=r"at least 2 observed rows of every target.*1 \(0\)"):
            network(adapt=y)
        model = network()  # not adapted: its prediction of that target stays as it was
        history = model.fit(x, y, epochs=3, verbose=0)
        assert_finite(model, history)

    def test_one_target_as_a_vector(self, rng):
        x = rng.normal(size=(40, 2))
        y = x[:, 0] + rng.normal(size=40)
        y[::3] = NAN
        model = network(d=1, adapt=y)
        assert_finite(model, model.fit(x, y, epochs=2, verbose=0))

    def test_masked_steps_and_gaps(self, rng):
        """A step that is masked and one with nothing observed count alike: not at all."""
        x = rng.normal(size=(8, 5, 2))
        x[:, 3:] = 0.0
        y = rng.normal(size=(8, 5, 3))
        y[rng.random(y.shape) < 0.3] = NAN
        y[:, 4] = NAN
        head = kmvn.layers.MultivariateNormalHead(3)
        model = keras.Sequential([keras.Input((5, 2)), keras.layers.Masking(), head])
        metric = kmvn.metrics.NegativeLogLikelihood(missing="marginalize")
        loss = kmvn.losses.NegativeLogLikelihood(missing="marginalize")
        model.compile(keras.optimizers.SGD(0.0), loss=loss, metrics=[metric])
        # In the training step on JAX, Keras hands masks to no metric.
        found = model.evaluate(x, y, batch_size=8, verbose=0, return_dict=True)
        normal = head.distribution(model.predict(x, verbose=0))
        steps = (slice(None), slice(0, 3))
        flat = y[steps].reshape(-1, 3)
        nll, _ = by_hand(
            flat, normal.mean[steps].reshape(-1, 3), normal.covariance[steps].reshape(-1, 3, 3)
        )
        got = found["negative_log_likelihood"]
        np.testing.assert_allclose(got, np.nanmean(nll), rtol=1e-5)


@pytest.mark.parametrize("covariance", EVERY)
class TestLoss:
    def test_float64(self, covariance, rng):
        d = 3
        _, mean, sigma = predictions(rng, 12)
        if covariance == "diagonal":
            sigma = sigma * np.eye(d)
        structure = kmvn.covariances.get(covariance)
        scale, shape = structure.from_covariance(sigma)
        y = mean + rng.normal(size=mean.shape)
        y[rng.random(y.shape) < 0.4] = NAN
        weight = rng.uniform(0.5, 2.0, 12)
        loss = kmvn.losses.NegativeLogLikelihood(covariance, missing="marginalize", reduction="sum")
        nll, _ = by_hand(y, mean, sigma)
        y_pred = np.concatenate([mean, scale, shape], axis=1)
        with precision("float64"):
            value, (gradient,) = value_and_gradients(
                lambda p: loss(ops.convert_to_tensor(y, "float64"), p, weight),
                y_pred,
                dtype="float64",
            )
        np.testing.assert_allclose(value, np.nansum(nll * weight), rtol=1e-12)
        assert np.isfinite(gradient).all()
        assert not gradient[:, :d][np.isnan(y)].any()  # means of what is missing
        assert gradient[:, :d][~np.isnan(y)].all()

    def test_infinite_targets_are_not_taken_for_missing(self, covariance, rng):
        k = kmvn.covariances.get(covariance).shape_size(2)
        y_pred = np.concatenate([np.zeros((1, 2)), np.ones((1, 2)), np.full((1, k), 0.1)], axis=1)
        loss = kmvn.losses.NegativeLogLikelihood(covariance, missing="marginalize")
        for row in ([np.inf, 0.0], [np.inf, NAN]):
            with np.errstate(invalid="ignore"):
                assert not np.isfinite(float(loss(np.array([row]), y_pred)))
