"""Recalibration: against direct optimization of the likelihood, on fresh data, and in models."""

import keras
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from keras_mvn import MultivariateNormal, calibration, losses
from keras_mvn.calibration import (
    CovarianceMap,
    MatrixScaling,
    PerTarget,
    RadialIsotonic,
    Temperature,
)
from keras_mvn.covariances._ledoit_wolf import _shrink
from keras_mvn.layers import MultivariateNormalHead
from structures import STRUCTURES, named

D = 4
RECALIBRATIONS = [Temperature, PerTarget, MatrixScaling]


def random_factors(rng, n, d=3, spread=0.5):
    """Lower factors with units that differ."""
    lower = np.tril(spread * rng.normal(size=(n, d, d)), -1)
    lower += np.exp(0.3 * rng.normal(size=(n, d)))[..., None] * np.eye(d)
    return lower * np.logspace(-2, 2, d)[:, None]


def predictions(rng, n, d=3):
    factors = random_factors(rng, n, d)
    return MultivariateNormal(rng.normal(size=(n, d)) * 10, scale_tril=factors)


def miscalibrated(rng, n, d=3):
    """Predictions, and y from L C e: the covariance C Cᵀ of L⁻¹ (y − μ) is no multiple of I."""
    normal = predictions(rng, n, d)
    c = np.linalg.cholesky(0.8 ** np.abs(np.subtract.outer(np.arange(d), np.arange(d))))
    c = np.diag(np.linspace(0.7, 2.0, d)) @ c
    return normal, normal.transform_errors(c).sample(seed=rng), c


def with_gaps(y, rng, share=0.3):
    y = np.where(rng.uniform(size=y.shape) < share, np.nan, y)
    y[0] = 0.0  # at least one row is complete
    return y


def by_observed(normal, y):
    """−log likelihood of the margins, row by row, by SciPy, in units of the standard deviations."""
    total = 0.0
    stddev = np.sqrt(np.diagonal(normal.covariance, axis1=1, axis2=2))
    for mean, sd, sigma, row in zip(normal.mean, stddev, normal.covariance, y, strict=True):
        seen = ~np.isnan(row)
        if seen.any():
            r = (sigma / sd / sd[:, None])[np.ix_(seen, seen)]
            e = ((row - mean) / sd)[seen]
            total -= scipy.stats.multivariate_normal.logpdf(e, cov=r) - np.log(sd[seen]).sum()
    return total


