"""The search space for Optuna, and trials that end early."""

import numpy as np
import optuna
import pytest

from keras_mvn.covariances import LowRank
from keras_mvn.estimator import MultivariateNormalRegressor
from keras_mvn.integrations import pruning, suggest

pytestmark = pytest.mark.once

FIXED = {"tails": "normal", "embedding": None, "mean": None, "cv": None, "random_state": 0}


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def draw(n, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    noise = rng.normal(size=(n, 2)) @ np.array([[1.0, 0.0], [0.9, 0.3]]).T
    return x, x[:, :2] + noise


def study_of(objective, trials, pruner):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), pruner=pruner)
    study.optimize(objective, n_trials=trials)
    return study


@pytest.mark.slow
def test_ten_trials_of_a_real_search():
    (x, y), (new, observed) = draw(150, 0), draw(500, 1)

    def objective(trial):
        parameters = {**suggest(trial, 2), "epochs": 15}
        model = MultivariateNormalRegressor(**parameters, **FIXED)
        model.fit(x, y, callbacks=pruning(trial))
        trial.set_user_attr("structure", model.head_.covariance.name)
        return -model.score(new, observed)

    pruner = optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=3)
    study = study_of(objective, 10, pruner)
    done = [one for one in study.trials if one.state.name == "COMPLETE"]
    assert {one.state.name for one in study.trials} == {"COMPLETE", "PRUNED"}
    assert study.best_trial.user_attrs["structure"] == "cholesky"  # the errors are correlated
    assert study.best_value < np.median([one.value for one in done])
    assert all(len(one.intermediate_values) < 15 for one in study.trials if one not in done)


def test_only_the_first_network_reports():
    x, y = draw(60, 0)
    trial = optuna.create_study().ask()
    quick = {**FIXED, "cv": 3, "epochs": 2, "hidden": (4,), "calibration": None}
    MultivariateNormalRegressor(**quick).fit(x, y, callbacks=pruning(trial))
    assert sorted(trial.study.trials[0].intermediate_values) == [0, 1]


@pytest.mark.parametrize(
    ("targets", "known"),
    [(1, {"diagonal"}), (2, {"diagonal", "cholesky"}), (60, {"diagonal", "low_rank"})],
)
def test_structures_suit_the_number_of_targets(targets, known):
    found = []

    def objective(trial):
        structure = suggest(trial, targets)["covariance"]
        found.append(structure)
        return 0.0

    study_of(objective, 30, optuna.pruners.NopPruner())
    assert {one.name for one in found} == known
    assert all(0 < one.rank <= 10 for one in found if isinstance(one, LowRank))


def test_every_suggestion_is_one_of_the_estimators_parameters():
    names = MultivariateNormalRegressor().get_params()
    study = optuna.create_study()
    assert set(suggest(study.ask(), 3)) <= set(names)
