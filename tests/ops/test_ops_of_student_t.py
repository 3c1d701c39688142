"""keras_mvn.ops with layout="student_t": against SciPy, gradients against finite differences."""

import functools

import keras
import numpy as np
import pytest
import scipy.stats

import keras_mvn as kmvn
import oracle
from differentiation import compiled, numpy, precision, rows_and_gradient, tensor
from keras_mvn import covariances, ops
from predictions import packed
from structures import ORACLE

D, ROWS = 3, 6
NU = np.array([2.2, 3.0, 5.0, 20.0, 300.0, 1e4])
CHOLESKY, LOW_RANK = covariances.Cholesky(), covariances.LowRank(2)

both = pytest.mark.parametrize("structure", [CHOLESKY, LOW_RANK], ids=lambda s: s.name)


def predictions(structure, rng):
    """y_pred of ν from heavy tails to nearly none, and rows of y near and far."""
    y_pred = np.concatenate([packed(structure, ROWS, rng, D), NU[:, None]], axis=1)
    return y_pred, y_pred[:, :D] + np.array([0.3, 3, 1, 1, 30, 1])[:, None] * rng.normal(size=D)


def laws(structure, y_pred, observed):
    """Each row's t of what was observed, by SciPy."""
    for row, seen in zip(y_pred, observed, strict=True):
        sigma = oracle.covariance(ORACLE[structure.name], row[D : 2 * D], row[2 * D : -1])
        yield scipy.stats.multivariate_t(row[:D][seen], sigma[np.ix_(seen, seen)], row[-1])


def squared(t, y):
    return (y - t.loc) @ np.linalg.solve(t.shape, y - t.loc)


def expected(structure, y_pred, y, observed):
    """log p, distance and level of each row."""
    rows = []
    for t, value, seen in zip(laws(structure, y_pred, observed), y, observed, strict=True):
        q, d = squared(t, value[seen]), seen.sum()
        rows.append([t.logpdf(value[seen]), np.sqrt(q), scipy.stats.f.cdf(q / d, d, t.df)])
    return np.array(rows)


def all_three(y, y_pred, structure, **kwargs):
    read = functools.partial(
        dict, y=y, y_pred=y_pred, covariance=structure, layout="student_t", **kwargs
    )
    functions = ops.log_prob, ops.mahalanobis, ops.region_level
    return keras.ops.stack([function(**read()) for function in functions], axis=-1)