class TestClosedForms:
    """Each fit is the minimum that a general optimizer of the likelihood finds."""

    @pytest.mark.parametrize("gaps", [False, True])
    def test_temperature(self, gaps, rng):
        normal, y, _ = miscalibrated(rng, 60)
        y = with_gaps(y, rng) if gaps else y
        found = scipy.optimize.minimize_scalar(
            lambda log_t: by_observed(normal.rescale(np.exp(log_t)), y), (-1.0, 1.0)
        )
        fitted = Temperature.fit(normal, y, missing="marginalize", robust=False)
        assert fitted.temperature == pytest.approx(np.exp(found.x), rel=1e-6)

    @pytest.mark.parametrize("gaps", [False, True])
    def test_per_target(self, gaps, rng):
        normal, y, _ = miscalibrated(rng, 60)
        y = with_gaps(y, rng) if gaps else y
        found = scipy.optimize.minimize(
            lambda log_f: by_observed(normal.rescale_targets(np.exp(log_f)), y), np.zeros(3)
        )
        fitted = PerTarget.fit(normal, y, missing="marginalize", robust=False)
        np.testing.assert_allclose(fitted.factors, np.exp(found.x), rtol=1e-4)

    def test_matrix(self, rng):
        normal, y, _ = miscalibrated(rng, 60)
        rows, columns = np.tril_indices(3)

        def scale_tril(x):
            c = np.zeros((3, 3))
            c[rows, columns] = np.where(rows == columns, np.exp(x), x)
            return c

        found = scipy.optimize.minimize(
            lambda x: -normal.transform_errors(scale_tril(x)).log_prob(y).sum(),
            np.zeros(6),
            options={"gtol": 1e-6},
        )
        fitted = MatrixScaling.fit(normal, y, shrinkage=0.0, robust=False)
        np.testing.assert_allclose(fitted.scale_tril, scale_tril(found.x), rtol=1e-4, atol=1e-4)

    def test_matrix_is_the_mean_of_whitened_squares_for_structures_without_a_triangle(self, rng):
        y_pred = np.concatenate([rng.normal(size=(50, D)), np.ones((50, D)) * 0.3], axis=1)
        y_pred = np.concatenate([y_pred, rng.normal(size=(50, 2 * D))], axis=1)
        normal = MultivariateNormal.from_prediction(y_pred, STRUCTURES[6])
        y = normal.sample(seed=0)
        z = [
            np.linalg.solve(np.linalg.cholesky(sigma), row)
            for sigma, row in zip(normal.covariance, y - normal.mean, strict=True)
        ]
        c = MatrixScaling.fit(normal, y, shrinkage=0.0, robust=False).scale_tril
        np.testing.assert_allclose(c @ c.T, np.cov(z, rowvar=False, bias=True) + np.outer(
            np.mean(z, axis=0), np.mean(z, axis=0)
        ))  # fmt: skip

    def test_per_target_where_the_start_is_far_off(self, rng):
        """Almost singular correlations, and factors that differ by 1e6."""
        r = np.full((5, 5), 0.999) + 0.001 * np.eye(5)
        normal = MultivariateNormal(np.zeros((200, 5)), covariance=np.broadcast_to(r, (200, 5, 5)))
        y = rng.normal(size=(200, 5)) * [1e-3, 1.0, 1e3, 1.0, 1.0]
        factors = np.array(PerTarget.fit(normal, y, robust=False).factors)
        q = np.linalg.inv(r) * (y.T @ y) / 200
        a = 1.0 / factors
        np.testing.assert_allclose(a * (q @ a), np.ones(5), rtol=1e-7)  # the gradient by log a

    def test_marginal_factors(self, rng):
        normal, y, _ = miscalibrated(rng, 60)
        fitted = PerTarget.fit(normal, y, objective="marginal", robust=False)
        e = (y - normal.mean) / np.sqrt(np.diagonal(normal.covariance, axis1=1, axis2=2))
        np.testing.assert_allclose(fitted.factors, np.sqrt(np.mean(e**2, axis=0)))
        joint = PerTarget.fit(normal, y, robust=False)
        assert joint.apply(normal).log_prob(y).sum() > fitted.apply(normal).log_prob(y).sum()

    def test_joint_factors_pay_for_wrong_correlations_with_their_margins(self, rng):
        r = np.array([[1.0, 0.95], [0.95, 1.0]])
        normal = MultivariateNormal(np.zeros((4000, 2)), covariance=np.stack([r] * 4000))
        y = rng.normal(size=(4000, 2))  # independent, of the variances that were predicted
        np.testing.assert_allclose(
            PerTarget.fit(normal, y, objective="marginal", robust=False).factors, 1, 0.05
        )
        assert min(PerTarget.fit(normal, y, robust=False).factors) > 2.0

    def test_batch_axes_and_a_single_row_are_rows(self, rng):
        normal, y, _ = miscalibrated(rng, 12)
        table = MultivariateNormal(
            normal.mean.reshape(3, 4, 3), scale_tril=normal.scale_tril.reshape(3, 4, 3, 3)
        )
        for kind in RECALIBRATIONS:
            a, b = (
                kind.fit(normal, y, robust=False).get_config(),
                kind.fit(table, y.reshape(3, 4, 3), robust=False).get_config(),
            )
            for name in a:
                np.testing.assert_allclose(a[name], b[name])
        one = normal[0]
        assert Temperature.fit(one, y[0], robust=False).temperature == pytest.approx(
            np.sqrt(one.mahalanobis(y[0]) ** 2 / 3)
        )


class TestShrinkage:
    def test_auto_is_the_estimate_of_ledoit_and_wolf(self, rng):
        normal, y, _ = miscalibrated(rng, 30)
        z = np.linalg.solve(normal.scale_tril, (y - normal.mean)[..., None])[..., 0]
        fitted = MatrixScaling.fit(normal, y, robust=False)
        assert 0.0 < fitted.shrinkage < 1.0
        # Theirs divides the error by n, not by n − 1.
        theirs = _shrink(z)
        ours = MatrixScaling.fit(
            normal, y, shrinkage=fitted.shrinkage * 29 / 30, robust=False
        ).scale_tril
        np.testing.assert_allclose(ours @ ours.T, theirs)
        temperature = Temperature.fit(normal, y, robust=False).temperature
        c = fitted.scale_tril
        assert np.trace(c @ c.T) / 3 == pytest.approx(temperature**2)
        full = MatrixScaling.fit(normal, y, shrinkage=1.0, robust=False).scale_tril
        np.testing.assert_allclose(full, temperature * np.eye(3), atol=1e-12)

    @pytest.mark.parametrize("n", [1, 2, 5])
    def test_fewer_rows_than_targets(self, n, rng):
        normal = predictions(rng, n, d=6)
        y = normal.sample(seed=1)
        fitted = MatrixScaling.fit(normal, y)
        assert np.isfinite(fitted.apply(normal).log_prob(y)).all()
        with pytest.raises(ValueError, match="span fewer than 6 dimensions"):
            MatrixScaling.fit(normal, y, shrinkage=0.0)

    def test_it_helps_where_rows_are_few(self, rng):
        """Mean test NLL over 40 calibration sets of 12 rows for 8 targets."""
        d, gains = 8, []
        test, y_test, c = miscalibrated(rng, 2000, d)
        truth = test.transform_errors(c).log_prob(y_test).mean()
        for _ in range(40):
            normal = predictions(rng, 12, d)
            y = normal.transform_errors(c).sample(seed=rng)
            shrunk, plain = (
                MatrixScaling.fit(normal, y, shrinkage=s).apply(test).log_prob(y_test).mean()
                for s in ("auto", 0.0)
            )
            assert plain < shrunk < truth
            gains.append(shrunk - plain)
        assert np.median(gains) > 1.0

    def test_it_vanishes_with_many_rows(self, rng):
        normal, y, _ = miscalibrated(rng, 5000)
        assert MatrixScaling.fit(normal, y).shrinkage < 0.01


