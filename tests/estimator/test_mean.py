"""`mean=`: networks over another regressor, fitted by folds or kept as it is."""

import pickle
import time

import keras
import numpy as np
import pandas
import pytest
from lightgbm import LGBMRegressor
from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import RandomForestRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold
from sklearn.multioutput import MultiOutputRegressor
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer

from keras_mvn import MultivariateNormal
from keras_mvn.estimator import MultivariateNormalRegressor, _material, _mean, _selection
from keras_mvn.estimator._regressors import NAMED

QUICK = {"hidden": (8,), "epochs": 4, "random_state": 0, "tails": "normal", "embedding": None}
ROOT = np.array([[1.0, 0.0], [0.8, 0.6]])


def draw(n, seed, noise=0.3):
    """Steps, which trees find, with noise that grows with an input and moves together."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    scale = noise * np.exp(0.7 * x[:, 2:])
    steps = np.c_[np.floor(2 * x[:, 0]), np.sign(x[:, 1])]
    return x, steps + scale * (rng.normal(size=(n, 2)) @ ROOT.T), scale


class Spy(LinearRegression):
    """A regressor of several targets that knows the rows it was fitted to."""

    def fit(self, x, y, sample_weight=None):
        self.seen_, self.weight_ = np.asarray(x), sample_weight
        return super().fit(x, y, sample_weight)


def has_seen(fit, x):
    rows = fit.regressors[0].seen_
    return np.array([(rows == row).all(axis=1).any() for row in x])


@pytest.fixture(scope="module")
def kept():
    return RandomForestRegressor(30, random_state=0).fit(*draw(300, 5)[:2])


@pytest.fixture(scope="module")
def fitted(kept):
    x, y, _ = draw(400, 0)
    settings = {**QUICK, "epochs": 60, "covariance": "cholesky", "cv": None}
    return MultivariateNormalRegressor(mean=FrozenEstimator(kept), **settings).fit(x, y)


class TestFrozen:
    """On every backend: the mean's weights are not trained."""

    def test_means_are_its_predictions_to_the_last_bit(self, fitted, kept):
        x, _, _ = draw(100, 1)
        np.testing.assert_array_equal(fitted.predict(x), kept.predict(x))
        np.testing.assert_array_equal(fitted.predict(10 * x), kept.predict(10 * x))
        again = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(again.predict(x), kept.predict(x))

    def test_so_are_those_of_several_networks(self, kept):
        x, y, _ = draw(60, 0)
        crossed = MultivariateNormalRegressor(mean=FrozenEstimator(kept), **QUICK).fit(x, y)
        assert len(crossed.ensemble_.members) == 5
        np.testing.assert_array_equal(crossed.predict(3 * x), kept.predict(3 * x))

    def test_the_covariance_of_its_errors_is_learned(self, fitted, kept):
        x, y, _ = draw(2000, 2)
        answer = fitted.predict_distribution(x)
        errors = draw(400, 0)[1] - kept.predict(draw(400, 0)[0])
        constant = MultivariateNormal(kept.predict(x), covariance=np.cov(errors.T))
        assert answer.log_prob(y).mean() > constant.log_prob(y).mean() + 0.2
        assert np.mean(answer.region_level(y) <= 0.9) == pytest.approx(0.9, abs=0.04)
        assert np.median(answer.correlation[:, 0, 1]) > 0.3


