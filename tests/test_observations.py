"""Every place that takes y: columns by name, and masked entries as not observed."""

import keras
import numpy as np
import pandas
import pyarrow
import pytest

from keras_mvn import MultivariateNormal, calibration, ops, plots, scores
from keras_mvn.distributions import Mixture, TransformedDistribution
from keras_mvn.distributions._transforms import Log
from keras_mvn.ensemble import DeepEnsemble
from keras_mvn.estimator import MultivariateNormalRegressor
from keras_mvn.layers import MultivariateNormalHead
from keras_mvn.losses import NegativeLogLikelihood
from keras_mvn.metrics import RootMeanSquaredError

NAMES = ("a", "b", "c")
ROWS = 40


def draw():
    rng = np.random.default_rng(0)
    factor = np.tril(rng.normal(size=(ROWS, 3, 3)), -1) * [[0.0], [5.0], [0.02]]
    factor += np.diag([1.0, 20.0, 0.05])
    mean = rng.normal(size=(ROWS, 3)) * [1.0, 20.0, 0.05] + [5.0, 300.0, 2.0]
    normal = MultivariateNormal(mean, scale_tril=factor, target_names=NAMES)
    y = mean + np.einsum("nij,nj->ni", factor, rng.normal(size=(ROWS, 3)))
    return normal, np.abs(y)


NORMAL, Y = draw()
FRAME = pandas.DataFrame(Y, columns=NAMES)
TWO = Mixture(
    MultivariateNormal(
        np.stack([NORMAL.mean, NORMAL.mean + 1.0]),
        scale_tril=np.stack([NORMAL.scale_tril] * 2),
        target_names=NAMES,
    )
)
LOG = TransformedDistribution(
    MultivariateNormal(np.log(Y + 0.1), scale_tril=0.2 * np.eye(3), target_names=NAMES), Log(3)
)

PLACES = {
    "log_prob": lambda y: NORMAL.log_prob(y),
    "log_prob of gaps": lambda y: NORMAL.log_prob(y, missing="marginalize"),
    "mahalanobis": lambda y: NORMAL.mahalanobis(y),
    "whiten": lambda y: NORMAL.whiten(y),
    "cdf": lambda y: NORMAL[:2].cdf(y[:2]),
    "marginal_cdf": lambda y: NORMAL.marginal_cdf(y),
    "probability": lambda y: NORMAL[:2].probability(upper=y[:2]),
    "ellipsoid": lambda y: NORMAL.ellipsoid(0.5).contains(y),
    "mixture": lambda y: TWO.log_prob(y),
    "transformed": lambda y: LOG.log_prob(y),
    "transformed cdf": lambda y: LOG.marginal_cdf(y),
    "transformed region": lambda y: LOG.ellipsoid(0.5).contains(y),
    "log_score": lambda y: scores.log_score(NORMAL, y),
    "dawid_sebastiani": lambda y: scores.dawid_sebastiani(NORMAL, y),
    "crps": lambda y: scores.crps(NORMAL, y),
    "energy_score": lambda y: scores.energy_score(NORMAL, y),
    "variogram_score": lambda y: scores.variogram_score(NORMAL, y),
    "conditional_error": lambda y: scores.conditional_error(NORMAL, y),
    "evaluate": lambda y: scores.evaluate(NORMAL, y)["nll"].mean,
    "diagnose": lambda y: calibration.diagnose(NORMAL, y).squared_distances,
    "Temperature": lambda y: calibration.Temperature.fit(NORMAL, y).temperature,
    "PerTarget": lambda y: calibration.PerTarget.fit(NORMAL, y).factors,
    "MatrixScaling": lambda y: calibration.MatrixScaling.fit(NORMAL, y).apply(NORMAL).stddev,
    "RadialIsotonic": lambda y: calibration.RadialIsotonic.fit(NORMAL, y).pit(NORMAL, y),
    "SplitConformal": lambda y: calibration.SplitConformal.fit(NORMAL, y).region(NORMAL).volume,
    "AdaptiveConformal": lambda y: calibration.AdaptiveConformal.fit(NORMAL, y).squared_radius,
}
GAPS = ("log_prob of gaps",)