def inside(normal, y, level):
    """Whether each row is in the region of what was observed of it, by SciPy; NaN for none."""
    found = np.full(len(y), np.nan)
    for i, (mean, sigma, row) in enumerate(zip(normal.mean, normal.covariance, y, strict=True)):
        seen = ~np.isnan(row)
        if seen.any():
            e = (row - mean)[seen]
            q = e @ np.linalg.solve(sigma[np.ix_(seen, seen)], e)
            found[i] = q <= scipy.stats.chi2(seen.sum()).ppf(level)
    return found


class TestTemperatureByCoverage:
    @pytest.mark.parametrize("gaps", [False, True])
    @pytest.mark.parametrize(("n", "level"), [(9, 0.9), (60, 0.5), (61, 0.9), (199, 0.99)])
    def test_the_region_holds_so_many_rows_and_a_smaller_one_does_not(self, n, level, gaps, rng):
        normal, y, _ = miscalibrated(rng, n)
        if gaps:
            y = np.where(rng.uniform(size=y.shape) < 0.3, np.nan, y)
            y[:, 0] = np.where(np.isnan(y).all(axis=1), 0.0, y[:, 0])  # n rows with a value
            normal, y = normal[[*range(n), 0]], np.append(y, [[np.nan] * 3], axis=0)  # and one more
        fitted = Temperature.fit(normal, y, "marginalize", objective="coverage", level=level)
        rank = int(np.ceil(np.round((n + 1) * level, 9)))
        for factor, count in ((1 + 1e-9, rank), (1 - 1e-9, rank - 1)):
            calibrated = normal.rescale(fitted.temperature * factor)
            assert np.nansum(inside(calibrated, y, level)) == count

    @pytest.mark.parametrize("structure", STRUCTURES, ids=named)
    def test_in_every_structure(self, structure, rng):
        shape = rng.normal(size=(50, D + structure.shape_size(D))) * 0.3
        y_pred = np.concatenate([rng.normal(size=(50, D)), np.exp(shape[:, :D]), shape[:, D:]], 1)
        normal = MultivariateNormal.from_prediction(y_pred, structure)
        y = with_gaps(normal.rescale(3.0).sample(seed=0), rng, 0.1)
        fitted = Temperature.fit(normal, y, "marginalize", objective="coverage")
        used = (~np.isnan(y)).any(axis=1).sum()
        calibrated = fitted.apply(normal).rescale(1 + 1e-9)
        assert np.nansum(inside(calibrated, y, 0.9)) == np.ceil(0.9 * (used + 1))

    @pytest.mark.slow
    def test_new_rows_are_held_as_promised_whatever_the_errors_are(self, rng):
        """On average over calibration sets rank/(n + 1): heavy tails, gaps, a wrong correlation."""
        n, level, sets = 30, 0.8, 800
        r = np.array([[1.0, 0.6], [0.6, 1.0]])
        normal = MultivariateNormal(np.zeros((n, 2)), covariance=np.stack([r] * n))
        held, likely = [], []
        for _ in range(sets):
            y = 3.0 * rng.standard_t(2.5, size=(n + 20, 2))
            y[rng.random(n + 20) < 0.3, 0] = np.nan
            for found, objective in ((held, "coverage"), (likely, "likelihood")):
                fitted = Temperature.fit(
                    normal, y[:n], "marginalize", objective, level, robust=False
                )
                distance = normal[0].rescale(fitted.temperature).mahalanobis(y[n:], "marginalize")
                limit = scipy.stats.chi2((~np.isnan(y[n:])).sum(axis=1)).ppf(level)
                found.append((distance**2 <= limit).mean())
        rank = np.ceil(level * (n + 1))
        error = np.std(held) / np.sqrt(sets)
        assert np.mean(held) == pytest.approx(rank / (n + 1), abs=4 * error)
        assert np.mean(likely) > rank / (n + 1) + 0.04  # what heavy tails do to the likeliest

    def test_where_errors_are_normal_it_is_the_likeliest(self, rng):
        normal = predictions(rng, 20_000)
        y = normal.rescale(1.7).sample(seed=0)
        for level in (0.5, 0.9):
            fitted = Temperature.fit(normal, y, objective="coverage", level=level)
            # Of the quantile of q: √(p (1 − p)/n)/density, halved and relative for the temperature.
            chi2 = scipy.stats.chi2(3)
            q = chi2.ppf(level)
            error = np.sqrt(level * (1 - level) / 20_000) / chi2.pdf(q) / (2 * q)
            assert fitted.temperature == pytest.approx(1.7, rel=4 * error)

    def test_few_rows(self, rng):
        normal = predictions(rng, 9)
        y = normal.sample(seed=0)
        assert Temperature.fit(normal, y, objective="coverage").temperature > 0
        with pytest.raises(ValueError, match=r"8 calibration rows are too few .* at least 9"):
            Temperature.fit(normal[:8], y[:8], objective="coverage")
        y[3] = np.nan
        with pytest.raises(ValueError, match="8 calibration rows"):
            Temperature.fit(normal, y, "marginalize", objective="coverage")

    def test_a_share_that_hits_exactly(self, rng):
        normal = predictions(rng, 20)
        y = np.concatenate([normal.mean[:19], normal.sample(seed=0)[19:]])
        with pytest.raises(ValueError, match="a fraction `level` of them"):
            Temperature.fit(normal, y, objective="coverage")
        assert Temperature.fit(normal, y).temperature > 0


