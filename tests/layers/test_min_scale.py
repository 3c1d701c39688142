"""The floor of the scales: where it comes from, what it does, and what it leaves alone."""

import keras
import numpy as np
import pytest

from differentiation import numpy, tensor
from keras_mvn import MultivariateNormal
from keras_mvn._core.fences import spread
from keras_mvn.calibration import Temperature
from keras_mvn.covariances.resolution import resolution
from keras_mvn.estimator import MultivariateNormalRegressor
from keras_mvn.layers import MultivariateNormalHead
from keras_mvn.scores import cell_log_score, log_score

N = 600


def columns(rng):
    """Columns of values that repeat or not, and their resolutions."""
    z = rng.normal(size=N)
    few = np.arange(N) < 20
    return {
        "continuous": (z, 0.0),
        "a tenth": (np.round(z, 1), 0.1),
        "sums of tenths": (np.round(z, 1) + 0.1 + 0.2 - 0.3, 0.1),
        "counts, nearly always 0": (rng.poisson(0.1, size=N).astype(float), 1.0),
        "two values": (np.where(z > 0, 5.0, 2.0), 3.0),
        "integers, 3 % of them odd": (np.where(few, z, np.round(3 * z)), 1.0),
        "steps of 5 with one row of 1e12": (
            np.where(np.arange(N) == 7, 1e12, 5 * np.round(z)),
            5.0,
        ),
        "every row twice": (np.repeat(z[: N // 2], 2), 0.0),
        "constant": (np.ones(N), 0.0),
    }


class TestResolution:
    @pytest.mark.parametrize("name", columns(np.random.default_rng(0)))
    def test_is_the_width_of_the_grid(self, name, rng):
        values, width = columns(rng)[name]
        assert resolution(values[:, None])[0] == pytest.approx(width, rel=1e-6)

    def test_of_zeros_and_continuous_values_is_how_close_they_come(self, rng):
        z = rng.normal(size=N)
        found = resolution(np.where(z > 0, z, 0.0)[:, None])[0]
        assert found == pytest.approx(np.quantile(z[z > 0], 0.05), rel=0.1)

    def test_gaps_and_one_odd_row_change_nothing(self, rng):
        y = np.round(rng.normal(size=(N, 1)), 1)
        odd = np.where(rng.uniform(size=y.shape) < 0.2, np.nan, y)
        odd[3] = 0.123456
        assert resolution(odd) == pytest.approx(resolution(y))
        y = rng.normal(size=(N, 1))
        far = y.copy()
        far[0] = 1e12
        assert spread(far)[0] == pytest.approx(spread(y)[0], rel=0.02)
        assert spread(y)[0] == pytest.approx(1.0, rel=0.1)


def scales(head, raw):
    """Scales for raw numbers that are all the same, without the dense layer."""
    kernel, bias = head.covariance_dense.get_weights()
    head.covariance_dense.set_weights([0.0 * kernel, np.full_like(bias, raw)])
    y_pred = numpy(head(tensor(np.zeros((1, 3)))))
    return y_pred[0, head.event_size : 2 * head.event_size]


class TestFloor:
    @pytest.mark.parametrize("training", [False, True])
    def test_scales_start_at_the_data_and_stay_above_it(self, training, rng):
        y = np.stack([np.round(rng.normal(size=N)), 100.0 * rng.normal(size=N)], axis=1)
        head = MultivariateNormalHead(2, "diagonal")
        head.adapt(y)
        head.build((None, 3))
        floor = np.array([1.0 / np.sqrt(12.0), 1e-4 * spread(y)[1]])
        np.testing.assert_allclose(numpy(head.scale_floor), floor, rtol=1e-5)
        np.testing.assert_allclose(scales(head, 0.0), y.std(axis=0), rtol=1e-5)
        above = (y.std(axis=0) - floor) * np.exp(-2.0)
        np.testing.assert_allclose(scales(head, -2.0), floor + above, rtol=1e-5)
        np.testing.assert_allclose(scales(head, -1e6), floor, rtol=1e-2)

    def test_start_is_above_the_floor_where_targets_explain_each_other(self, rng):
        y = np.round(rng.normal(size=(N, 1)), 1) * np.ones(2)
        head = MultivariateNormalHead(2)
        with pytest.warns(UserWarning, match="collinear"):
            head.adapt(y)
        assert (numpy(head.origin_scale) >= 1.2 * numpy(head.scale_floor)).all()

    def test_one_number_for_all_scales_keeps_their_ratios(self, rng):
        y = np.stack([np.round(rng.normal(size=N)), rng.normal(size=N)], axis=1)
        head = MultivariateNormalHead(2, "isotropic")
        head.adapt(y)
        head.build((None, 3))
        low, start = scales(head, -4.0), scales(head, 0.0)
        np.testing.assert_allclose(low / low[0], start / start[0], rtol=1e-5)

    def test_given_in_units_of_y_or_none(self, rng):
        y = np.round(rng.normal(size=(N, 2)))
        head = MultivariateNormalHead(2, "diagonal", min_scale=(0.0, 0.4))
        head.adapt(y)
        head.build((None, 3))
        np.testing.assert_allclose(numpy(head.scale_floor), [0.0, 0.4], rtol=1e-6)
        none = MultivariateNormalHead(2, "diagonal", min_scale=None)
        none.adapt(y)
        none.build((None, 3))
        assert none.scale_floor is None
        assert (scales(none, -1e4) < 1e-4).all()
        np.testing.assert_allclose(none.resolution, 1.0)

    @pytest.mark.parametrize("given", [-1.0, 0.0, "data", np.nan, (1.0, 2.0, 3.0), (1.0, -1.0)])
    def test_what_is_no_floor_is_refused(self, given):
        with pytest.raises(ValueError, match="min_scale"):
            MultivariateNormalHead(2, min_scale=given)


class TestKeeping:
    def model(self, rng, **options):
        head = MultivariateNormalHead(2, "diagonal", **options)
        head.adapt(np.round(rng.normal(size=(N, 2)), 1))
        return keras.Sequential([keras.Input((3,)), head])

    def test_files_and_clones_keep_floor_and_resolution(self, rng, tmp_path):
        model = self.model(rng)
        model.save(tmp_path / "model.keras")
        for other in (
            keras.saving.load_model(tmp_path / "model.keras"),
            keras.models.clone_model(model),
        ):
            head = other.layers[-1]
            np.testing.assert_allclose(head.resolution, 0.1)
            np.testing.assert_allclose(numpy(head.scale_floor), 0.1 / np.sqrt(12.0), rtol=1e-5)

    def test_weights_without_a_floor_load(self, rng, tmp_path):
        old, new = self.model(rng, min_scale=None), self.model(rng)
        store = {}
        old.layers[-1].save_own_variables(store)
        del store["resolution"]  # as in files of 0.1.0
        new.layers[-1].load_own_variables(store)
        np.testing.assert_array_equal(numpy(new.layers[-1].scale_floor), 0.0)
        np.testing.assert_allclose(
            numpy(new.layers[-1].origin_scale), numpy(old.layers[-1].origin_scale)
        )

    def test_a_recalibrated_model_scales_all_of_the_scale(self, rng):
        model = self.model(rng)
        x = rng.normal(size=(5, 3)).astype("float32")
        wider = Temperature(3.0).apply(model)
        before, after = (m.layers[-1].distribution(m.predict(x, verbose=0)) for m in (model, wider))
        np.testing.assert_allclose(after.stddev, 3.0 * before.stddev, rtol=1e-5)


@pytest.mark.slow
def test_no_row_pays_for_scales_that_collapsed_onto_zeros(rng):
    """Counts that are nearly always 0: no single row costs thousands of nats."""
    x = rng.normal(size=(N, 2))
    rate = np.where(x[:, :1] > 0, 0.02, 0.3)
    y = rng.poisson(rate, size=(N, 2)).astype(float)
    settings = {
        "calibration": None,
        "cv": None,
        "embedding": None,
        "mean": None,
        "random_state": 0,
        "epochs": 60,
        "tails": "normal",  # which pays most
    }
    model = MultivariateNormalRegressor("diagonal", **settings)
    test = model.fit(x[:400], y[:400]).predict_distribution(x[400:])
    assert log_score(test, y[400:]).max() < 200.0
    constant = MultivariateNormal(y[:400].mean(axis=0), covariance=np.cov(y[:400].T))
    found, simple = (cell_log_score(one, y[400:], 1.0).mean() for one in (test, constant))
    assert found < simple
