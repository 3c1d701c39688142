"""MultivariateNormal against SciPy, and its behavior as a batch."""

import numpy as np
import pandas
import pytest
import scipy.stats

import keras_mvn as kmvn
from keras_mvn import MultivariateNormal, calibration, covariances
from predictions import packed
from structures import PLAIN

D = 3


@pytest.fixture
def sigma(rng):
    factor = rng.normal(size=(4, D, D))
    return factor @ np.swapaxes(factor, -1, -2) + 0.5 * np.eye(D)


@pytest.fixture
def mean(rng):
    return rng.normal(size=(4, D))


def build(kind, mean, sigma):
    argument = {
        "covariance": sigma,
        "scale_tril": np.linalg.cholesky(sigma),
        "precision": np.linalg.inv(sigma),
    }[kind]
    return MultivariateNormal(mean, **{kind: argument})


KINDS = ["covariance", "scale_tril", "precision"]


@pytest.mark.parametrize("kind", KINDS)
class TestAgainstScipy:
    def test_moments(self, kind, mean, sigma):
        normal = build(kind, mean, sigma)
        np.testing.assert_array_equal(normal.mean, mean)
        np.testing.assert_allclose(normal.covariance, sigma, rtol=1e-9)
        np.testing.assert_allclose(normal.precision, np.linalg.inv(sigma), rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(normal.scale_tril, np.linalg.cholesky(sigma), atol=1e-9)
        variance = np.diagonal(sigma, axis1=-2, axis2=-1)
        np.testing.assert_allclose(normal.variance, variance, rtol=1e-9)
        np.testing.assert_allclose(normal.stddev, np.sqrt(variance), rtol=1e-9)
        root = np.sqrt(variance)
        expected = sigma / root[:, :, None] / root[:, None, :]
        np.testing.assert_allclose(normal.correlation, expected, rtol=1e-8)
        assert (np.diagonal(normal.correlation, axis1=-2, axis2=-1) == 1.0).all()

    def test_density(self, kind, mean, sigma, rng):
        normal = build(kind, mean, sigma)
        y = rng.normal(size=(4, D))
        frozen = [scipy.stats.multivariate_normal(m, s) for m, s in zip(mean, sigma, strict=True)]
        np.testing.assert_allclose(
            normal.log_prob(y), [f.logpdf(v) for f, v in zip(frozen, y, strict=True)], rtol=1e-9
        )
        np.testing.assert_allclose(normal.entropy(), [f.entropy() for f in frozen], rtol=1e-9)
        expected = [
            scipy.spatial.distance.mahalanobis(v, m, np.linalg.inv(s))
            for v, m, s in zip(y, mean, sigma, strict=True)
        ]
        np.testing.assert_allclose(normal.mahalanobis(y), expected, rtol=1e-9)

    def test_samples_have_the_moments(self, kind, mean, sigma):
        draws = build(kind, mean, sigma).sample(200_000, seed=1)
        assert draws.shape == (200_000, 4, D)
        for i in range(4):
            sd = np.sqrt(np.diag(sigma[i]))
            assert np.abs((draws[:, i].mean(0) - mean[i]) / sd).max() < 0.01
            error = (np.cov(draws[:, i].T) - sigma[i]) / np.outer(sd, sd)
            assert np.abs(error).max() < 0.015


@pytest.mark.parametrize("name", PLAIN)
class TestFromPrediction:
    def test_it_reads_what_the_loss_reads(self, name, rng):
        y, y_pred = rng.normal(size=(5, D)), packed(name, 5, rng)
        normal = MultivariateNormal.from_prediction(y_pred, name)
        expected = [
            scipy.stats.multivariate_normal(m, s).logpdf(v)
            for m, s, v in zip(normal.mean, normal.covariance, y, strict=True)
        ]
        np.testing.assert_allclose(normal.log_prob(y), expected, rtol=1e-8)
        loss = kmvn.losses.NegativeLogLikelihood(name, reduction=None)(y, y_pred)
        np.testing.assert_allclose(-np.asarray(loss), normal.log_prob(y), rtol=1e-4)

    def test_float32_predictions_become_float64(self, name, rng):
        normal = MultivariateNormal.from_prediction(packed(name, 5, rng).astype("float32"), name)
        assert normal.covariance.dtype == np.float64


class TestOtherLayouts:
    def test_raw(self, rng):
        raw = rng.normal(size=(5, 9))
        normal = MultivariateNormal.from_prediction(raw, from_raw=True)
        scale, shape_params = covariances.Cholesky().constrain(raw[:, D:], D)
        expected = covariances.Cholesky().covariance(scale, shape_params)
        np.testing.assert_array_equal(normal.covariance, expected)

    def test_mean_log_variance(self, rng):
        y_pred = rng.normal(size=(5, 2 * D))
        normal = MultivariateNormal.from_prediction(y_pred, layout="mean_log_variance")
        np.testing.assert_allclose(normal.variance, np.exp(y_pred[:, D:]))

    def test_stacked(self, sigma, mean):
        stacked = np.concatenate([mean[..., None], sigma], axis=-1)
        normal = MultivariateNormal.from_prediction(stacked, "symmetric", layout="stacked")
        np.testing.assert_allclose(normal.covariance, sigma)


class TestBatch:
    @pytest.fixture
    def normal(self, mean, sigma):
        return MultivariateNormal(mean, covariance=sigma, target_names=["a", "b", "c"])

    def test_len_and_iteration(self, normal):
        assert len(normal) == 4
        assert [one.batch_shape for one in normal] == [()] * 4

    @pytest.mark.parametrize(
        "index", [2, -1, slice(1, 3), [0, 3], np.array([True, False, True, False]), ...], ids=str
    )
    def test_indexing_is_numpys(self, normal, index, mean, sigma):
        np.testing.assert_array_equal(normal[index].mean, mean[index])
        np.testing.assert_allclose(normal[index].covariance, sigma[index], rtol=1e-12)
        assert normal[index].target_names == ("a", "b", "c")

    def test_several_batch_axes(self, rng):
        y_pred = packed("cholesky", 6, rng).reshape(2, 3, 9)
        normal = MultivariateNormal.from_prediction(y_pred)
        assert normal[1, 2].batch_shape == ()
        assert normal[:, 1].batch_shape == (2,)
        np.testing.assert_array_equal(normal[1, 2].mean, y_pred[1, 2, :D])
        assert normal.sample(7, seed=0).shape == (7, 2, 3, D)
        assert normal.precision.shape == (2, 3, D, D)

    def test_an_index_into_the_targets_is_refused(self, normal):
        with pytest.raises(IndexError):
            normal[0, 1]

    def test_a_single_one(self, normal):
        one = normal[0]
        with pytest.raises(TypeError, match="no length"):
            len(one)
        with pytest.raises(IndexError, match="no batch axis"):
            one[0]
        assert one.log_prob(np.zeros((7, D))).shape == (7,)
        assert one.sample(seed=0).shape == (D,)

    def test_broadcasting_of_y(self, normal, rng):
        y = rng.normal(size=(5, 1, D))
        assert normal.log_prob(y).shape == (5, 4)
        np.testing.assert_allclose(normal.log_prob(y)[3, 2], normal[2].log_prob(y[3, 0]))

    def test_it_does_not_share_the_callers_arrays(self, rng):
        y_pred = packed("cholesky", 4, rng)
        normal = MultivariateNormal.from_prediction(y_pred)
        before = normal.covariance
        y_pred[:] = -1.0
        np.testing.assert_array_equal(normal.covariance, before)
        with pytest.raises(ValueError, match="read-only"):
            normal.mean[0] = 1.0

    def test_truth(self, normal):
        assert normal
        assert normal[0]
        assert normal[:0]

    def test_repr_tells_what_it_is(self, normal):
        assert repr(normal) == (
            "MultivariateNormal(batch_shape=(4,), event_size=3, covariance='cholesky', "
            "targets=['a', 'b', 'c'])"
        )

    def test_seeds(self, normal):
        np.testing.assert_array_equal(normal.sample(3, seed=1), normal.sample(3, seed=1))
        assert (normal.sample(3, seed=1) != normal.sample(3, seed=2)).all()

    def test_to_scipy(self, normal, rng):
        y = rng.normal(size=D)
        for frozen, one in zip(normal.to_scipy(), normal, strict=True):
            assert frozen.logpdf(y) == pytest.approx(float(one.log_prob(y)))


class TestArrangement:
    def test_concatenate_keeps_a_common_structure(self, mean, sigma):
        normal = MultivariateNormal(mean, precision=sigma, target_names=list("abc"))
        joined = MultivariateNormal.concatenate([normal[:1], normal[1:1], normal[1:]])
        assert joined.structure == normal.structure
        assert joined.target_names == normal.target_names
        np.testing.assert_array_equal(joined.mean, mean)
        np.testing.assert_array_equal(joined.covariance, normal.covariance)

    def test_concatenate_of_other_structures_is_exact(self, mean, sigma):
        parts = [build(kind, mean, sigma) for kind in KINDS]
        parts.append(MultivariateNormal.from_prediction(
            np.concatenate([mean, np.ones((4, D)), np.full((4, D), 0.5)], axis=1),
            covariances.LowRank(1),
        ))  # fmt: skip
        joined = MultivariateNormal.concatenate(parts)
        assert joined.batch_shape == (16,)
        expected = np.concatenate([sigma, sigma, sigma, parts[3].covariance])
        np.testing.assert_allclose(joined.covariance, expected, rtol=1e-7, atol=1e-9)

    def test_what_cannot_be_joined(self, mean, sigma):
        normal = MultivariateNormal(mean, covariance=sigma, target_names=list("abc"))
        for others, message in (
            ([], "at least one batch"),
            ([normal, normal[0]], "at least one batch"),
            ([normal, normal.with_names(list("cba"))], "does not have the targets"),
            ([normal, normal.marginal([0])], "does not have the targets"),
            ([MultivariateNormal(mean[None], covariance=sigma), normal.with_names(None)], "differ"),
        ):
            with pytest.raises(ValueError, match=message):
                MultivariateNormal.concatenate(others)

    def test_flatten_is_in_the_order_of_reshape(self, mean, sigma):
        normal = MultivariateNormal(mean.reshape(2, 2, D), covariance=sigma.reshape(2, 2, D, D))
        np.testing.assert_array_equal(normal.flatten().mean, mean)
        np.testing.assert_allclose(normal.flatten().covariance, sigma, rtol=1e-9)
        assert normal[0, 0].flatten().batch_shape == (1,)

    def test_names(self, mean, sigma):
        normal = MultivariateNormal(mean, covariance=sigma)
        assert normal.with_names(list("abc")).target_names == ("a", "b", "c")
        assert normal.with_names(list("abc")).with_names(None).target_names is None
        with pytest.raises(ValueError, match="must be 3 different names"):
            normal.with_names(["a", "b", "b"])

    def test_parameters_are_those_of_the_structure(self, mean, sigma):
        normal = MultivariateNormal(mean, precision=sigma)
        mu, scale, shape_params = normal.parameters
        np.testing.assert_array_equal(mu, mean)
        expected = normal.structure.covariance(scale, shape_params)
        np.testing.assert_allclose(expected, np.linalg.inv(sigma), rtol=1e-7, atol=1e-9)


class TestLabels:
    """Names come from data frames, and columns in another order are put in order or refused."""

    @pytest.fixture
    def frames(self, mean, sigma):
        names = ["a", "b", "c"]
        frame = pandas.DataFrame(sigma[0], index=names, columns=names)
        return pandas.Series(mean[0], index=names), frame

    def test_of_the_mean(self, frames, mean, sigma):
        normal = MultivariateNormal(
            pandas.DataFrame(mean, columns=["a", "b", "c"]), covariance=sigma
        )
        assert normal.target_names == ("a", "b", "c")
        assert MultivariateNormal(frames[0], covariance=sigma[0]).target_names == ("a", "b", "c")

    def test_of_the_matrix_alone(self, frames, mean):
        normal = MultivariateNormal(mean[0], covariance=frames[1])
        assert normal.target_names == ("a", "b", "c")

    @pytest.mark.parametrize("kind", ["covariance", "precision"])
    def test_the_matrix_goes_by_the_mean(self, kind, frames):
        mean, matrix = frames
        expected = MultivariateNormal(mean, **{kind: matrix})
        shuffled = matrix.loc[["b", "c", "a"], ["c", "a", "b"]]
        normal = MultivariateNormal(mean, **{kind: shuffled})
        assert normal.target_names == ("a", "b", "c")
        np.testing.assert_array_equal(normal.covariance, expected.covariance)

    def test_both_go_by_target_names(self, frames):
        mean, matrix = frames
        table = pandas.DataFrame([mean])
        normal = MultivariateNormal(table, covariance=matrix, target_names=["c", "a", "b"])
        assert normal.mean[0].tolist() == mean[["c", "a", "b"]].tolist()
        assert (
            MultivariateNormal(mean, covariance=matrix, target_names=["c", "a", "b"]).mean.tolist()
            == mean[["c", "a", "b"]].tolist()
        )
        with pytest.raises(ValueError, match="mean has the labels"):
            MultivariateNormal(mean, covariance=matrix, target_names=["c", "a", "x"])
        expected = matrix.loc[["c", "a", "b"], ["c", "a", "b"]].to_numpy()
        np.testing.assert_allclose(normal.covariance[0], expected, rtol=1e-9)

    def test_refused(self, frames, sigma):
        mean, matrix = frames
        other = matrix.rename(columns={"a": "x"}, index={"a": "x"})
        with pytest.raises(ValueError, match="covariance has the columns .*'x'.* expected"):
            MultivariateNormal(mean, covariance=other)
        factor = pandas.DataFrame(
            np.linalg.cholesky(sigma[0]), index=matrix.index, columns=matrix.columns
        )
        turned = factor.loc[["b", "a", "c"], ["b", "a", "c"]]
        with pytest.raises(ValueError, match="depends on the order of the targets"):
            MultivariateNormal(mean, scale_tril=turned)
        assert MultivariateNormal(mean, scale_tril=factor).target_names == ("a", "b", "c")


class TestInterval:
    def test_it_is_scipys(self, mean, sigma):
        lower, upper = MultivariateNormal(mean, covariance=sigma).interval(0.8)
        sd = np.sqrt(np.diagonal(sigma, axis1=-2, axis2=-1))
        expected = scipy.stats.norm.interval(0.8, mean, sd)
        np.testing.assert_allclose(lower, expected[0])
        np.testing.assert_allclose(upper, expected[1])

    @pytest.mark.parametrize("level", [0, 1, 90, float("nan")])
    def test_the_level_is_a_probability(self, level, mean, sigma):
        with pytest.raises(ValueError, match="level"):
            MultivariateNormal(mean, covariance=sigma).interval(level)


class TestUnits:
    @pytest.mark.parametrize("unit", [1e-30, 1e30])
    def test_extreme_units(self, unit, mean, sigma):
        normal = MultivariateNormal(mean * unit, covariance=sigma * unit**2)
        plain = MultivariateNormal(mean, covariance=sigma)
        y = np.ones(D)
        expected = plain.log_prob(y) - D * np.log(unit)
        np.testing.assert_allclose(normal.log_prob(y * unit), expected)
        np.testing.assert_allclose(normal.correlation, plain.correlation)


class TestErrors:
    def test_exactly_one_matrix(self, mean, sigma):
        with pytest.raises(ValueError, match="received none"):
            MultivariateNormal(mean)
        with pytest.raises(ValueError, match=r"received \['covariance', 'precision'\]"):
            MultivariateNormal(mean, covariance=sigma, precision=sigma)

    @pytest.mark.parametrize(
        ("matrix", "match"),
        [
            ([[1.0, 2.0], [2.0, 1.0]], "positive definite"),
            ([[1.0, 0.5], [0.2, 1.0]], "symmetric"),
            ([[1.0]], r"shape \(1, 1\)"),
            ([1.0, 1.0], r"\(\.\.\., 2, 2\)"),
            ([[-1.0, 0.0], [0.0, 1.0]], "positive definite"),
            ([[np.nan, 0.0], [0.0, 1.0]], r"covariance contains NaN or infinite values \(1"),
        ],
    )
    def test_bad_covariances(self, matrix, match):
        with pytest.raises(ValueError, match=match):
            MultivariateNormal([0.0, 0.0], covariance=matrix)

    def test_bad_factors(self):
        with pytest.raises(ValueError, match="positive diagonal"):
            MultivariateNormal([0.0, 0.0], scale_tril=[[1.0, 0.0], [0.0, -1.0]])
        with pytest.raises(ValueError, match="lower triangular"):
            MultivariateNormal([0.0, 0.0], scale_tril=[[1.0, 0.5], [0.5, 1.0]])

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    @pytest.mark.parametrize("method", ["log_prob", "mahalanobis"])
    def test_values_that_are_not_finite(self, bad, method, mean, sigma):
        y = np.zeros((4, D))
        y[2, 1] = bad
        with pytest.raises(ValueError, match=r"y contains NaN.*index \(2, 1\)"):
            getattr(MultivariateNormal(mean, covariance=sigma), method)(y)

    @pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 2), (5, D)], ids=str)
    def test_shapes_of_y(self, shape, mean, sigma):
        with pytest.raises(ValueError, match=r"y has"):
            MultivariateNormal(mean, covariance=sigma).log_prob(np.zeros(shape))

    def test_predictions(self, rng):
        with pytest.raises(ValueError, match="cannot read"):
            MultivariateNormal.from_prediction(np.ones((4, 8)))
        with pytest.raises(ValueError, match="not positive.*from_raw=True"):
            MultivariateNormal.from_prediction(-np.ones((4, 9)))
        y_pred = packed("cholesky", 4, rng)
        y_pred[0, 0] = np.nan
        with pytest.raises(ValueError, match="y_pred contains NaN"):
            MultivariateNormal.from_prediction(y_pred)

    @pytest.mark.parametrize("n", [-1, 2.5, True])
    def test_numbers_of_draws(self, n, mean, sigma):
        with pytest.raises(ValueError, match="n="):
            MultivariateNormal(mean, covariance=sigma).sample(n)

    def test_names(self, mean, sigma):
        for names in (["a", "b"], ["a", "a", "b"], "abc"):
            with pytest.raises(ValueError, match="3 different names"):
                MultivariateNormal(mean, covariance=sigma, target_names=names)

    def test_batches_that_do_not_fit(self, mean, sigma):
        with pytest.raises(ValueError, match=r"mean has batch shape \(4,\)"):
            MultivariateNormal(mean, covariance=sigma[:2])
        with pytest.raises(ValueError, match=r"one per distribution, of shape \(4,\)"):
            MultivariateNormal(mean, covariance=sigma).rescale(np.ones((4, 1)))

    def test_no_targets(self):
        with pytest.raises(ValueError, match="covariance has shape"):
            MultivariateNormal([], covariance=np.zeros((0, 0)))

    def test_matrices_in_a_stack_that_are_not_definite(self):
        for name in ("cholesky", "precision_cholesky", "symmetric"):
            with pytest.raises(ValueError, match="not positive"):
                MultivariateNormal.from_prediction(np.zeros((3, 2, 3)), name, layout="stacked")


