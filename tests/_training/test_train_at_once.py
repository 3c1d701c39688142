"""Members of an estimator's ensemble in one pass on JAX: as in turn, resumed, interrupted."""

import functools
import signal

import keras
import numpy as np
import pytest

from keras_mvn._training import train_at_once
from keras_mvn._training.callbacks import EpochProgress
from keras_mvn.estimator import MultivariateNormalRegressor

pytestmark = [
    pytest.mark.skipif(keras.backend.backend() != "jax", reason="one pass is JAX's"),
]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 3))
    y = x[:, :2] * x[:, 1:] + 0.3 * rng.normal(size=(150, 2))
    y[::9, 1] = np.nan
    return x, y


def estimator(**changes):
    settings = {
        "n_members": 3, "covariance": "cholesky", "hidden": (8,), "epochs": 12, "patience": 4,
        "tails": "normal", "cv": None, "embedding": None, "mean": None,
        "calibration": None, "random_state": 0, "learning_rate": 0.02,
    }  # fmt: skip
    return MultivariateNormalRegressor(**{**settings, **changes})


@pytest.fixture
def passes(monkeypatch):
    """How many networks each pass trained; 0 for one that was refused."""
    counts, original = [], train_at_once.train_in_one_pass

    def counting(*arguments, **options):
        trained = original(*arguments, **options)
        counts.append(len(trained or ()))
        return trained

    monkeypatch.setattr("keras_mvn._training.members.train_in_one_pass", counting)
    return counts


@pytest.fixture(scope="module")
def reference(data):
    return estimator().fit(*data)


def same(one, other):
    for a, b in zip(one.ensemble_.members, other.ensemble_.members, strict=True):
        for v, w in zip(a.get_weights(), b.get_weights(), strict=True):
            np.testing.assert_allclose(v, w, rtol=1e-4, atol=1e-4 * np.abs(w).max())


class StopError(Exception):
    pass


class At(EpochProgress):
    """Do something after so many epochs."""

    def __init__(self, epoch, action):
        super().__init__()
        self.epoch, self.action = epoch, action

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            self.action()


def stop():
    raise StopError


def test_the_weights_are_those_of_training_in_turn(data, passes):
    x, y = data
    weight = np.random.default_rng(1).uniform(0.5, 2.0, len(x))
    at_once = estimator().fit(x, y, sample_weight=weight)
    in_turn = estimator().fit(x, y, weight, callbacks=lambda: keras.callbacks.Callback())
    assert passes == [3, 0]
    same(at_once, in_turn)
    for one, other in zip(at_once.history_, in_turn.history_, strict=True):
        np.testing.assert_allclose(one["val_loss"], other["val_loss"], rtol=1e-4)
        assert len(one["loss"]) == len(other["loss"])


def test_without_validation_the_averaged_weights_of_the_last_epoch_are_kept(data, passes):
    settings = {"validation_fraction": 0.0, "epochs": 3, "n_members": 2}
    at_once = estimator(**settings).fit(*data)
    in_turn = estimator(**settings).fit(*data, callbacks=lambda: keras.callbacks.Callback())
    assert passes == [2, 0]
    same(at_once, in_turn)


def test_what_was_killed_goes_on(data, reference, passes, tmp_path):
    with pytest.raises(StopError):
        estimator().fit(*data, backup_dir=tmp_path, callbacks=functools.partial(At, 4, stop))
    assert (tmp_path / "members").is_dir()
    resumed = estimator().fit(*data, backup_dir=tmp_path)
    same(resumed, reference)
    assert resumed.history_ == reference.history_
    again = estimator().fit(*data, backup_dir=tmp_path, callbacks=functools.partial(At, 0, stop))
    same(again, reference)  # every network is finished: nothing is trained
    assert passes == [3]
    with pytest.raises(ValueError, match="other data, settings or random_state"):
        estimator(random_state=1).fit(*data, backup_dir=tmp_path)


def test_control_c_keeps_all_members(data, tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupted = estimator()
        with pytest.raises(KeyboardInterrupt):
            interrupted.fit(
                *data,
                backup_dir=tmp_path,
                callbacks=functools.partial(At, 2, lambda: signal.raise_signal(signal.SIGINT)),
            )
    finally:
        signal.signal(signal.SIGINT, before)
    assert interrupted.interrupted_
    assert [len(history["loss"]) for history in interrupted.history_] == [3, 3, 3]
    short = estimator(epochs=3).fit(*data)
    same(interrupted, short)
    same(estimator().fit(*data, backup_dir=tmp_path), estimator().fit(*data))


def test_a_loss_that_is_not_finite_is_left_to_the_guard(data, passes):
    """In turn, the guard says which batch it was."""
    fitted = estimator(learning_rate=1e30, epochs=3, n_members=2)
    with pytest.warns(UserWarning, match="steps are too large|NonFiniteGuard|not finite"):
        fitted.fit(*data)
    assert passes == [0]


def test_a_deadline_ends_the_pass(data):
    short = estimator(epochs=100_000, patience=100_000, time_budget=2.0).fit(*data)
    lengths = {len(history["loss"]) for history in short.history_}
    assert len(lengths) == 1
    assert 1 <= lengths.pop() < 100_000


def test_large_tables_are_trained_in_turn(data, passes, monkeypatch):
    monkeypatch.setattr(train_at_once, "LARGEST_TABLE", 1000)
    estimator(epochs=1, n_members=2).fit(*data)
    assert passes == [0]


def test_the_networks_that_auto_compared_are_not_trained_again(data, passes):
    fitted = estimator(covariance="auto", epochs=2).fit(*data)
    assert passes == [2]
    assert len(fitted.ensemble_) == 3