class TestMending:
    @pytest.mark.parametrize("kind", RECALIBRATIONS)
    def test_known_miscalibration_is_mended(self, kind, rng):
        """Each kind finds an error of its own form, and 90 % regions hold 90 % of fresh rows."""
        error = {
            Temperature: lambda normal: normal.rescale(1.7),
            PerTarget: lambda normal: normal.rescale_targets([0.5, 1.0, 3.0]),
            MatrixScaling: lambda normal: normal.transform_errors(
                [[1.0, 0.0, 0.0], [1.0, 2.0, 0.0], [-1.0, 0.5, 0.5]]
            ),
        }[kind]
        normal, fresh = predictions(rng, 4000), predictions(rng, 4000)
        fitted = kind.fit(normal, error(normal).sample(seed=1))
        y = error(fresh).sample(seed=2)
        calibrated = fitted.apply(fresh)
        expected = error(fresh)
        unit = expected.stddev[..., None]
        np.testing.assert_allclose(
            calibrated.scale_tril / unit, expected.scale_tril / unit, atol=0.1
        )
        assert np.mean(fresh.ellipsoid(0.9).contains(y)) < 0.8
        # Standard errors: 0.0047 of the test rows, 0.0035 of the calibration rows.
        assert np.mean(calibrated.ellipsoid(0.9).contains(y)) == pytest.approx(0.9, abs=0.02)

    def test_only_the_matrix_mends_a_wrong_correlation(self, rng):
        n = 2000
        truth = MultivariateNormal(
            np.zeros((n, 2)), covariance=np.stack([[[1.0, 0.9], [0.9, 1.0]]] * n)
        )
        normal = MultivariateNormal(np.zeros((n, 2)), covariance=np.stack([np.eye(2)] * n))
        y, y_test = truth.sample(seed=1), truth.sample(seed=2)
        best = truth.log_prob(y_test).mean()
        gap = {
            kind: best - kind.fit(normal, y).apply(normal).log_prob(y_test).mean()
            for kind in RECALIBRATIONS
        }
        assert gap[MatrixScaling] < 0.01
        # −½ log(1 − 0.9²) = 0.83 nats are beyond the reach of scales.
        assert gap[Temperature] > 0.75
        assert gap[PerTarget] > 0.75

    def test_the_matrix_does_not_depend_on_units(self, rng):
        normal, y, _ = miscalibrated(rng, 100)
        units = np.array([1e-6, 1.0, 1e6])
        a, b = MatrixScaling.fit(normal, y), MatrixScaling.fit(normal * units, y * units)
        np.testing.assert_allclose(a.scale_tril, b.scale_tril, rtol=1e-9, atol=1e-12)


