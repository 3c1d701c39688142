"""Cross-fitting: folds, networks that have not seen theirs, one pass on JAX, calibration."""

import keras
import numpy as np
import pytest
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeaveOneOut,
    ShuffleSplit,
    StratifiedKFold,
)

from keras_mvn._training import train_at_once
from keras_mvn._training.candidates import Candidate
from keras_mvn._training.data import Table
from keras_mvn._training.member import members_of, predict_distribution
from keras_mvn.covariances import Cholesky, Diagonal
from keras_mvn.estimator import MultivariateNormalRegressor, _selection
from keras_mvn.estimator._cross_fitting import as_of_the_ensemble, auto_up_to, folds_of, parts_of

SMALL = {
    "hidden": (8,),
    "epochs": 4,
    "random_state": 0,
    "tails": "normal",
    "embedding": None,
    "mean": None,
}
ROOT = np.array([[1.0, 0.0], [0.8, 0.6]])


def draw(n, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    return x, x[:, :2] + 0.5 * rng.normal(size=(n, 2)) @ ROOT.T


@pytest.fixture(scope="module")
def data():
    x, y = draw(103)
    y[::9, 1] = np.nan
    return x, y


@pytest.fixture(scope="module")
def fitted(data):
    return MultivariateNormalRegressor(cv=5, **SMALL).fit(*data)


@pytest.mark.once
class TestFolds:
    @pytest.mark.parametrize("cv", ["auto", 3, 7, KFold(4)])
    def test_each_row_is_in_one_fold(self, cv):
        rows = np.arange(5, 108)
        folds = folds_of(cv, rows, None, 0)
        np.testing.assert_array_equal(np.sort(np.concatenate(folds)), rows)
        assert max(map(len, folds)) - min(map(len, folds)) <= 1

    def test_groups_stay_together_and_folds_are_alike(self):
        groups = np.random.default_rng(0).integers(0, 30, 400)
        folds = folds_of(5, np.arange(400), groups, 0)
        assert not set.intersection(*(set(groups[fold]) for fold in folds))
        assert sum(len(set(groups[fold])) for fold in folds) == len(set(groups))
        assert max(map(len, folds)) - min(map(len, folds)) < 20
        for fold in folds_of(GroupKFold(5), np.arange(400), groups, 0):
            assert not set(groups[fold]) & set(np.delete(groups, fold))

    @pytest.mark.parametrize(
        ("cv", "groups", "match"),
        [
            (ShuffleSplit(5), None, "each of the 40 rows once"),
            (KFold(2), None, "makes 2 folds; at least 3"),
            (LeaveOneOut(), None, None),
            (StratifiedKFold(3), None, "cannot divide 40 rows"),
            (50, None, "at least as many rows; there are 40"),
            (5, np.arange(40) % 4, "at least as many groups; there are 4"),
        ],
    )
    def test_other_folds_are_refused(self, cv, groups, match):
        if match is None:
            assert len(folds_of(cv, np.arange(40), groups, 0)) == 40
            return
        with pytest.raises(ValueError, match=match):
            folds_of(cv, np.arange(40), groups, 0)

    @pytest.mark.parametrize("rows", [103, 104, 105])
    def test_networks_have_equally_many_rows_and_none_of_their_fold(self, rows):
        x, y = draw(rows)
        numbers = np.arange(rows)
        folds = folds_of(5, numbers, None, 0)
        table = Table(x, y, None, numbers)
        parts = parts_of(table, folds, lambda part: y[part.rows] + 100.0)
        assert len({part.sizes for part in parts}) == 1
        for fold, part in zip(folds, parts, strict=True):
            assert not set(fold) & set(part.training.rows)
            assert set(part.validation.rows) <= set(fold)
            np.testing.assert_array_equal(part.held_out.rows, fold)
            np.testing.assert_array_equal(part.residuals, y[part.training.rows] + 100.0)
            assert len(part.training) + len(fold) >= rows - 1


@pytest.mark.once
class TestParameters:
    @pytest.mark.parametrize("cv", [2, 0, True, "none", 3.5, [1, 2, 3]])
    def test_what_is_no_way_to_divide_rows(self, cv):
        with pytest.raises(ValueError, match="cv="):
            MultivariateNormalRegressor(cv=cv).fit(*draw(60))

    def test_rows_for_stopping_cannot_be_given_too(self):
        x, y = draw(60)
        model = MultivariateNormalRegressor(cv=3, **SMALL)
        with pytest.raises(ValueError, match="cv=3 cannot be combined with validation_data"):
            model.fit(x, y, validation_data=(x, y))
        with pytest.raises(ValueError, match=r"split\['validation'\] cannot be combined with cv=3"):
            model.fit(x, y, split={"train": range(40), "validation": range(40, 60)})

    def test_what_cannot_be_divided_says_why(self):
        x, y = draw(60)
        model = MultivariateNormalRegressor(cv=3, **SMALL)
        with pytest.raises(ValueError, match="labels that cannot be compared"):
            model.fit(x, y, groups=np.array([None, "a", 1] * 20, dtype=object))
        with pytest.raises(ValueError, match="must be a mapping .* received a ndarray"):
            model.fit(x, y, split=np.array(["train"] * 60))
        y[2:, 1] = np.nan
        with pytest.raises(ValueError, match=r"Without fold \d of 3 \(cv=3\), y has fewer than 2"):
            model.fit(x, y)

    @pytest.mark.parametrize(
        ("rows", "options", "crossed"),
        [
            (15, {}, False),
            (60, {}, True),
            (auto_up_to() + 1, {}, False),
            (60, {"validation_fraction": 0.0}, False),
        ],
    )
    def test_auto_is_for_small_tables(self, rows, options, crossed):
        settings = {**SMALL, **options, "epochs": 1, "calibration": None}
        model = MultivariateNormalRegressor(**settings).fit(*draw(rows))
        assert (model.folds_ is not None) == crossed
        assert hasattr(model, "ensemble_") == crossed

    def test_auto_leaves_a_division_by_the_user_alone(self):
        x, y = draw(60)
        model = MultivariateNormalRegressor(calibration=None, **SMALL)
        assert model.fit(x, y, split={"train": range(60)}).folds_ is None
        assert model.fit(x, y, groups=np.arange(60) // 15).folds_ is None  # too few groups
        assert model.fit(x, y, groups=np.arange(60) // 4).folds_ is not None


class TestFit:
    def test_networks_have_not_seen_their_fold(self, data, fitted):
        x, y = data
        assert len(fitted.ensemble_.members) == 5
        np.testing.assert_array_equal(fitted.split_["train"], np.arange(103))
        assert not len(fitted.split_["validation"]) + len(fitted.split_["calibration"])
        changed = y.copy()
        changed[fitted.folds_[2]] += 7.0
        other = MultivariateNormalRegressor(cv=5, **{**SMALL, "epochs": 1}).fit(x, changed)
        same = MultivariateNormalRegressor(cv=5, **{**SMALL, "epochs": 1}).fit(x, y)
        pairs = zip(other.ensemble_.members, same.ensemble_.members, strict=True)
        equal = [
            all(
                np.allclose(v, w, rtol=1e-4, atol=1e-5)
                for v, w in zip(a.get_weights(), b.get_weights(), strict=True)
            )
            for a, b in pairs
        ]
        assert equal == [False, False, True, False, False]

    def test_no_network_is_the_model(self, fitted):
        with pytest.raises(AttributeError, match=r"ensemble_.*cv=None"):
            _ = fitted.model_
        assert not hasattr(fitted, "model_")

    @pytest.mark.elsewhere(False)
    def test_all_kinds_of_calibration(self):
        x, y = draw(103)
        for kind in ("coverage", "per_target", "matrix", "conformal", None):
            model = MultivariateNormalRegressor(cv=3, **{**SMALL, "epochs": 1, "calibration": kind})
            model.fit(x, y)
            assert (model.calibration_ is None) == (kind is None)
            assert len(model.split_["calibration"]) == (20 if kind == "conformal" else 0)
            assert sum(map(len, model.folds_)) == (83 if kind == "conformal" else 103)

    @pytest.mark.elsewhere(False)
    def test_more_members_than_folds(self, data):
        x, y = data
        model = MultivariateNormalRegressor(cv=3, n_members=4, **{**SMALL, "epochs": 1}).fit(x, y)
        first, *_, last = model.ensemble_.members
        out = as_of_the_ensemble(members_of(model.ensemble_.members), x, model.folds_)
        expected = predict_distribution(members_of([first, last]), x[model.folds_[0]]).mean
        np.testing.assert_allclose(out.mean[: len(expected)], expected)

    @pytest.mark.elsewhere(False)
    def test_the_best_candidate_by_all_rows(self, data):
        x, y = data
        settings = {**SMALL, "tails": "auto", "epochs": 3, "calibration": None}
        model = MultivariateNormalRegressor("auto", cv=3, **settings).fit(x, y)
        by_nll = [one["validation_nll"] for one in model.selection_]
        assert by_nll == sorted(by_nll)
        assert len(model.ensemble_.members) == 3
        scores = []
        for i, fold in enumerate(model.folds_):
            answer = predict_distribution(members_of(model.ensemble_.members[i : i + 1]), x[fold])
            scores.append(-answer.log_prob(y[fold], missing="marginalize"))
        assert np.concatenate(scores).mean() == pytest.approx(by_nll[0], rel=1e-5)

    @pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX trains all at once")
    @pytest.mark.elsewhere(False)
    def test_a_candidate_that_is_clearly_worse_is_given_up(self, monkeypatch):
        """Of correlated targets, independent ones are not trained in all folds."""
        rng = np.random.default_rng(0)
        x = rng.normal(size=(150, 2))
        y = x + rng.normal(size=(150, 2)) @ np.array([[1.0, 0.0], [0.98, 0.2]]).T
        found = [Candidate("cholesky", Cholesky(), None), Candidate("diagonal", Diagonal(), None)]
        monkeypatch.setattr(_selection, "candidates", lambda d: found)
        settings = {**SMALL, "hidden": (), "epochs": 25, "learning_rate": 0.05, "batch_size": 40}
        model = MultivariateNormalRegressor("auto", cv=3, calibration=None, **settings).fit(x, y)
        assert [one["name"] for one in model.selection_] == ["cholesky", "diagonal"]
        assert model.selection_[0]["networks"] == 3 > model.selection_[1]["networks"]
        better, worse = (one["validation_nll"] for one in model.selection_)
        assert worse - better > 0.1
        assert len(model.ensemble_.members) == 3

    @pytest.mark.elsewhere(False)
    def test_resuming_gives_the_same_networks(self, data, tmp_path):
        x, y = data
        settings = {**SMALL, "calibration": None, "cv": 3}
        whole = MultivariateNormalRegressor(**settings).fit(x, y)

        class StopError(Exception):
            pass

        class Stop(keras.callbacks.Callback):
            stops = 0

            def on_epoch_end(self, epoch, logs=None):
                Stop.stops += 1
                if Stop.stops == 6:  # in the second network
                    raise StopError

        with pytest.raises(StopError):
            MultivariateNormalRegressor(**settings).fit(x, y, backup_dir=tmp_path, callbacks=Stop)
        resumed = MultivariateNormalRegressor(**settings).fit(x, y, backup_dir=tmp_path)
        np.testing.assert_allclose(resumed.predict(x), whole.predict(x), rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="one pass is JAX's")
def test_one_pass_trains_the_networks_that_are_trained_in_turn(monkeypatch):
    x, y = draw(103)  # folds of 35, 34 and 34 rows
    settings = {**SMALL, "cv": 3, "calibration": None, "epochs": 8, "patience": 3}
    passes, original = [], train_at_once.train_in_one_pass

    def counting(*arguments, **options):
        trained = original(*arguments, **options)
        passes.append(len(trained or ()))
        return trained

    monkeypatch.setattr("keras_mvn._training.members.train_in_one_pass", counting)
    once = MultivariateNormalRegressor(**settings).fit(x, y)
    assert passes == [3]
    monkeypatch.setattr("keras_mvn._training.members.train_in_one_pass", lambda *a, **k: None)
    in_turn = MultivariateNormalRegressor(**settings).fit(x, y)
    for a, b in zip(once.ensemble_.members, in_turn.ensemble_.members, strict=True):
        for v, w in zip(a.get_weights(), b.get_weights(), strict=True):
            np.testing.assert_allclose(v, w, rtol=1e-3, atol=1e-4)
    for a, b in zip(once.history_, in_turn.history_, strict=True):
        np.testing.assert_allclose(a["val_loss"], b["val_loss"], rtol=1e-4)