@pytest.mark.once
class TestEveryPlace:
    @pytest.mark.parametrize("place", PLACES)
    def test_columns_are_put_in_order(self, place):
        expected = np.asarray(PLACES[place](Y))
        for table in (FRAME, FRAME[["c", "a", "b"]]):
            np.testing.assert_allclose(PLACES[place](table), expected, rtol=1e-12)

    @pytest.mark.parametrize("place", PLACES)
    def test_other_names_are_refused(self, place):
        with pytest.raises(ValueError, match=r"\['a', 'b', 'z'\]"):
            PLACES[place](FRAME.rename(columns={"c": "z"}))

    @pytest.mark.parametrize("place", PLACES)
    def test_what_lies_under_a_mask_is_not_read(self, place):
        masked = np.ma.masked_array(Y.copy(), np.zeros_like(Y, bool))
        np.testing.assert_allclose(PLACES[place](masked), PLACES[place](Y), rtol=1e-12)
        masked[1, 2] = -999.0
        masked[1, 2] = np.ma.masked
        if place in GAPS:
            gaps = np.where(masked.mask, np.nan, Y)
            np.testing.assert_allclose(PLACES[place](masked), PLACES[place](gaps), rtol=1e-12)
        else:
            with pytest.raises(ValueError, match="NaN"):
                PLACES[place](masked)


@pytest.mark.once
def test_tables_of_arrow_and_numbered_columns():
    shuffled = FRAME[["c", "a", "b"]]
    expected = NORMAL.log_prob(Y)
    np.testing.assert_allclose(NORMAL.log_prob(pyarrow.Table.from_pandas(shuffled)), expected)
    np.testing.assert_allclose(NORMAL.log_prob(pandas.DataFrame(Y)), expected)  # just numbered
    numbered = MultivariateNormal(
        NORMAL.mean, scale_tril=NORMAL.scale_tril, target_names=("2", "1", "0")
    )
    swapped = pandas.DataFrame(Y, columns=[2, 1, 0])[[1, 2, 0]]
    np.testing.assert_allclose(numbered.log_prob(swapped), expected)


@pytest.mark.once
class TestRegressor:
    @pytest.fixture(scope="class")
    @staticmethod
    def data():
        rng = np.random.default_rng(1)
        x = rng.normal(size=(120, 2))
        noise = rng.normal(size=(120, 2)) * 0.1
        y = np.stack([x[:, 0], 1000.0 + 50.0 * x[:, 1]], axis=1) + noise * [1.0, 50.0]
        return x, pandas.DataFrame(y, columns=["small", "large"])

    @staticmethod
    def regressor():
        return MultivariateNormalRegressor(
            hidden=(8,),
            epochs=8,
            random_state=0,
            calibration=None,
            tails="normal",
            cv=None,
            embedding=None,
            mean=None,
        )

    @pytest.fixture(scope="class")
    @staticmethod
    def fitted(data):
        return TestRegressor.regressor().fit(*data)

    def test_score_and_regions(self, fitted, data):
        x, y = data
        swapped = y[["large", "small"]]
        assert fitted.score(x, swapped) == fitted.score(x, y) == fitted.score(x, y.to_numpy())
        inside = fitted.predict_region(x).contains(y)
        np.testing.assert_array_equal(fitted.predict_region(x).contains(swapped), inside)
        assert inside.any()
        with pytest.raises(ValueError, match="the targets are"):
            fitted.score(x, y.rename(columns={"small": "x"}))

    def test_validation_data(self, data):
        x, y = data
        found = [
            self.regressor().fit(x, y, validation_data=(x, table)).history_["val_loss"]
            for table in (y, y[["large", "small"]])
        ]
        np.testing.assert_array_equal(*found)
        with pytest.raises(ValueError, match="the targets are"):
            self.regressor().fit(x, y, validation_data=(x, y.rename(columns={"small": "x"})))

    def test_masked_targets_are_gaps_and_masked_inputs_are_refused(self, data, fitted):
        x, y = data[0], data[1].to_numpy()
        rng = np.random.default_rng(2)
        mask = rng.random(y.shape) < 0.2
        masked = np.ma.masked_array(np.where(mask, -999.0, y), mask)
        found = self.regressor().fit(x, masked).predict(x)
        expected = self.regressor().fit(x, np.where(mask, np.nan, y)).predict(x)
        np.testing.assert_array_equal(found, expected)
        gaps = np.where(mask, np.nan, y)
        assert fitted.score(x, masked) == fitted.score(x, gaps)
        hidden = np.ma.masked_array(x, np.arange(240).reshape(120, 2) == 7)
        for call in (fitted.predict, lambda x: fitted.score(x, y), lambda x: fitted.fit(x, y)):
            with pytest.raises(ValueError, match=r"1 masked entries.*SimpleImputer"):
                call(hidden)
        whole = np.ma.masked_array(x, False)
        np.testing.assert_array_equal(fitted.predict(whole), fitted.predict(x))