class TestTemperature:
    def test_it_maximizes_the_likelihood(self, rng):
        normal = MultivariateNormal.from_prediction(packed("cholesky", 300, rng))
        y = normal.rescale(1.7).sample(seed=3)
        fitted = calibration.Temperature.fit(normal, y, robust=False)

        def likelihood(temperature):
            return normal.rescale(temperature).log_prob(y).mean()

        best = likelihood(fitted.temperature)
        for factor in (0.99, 1.01):
            assert likelihood(fitted.temperature * factor) < best
        assert fitted.temperature == pytest.approx(1.7, rel=0.1)
        calibrated = fitted.apply(normal)
        np.testing.assert_allclose(calibrated.covariance, fitted.temperature**2 * normal.covariance)
        assert (calibrated.mahalanobis(y) ** 2).mean() == pytest.approx(D)

    def test_bad_calibration_sets(self, rng):
        normal = MultivariateNormal.from_prediction(packed("cholesky", 3, rng))
        with pytest.raises(ValueError, match="at least one"):
            calibration.Temperature.fit(normal[:0], np.zeros((0, D)))
        with pytest.raises(ValueError, match=r"y has shape \(3,\)"):
            calibration.Temperature.fit(normal, np.zeros(D))
        with pytest.raises(ValueError, match="every prediction equals y"):
            calibration.Temperature.fit(normal, normal.mean)
        with pytest.raises(ValueError, match="positive"):
            normal.rescale(0.0)

    def test_one_factor_per_distribution(self, mean, sigma):
        factors = np.array([1.0, 2.0, 3.0, 4.0])
        normal = MultivariateNormal(mean, covariance=sigma).rescale(factors)
        np.testing.assert_allclose(normal.covariance, sigma * factors[:, None, None] ** 2)