@pytest.mark.once
class TestFolds:
    def test_rows_are_predicted_by_regressors_that_have_not_seen_them(self):
        x, y, _ = draw(103, 0)
        fitted = MultivariateNormalRegressor(mean=Spy(), cv=KFold(4), **QUICK).fit(x, y)
        assert len(fitted.means_) == 4
        for fit, fold in zip(fitted.means_, fitted.folds_, strict=True):
            seen = has_seen(fit, x)
            assert not seen[fold].any()
            assert np.delete(seen, fold).all()

    def test_each_network_is_over_the_regressor_of_its_fold(self):
        x, y, _ = draw(103, 0)
        fitted = MultivariateNormalRegressor(
            mean=Spy(), cv=KFold(4), calibration=None, **QUICK
        ).fit(x, y)
        means = []
        for network, fit in zip(fitted.ensemble_.members, fitted.means_, strict=True):
            m = fit.regressors[0].predict(x)
            means.append(m + network.predict(np.c_[x, m], verbose=0)[:, :2])
        np.testing.assert_allclose(fitted.predict(x), np.mean(means, axis=0), atol=1e-5)

    def test_held_out_rows_and_others_by_the_average(self):
        x, y, _ = draw(200, 0)
        fitted = MultivariateNormalRegressor(mean=Spy(), cv=None, **QUICK).fit(x, y)
        held_out = np.concatenate([fitted.split_["validation"], fitted.split_["calibration"]])
        assert not any(has_seen(fit, x[held_out]).any() for fit in fitted.means_)
        times = sum(has_seen(fit, x[fitted.split_["train"]]).astype(int) for fit in fitted.means_)
        np.testing.assert_array_equal(times, len(fitted.means_) - 1)
        m = np.mean([fit.regressors[0].predict(x) for fit in fitted.means_], axis=0)
        mean = m + fitted.model_.predict(np.c_[x, m], verbose=0)[:, :2]
        np.testing.assert_allclose(fitted.predict(x), mean, atol=1e-5)

    def test_groups_stay_together_without_cross_fitting(self):
        x, y, _ = draw(200, 0)
        groups = np.arange(200) // 4
        fitted = MultivariateNormalRegressor(mean=Spy(), cv=None, **QUICK)
        fitted.fit(x, y, groups=groups)
        for fit in fitted.means_:
            seen = has_seen(fit, x)
            assert not set(groups[seen]) & set(
                groups[fitted.split_["train"]][~seen[fitted.split_["train"]]]
            )

    def test_weights_reach_the_regressor(self):
        x, y, _ = draw(103, 0)
        weight = np.linspace(1, 2, 103)
        fitted = MultivariateNormalRegressor(mean=Spy(), **QUICK).fit(x, y, weight)
        rows = np.setdiff1d(np.arange(103), fitted.folds_[0])
        np.testing.assert_array_equal(fitted.means_[0].regressors[0].weight_, weight[rows])


class Bare:
    """A regressor of one target that is none of scikit-learn's, as other packages have."""

    def fit(self, x, y):
        if y.ndim > 1:
            raise TypeError("one target")
        self.mean_ = y.mean()

    def predict(self, x):
        return np.full(len(x), self.mean_)