class TestRadialIsotonic:
    def test_heavy_tails_get_other_radii_at_every_level(self, rng):
        normal, fresh = predictions(rng, 5000), predictions(rng, 5000)

        def student(normal):
            z = rng.standard_t(3, size=(len(normal), 1)) * rng.normal(size=normal.mean.shape)
            return normal.mean + np.einsum("nij,nj->ni", normal.scale_tril, z)

        y, y_test = student(normal), student(fresh)
        fitted = RadialIsotonic.fit(normal, y)
        temperature = Temperature.fit(normal, y)
        for level in (0.5, 0.9, 0.99):
            inside = fitted.region(fresh, level).contains(y_test).mean()
            assert inside == pytest.approx(level, abs=4 * np.sqrt(2 * level * (1 - level) / 5000))
        assert temperature.apply(fresh).ellipsoid(0.5).contains(y_test).mean() > 0.6
        pit = fitted.pit(fresh, y_test)
        assert scipy.stats.kstest(pit, "uniform").statistic < 1.95 * np.sqrt(2 / 5000)

    def test_region_and_pit_agree(self, rng):
        normal, y, _ = miscalibrated(rng, 20)
        fitted = RadialIsotonic.fit(normal, y)
        fresh, y_fresh, _ = miscalibrated(rng, 500)
        far = fresh.mean + 100 * (y_fresh - fresh.mean)
        for values in (y_fresh, far):
            pit = fitted.pit(fresh, values)
            for level in (0.01, 0.3, 0.9, 0.999):
                inside = fitted.region(fresh, level).contains(values)
                np.testing.assert_array_equal(inside, pit <= level)

    def test_a_pure_temperature_is_a_straight_line(self, rng):
        normal = predictions(rng, 999)
        level = np.arange(1, 1000) / 1000
        distance = 2.5 * np.sqrt(scipy.stats.chi2(3).ppf(level))
        direction = rng.normal(size=(999, 3))
        direction *= (distance / np.linalg.norm(direction, axis=1))[:, None]
        y = normal.mean + np.einsum("nij,nj->ni", normal.scale_tril, direction)
        fitted = RadialIsotonic.fit(normal, y)
        for p in (1e-4, 0.3, 0.95, 0.99999):
            np.testing.assert_allclose(
                fitted.region(normal, p).squared_radius,
                normal.rescale(2.5).ellipsoid(p).squared_radius * 2.5**2,
                rtol=1e-6,
            )

    def test_far_rows_stay_apart(self, rng):
        """Distances whose χ² probability rounds to 1."""
        normal = predictions(rng, 2000)
        y = normal.rescale(60.0).sample(seed=0)
        inside = RadialIsotonic.fit(normal, y).region(normal, 0.9).contains(y)
        assert inside.mean() == pytest.approx(0.9, abs=0.001)

    def test_bad_arguments(self, rng):
        normal = predictions(rng, 5)
        fitted = RadialIsotonic.fit(normal, normal.sample(seed=0))
        with pytest.raises(ValueError, match="for 3 targets"):
            fitted.region(normal.marginal([0, 1]))
        with pytest.raises(ValueError, match="level"):
            fitted.region(normal, 1.0)
        with pytest.raises(ValueError, match="ascending"):
            RadialIsotonic([2.0, 1.0], 3)


def adapted_head(structure, **kwargs):
    rng = np.random.default_rng(5)
    mixing = np.linalg.cholesky(0.5 * np.eye(D) + 0.5)
    y = rng.normal(size=(300, D)) @ mixing.T * [1.0, 10.0, 0.1, 1.0] + [0.0, 50.0, 0.0, -3.0]
    head = MultivariateNormalHead(
        D,
        structure,
        target_names=["a", "b", "c", "d"],
        covariance_kernel_initializer="glorot_uniform",
        **kwargs,
    )
    head.adapt(y)
    return head


def untrained(structure, **kwargs):
    """A model with random weights."""
    head = adapted_head(structure, **kwargs)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(8, "tanh"), head])
    return model, head


def inputs(rows=7):
    return np.random.default_rng(6).normal(size=(rows, 5)).astype("float32")


def examples():
    c = np.array([[1.5, 0, 0, 0], [0.5, 0.8, 0, 0], [-0.7, 0.1, 2.0, 0], [0.2, 0.3, 0.4, 0.9]])
    return [Temperature(1.7), PerTarget((0.5, 1.0, 2.0, 4.0)), MatrixScaling(c)]


def assert_same(a, b, tolerance=2e-5):
    np.testing.assert_allclose(a.mean, b.mean, rtol=tolerance, atol=tolerance)
    unit = b.stddev[..., :, None]
    np.testing.assert_allclose(a.scale_tril / unit, b.scale_tril / unit, atol=tolerance)
    assert a.target_names == b.target_names


def read(calibrated, x):
    """By the last layer, head or map."""
    return calibrated.layers[-1].distribution(calibrated.predict(x, verbose=0))


