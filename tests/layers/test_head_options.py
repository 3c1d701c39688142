"""What of the head's covariance depends on x, and what its gradient reaches."""

import keras
import numpy as np
import pytest

import keras_mvn as kmvn
from differentiation import numpy, precision, tensor, value_and_gradients
from keras_mvn import losses
from keras_mvn.layers import MultivariateNormalHead

D = 3


def table(rng, rows=50):
    x = rng.normal(size=(rows, 2)).astype("float32")
    y = (x @ rng.normal(size=(2, D)) + rng.normal(size=(rows, D))) * [1.0, 1e3, 1e-2]
    return x, y.astype("float32")


def fitted(x, y, loss=None, **kwargs):
    head = MultivariateNormalHead(D, **kwargs)
    head.adapt(y)
    trunk = keras.layers.Dense(6, "gelu")
    model = keras.Sequential([keras.Input((2,)), trunk, head])
    loss = loss or losses.NegativeLogLikelihood(head.covariance)
    model.compile(keras.optimizers.Adam(0.05), loss=loss)
    history = model.fit(x, y, epochs=4, batch_size=25, verbose=0)
    return model, head, trunk, history.history["loss"]


def spread(array):
    """Largest difference between rows, relative to the largest entry of its column."""
    return (np.ptp(array, axis=0) / np.maximum(np.abs(array).max(axis=0), 1e-30)).max()


class TestConstant:
    @pytest.mark.parametrize("covariance", ["isotropic", "diagonal", "cholesky", "symmetric"])
    def test_a_constant_covariance_is_trained_and_does_not_depend_on_x(self, covariance, rng):
        x, y = table(rng)
        model, head, _, loss = fitted(x, y, covariance=covariance, constant="covariance")
        normal = head.distribution(model.predict(x, verbose=0))
        assert spread(normal.covariance) < 1e-5
        assert spread(normal.mean) > 0.1
        assert numpy(head.constant_raw).all()
        assert loss[-1] < loss[0]

    def test_a_constant_shape_keeps_scales_that_depend_on_x(self, rng):
        x, y = table(rng)
        model, _, _, loss = fitted(x, y, constant="shape")
        y_pred = model.predict(x, verbose=0)
        assert spread(y_pred[:, 2 * D :]) < 1e-6
        assert spread(y_pred[:, D : 2 * D]) > 1e-3
        assert loss[-1] < loss[0]

    @pytest.mark.elsewhere(False)
    def test_a_constant_covariance_ends_at_that_of_the_residuals(self, rng):
        x, y = table(rng, 400)
        head = MultivariateNormalHead(D, constant="covariance")
        head.adapt(y)
        model = keras.Sequential([keras.Input((2,)), head])  # linear: least squares is the optimum
        model.compile(keras.optimizers.Adam(0.05), loss=losses.NegativeLogLikelihood())
        model.fit(x, y, epochs=300, batch_size=400, verbose=0)
        design = np.column_stack([x, np.ones(len(x))]).astype(float)
        residual = y - design @ np.linalg.lstsq(design, y.astype(float), rcond=None)[0]
        unit = y.std(axis=0)
        normal = head.distribution(model.predict(x[:1], verbose=0))
        np.testing.assert_allclose(
            normal.covariance[0] / np.outer(unit, unit),
            np.cov(residual.T, bias=True) / np.outer(unit, unit),
            atol=3e-3,
        )

    def test_unknown_parts_and_inseparable_structures_are_refused(self):
        with pytest.raises(ValueError, match="constant='mean' is not known"):
            MultivariateNormalHead(D, constant="mean")
        with pytest.raises(ValueError, match="covariance='symmetric' has none"):
            MultivariateNormalHead(D, "symmetric", constant="shape")