@pytest.mark.once
class TestKinds:
    @pytest.mark.parametrize(
        ("mean", "regressors"),
        [
            ("ridge", 1),
            ("trees", 2),
            ("forest", 1),
            ("gaussian_process", 2),
            (RandomForestRegressor(10), 1),
            (MultiOutputRegressor(LGBMRegressor(n_estimators=5, verbose=-1, n_jobs=1)), 1),
            (LGBMRegressor(n_estimators=5, verbose=-1, n_jobs=1), 2),
            (Bare(), 2),
        ],
    )
    def test_one_for_all_targets_or_one_for_each(self, mean, regressors):
        x, y, _ = draw(103, 0)
        fitted = MultivariateNormalRegressor(mean=mean, **QUICK).fit(x, y)
        assert len(fitted.means_[0].regressors) == regressors
        again = MultivariateNormalRegressor(mean=mean, **QUICK).fit(x, y)
        np.testing.assert_array_equal(fitted.predict(x), again.predict(x))  # states are seeded

    def test_gaps_leave_one_for_each_target(self):
        x, y, _ = draw(103, 0)
        gaps = y.copy()
        gaps[::3, 1] = np.nan
        fitted = MultivariateNormalRegressor(mean="ridge", cv=KFold(4), **QUICK).fit(x, gaps)
        first = fitted.means_[0].regressors
        rows = np.setdiff1d(np.arange(103), fitted.folds_[0])
        alone = _mean.regressor_for("ridge").fit(x[rows], y[rows, 0])
        assert len(first) == 2
        np.testing.assert_allclose(first[0].predict(x), alone.predict(x))
        assert np.isfinite(fitted.score(x, gaps))

    def test_columns_of_a_data_frame_keep_their_names(self):
        x, y, _ = draw(103, 0)
        by_name = make_column_transformer((SplineTransformer(), ["b"]), ("passthrough", ["a"]))
        frame = pandas.DataFrame(x, columns=["a", "b", "c"])
        mean = make_pipeline(by_name, LinearRegression())
        fitted = MultivariateNormalRegressor(mean=mean, **QUICK).fit(frame, y)
        assert fitted.predict(frame).shape == y.shape

    def test_a_keras_model_is_a_frozen_mean(self, capsys):
        x, y, _ = draw(60, 0)
        network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        fitted = MultivariateNormalRegressor(mean=FrozenEstimator(network), **QUICK).fit(x, y)
        expected = network.predict(x, verbose=0)
        np.testing.assert_allclose(fitted.predict(x), expected, rtol=1e-5, atol=1e-6)
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize("mean", NAMED)
    def test_one_odd_input_ruins_nothing(self, mean):
        x, y, _ = draw(150, 0)
        fitted = MultivariateNormalRegressor(mean=mean, **QUICK).fit(x, y)
        odd = x.copy()
        odd[0, 0] = 1e9
        with pytest.warns(UserWarning, match="far from all others"):
            again = MultivariateNormalRegressor(mean=mean, **QUICK).fit(odd, y)
        new, _, _ = draw(50, 1)
        change = np.abs(again.predict(new) - fitted.predict(new)) / y.std(axis=0)
        assert np.sqrt(np.mean(change**2)) < 0.1
        beyond = new.copy()
        beyond[:, 0] = 1e9
        assert np.abs(again.predict(beyond)).max() < 10 * np.abs(y).max()

    def test_one_target(self):
        x, y, _ = draw(103, 0)
        fitted = MultivariateNormalRegressor(mean="trees", **QUICK).fit(x, y[:, 0])
        assert fitted.predict(x).shape == (103,)

    def test_repeated_values_are_seen_through_the_mean(self):
        x, y, _ = draw(300, 0)
        rounded = np.round(2 * y) / 2
        fitted = MultivariateNormalRegressor(mean="trees", cv=None, **QUICK).fit(x, rounded)
        np.testing.assert_allclose(fitted.head_.resolution, 0.5)

    def test_given_validation_rows(self):
        x, y, _ = draw(200, 0)
        fitted = MultivariateNormalRegressor(mean=Spy(), **QUICK)
        fitted.fit(x, y, validation_data=draw(60, 1)[:2])
        assert np.isfinite(fitted.history_["val_loss"]).all()


class Garbage(Bare):
    def predict(self, x):
        return 10 * np.sin(1e4 * x.sum(axis=1))