class TestModels:
    @pytest.mark.parametrize("structure", STRUCTURES, ids=named)
    @pytest.mark.parametrize("recalibration", examples(), ids=lambda r: type(r).__name__)
    @pytest.mark.elsewhere(structure=["cholesky", "low_rank"])
    @pytest.mark.slow
    def test_a_model_predicts_calibrated_also_from_its_file(
        self, structure, recalibration, tmp_path
    ):
        if (named(structure), type(recalibration)) == ("kronecker", PerTarget):
            recalibration = PerTarget((1.0, 2.0, 3.0, 6.0))  # (1, 3) ⊗ (1, 2)
        model, head = untrained(structure)
        x = inputs()
        before = model.predict(x, verbose=0)
        calibrated = recalibration.apply(model)
        expected = recalibration.apply(head.distribution(before))
        assert_same(read(calibrated, x), expected)
        np.testing.assert_array_equal(model.predict(x, verbose=0), before)
        path = tmp_path / "calibrated.keras"
        calibrated.save(path)
        assert_same(read(keras.saving.load_model(path), x), expected)

    @pytest.mark.parametrize("recalibration", examples(), ids=lambda r: type(r).__name__)
    @pytest.mark.parametrize(
        "options",
        [{"constant": "covariance"}, {"constant": "shape"}, {"degrees_of_freedom": "constant"}],
        ids=str,
    )
    def test_options_of_the_head(self, options, recalibration):
        model, head = untrained("cholesky", **options)
        if head.raw_degrees_of_freedom is not None:
            head.raw_degrees_of_freedom.assign([-0.5])
        x = inputs()
        calibrated = recalibration.apply(model)
        expected = recalibration.apply(head.distribution(model.predict(x, verbose=0)))
        assert_same(read(calibrated, x), expected)

    def test_the_precision_stays_one_and_others_become_cholesky(self):
        matrix = examples()[2]
        assert matrix.apply(untrained("precision_cholesky")[0]).layers[-1].covariance.name == (
            "precision_cholesky"
        )
        for name in ("cholesky", "symmetric", "diagonal"):
            assert matrix.apply(untrained(name)[0]).layers[-1].covariance.name == "cholesky"

    @pytest.mark.parametrize("covariance", ["diagonal", "precision_cholesky"])
    def test_losses_check_the_structure_and_score_what_is_predicted(self, covariance):
        model, head = untrained(covariance)
        recalibration, x = examples()[2], inputs()
        calibrated = recalibration.apply(model)
        expected = recalibration.apply(head.distribution(model.predict(x, verbose=0)))
        y = expected.sample(seed=0).astype("float32")
        right = calibrated.layers[-1].covariance
        calibrated.compile(loss=losses.NegativeLogLikelihood(right))
        value = calibrated.evaluate(x, y, verbose=0)
        assert value == pytest.approx(-expected.log_prob(y).mean(), rel=1e-4)
        wrong = "cholesky" if right.name == "precision_cholesky" else "precision_cholesky"
        calibrated.compile(loss=losses.NegativeLogLikelihood(wrong))
        with pytest.raises(ValueError, match="reads covariance="):
            calibrated.evaluate(x, y, verbose=0)

    def test_training_goes_on_in_the_copy_alone(self):
        model, _ = untrained("cholesky")
        x, y = inputs(32), np.random.default_rng(0).normal(size=(32, D)).astype("float32")
        for recalibration in examples():
            calibrated = recalibration.apply(model)
            before = model.predict(x, verbose=0)
            calibrated.compile("adam", losses.NegativeLogLikelihood("cholesky"))
            history = calibrated.fit(x, y, epochs=3, verbose=0).history["loss"]
            assert history[-1] < history[0]
            np.testing.assert_array_equal(model.predict(x, verbose=0), before)

    @pytest.mark.parametrize("recalibration", examples(), ids=lambda r: type(r).__name__)
    @pytest.mark.parametrize("outputs", [dict, list])
    def test_other_outputs_stay(self, outputs, recalibration, tmp_path):
        head = adapted_head("cholesky")
        x = keras.Input((5,), name="x")
        hidden = keras.layers.Dense(8, "tanh")(x)
        both = {"side": keras.layers.Dense(2)(hidden), "y": head(hidden)}
        model = keras.Model(x, both if outputs is dict else list(both.values()))
        side, y_pred = dict_values(model.predict(inputs(), verbose=0))
        expected = recalibration.apply(head.distribution(y_pred))
        calibrated = recalibration.apply(model)
        calibrated.save(tmp_path / "m.keras")
        for each in (calibrated, keras.saving.load_model(tmp_path / "m.keras")):
            found = each.predict(inputs(), verbose=0)
            assert isinstance(found, outputs)
            same_side, calibrated_pred = dict_values(found)
            np.testing.assert_array_equal(same_side, side)
            assert_same(head.distribution(calibrated_pred), expected)

    @pytest.mark.parametrize("recalibration", examples(), ids=lambda r: type(r).__name__)
    def test_a_head_within_a_model_within_a_model(self, recalibration):
        inner, head = untrained("cholesky")
        x = {"a": keras.Input((2,), name="a"), "b": keras.Input((3,), name="b")}
        model = keras.Model(x, inner(keras.layers.Concatenate()([x["a"], x["b"]])))
        values = {"a": inputs()[:, :2], "b": inputs()[:, 2:]}
        expected = recalibration.apply(head.distribution(model.predict(values, verbose=0)))
        found = recalibration.apply(model).predict(values, verbose=0)
        assert_same(head.distribution(found), expected)

    def test_a_subclassed_model(self):
        model = Subclassed("cholesky")
        expected = [
            r.apply(model.head.distribution(model.predict(inputs(), verbose=0))) for r in examples()
        ]
        for recalibration, normal in zip(examples()[:2], expected, strict=False):
            found = recalibration.apply(model).predict(inputs(), verbose=0)
            assert_same(model.head.distribution(found), normal)
        with pytest.raises(ValueError, match="subclass"):
            examples()[2].apply(model)
        layer = examples()[2].layer(model.head)
        found = layer.distribution(layer(model(inputs())))
        assert_same(found, expected[2])

    def test_sequences_and_masks(self):
        head = adapted_head("diagonal")
        x = keras.Input((6, 5))
        model = keras.Model(x, head(keras.layers.Masking()(x)))
        calibrated = examples()[2].apply(model)
        values = np.random.default_rng(0).normal(size=(3, 6, 5)).astype("float32")
        values[:, 4:] = 0.0
        normal = calibrated.layers[-1].distribution(calibrated.predict(values, verbose=0))
        assert_same(
            normal, examples()[2].apply(head.distribution(model.predict(values, verbose=0)))
        )
        calibrated.compile(loss=losses.NegativeLogLikelihood("cholesky"))
        y = normal.sample(seed=0).astype("float32")
        value = calibrated.evaluate(values, y, verbose=0)
        assert value == pytest.approx(-normal.log_prob(y)[:, :4].mean(), rel=1e-4)

    def test_under_half_precision(self):
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy("mixed_float16")
        try:
            model, head = untrained("diagonal")
            calibrated = examples()[2].apply(model)
            y_pred = calibrated.predict(inputs(), verbose=0)
        finally:
            keras.config.set_dtype_policy(policy)
        assert y_pred.dtype == "float32"
        expected = examples()[2].apply(head.distribution(model.predict(inputs(), verbose=0)))
        assert_same(calibrated.layers[-1].distribution(y_pred), expected, 1e-4)

    def test_what_cannot_be_calibrated(self):
        model, _ = untrained("cholesky")
        two = keras.Input((5,))
        heads = keras.Model(two, [MultivariateNormalHead(D)(two), MultivariateNormalHead(D)(two)])
        none = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4)])
        for recalibration in examples():
            for other in (heads, none):
                with pytest.raises(ValueError, match="exactly one head that"):
                    recalibration.apply(other)
            with pytest.raises(TypeError, match="Expected predicted distributions, .*head.distrib"):
                recalibration.apply(model.predict(inputs(), verbose=0))
            with pytest.raises(ValueError, match="no weights yet"):
                recalibration.apply(keras.Sequential([MultivariateNormalHead(D)]))
        behind = keras.Sequential([*untrained("cholesky")[0].layers, keras.layers.Dense(3)])
        behind.build((None, 5))
        with pytest.raises(ValueError, match="must be the last layer"):
            examples()[2].apply(behind)
        for wrong in (PerTarget((1.0, 2.0)), MatrixScaling(np.eye(2))):
            with pytest.raises(ValueError, match="for 2 targets"):
                wrong.apply(model)
        kronecker, _ = untrained(STRUCTURES[-1])
        with pytest.raises(ValueError, match="cannot scale each target"):
            PerTarget((1.0, 1.0, 1.0, 6.0)).apply(kronecker)


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    def __init__(self, structure, **kwargs):
        super().__init__(**kwargs)
        self.structure = structure
        self.trunk = keras.layers.Dense(8, "tanh")
        self.head = adapted_head(structure)

    def call(self, x):
        return self.head(self.trunk(x))

    def get_config(self):
        return {**super().get_config(), "structure": self.structure}


