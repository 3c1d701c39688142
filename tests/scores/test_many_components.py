"""Scores of mixtures of many components, whose pairs are drawn: as those of all pairs."""

import numpy as np
import pytest

from keras_mvn import Mixture, MultivariateNormal, scores
from keras_mvn.distributions import MultivariateStudentT
from keras_mvn.scores import _energy_score, _margins

pytestmark = pytest.mark.once


@pytest.mark.parametrize("nu", [None, 4.0])
@pytest.mark.parametrize("gaps", [False, True])
def test_the_mean_over_rows_agrees(nu, gaps, monkeypatch):
    rng = np.random.default_rng(0)
    means = 2.0 * rng.normal(size=(9, 60, 2))
    lower = np.tril(rng.normal(size=(9, 60, 2, 2)), -1) + np.eye(2)
    if nu is None:
        parts = MultivariateNormal(means, scale_tril=lower)
    else:
        parts = MultivariateStudentT(means, nu, scale_tril=lower)
    answer = Mixture(parts)
    y = answer.sample(seed=1)
    if gaps:
        y[rng.random(y.shape) < 0.3] = np.nan
    drawn = [f(answer, y, missing="marginalize") for f in (scores.energy_score, scores.crps)]
    for module in (_energy_score, _margins):
        monkeypatch.setattr(module, "MOST_PARTS", 100)
    exact = [f(answer, y, missing="marginalize") for f in (scores.energy_score, scores.crps)]
    for one, other in zip(drawn, exact, strict=True):
        error = np.nanstd(one - other) / np.sqrt(60)
        assert 0.0 < error < 0.02
        assert abs(np.nanmean(one - other)) < 4.0 * error
        np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
