"""Explanations of what is known: one input moves each quantity."""

import numpy as np
import pandas
import pyarrow
import pytest

from keras_mvn import Mixture, MultivariateNormal
from keras_mvn.explain import (
    AleatoricStddev,
    Correlation,
    EpistemicStddev,
    LogVolume,
    Mean,
    Stddev,
    partial_dependence,
    permutation_importance,
    shapley_values,
)

pytestmark = pytest.mark.once

NAMES = ["m", "s", "r", "none"]
EVERY = [Mean("a"), Stddev("a"), Stddev("b"), Correlation("a", "b"), LogVolume()]


def predict(x):
    """Input m moves the mean of a, s its standard deviation, r the correlation."""
    if hasattr(x, "column_names"):
        x = x.to_pandas()
    if hasattr(x, "to_numpy"):
        x = x[NAMES].to_numpy()
    m, s, r = x[:, 0], np.exp(x[:, 1]), np.tanh(x[:, 2])
    covariance = np.array([[s * s, r * s], [r * s, np.ones_like(s)]]).transpose(2, 0, 1)
    mean = np.stack([3.0 * m, np.zeros_like(m)], axis=1)
    return MultivariateNormal(mean, covariance=covariance, target_names=["a", "b"])


@pytest.fixture
def x(rng):
    return rng.normal(size=(400, 4))


FORMS = [lambda x: x, lambda x: pandas.DataFrame(x, columns=NAMES),
         lambda x: pyarrow.table(dict(zip(NAMES, x.T, strict=True)))]  # fmt: skip


@pytest.mark.parametrize("form", FORMS, ids=["array", "pandas", "arrow"])
class TestImportance:
    def test_the_input_that_moves_it_comes_first(self, form, x):
        given = form(x)
        found = permutation_importance(predict, given, EVERY)
        names = list(found.features)
        for quantity, moved in (("mean of a", 0), ("stddev of a", 1),
                                ("correlation of a and b", 2)):  # fmt: skip
            ranked = found.ranked(quantity)
            assert ranked[0][0] == names[moved]
            np.testing.assert_allclose([value for _, value in ranked[1:]], 0.0, atol=1e-12)
        np.testing.assert_allclose(found.values[2], 0.0, atol=1e-12)  # nothing moves b's
        # 3 m: the mean owes all of its spread to m, which is its standard deviation.
        assert found.values[0, 0] == pytest.approx(found.spread[0], rel=0.1)
        volume = found.values[4]
        assert volume[1] > volume[2] > 0.1
        np.testing.assert_allclose(volume[[0, 3]], 0.0, atol=1e-12)

    def test_standard_errors_are_those_of_the_repetitions(self, form, x):
        given = form(x[:60])
        values = [
            permutation_importance(predict, given, EVERY, 5, seed).values[0, 0]
            for seed in range(30)
        ]
        error = permutation_importance(predict, given, EVERY, 5, 0).errors[0, 0]
        assert np.std(values) == pytest.approx(error, rel=0.8)

    def test_partial_dependence_is_the_function(self, form, x):
        found = partial_dependence(predict, form(x), 1, EVERY[:4])
        assert len(found.grid) == 20
        np.testing.assert_allclose(found.average[1], np.exp(found.grid), rtol=1e-9)
        np.testing.assert_allclose(found.average[0], 3.0 * x[:, 0].mean(), rtol=1e-9)
        np.testing.assert_allclose(found.individual[1], np.tile(np.exp(found.grid), (400, 1)))

    def test_shapley_values_sum_to_the_difference(self, form, x):
        pytest.importorskip("shap")
        given, background = form(x[:6]), form(x[100:110])
        values, base = shapley_values(predict, given, LogVolume(), background)
        expected = LogVolume().of(predict(given))
        np.testing.assert_allclose(values.sum(axis=1) + base, expected, rtol=1e-9, atol=1e-9)
        assert base == pytest.approx(LogVolume().of(predict(background)).mean())
        np.testing.assert_allclose(values[:, [0, 3]], 0.0, atol=1e-12)
        # log s is a sum of its own: exact.
        np.testing.assert_allclose(values[:, 1], x[:6, 1] - x[100:110, 1].mean(), atol=1e-9)


def test_categories_and_gaps(rng):
    frame = pandas.DataFrame({"site": rng.choice(["hill", "sea"], 200), "t": rng.normal(size=200)})
    frame.loc[5, "site"] = None

    def of_table(x):
        stddev = np.where(x["site"] == "sea", 3.0, 1.0)
        return MultivariateNormal(np.zeros((len(x), 1)), covariance=(stddev**2)[:, None, None])

    found = permutation_importance(of_table, frame, [Stddev(0)])
    assert found.ranked()[0][0] == "site"
    curve = partial_dependence(of_table, frame, "site", [Stddev(0)])
    assert curve.grid.tolist() == ["hill", "sea"]
    np.testing.assert_allclose(curve.average[0], [1.0, 3.0])
    assert list(found.to_frame().index) == ["stddev of 0"]


def test_parts_of_an_ensemble(rng):
    x = rng.normal(size=(300, 2))

    def members(x):
        one = MultivariateNormal(x[:, :1], covariance=np.exp(2.0 * x[:, 1])[:, None, None])
        return Mixture([one, MultivariateNormal(-x[:, :1], covariance=one.covariance)])

    found = permutation_importance(members, x, [AleatoricStddev(0), EpistemicStddev(0)])
    assert (found.ranked(0)[0][0], found.ranked(1)[0][0]) == (1, 0)
    with pytest.raises(TypeError, match="ensemble_"):
        permutation_importance(predict, rng.normal(size=(9, 4)), [AleatoricStddev(0)])


def test_what_does_not_fit(x):
    with pytest.raises(ValueError, match="1 rows"):
        permutation_importance(predict, x[:1], EVERY)
    with pytest.raises(ValueError, match="0 quantities"):
        permutation_importance(predict, x, [])
    with pytest.raises(ValueError, match="feature='z'"):
        partial_dependence(predict, x, "z", EVERY)
    with pytest.raises(TypeError, match="received int"):
        permutation_importance(3, x, EVERY)
    with pytest.raises(ValueError, match="c"):
        permutation_importance(predict, x, [Mean("c")])