def dict_values(outputs):
    return list(outputs.values()) if isinstance(outputs, dict) else outputs


class TestLayer:
    def test_configuration(self):
        layer = CovarianceMap(examples()[2].scale_tril, "diagonal", target_names=list("abcd"))
        again = CovarianceMap.from_config(layer.get_config())
        y_pred = np.random.default_rng(0).uniform(1, 2, size=(5, 8)).astype("float32")
        np.testing.assert_array_equal(again(y_pred), layer(y_pred))
        assert again.target_names == ("a", "b", "c", "d")
        assert layer.compute_output_shape((None, 8)) == (None, 14)

    def test_bad_matrices(self):
        with pytest.raises(ValueError, match="lower triangular"):
            CovarianceMap([[1.0, 2.0], [0.0, 1.0]], "cholesky")
        with pytest.raises(ValueError, match="positive diagonal"):
            CovarianceMap(-np.eye(2), "cholesky")

    def test_it_refuses_another_structure(self):
        head = adapted_head("precision_cholesky")
        layer = CovarianceMap(np.eye(D), "cholesky")
        with pytest.raises(ValueError, match="precision_cholesky"):
            layer(head(inputs()))


class TestConfigurations:
    def test_round_trip(self, rng):
        normal, y, _ = miscalibrated(rng, 40)
        for kind in (*RECALIBRATIONS, RadialIsotonic):
            fitted = kind.fit(normal, y)
            text = keras.saving.serialize_keras_object(fitted)
            again = keras.saving.deserialize_keras_object(text)
            assert type(again) is kind
            assert again.get_config() == fitted.get_config()

    def test_frozen(self, rng):
        normal, y, _ = miscalibrated(rng, 40)
        fitted = MatrixScaling.fit(normal, y)
        with pytest.raises(ValueError, match="read-only"):
            fitted.scale_tril[0, 0] = 3.0


