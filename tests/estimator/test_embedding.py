"""The choice between plain and embedded inputs."""

import numpy as np
import pytest

from keras_mvn.estimator import MultivariateNormalRegressor
from keras_mvn.layers import PeriodicEmbedding

SETTINGS = {"tails": "normal", "cv": None, "calibration": None, "random_state": 0, "mean": None}


def embedded(model):
    return any(isinstance(layer, PeriodicEmbedding) for layer in model.layers)


def errors(x, rng):
    return 0.2 * rng.normal(size=(len(x), 2)) @ [[1.0, 0.8], [0.0, 0.6]]


def steps(rng, rows=400):
    """Targets that jump from field to field of a map."""
    x = rng.uniform(0.0, 8.0, size=(rows, 2))
    fields = rng.normal(size=(2, 8))
    column, row = x.astype(int).T
    y = np.stack([fields[0][column] + fields[1][row], fields[0][column]], axis=1)
    return x, y + errors(x, rng)


@pytest.mark.elsewhere(False)
def test_coordinates_are_embedded_and_lines_are_not(rng):
    x, y = steps(rng)
    settings = {**SETTINGS, "epochs": 60, "stack": False}
    model = MultivariateNormalRegressor(hidden=(32,), **settings).fit(x, y)
    assert [one["embedding"] for one in model.selection_] == ["periodic", None]
    assert embedded(model.model_)
    better, worse = (one["validation_nll"] for one in model.selection_)
    assert worse - better > 0.5
    x = rng.normal(size=(150, 4))
    y = x[:, :2] + errors(x, rng)
    plain = MultivariateNormalRegressor(hidden=(8,), **settings).fit(x, y)
    assert [one["embedding"] for one in plain.selection_] == [None, "periodic"]
    assert not embedded(plain.model_)


@pytest.mark.once
def test_nothing_is_chosen_where_it_is_given(rng):
    x, y = steps(rng, 60)
    quick = {**SETTINGS, "epochs": 1}
    given = MultivariateNormalRegressor(embedding="periodic", **quick).fit(x, y)
    assert embedded(given.model_)
    assert not hasattr(given, "selection_")
    built = MultivariateNormalRegressor(builder=lambda inputs: inputs, **quick).fit(x, y)
    assert not hasattr(built, "selection_")
    unseen = MultivariateNormalRegressor(validation_fraction=0.0, **quick).fit(x, y)
    assert not embedded(unseen.model_)


@pytest.mark.once
def test_what_is_no_embedding(rng):
    x, y = steps(rng, 60)
    with pytest.raises(ValueError, match="embedding='waves' is not known"):
        MultivariateNormalRegressor(embedding="waves").fit(x, y)
    with pytest.raises(ValueError, match="cannot be combined with builder"):
        MultivariateNormalRegressor(embedding="periodic", builder=lambda x: x).fit(x, y)