@pytest.mark.once
class TestChoice:
    SETTINGS = {**QUICK, "cv": None, "epochs": 20, "calibration": None}

    def test_trees_for_steps_and_ridge_for_lines(self):
        x, y, _ = draw(400, 0)
        y = np.floor(9 * np.abs(x[:, :2])) % 4 + 0.1 * (y - draw(400, 0, noise=0.0)[1])
        fitted = MultivariateNormalRegressor(**self.SETTINGS, stack=False).fit(x, y)
        assert [one["mean"] for one in fitted.selection_] == ["trees", None]
        better, worse = (one["validation_nll"] for one in fitted.selection_)
        assert worse - better > 0.5
        short = {**self.SETTINGS, "epochs": 1, "stack": False}
        fitted = MultivariateNormalRegressor(**short).fit(x, x[:, :2] + 0.01 * y)
        assert [one["mean"] for one in fitted.selection_] == ["ridge", None]

    def test_none_where_they_predict_badly(self, monkeypatch):
        monkeypatch.setattr(_material, "NAMED", {"ridge": NAMED["ridge"]})
        monkeypatch.setattr(
            _mean, "regressor_for", lambda mean: None if mean == "auto" else Garbage()
        )
        x, y, _ = draw(400, 0)
        fitted = MultivariateNormalRegressor(**self.SETTINGS).fit(x, y)
        assert [one["mean"] for one in fitted.selection_ if one["epochs"]] == [None, "ridge"]
        assert [one["weight"] for one in fitted.selection_] == [1.0, 0.0, 0.0]
        assert fitted.means_ == []
        assert fitted.model_.input_shape == (None, 3)

    @pytest.mark.parametrize(
        "settings", [{"validation_fraction": 0.0}, {"builder": lambda inputs: inputs}]
    )
    def test_none_where_it_cannot_be_chosen(self, settings):
        x, y, _ = draw(60, 0)
        quick = {**self.SETTINGS, "epochs": 1, **settings}
        fitted = MultivariateNormalRegressor(**quick).fit(x, y)
        assert not hasattr(fitted, "selection_")
        assert fitted.means_ == []

    def test_none_for_large_tables(self, monkeypatch):
        monkeypatch.setattr(_selection, "MOST_FOR_REGRESSORS", (60 + 1000) * 3 * 2 - 1)
        x, y, _ = draw(100, 0)
        quick = {**self.SETTINGS, "epochs": 1, "validation_fraction": 0.4}
        assert not hasattr(MultivariateNormalRegressor(**quick).fit(x, y), "selection_")
        monkeypatch.setattr(_selection, "MOST_FOR_REGRESSORS", (60 + 1000) * 3 * 2)
        found = MultivariateNormalRegressor(**quick).fit(x, y).selection_
        assert sum(one["epochs"] > 0 for one in found) == 2

    def test_there_is_time_for_all_folds_or_for_none(self, monkeypatch, capsys):
        x, y, _ = draw(100, 0)

        def late(mean, data, divided, seed, ends, limits):
            now = time.monotonic()
            ends = now - 1.0 if mean in NAMED else ends
            return _mean.means_of(mean, data, divided, seed, ends, limits)

        monkeypatch.setattr(_material, "means_of", late)
        quick = {**self.SETTINGS, "epochs": 1, "verbose": 1}
        fitted = MultivariateNormalRegressor(**quick).fit(x, y)
        assert fitted.means_ == []
        assert len(fitted.selection_) == 1
        assert (
            "over other regressors: not tried, as there is too little time"
            in capsys.readouterr().out
        )


@pytest.mark.once
class TestRefusals:
    @pytest.mark.parametrize("mean", ["tree", LinearRegression, 3])
    def test_what_is_no_regressor(self, mean):
        with pytest.raises(ValueError, match="mean=.*'trees'\\], or a regressor with fit and"):
            MultivariateNormalRegressor(mean=mean, **QUICK).fit(*draw(50, 0)[:2])

    def test_a_frozen_mean_of_transformed_targets(self):
        frozen = FrozenEstimator(LinearRegression().fit(*draw(50, 1)[:2]))
        model = MultivariateNormalRegressor(mean=frozen, target_transform="yeo-johnson", **QUICK)
        with pytest.raises(ValueError, match="cannot be combined with target_transform"):
            model.fit(*draw(50, 0)[:2])

    def test_predictions_of_other_targets(self):
        x, y, _ = draw(50, 0)
        frozen = FrozenEstimator(LinearRegression().fit(x, np.c_[y, y]))
        with pytest.raises(ValueError, match="predicts 4 targets; y has 2"):
            MultivariateNormalRegressor(mean=frozen, **QUICK).fit(x, y)

    def test_predictions_that_are_no_numbers(self):
        x, y, _ = draw(50, 0)
        dummy = DummyRegressor(strategy="constant", constant=[0.0, 1.0]).fit(x, y)
        dummy.constant_ = np.array([[0.0, np.inf]])
        frozen = FrozenEstimator(dummy)
        with pytest.raises(ValueError, match=r"predicts \[0.0, inf\] for row 0"):
            MultivariateNormalRegressor(mean=frozen, **QUICK).fit(x, y)

    def test_rows_that_a_frozen_regressor_was_fitted_to_are_told(self):
        x, y, _ = draw(50, 0)
        frozen = FrozenEstimator(KNeighborsRegressor(1).fit(x[:40], y[:40]))
        with pytest.warns(UserWarning, match="predicts 8.% of the training targets exactly"):
            MultivariateNormalRegressor(mean=frozen, **QUICK).fit(x, y)