class TestBadCalibrationSets:
    @pytest.mark.parametrize("kind", [*RECALIBRATIONS, RadialIsotonic])
    def test_refused(self, kind, rng):
        normal = predictions(rng, 5)
        y = normal.sample(seed=0)
        with pytest.raises(ValueError, match="at least one calibration row"):
            kind.fit(normal[:0], y[:0])
        with pytest.raises(ValueError, match="y has shape"):
            kind.fit(normal, y[0])
        with pytest.raises(ValueError, match="NaN"):
            kind.fit(normal, np.where(y == y[2, 1], np.nan, y))
        with pytest.raises(ValueError, match="missing="):
            kind.fit(normal, y, missing="drop")

    def test_exact_predictions(self, rng):
        normal = predictions(rng, 5)
        y = normal.sample(seed=0)
        y[:, 1] = normal.mean[:, 1]
        with pytest.raises(ValueError, match=r"every prediction of \['target 1'\] equals y"):
            PerTarget.fit(normal, y)
        for kind in (Temperature, MatrixScaling, RadialIsotonic):
            with pytest.raises(ValueError, match="equals y|span fewer|above 0"):
                kind.fit(normal, normal.mean)

    def test_gaps(self, rng):
        normal = predictions(rng, 5)
        y = normal.sample(seed=0)
        y[:, 2] = np.nan
        with pytest.raises(ValueError, match=r"no row of y has a value of \['target 2'\]"):
            PerTarget.fit(normal, y, missing="marginalize")
        y[0, 2] = 1.0
        for kind in (MatrixScaling, RadialIsotonic):
            with pytest.raises(ValueError, match="needs complete rows"):
                kind.fit(normal, y, missing="marginalize")
        for kind in RECALIBRATIONS:
            if kind.takes_gaps:
                assert kind.fit(normal, y, missing="marginalize").apply(normal) is not None
            else:
                with pytest.raises(ValueError, match="needs complete rows"):
                    kind.fit(normal, y, missing="marginalize")

    @pytest.mark.parametrize("objective", ["likelihood", "coverage"])
    def test_one_factor_needs_no_target_in_particular(self, objective, rng):
        normal = predictions(rng, 12)
        y = normal.sample(seed=0)
        expected = Temperature.fit(normal.marginal([0, 2]), y[:, [0, 2]], objective=objective)
        y[:, 1] = np.nan
        fitted = Temperature.fit(normal, y, "marginalize", objective)
        assert fitted.temperature == pytest.approx(expected.temperature)
        with pytest.raises(ValueError, match="no row of y has a value of"):
            Temperature.fit(normal, np.full_like(y, np.nan), "marginalize", objective)

    def test_arguments(self, rng):
        normal = predictions(rng, 5)
        y = normal.sample(seed=0)
        with pytest.raises(ValueError, match="objective"):
            PerTarget.fit(normal, y, objective="both")
        with pytest.raises(ValueError, match="objective='both'.*coverage.*likelihood"):
            Temperature.fit(normal, y, objective="both")
        with pytest.raises(ValueError, match="level"):
            Temperature.fit(normal, y, objective="coverage", level=1.0)
        for shrinkage in (-0.1, 1.1, "some"):
            with pytest.raises(ValueError, match="shrinkage"):
                MatrixScaling.fit(normal, y, shrinkage=shrinkage)
        for bad in (0.0, -1.0, np.nan):
            with pytest.raises(ValueError, match="temperature"):
                Temperature(bad)


def test_every_export_exists():
    assert all(hasattr(calibration, name) for name in calibration.__all__)