@both
@pytest.mark.parametrize("with_gaps", [False, True])
def test_densities(structure, with_gaps, dtype, rng):
    y_pred, y = predictions(structure, rng)
    observed = np.ones((ROWS, D), bool)
    if with_gaps:
        observed[[0, 1, 3, 4, 4], [1, 0, 2, 0, 1]] = False
    holes = np.where(observed, y, np.nan)
    missing = "marginalize" if with_gaps else "propagate"

    @compiled
    def found(y, p):
        return all_three(y, p, structure, missing=missing)

    got = numpy(found(tensor(holes, dtype), tensor(y_pred, dtype)))
    assert got.dtype == dtype
    rtol = {"float32": 1e-5, "float64": 1e-8}[dtype]
    np.testing.assert_allclose(got, expected(structure, y_pred, y, observed), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("with_gaps", [False, True])
@pytest.mark.elsewhere(with_gaps=[True])
def test_gradients(with_gaps, rng):
    """By y_pred, ν included."""
    y_pred, y = predictions(CHOLESKY, rng)
    observed = np.ones((ROWS, D), bool)
    if with_gaps:
        observed[[0, 1, 3], [1, 0, 2]] = False
    holes, weight = np.where(observed, y, np.nan), np.array([1.0, 0.5, 3.0])

    def rows(p):
        three = all_three(tensor(holes, "float64"), p, CHOLESKY, missing="marginalize")
        entropy = ops.entropy(p, layout="student_t")
        return keras.ops.sum(three * tensor(weight, "float64"), axis=-1) + entropy

    with precision("float64"):
        _, got = rows_and_gradient(compiled(rows), y_pred, dtype="float64")

    def value(flat):
        moved = flat.reshape(y_pred.shape)
        everything = laws(CHOLESKY, moved, np.ones((ROWS, D), bool))
        # SciPy's entropy at the same Σ: it has a closed form of its own.
        entropy = sum(t.entropy() for t in everything)
        return float((expected(CHOLESKY, moved, y, observed) @ weight).sum() + entropy)

    step = 1e-5
    for index in [(0, 0), (1, 1), (2, 4), (3, 6), (0, 8), (2, -1), (0, -1), (3, -1)]:
        moved = [y_pred.copy() for _ in range(2)]
        moved[0][index] += step
        moved[1][index] -= step
        slope = (value(moved[0].ravel()) - value(moved[1].ravel())) / (2 * step)
        assert got[index] == pytest.approx(slope, rel=1e-5, abs=1e-6), index


def test_entropy(dtype, rng):
    y_pred, _ = predictions(CHOLESKY, rng)
    got = numpy(ops.entropy(tensor(y_pred, dtype), layout="student_t"))
    wanted = [t.entropy() for t in laws(CHOLESKY, y_pred, np.ones((ROWS, D), bool))]
    np.testing.assert_allclose(got, wanted, rtol={"float32": 1e-5, "float64": 1e-9}[dtype])


def test_moments_and_factors(rng):
    y_pred, _ = predictions(LOW_RANK, rng)
    t = kmvn.MultivariateStudentT.from_prediction(y_pred, LOW_RANK)

    def read(function):
        return numpy(function(tensor(y_pred), LOW_RANK, layout="student_t"))

    np.testing.assert_allclose(read(ops.mean), t.mean, rtol=1e-6)
    np.testing.assert_allclose(read(ops.covariance), t.covariance, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(read(ops.variance), t.stddev**2, rtol=1e-5)
    np.testing.assert_allclose(read(ops.stddev), t.stddev, rtol=1e-5)
    np.testing.assert_allclose(read(ops.scale_tril), t.scale_tril, rtol=1e-4, atol=1e-5)


class TestSample:
    N = 20_000

    @both
    @pytest.mark.parametrize("seed", [0, 2**31], ids=["small", "large"])
    @pytest.mark.elsewhere(structure=["cholesky"], seed=[0])
    def test_distances_are_of_the_f_law(self, structure, seed, rng):
        """Not so if the gamma draws depended on the normal ones, as with the same seed."""
        y_pred, _ = predictions(structure, rng)
        draws = numpy(ops.sample(tensor(y_pred), self.N, seed, structure, layout="student_t"))
        assert draws.shape == (self.N, ROWS, D)
        for i, t in enumerate(laws(structure, y_pred, np.ones((ROWS, D), bool))):
            centered = draws[:, i].astype(float) - t.loc
            z = np.linalg.solve(np.linalg.cholesky(t.shape), centered.T)
            levels = scipy.stats.f.cdf((z**2).sum(axis=0) / D, D, t.df)
            assert scipy.stats.kstest(levels, "uniform").pvalue > 1e-4
            single = scipy.stats.kstest(z[0], scipy.stats.t(t.df).cdf)
            assert single.pvalue > 1e-4

    def test_rows_and_draws_are_independent(self):
        y_pred = tensor([[0.0, 1.0, 3.0]] * 2)
        size = np.log(np.abs(numpy(ops.sample(y_pred, self.N, 1, "diagonal", layout="student_t"))))
        across = np.corrcoef(size[:, 0, 0], size[:, 1, 0])[0, 1]
        along = np.corrcoef(size[1:, 0, 0], size[:-1, 0, 0])[0, 1]
        assert max(abs(across), abs(along)) < 4.5 / np.sqrt(self.N)

    def test_gradient_by_every_parameter(self):
        """E log(1 + y²), for many equal rows: the slope of the expectation, by quadrature."""
        row, rows = np.array([0.5, 2.0, 3.0]), 4000

        def objective(p):
            y = ops.sample(p, 10, 1, "diagonal", layout="student_t")
            return keras.ops.mean(keras.ops.log1p(y[..., 0] ** 2), axis=0)

        _, gradient = rows_and_gradient(objective, np.tile(row, (rows, 1)))

        def expectation(row):
            law = scipy.stats.t(row[2], row[0], row[1])
            return law.expect(lambda y: np.log1p(y**2), limit=500)

        wanted = oracle.central_difference(expectation, row, step=1e-3)
        error = gradient.std(axis=0) / np.sqrt(rows)
        assert np.abs(wanted[2]) > 4 * error[2]  # of ν, too
        np.testing.assert_array_less(np.abs(gradient.mean(axis=0) - wanted), 4.5 * error)


class TestReading:
    def test_draws_on_leading_axes(self, rng):
        y_pred, _ = predictions(CHOLESKY, rng)
        draws = rng.normal(size=(4, ROWS, D))
        log_prob = compiled(functools.partial(ops.log_prob, layout="student_t"))
        got = numpy(log_prob(tensor(draws), tensor(y_pred)))
        every = laws(CHOLESKY, y_pred, np.ones((ROWS, D), bool))
        wanted = [t.logpdf(y) for t, y in zip(every, np.swapaxes(draws, 0, 1), strict=True)]
        np.testing.assert_allclose(got.T, wanted, rtol=1e-4)

    def test_divergences_are_refused(self, rng):
        y_pred = tensor(predictions(CHOLESKY, rng)[0])
        with pytest.raises(ValueError, match=r"no closed form.*MultivariateStudentT.kl_divergence"):
            ops.kl_divergence(y_pred, y_pred, layout="student_t")

    def test_a_heads_t_needs_its_layout(self, rng):
        head = kmvn.layers.MultivariateNormalHead(D, degrees_of_freedom="per_row")
        y_pred = head(tensor(rng.normal(size=(2, 4))))
        with pytest.raises(ValueError, match="layout='student_t'"):
            ops.region_level(tensor(np.zeros((2, D))), y_pred)
        levels = ops.region_level(tensor(np.zeros((2, D))), y_pred, layout="student_t")
        assert (np.abs(numpy(keras.ops.stop_gradient(levels)) - 0.5) <= 0.5).all()

    @pytest.mark.skipif(keras.backend.backend() == "jax", reason="the tests above compile it")
    def test_compiled_for_any_batch(self, rng):
        y_pred, y = predictions(CHOLESKY, rng)

        def every(y, p):
            draws = ops.sample(p, 3, 1, layout="student_t")
            return (
                all_three(y, p, CHOLESKY, missing="marginalize"),
                ops.region_level(draws, p, layout="student_t"),
                ops.entropy(p, layout="student_t"),
            )

        built = compiled(every)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            signature = [tf.TensorSpec((None, width)) for width in (D, y_pred.shape[1])]
            built = tf.function(every, input_signature=signature)
        pairs = zip(built(tensor(y), tensor(y_pred)), every(tensor(y), tensor(y_pred)), strict=True)
        for graph, eager in pairs:
            np.testing.assert_allclose(numpy(graph), numpy(eager), rtol=1e-4, atol=1e-5)
