"""Weights of candidates by votes, and candidates without a network."""

import keras
import numpy as np
import pytest
from scipy import optimize, stats

from keras_mvn import covariances
from keras_mvn._training import stacking
from keras_mvn._training.constant_errors import (
    TRIED,
    constant_errors,
    recipe_of_constant_errors,
    tails_of,
)
from keras_mvn._training.data import Part, Table, moments
from keras_mvn._training.prediction import predict
from keras_mvn._training.recipe import Recipe
from keras_mvn.layers._find_heads import heads

COVARIANCE = np.array([[1.0, 0.6], [0.6, 2.0]])


class TestVotes:
    """`_voted` on scores whose best weights are known."""

    pytestmark = pytest.mark.once

    @staticmethod
    def score_of(best):
        def score(votes):
            return float(np.sum((votes / votes.sum() - best) ** 2))

        return score

    @pytest.mark.parametrize("best", [[0.3, 0.7, 0.0], [0.25, 0.25, 0.5], [0.0, 0.0, 1.0]])
    def test_find_the_best_weights(self, best):
        found, score = stacking._voted(self.score_of(np.array(best)), 3, gain=0.0)
        assert score == self.score_of(np.array(best))(found)
        np.testing.assert_allclose(found, best, atol=0.05)
        assert found.sum() == pytest.approx(1.0)

    def test_small_weights_are_left_out(self):
        found, _ = stacking._voted(self.score_of(np.array([0.65, 0.3, 0.05])), 3, gain=0.0)
        assert found[2] == 0.0
        np.testing.assert_allclose(found[:2], [0.68, 0.32], atol=0.04)

    def test_the_best_one_alone_where_others_gain_next_to_nothing(self):
        score = self.score_of(np.array([0.9, 0.1]))  # 0.02 less than the first alone
        np.testing.assert_array_equal(stacking._voted(score, 2, gain=0.03)[0], [1.0, 0.0])
        assert stacking._voted(score, 2, gain=0.01)[0][1] > 0.0


class TestTails:
    """ν and the scale of errors, by SciPy's own likelihood."""

    pytestmark = pytest.mark.once

    @pytest.mark.parametrize("nu", [3.0, 6.0])
    def test_most_likely(self, nu):
        errors = stats.multivariate_t.rvs(
            shape=COVARIANCE, df=nu, size=2000, random_state=np.random.default_rng(0)
        )
        squared = np.einsum("ni,ij,nj->n", errors, np.linalg.inv(COVARIANCE), errors)
        found, factor = tails_of(squared, np.full(2000, 2), TRIED)

        def loss(parameters):
            log_nu, log_factor = parameters
            law = stats.multivariate_t(
                shape=COVARIANCE * np.exp(2.0 * log_factor), df=np.exp(log_nu)
            )
            return -law.logpdf(errors).mean()

        best = optimize.minimize(loss, [1.0, 0.0], method="Nelder-Mead", tol=1e-6)
        assert found == pytest.approx(np.exp(best.x[0]), rel=0.1)  # a step of the candidates
        assert factor == pytest.approx(np.exp(best.x[1]), rel=0.02)

    def test_one_row_does_not_decide(self):
        squared = np.random.default_rng(0).chisquare(2, 300)
        clean = tails_of(squared, np.full(300, 2), TRIED)
        odd = tails_of(np.r_[squared[1:], 1e12], np.full(300, 2), TRIED)
        assert clean[0] > 30.0
        assert odd[0] > 4.0
        assert odd[1] == pytest.approx(clean[1], rel=0.25)


def part_of(errors):
    x = np.random.default_rng(1).normal(size=(len(errors), 3))
    table = Table(x, errors, None, np.arange(len(errors)), measured=errors)
    return Part(table, table, table), moments(table)


class TestConstantErrors:
    """On every backend: a network that ignores its inputs."""

    RECIPE = Recipe(covariances.get("cholesky"), "balanced", hidden=(8,), embedding="periodic")

    @pytest.mark.parametrize("tails", ["normal", "t"])
    def test_has_the_covariance_of_the_errors(self, tails):
        errors = np.random.default_rng(0).multivariate_normal([0, 0], COVARIANCE, size=4000)
        part, inputs = part_of(errors)
        recipe = recipe_of_constant_errors(
            Recipe(**{**vars(self.RECIPE), "tails": tails}),
        )
        found = constant_errors(recipe, part, inputs, 0, None)
        assert found.epochs == 0
        answer = found.head.distribution(predict(found.model, part.training.x[:5]))
        np.testing.assert_array_equal(answer.mean, 0.0)
        np.testing.assert_allclose(answer.covariance, [COVARIANCE] * 5, rtol=0.1)

    def test_gaps_and_tails(self):
        errors = stats.multivariate_t.rvs(
            shape=COVARIANCE, df=4.0, size=4000, random_state=np.random.default_rng(0)
        )
        errors[::3, 1] = np.nan
        part, inputs = part_of(errors)
        recipe = recipe_of_constant_errors(Recipe(**{**vars(self.RECIPE), "tails": "t"}))
        found = constant_errors(recipe, part, inputs, 0, None)
        one = found.head.distribution(found.head.constant_prediction())[0]
        assert one.law.degrees_of_freedom == pytest.approx(4.0, rel=0.2)
        expected = stats.multivariate_t(shape=COVARIANCE, df=4.0).logpdf(errors[1::3])
        assert one.log_prob(errors[1::3]).mean() == pytest.approx(expected.mean(), abs=0.02)

    def test_predictions_are_those_of_the_model_and_are_saved(self, tmp_path):
        errors = np.random.default_rng(0).multivariate_normal([0, 0], COVARIANCE, size=300)
        part, inputs = part_of(errors)
        recipe = recipe_of_constant_errors(Recipe(**{**vars(self.RECIPE), "tails": "t"}))
        found = constant_errors(recipe, part, inputs, 0, None)
        y_pred = found.model.predict(part.training.x[:5], verbose=0)
        np.testing.assert_allclose(predict(found.model, part.training.x[:5]), y_pred, rtol=1e-6)
        found.model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        assert heads(again)[-1].ignores_inputs
        np.testing.assert_allclose(predict(again, part.training.x[:5]), y_pred, rtol=1e-6)
