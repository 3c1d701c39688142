"""χ² and F probabilities on tensors, against SciPy, up to the ends of what a row may hold."""

import numpy as np
import pytest
import scipy.stats
from keras import ops

from differentiation import compiled, numpy, tensor, value_and_gradients
from keras_mvn._core.region_levels import chi_square_level, student_level

ERROR = {"float32": 2e-6, "float64": 1e-9}


@pytest.fixture
def grid(rng, dtype):
    """Squared distances in either tail and between, up to 200 targets, ν from 2 to 1e6."""
    rows = 20_000
    count = np.exp(rng.uniform(0, np.log(200.5), rows)).round()
    nu = np.exp(rng.uniform(np.log(2), np.log(1e4), rows))
    nu[:500], nu[500:1000] = 2.0, 1e6
    squared = count * scipy.stats.f.ppf(rng.random(rows), count, nu)
    squared[::3] *= np.exp(3 * rng.normal(size=len(squared[::3])))
    return [x.astype(dtype).astype(float) for x in (squared, count, nu)]


def test_values(grid, dtype):
    squared, count, nu = grid
    got = numpy(compiled(student_level)(*(tensor(x, dtype) for x in grid)))
    assert got.dtype == dtype
    expected = scipy.stats.f.cdf(squared / count, count, nu)
    np.testing.assert_allclose(got, expected, rtol=0, atol=ERROR[dtype])
    got = numpy(compiled(chi_square_level)(tensor(squared, dtype), tensor(count, dtype)))
    np.testing.assert_allclose(got, scipy.stats.chi2.cdf(squared, count), rtol=0, atol=ERROR[dtype])


def test_gradients(grid, dtype):
    squared, count, nu = grid
    _, (by_squared, by_nu) = value_and_gradients(
        lambda q, v: ops.sum(student_level(q, tensor(count, dtype), v)), squared, nu, dtype=dtype
    )
    density = scipy.stats.f.pdf(squared / count, count, nu) / count
    tolerance = {"float32": 2e-5, "float64": 1e-8}[dtype]
    np.testing.assert_allclose(by_squared * squared, density * squared, rtol=0, atol=tolerance)

    def at(step):
        return scipy.stats.f.cdf(squared / count, count, nu * (1 + step))

    step = 3e-3
    slope = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)
    np.testing.assert_allclose(by_nu * nu, slope, rtol=0, atol=tolerance)


@pytest.mark.parametrize("count", [1.0, 2.0, 100.0])
def test_the_ends(count, dtype):
    """At the center, far beyond every row, and where y is NaN or nothing was observed."""
    squared = np.array([0.0, 1e-30, 1e30, np.inf])
    for level in (
        lambda q, v: student_level(q, tensor(count, dtype), v),
        lambda q, v: chi_square_level(q, tensor(count, dtype)),
    ):
        got = numpy(level(tensor(squared, dtype), tensor([2.0, 3.0, 9.0, 1e6], dtype)))
        np.testing.assert_allclose(got, [0.0, 0.0, 1.0, 1.0], atol=1e-10)
        _, gradients = value_and_gradients(
            lambda q, v, level=level: ops.sum(level(q, v)),
            squared,
            np.array([2.0, 3.0, 9.0, 1e6]),
            dtype=dtype,
        )
        assert np.isfinite(gradients).all()
    nan = student_level(tensor([np.nan, 1.0], dtype), tensor([1.0, 0.0], dtype), tensor(3.0, dtype))
    np.testing.assert_array_equal(numpy(nan), [np.nan, 0.0])
