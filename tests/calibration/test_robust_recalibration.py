"""Recalibration with bounded influence: consistent, efficient, and one row cannot ruin it."""

import numpy as np
import pytest

from keras_mvn import MultivariateNormal
from keras_mvn.calibration import MatrixScaling, PerTarget, Temperature
from keras_mvn.distributions import MultivariateStudentT

FITS = {
    "temperature": lambda answer, y, **options: Temperature.fit(answer, y, **options).temperature,
    "joint": lambda answer, y, **options: PerTarget.fit(answer, y, **options).factors,
    "marginal": lambda answer, y, **options: (
        PerTarget.fit(answer, y, objective="marginal", **options).factors
    ),
    "matrix": lambda answer, y, **options: np.linalg.norm(
        MatrixScaling.fit(answer, y, shrinkage=0.5, **options).scale_tril, axis=-1
    ),
}


def standard(rows, d, nu=None):
    one = np.stack([np.eye(d)] * rows)
    if nu is None:
        return MultivariateNormal(np.zeros((rows, d)), covariance=one)
    return MultivariateStudentT(np.zeros((rows, d)), nu, scale_matrix=one)


@pytest.mark.parametrize("nu", [None, 3.0, 30.0])
@pytest.mark.parametrize("fit", FITS)
def test_factors_are_right_if_the_law_is(fit, nu):
    answer = standard(40_000, 2, nu)
    y = 1.7 * answer.sample(seed=0)
    np.testing.assert_allclose(FITS[fit](answer, y), 1.7, rtol=0.02)


@pytest.mark.parametrize("size", [1e3, 1e6, 1e12])
@pytest.mark.parametrize("nu", [None, 30.0])
@pytest.mark.parametrize("fit", FITS)
def test_one_row_of_a_hundred_moves_a_factor_by_a_few_percent(fit, nu, size):
    answer = standard(100, 3, nu)
    y = answer.sample(seed=1)
    clean = np.asarray(FITS[fit](answer, y))
    for target in (0, slice(None)):
        odd = y.copy()
        odd[np.abs(y[:, 0]).argmin(), target] = size
        # Joint estimates bound the distance of all targets, which one of them alone may use up.
        tolerance = 0.08 if fit in ("joint", "matrix") else 0.05
        np.testing.assert_allclose(FITS[fit](answer, odd), clean, rtol=tolerance)
        likely = np.max(FITS[fit](answer, odd, robust=False))
        assert likely > (10.0 if nu is None else 1.05) * clean.max()


def test_efficiency_for_normal_errors(rng):
    answer = standard(100, 1)
    found = np.array(
        [
            [Temperature.fit(answer, y, robust=robust).temperature for robust in (True, False)]
            for y in rng.normal(size=(300, 100, 1))
        ]
    )
    robust, likely = found.var(axis=0)
    assert likely / robust > 0.93
    assert found.mean(axis=0) == pytest.approx(1.0, abs=0.02)


def test_ten_percent_of_odd_rows_less_than_double_it(rng):
    y = rng.normal(size=(1000, 1))
    y[:100] = 1e9
    assert Temperature.fit(standard(1000, 1), y).temperature < 2.0


def test_where_most_predictions_are_exact_it_is_the_likelihood():
    y = np.zeros((100, 1))
    y[:3] = 2.0
    answer = standard(100, 1)
    assert (
        Temperature.fit(answer, y).temperature
        == Temperature.fit(answer, y, robust=False).temperature
    )


def test_gaps_count_as_many_targets_as_are_observed(rng):
    answer = standard(20_000, 3)
    y = 1.3 * answer.sample(seed=0)
    y[rng.uniform(size=y.shape) < 0.4] = np.nan
    for found in (
        Temperature.fit(answer, y, "marginalize").temperature,
        PerTarget.fit(answer, y, "marginalize").factors,
    ):
        np.testing.assert_allclose(found, 1.3, rtol=0.02)