class TestStopTrunk:
    def trunk_gradient(self, rng, **kwargs):
        """How far one SGD step moves the trunk when the mean has nothing to learn."""
        x, y = table(rng)
        head = MultivariateNormalHead(D, kernel_initializer="zeros", **kwargs)
        head.adapt(y)
        trunk = keras.layers.Dense(6, "gelu")
        model = keras.Sequential([keras.Input((2,)), trunk, head])
        model.compile(keras.optimizers.SGD(0.1), loss=losses.NegativeLogLikelihood())
        before, covariance_before = numpy(trunk.kernel), numpy(head.covariance_dense.kernel)
        model.train_on_batch(x, y)
        assert not np.array_equal(numpy(head.covariance_dense.kernel), covariance_before)
        return np.abs(numpy(trunk.kernel) - before).max()

    def test_the_covariance_does_not_reach_the_trunk(self, rng):
        # A zero kernel of the mean passes no gradient on, so all of it is the covariance's.
        assert self.trunk_gradient(rng, stop_trunk=True) == 0.0
        assert self.trunk_gradient(rng) > 0.0

    @pytest.mark.parametrize("training", [True, False])
    def test_whoever_asks_for_the_gradient(self, training, rng):
        head = MultivariateNormalHead(D, stop_trunk=True)
        x = rng.normal(size=(5, 4))
        head(tensor(x))
        of_mean, of_covariance = (
            value_and_gradients(
                lambda x, part=part: keras.ops.sum(head(x, training=training)[:, part] ** 2), x
            )[1][0]
            for part in (slice(0, D), slice(D, None))
        )
        assert np.abs(of_mean).min() > 0.0
        assert np.abs(of_covariance).max() == 0.0


@pytest.mark.parametrize(
    "kwargs",
    [
        {"constant": "shape", "stop_trunk": True},
        {"constant": "covariance", "degrees_of_freedom": "constant"},
    ],
    ids=str,
)
def test_a_saved_model_predicts_the_same(kwargs, rng, tmp_path):
    x, y = table(rng)
    learned = kwargs.get("degrees_of_freedom")
    loss = losses.StudentT("learned") if learned else None
    model, _, _, _ = fitted(x, y, loss, **kwargs)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    config = again.layers[-1].get_config()
    assert all(config[key] == value for key, value in kwargs.items())


def test_missing_targets_train_through_the_head(rng):
    x, y = table(rng, 200)
    y[rng.random(y.shape) < 0.3] = np.nan
    head = MultivariateNormalHead(D, shrinkage=None)  # the loss is then that of the metric
    head.adapt(y)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6, "gelu"), head])
    model.compile(
        keras.optimizers.Adam(0.01),
        loss=losses.BalancedNegativeLogLikelihood(missing="marginalize"),
        metrics=[kmvn.metrics.NegativeLogLikelihood(missing="marginalize")],
    )
    history = model.fit(x, y, epochs=5, batch_size=50, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    # every row is observed in part: the metric's mean is the loss's
    empty = np.isnan(y).all(axis=1).mean()
    expected = np.array(history["loss"]) / (1 - empty)
    np.testing.assert_allclose(history["negative_log_likelihood"], expected, rtol=1e-4)


def test_the_tag_survives_the_cast_to_another_dtype(rng):
    with precision("float64"):
        check_the_tag_survives(rng)


def check_the_tag_survives(rng):
    head = MultivariateNormalHead(D, "diagonal")
    y_pred = head(tensor(rng.normal(size=(4, 2))))
    loss = losses.FaithfulNegativeLogLikelihood("diagonal", dtype="float64")
    with pytest.raises(ValueError, match="reads covariance='cholesky'"):
        losses.FaithfulNegativeLogLikelihood(dtype="float64")(np.zeros((4, D)), y_pred)
    assert np.isfinite(numpy(loss(np.zeros((4, D)), y_pred)))


class TestCentered:
    """Targets that are errors of another model: their mean stays at 0, to the last bit."""

    def test_only_the_covariance_is_learned_and_saved(self, tmp_path):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(200, 2)).astype("float32")
        m = np.round(x, 1)
        y = np.round(m + 0.3 + 0.5 * np.exp(x[:, :1]) * rng.normal(size=(200, 2)), 1)
        head = MultivariateNormalHead(2, centered=True)
        head.adapt(y - m, measured=y)
        np.testing.assert_allclose(head.resolution, 0.1, rtol=1e-6)
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(8, "gelu"), head])
        model.compile("adam", losses.BalancedNegativeLogLikelihood())
        before = head.distribution(model.predict(x, verbose=0))
        model.fit(x, y - m, epochs=3, verbose=0)
        after = head.distribution(model.predict(x, verbose=0))
        np.testing.assert_array_equal(after.mean, 0.0)
        assert np.abs(after.stddev - before.stddev).max() > 1e-3
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(again.predict(x, verbose=0)[:, :2], 0.0)
        assert not again.layers[-1].mean_dense.trainable