class TestTensors:
    """Losses, metrics and functions on NumPy arrays, on every backend."""

    Y_PRED = np.concatenate([np.zeros((4, 2)), np.ones((4, 2)), np.zeros((4, 1))], axis=1)

    def test_losses_metrics_and_ops_honor_masks(self):
        y = np.arange(8.0).reshape(4, 2)
        masked = np.ma.masked_array(np.where(y == 3, -999, y).astype(int), y == 3)
        gaps = np.where(y == 3, np.nan, y)
        loss = NegativeLogLikelihood(missing="marginalize")
        expected = 0.5 * (np.nansum(gaps**2) + 7 * np.log(2 * np.pi)) / 4
        assert float(loss(masked, self.Y_PRED)) == pytest.approx(expected, rel=1e-6)
        assert np.isnan(float(NegativeLogLikelihood()(masked, self.Y_PRED)))
        found = ops.log_prob(masked, self.Y_PRED, missing="marginalize")
        assert float(keras.ops.sum(found)) == pytest.approx(-4 * expected, rel=1e-6)
        metric = RootMeanSquaredError(missing="marginalize")
        metric.update_state(masked, self.Y_PRED)
        other = RootMeanSquaredError(missing="marginalize")
        other.update_state(gaps, self.Y_PRED)
        assert float(metric.result()) == float(other.result()) > 0

    @pytest.mark.elsewhere(False)
    def test_an_ensemble_takes_masks_and_names(self):
        def build():
            inputs = keras.Input((1,))
            head = MultivariateNormalHead(2, target_names=("a", "b"), name="head")
            model = keras.Model(inputs, head(inputs))
            model.compile("sgd", NegativeLogLikelihood(missing="marginalize"))
            return model

        x, y = np.ones((8, 1)), np.arange(16.0).reshape(8, 2) / 16
        gaps = np.where(y == 0.25, np.nan, y)
        tables = (
            np.ma.masked_array(np.where(y == 0.25, -999.0, y), y == 0.25),
            pandas.DataFrame(gaps, columns=["a", "b"])[["b", "a"]],
            gaps,
        )
        losses = []
        for table in tables:
            ensemble = DeepEnsemble(build, 1, seed=0)
            history = ensemble.fit(x, table, validation_data=(x, table), epochs=2, verbose=0)
            losses.append([history[0]["loss"], history[0]["val_loss"]])
        np.testing.assert_array_equal(losses[0], losses[2])
        np.testing.assert_array_equal(losses[1], losses[2])


@pytest.mark.once
def test_adapt_refuses_other_names_and_another_order():
    for columns in (["b", "a", "c"], ["a", "b", "z"]):
        head = MultivariateNormalHead(3, target_names=NAMES)
        with pytest.raises(ValueError, match="Select or reorder"):
            head.adapt(pandas.DataFrame(Y, columns=columns))
    head = MultivariateNormalHead(3, target_names=NAMES)
    head.adapt(pandas.DataFrame(Y))
    np.testing.assert_allclose(head.origin_mean, Y.mean(axis=0), rtol=1e-5)
    head.adapt(np.ma.masked_array(np.where(Y > 300, -999, Y), Y > 300))
    expected = np.nanmean(np.where(Y > 300, np.nan, Y), axis=0)
    np.testing.assert_allclose(head.origin_mean, expected, rtol=1e-5)


@pytest.mark.once
def test_plots_take_columns_by_name():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    for table in (FRAME, FRAME[["c", "a", "b"]]):
        axes = pyplot.figure().subplots()
        plots.pit_histogram(axes, NORMAL, table)
        heights = [patch.get_height() for patch in axes.patches]
        if table is FRAME:
            expected = heights
    assert heights == expected
    pyplot.close("all")
