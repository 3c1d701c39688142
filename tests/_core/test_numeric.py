"""The small pieces: packing, links, substitution, χ²."""

import keras
import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from differentiation import numpy, tensor, value_and_gradients
from keras_mvn._core.chi_square import chi_square_cdf, chi_square_quantile
from keras_mvn._core.numeric import solve_lower
from keras_mvn.covariances import links, packing


class TestPacking:
    @pytest.mark.parametrize("d", [1, 2, 5])
    @pytest.mark.parametrize("batch", [(), (3,), (2, 3)], ids=str)
    def test_it_reads_row_by_row(self, d, batch, rng):
        matrix = rng.normal(size=(*batch, d, d))
        rows, columns = np.tril_indices(d, -1)
        expected = matrix[..., rows, columns]
        np.testing.assert_array_equal(packing.pack_strict_lower(matrix), expected)
        unpacked = packing.unpack_strict_lower(expected, d)
        np.testing.assert_array_equal(unpacked, np.tril(matrix, -1))
        lower = packing.unpack_lower(packing.pack_lower(matrix), d)
        np.testing.assert_array_equal(lower, np.tril(matrix))
        np.testing.assert_array_equal(
            packing.diagonal(matrix), np.diagonal(matrix, axis1=-2, axis2=-1)
        )

    @pytest.mark.parametrize(
        "pack", [packing.pack_strict_lower, packing.pack_lower, packing.diagonal]
    )
    def test_its_gradient_is_the_transpose(self, pack, rng):
        matrix = rng.normal(size=(2, 4, 4))
        weight = rng.normal(size=pack(matrix).shape)

        def weighted(m):
            return keras.ops.sum(pack(m) * tensor(weight))

        _, (gradient,) = value_and_gradients(weighted, matrix)
        # The map is linear: <pack(M), w> = <M, packᵀ(w)>, so the gradient reproduces the value.
        assert (gradient * matrix).sum() == pytest.approx((pack(matrix) * weight).sum(), rel=1e-5)
        assert np.count_nonzero(gradient) == weight.size


class TestPositive:
    def test_slope_and_value_at_zero_are_one(self):
        value, (gradient,) = value_and_gradients(lambda x: links.positive(x)[0], [0.0])
        assert value == 1.0
        assert gradient == 1.0

    def test_it_is_the_documented_function(self, dtype):
        x = np.linspace(-50, 50, 401)
        excess = np.maximum(np.abs(x) - 3, 0)
        expected = np.exp(np.sign(x) * (np.minimum(np.abs(x), 3) + np.log1p(excess)))
        np.testing.assert_allclose(numpy(links.positive(tensor(x, dtype))), expected, rtol=2e-6)
        np.testing.assert_allclose(links.positive(x), expected, rtol=1e-14)
        np.testing.assert_allclose(links.positive_inverse(expected), x, rtol=1e-11, atol=1e-12)

    @pytest.mark.parametrize("link", [links.positive, links.positive_from_log])
    @pytest.mark.parametrize("x", [-1e6, -1e4, -100.0, -1.0, 1.0, 100.0, 1e4, 1e6])
    def test_value_and_slope_never_vanish(self, link, x):
        value, (gradient,) = value_and_gradients(lambda v: link(v)[0], [x])
        assert 0 < value < np.inf
        assert 0 < gradient < np.inf

    @pytest.mark.parametrize("x", [-3.0, 3.0])
    def test_it_is_smooth_at_the_knees(self, x):
        slopes = [
            value_and_gradients(lambda v: links.positive(v)[0], [x + step])[1][0][0]
            for step in (-1e-4, 1e-4)
        ]
        assert slopes[0] == pytest.approx(slopes[1], rel=1e-3)

    def test_it_rises(self):
        x = np.linspace(-1e5, 1e5, 100_001)
        assert (np.diff(links.positive(x)) > 0).all()

    def test_logarithms_are_exact_up_to_the_limit(self):
        x = np.linspace(-links.LOG_LIMIT, links.LOG_LIMIT, 101)
        np.testing.assert_allclose(links.positive_from_log(x), np.exp(x), rtol=1e-14)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("d", [4, 11])
def test_solve_lower(d, transposed, batch, dtype, rng):
    factor = np.tril(rng.normal(size=(*batch, d, d)), -1) / 2 + 2 * np.eye(d)
    b = rng.normal(size=(*batch, d, 2))
    expected = np.empty_like(b)
    for index in np.ndindex(batch):
        expected[index] = scipy.linalg.solve_triangular(
            factor[index], b[index], lower=True, trans=int(transposed)
        )
    np.testing.assert_allclose(solve_lower(factor, b, transposed=transposed), expected, rtol=1e-12)
    got = solve_lower(tensor(factor, dtype), tensor(b, dtype), transposed=transposed)
    np.testing.assert_allclose(numpy(got), expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("dof", [1, 2, 3, 10, 100, 1000])
class TestChiSquare:
    def test_ends(self, dof):
        assert chi_square_cdf(0.0, dof) == 0.0
        assert chi_square_cdf(float("inf"), dof) == 1.0

    @pytest.mark.parametrize("level", [1e-6, 0.05, 0.5, 0.9, 0.999999])
    def test_quantile_is_scipys(self, dof, level):
        expected = scipy.stats.chi2.ppf(level, dof)
        assert chi_square_quantile(level, dof) == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize("ratio", [1e-3, 0.5, 1.0, 1.5, 10.0])
    def test_cdf_is_scipys(self, dof, ratio):
        expected = scipy.stats.chi2.cdf(ratio * dof, dof)
        assert chi_square_cdf(ratio * dof, dof) == pytest.approx(expected, rel=1e-11, abs=1e-300)
