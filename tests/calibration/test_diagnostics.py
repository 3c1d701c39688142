"""Diagnosis: p-values of calibrated models, planted errors, and every number by its definition."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
import scipy.integrate
import scipy.stats
import sklearn.tree

from keras_mvn import MultivariateNormal
from keras_mvn.calibration import _hypotheses, diagnose
from keras_mvn.calibration._coverage import CoverageCurve
from keras_mvn.calibration.diagnostics import LEVELS
from keras_mvn.scores._estimates import uniformity

pytestmark = pytest.mark.once

TESTS = ("size", "radial", "tails", "bias", "covariance")


def predictions(rng, n, d=3):
    """Covariances that differ from row to row, in units that differ."""
    lower = np.tril(0.5 * rng.normal(size=(n, d, d)), -1)
    lower += np.exp(0.3 * rng.normal(size=(n, d)))[..., None] * np.eye(d)
    lower *= np.logspace(-1, 1, d)[:, None]
    return MultivariateNormal(rng.normal(size=(n, d)) * 10, scale_tril=lower)


def p_values_of(z):
    n, d = z.shape
    squares, dof = (z**2).sum(axis=1), np.full(n, d)
    return {
        "size": _hypotheses.size(squares, dof),
        "radial": _hypotheses.radial(scipy.stats.chi2.cdf(squares, d)),
        "tails": _hypotheses.tails(squares, dof),
        "bias": _hypotheses.bias(z),
        "covariance": _hypotheses.covariance(z),
    }


class TestHypotheses:
    @pytest.mark.parametrize(("n", "d"), [(150, 1), (100, 3), (20, 6)])
    @pytest.mark.slow
    def test_p_values_are_uniform_for_a_calibrated_model(self, n, d, rng):
        """1000 tables; the Kolmogorov–Smirnov distance of their p-values from uniform ones."""
        found = [p_values_of(rng.normal(size=(n, d))) for _ in range(1000)]
        for name in TESTS:
            distance = scipy.stats.kstest([one[name] for one in found], "uniform").statistic
            assert distance < 2.23 / np.sqrt(1000), name  # p = 1e-4

    def test_of_the_size_with_gaps(self, rng):
        found = []
        for _ in range(1000):
            dof = rng.integers(1, 5, size=80)
            squares = rng.chisquare(dof)
            found.append([_hypotheses.size(squares, dof), _hypotheses.tails(squares, dof)])
        for p_values in np.transpose(found):
            assert scipy.stats.kstest(p_values, "uniform").statistic < 1.95 / np.sqrt(1000)

    @pytest.mark.parametrize("d", [1, 2])
    @pytest.mark.slow
    def test_tails_where_the_size_takes_part_of_the_scatter(self, d, rng):
        """More tables, of few targets, where dividing out the size matters most."""
        found = [_hypotheses.tails(rng.chisquare(d, 300), np.full(300, d)) for _ in range(4000)]
        assert scipy.stats.kstest(found, "uniform").statistic < 2.23 / np.sqrt(4000)

    @pytest.mark.parametrize(
        ("deviation", "seen", "not_seen"),
        [
            (lambda z, rng: 1.15 * z, {"size", "radial", "covariance"}, {"tails", "bias"}),
            (lambda z, rng: z + np.array([0.3, 0.0, 0.0]), {"bias"}, {"tails"}),
            (lambda z, rng: z * np.sqrt([1.5, 1.0, 0.5]), {"covariance"}, {"size", "bias"}),
            (
                lambda z, rng: z / np.sqrt(rng.chisquare(5, size=(len(z), 1)) / 3),
                {"tails"},
                {"bias"},
            ),
        ],
        ids=["size", "bias", "covariance", "tails"],
    )  # fmt: skip
    def test_each_sees_its_own_deviation(self, deviation, seen, not_seen, rng):
        found = [p_values_of(deviation(rng.normal(size=(600, 3)), rng)) for _ in range(40)]
        share = {name: np.mean([one[name] < 0.05 for one in found]) for name in TESTS}
        assert all(share[name] > 0.85 for name in seen), share
        assert all(share[name] < 0.25 for name in not_seen), share

    def test_hotelling_by_its_definition(self, rng):
        z = rng.normal(size=(30, 4)) + 0.2
        mean, s = z.mean(axis=0), np.cov(z, rowvar=False)
        t2 = 30 * mean @ np.linalg.inv(s) @ mean
        p = scipy.stats.f.sf(t2 * (30 - 4) / (4 * 29), 4, 26)
        assert _hypotheses.bias(z) == pytest.approx(p, rel=1e-9)

    def test_too_few_rows_have_no_p_value(self, rng):
        z = rng.normal(size=(3, 3))
        assert np.isnan(_hypotheses.bias(z))
        assert np.isnan(_hypotheses.covariance(z))
        assert np.isnan(_hypotheses.tails(np.ones(1), np.ones(1)))

    def test_corrected_for_their_number(self, rng):
        """By the definition of Holm; NaN, of too few rows, is no test."""
        normal = predictions(rng, 60)
        found = diagnose(normal.rescale(1.15), normal.sample(seed=0))
        p = np.sort(list(found.p_values.values()))
        expected = np.minimum(np.maximum.accumulate(p * np.arange(5, 0, -1)), 1.0)
        np.testing.assert_allclose(np.sort(list(found.adjusted_p_values.values())), expected)
        few = diagnose(normal[:3], normal[:3].sample(seed=0))
        known = [name for name in TESTS if not np.isnan(few.p_values[name])]
        assert len(known) < 5
        smallest = min(known, key=few.p_values.get)
        expected = min(len(known) * few.p_values[smallest], 1.0)
        assert few.adjusted_p_values[smallest] == pytest.approx(expected)
        assert "there are too few rows to be sure" in str(few)

    def test_a_deviation_at_the_edge_is_none_among_five(self, rng):
        """p just below 0.01 in one of five tests is what chance gives in one report of twenty."""
        for seed in range(200):
            normal = predictions(np.random.default_rng(seed), 100)
            found = diagnose(normal, normal.sample(seed=seed))
            smallest = min(found.p_values.values())
            assert bool(found.deviations) == (smallest < 0.01 / 5)
            assert ("Deviations beyond chance" in str(found)) == bool(found.deviations)

    def test_holm(self, rng):
        """Against its definition: reject in order of p while p ≤ α/(m − i)."""
        p = rng.uniform(size=12) ** 3
        adjusted = _hypotheses.holm(p)
        for alpha in (0.01, 0.05, 0.2, 0.7):
            rejected = np.zeros(12, bool)
            for i, index in enumerate(np.argsort(p)):
                if p[index] > alpha / (12 - i):
                    break
                rejected[index] = True
            np.testing.assert_array_equal(adjusted <= alpha, rejected)


class TestCoverage:
    def test_bands_against_scipy(self):
        counts, n, levels = np.array([0, 3, 90, 100]), 100, np.array([0.01, 0.05, 0.9, 0.99])
        coverage = CoverageCurve(levels, counts, np.array(n))
        lower, upper = coverage.band()
        low, high = coverage.expected_band()
        for i, k in enumerate(counts):
            interval = scipy.stats.binomtest(int(k), n).proportion_ci(0.95, method="exact")
            assert (lower[i], upper[i]) == pytest.approx((interval.low, interval.high))
            expected = scipy.stats.binom(n, levels[i]).interval(0.95)
            np.testing.assert_allclose([low[i], high[i]], np.array(expected) / n)

    def test_calibration_error_is_the_integral(self, rng):
        normal = predictions(rng, 23)
        y = normal.rescale(1.4).sample(seed=0)
        q = [
            row @ np.linalg.solve(sigma, row)
            for sigma, row in zip(normal.covariance, y - normal.mean, strict=True)
        ]
        pit = scipy.stats.chi2(normal.event_size).cdf(q)

        def difference(p):
            return abs(np.mean(pit <= p) - p)

        knots = [0.0, *np.sort(pit), 1.0]
        integral = sum(
            scipy.integrate.quad(difference, a + 1e-13, b - 1e-13)[0]
            for a, b in itertools.pairwise(knots)
        )
        assert diagnose(normal, y).calibration_error == pytest.approx(integral, abs=1e-9)

    def test_expected_calibration_error(self, rng):
        found = [uniformity(rng.uniform(size=200)).value for _ in range(2000)]
        normal = MultivariateNormal(np.zeros((200, 1)), covariance=np.ones((200, 1, 1)))
        expected = diagnose(normal, normal.sample(seed=0)).expected_calibration_error
        assert np.mean(found) == pytest.approx(expected, rel=0.03)

    def test_at_a_level(self, rng):
        normal = predictions(rng, 50)
        coverage = diagnose(normal, normal.sample(seed=0)).joint
        assert coverage.at(0.9).inside == coverage.inside[17]
        with pytest.raises(ValueError, match="must be one of"):
            coverage.at(0.123)


class TestDiagnosis:
    def test_numbers_by_their_definition(self, rng):
        normal = predictions(rng, 40)
        y = normal.rescale(1.3).sample(seed=0) + normal.stddev * [0.5, 0.0, 0.0]
        found = diagnose(normal, y)
        residual = y - normal.mean
        q = np.array([
            r @ np.linalg.inv(s) @ r for r, s in zip(residual, normal.covariance, strict=True)
        ])  # fmt: skip
        e = residual / np.sqrt(np.diagonal(normal.covariance, axis1=1, axis2=2))
        np.testing.assert_allclose(found.squared_distances, q)
        np.testing.assert_allclose(found.pit, scipy.stats.chi2(3).cdf(q))
        np.testing.assert_allclose(found.bias, e.mean(axis=0))
        np.testing.assert_allclose(found.dispersion, (e**2).mean(axis=0))
        assert found.temperature == pytest.approx(np.sqrt(q.mean() / 3))
        for i, level in enumerate(LEVELS):
            assert found.joint.inside[i] == np.sum(q <= scipy.stats.chi2(3).ppf(level))
            reach = scipy.stats.norm.ppf(0.5 + 0.5 * level)
            np.testing.assert_array_equal(
                found.marginal.inside[i], np.sum(np.abs(e) <= reach, axis=0)
            )
        z = np.linalg.solve(normal.scale_tril, residual[..., None])[..., 0]
        assert found.second_moment_error == pytest.approx(np.linalg.norm(z.T @ z / 40 - np.eye(3)))
        assert found.expected_second_moment_error == pytest.approx(np.sqrt(12 / 40))
        assert found.histogram(4).sum() == 40

    def test_expected_second_moment_error(self, rng):
        normal = MultivariateNormal(np.zeros((50, 4)), covariance=np.stack([np.eye(4)] * 50))
        found = [diagnose(normal, normal.sample(seed=i)) for i in range(200)]
        root = np.sqrt(np.mean([one.second_moment_error**2 for one in found]))
        assert root == pytest.approx(found[0].expected_second_moment_error, rel=0.05)

    def test_the_direction_of_a_wrong_correlation(self, rng):
        n = 2000
        truth = MultivariateNormal(
            np.zeros((n, 3)),
            covariance=np.stack([[[1.0, 0.8, 0], [0.8, 1.0, 0], [0, 0, 1.0]]] * n),
            target_names=["no2", "o3", "pm"],
        )
        units = np.array([10.0, 0.1, 1.0])
        normal = MultivariateNormal(
            np.zeros((n, 3)), covariance=np.stack([np.diag(units**2)] * n),
            target_names=["no2", "o3", "pm"],
        )  # fmt: skip
        found = diagnose(normal, truth.sample(seed=0) * units)
        widest, narrowest = found.directions[0], found.directions[-1]
        assert widest.dispersion == pytest.approx(1.8, rel=0.1)
        assert narrowest.dispersion == pytest.approx(0.2, rel=0.1)
        np.testing.assert_allclose(np.abs(widest.weights[:2]), np.sqrt(0.5), rtol=0.1)
        assert "no2" in str(found)
        assert "correlations are off" in str(found)

    def test_gaps(self, rng):
        normal = predictions(rng, 300)
        y = normal.sample(seed=0)
        hidden = rng.uniform(size=y.shape) < 0.3
        hidden[0], hidden[1] = True, False
        y[hidden] = np.nan
        found = diagnose(normal, y, missing="marginalize")
        seen = ~hidden
        assert found.rows == seen.any(axis=1).sum()
        assert len(found.pit) == found.rows
        for i in range(1, 20):
            o = np.flatnonzero(seen[i])
            if len(o):
                sigma, r = normal.covariance[i][np.ix_(o, o)], (y[i] - normal.mean[i])[o]
                assert found.squared_distances[i] == pytest.approx(r @ np.linalg.solve(sigma, r))
        np.testing.assert_array_equal(found.marginal.rows, seen.sum(axis=0))
        complete = diagnose(normal[seen.all(axis=1)], y[seen.all(axis=1)])
        for name in ("bias", "covariance"):
            assert found.p_values[name] == pytest.approx(complete.p_values[name])
        with pytest.raises(ValueError, match="marginalize"):
            diagnose(normal, y)

    def test_a_table_that_is_too_small_for_half_of_it(self, rng):
        normal = predictions(rng, 2)
        found = diagnose(normal, normal.sample(seed=0))
        assert found.directions == ()
        assert np.isnan(found.p_values["covariance"])
        assert "2 rows" in str(found)

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (lambda normal: normal, "no evidence of miscalibration"),
            (lambda normal: normal.rescale(1.3), "overconfident"),
            (lambda normal: normal.rescale(0.7), "underconfident"),
            (lambda normal: normal + np.array([0.0, 0.0, 8.0]), "target 2 by"),
            (lambda normal: normal.rescale_targets([0.6, 1.0, 1.0]), "0.60 (target 0)"),
        ],
    )
    def test_the_report_names_what_is_wrong(self, error, words, rng):
        normal = predictions(rng, 3000)
        assert words in str(diagnose(normal, error(normal).sample(seed=4)))

    def test_sequences_are_rows(self, rng):
        normal = predictions(rng, 12)
        y = normal.sample(seed=0)
        table = MultivariateNormal(
            normal.mean.reshape(3, 4, 3), scale_tril=normal.scale_tril.reshape(3, 4, 3, 3)
        )
        assert str(diagnose(table, y.reshape(3, 4, 3))) == str(diagnose(normal, y))

    def test_to_dict_is_json(self, rng):
        normal = predictions(rng, 60)
        found = diagnose(normal, normal.sample(seed=0), groups=np.repeat(["a", "b"], 30))
        again = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert again["rows"] == 60
        assert np.shape(again["marginal"]["coverage"]) == (len(LEVELS), 3)
        assert {one["name"] for one in again["groups"]} == {"a", "b"}

    def test_bad_arguments(self, rng):
        normal = predictions(rng, 6)
        y = normal.sample(seed=0)
        with pytest.raises(ValueError, match="levels"):
            diagnose(normal, y, levels=[0.5, 1.0])
        with pytest.raises(ValueError, match="groups has shape"):
            diagnose(normal, y, groups=["a", "b"])
        with pytest.raises(ValueError, match="at least one"):
            diagnose(normal[:0], y[:0])


class TestSlices:
    def planted(self, rng, n=2000):
        """Overconfident where wind is below its lower quartile and in the north; fine elsewhere."""
        normal = predictions(rng, n)
        frame = pd.DataFrame({
            "wind": rng.exponential(size=n),
            "site": rng.choice(["north", "south", "west"], size=n),
            "hour": rng.integers(0, 24, size=n),
            "noise": rng.normal(size=n),
        })  # fmt: skip
        factor = np.where(frame.wind < frame.wind.quantile(0.25), 1.6, 1.0)
        return normal, normal.rescale(factor).sample(seed=0), frame

    def test_a_planted_slice_is_found(self, rng):
        normal, y, frame = self.planted(rng)
        found = diagnose(normal, y).worst_slices(frame)
        low, high = frame.wind.min(), frame.wind.quantile(0.25, interpolation="lower")
        assert found[0].name == f"wind in [{low:.4g}, {high:.4g}]"
        assert found[0].rows == 500
        assert found[0].temperature == pytest.approx(1.6, rel=0.05)
        assert found[0].adjusted_p_value < 1e-10
        assert len(found) == 5
        everything = diagnose(normal, y).worst_slices(frame, n=None)
        assert len(everything) == 4 + 3 + 4 + 4
        assert len({one.name for one in everything}) == 15
        # Bins of a feature are a partition.
        assert sum(one.rows for one in everything) == 4 * 2000

    def test_none_is_found_in_a_calibrated_model(self, rng):
        """The smallest of the corrected p-values is below 5 % in at most 5 % of tables."""
        normal = predictions(rng, 400)
        features = rng.normal(size=(400, 6))
        smallest = [
            min(
                one.adjusted_p_value
                for one in diagnose(normal, normal.sample(seed=i)).worst_slices(features, n=None)
            )
            for i in range(200)
        ]
        assert np.mean(np.array(smallest) < 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)

    def test_groups_are_slices(self, rng):
        normal, _, frame = self.planted(rng)
        y = normal.rescale(np.where(frame.site == "north", 0.5, 1.0)).sample(seed=1)
        found = diagnose(normal, y, groups=frame.site)
        assert found.groups[0].name == "north"
        assert found.groups[0].temperature == pytest.approx(0.5, rel=0.05)
        assert "north" in str(found)
        assert "south" not in str(found)
        mine = (frame.site == "north").to_numpy()
        q = normal.mahalanobis(y)[mine] ** 2
        total = scipy.stats.chi2(3 * mine.sum())
        p = 2 * min(total.cdf(q.sum()), total.sf(q.sum()))
        assert found.groups[0].p_value == pytest.approx(p, abs=1e-300)

    def test_kinds_of_columns(self, rng):
        normal = predictions(rng, 100)
        found = diagnose(normal, normal.sample(seed=0))
        wind = rng.normal(size=100)
        wind[:10] = np.nan
        columns = {"wind": wind, "rain": np.arange(100) % 2 == 0, "constant": np.ones(100)}
        names = {one.name: one.rows for one in found.worst_slices(columns, n=None)}
        assert names["wind is missing"] == 10
        assert names["rain = True"] == names["rain = False"] == 50
        assert names["constant = 1"] == 100
        assert sum(rows for name, rows in names.items() if name.startswith("wind")) == 100
        with pytest.raises(ValueError, match="there are 100 rows"):
            found.worst_slices({"wind": wind[:50]})

    def test_bins_hold_what_their_names_say(self, rng):
        """Whole numbers, on which the edges of the bins fall."""
        normal, hour = predictions(rng, 250), np.arange(250) % 25
        found = diagnose(normal, normal.sample(seed=0)).worst_slices({"hour": hour}, bins=4, n=None)
        for one in found:
            low, high = map(float, one.name.removeprefix("hour in ")[1:-1].split(","))
            above = hour >= low if "[" in one.name else hour > low
            assert one.rows == np.sum(above & (hour <= high)), one.name
        assert len(found) == 4

    def test_heavy_ties(self, rng):
        """Quantiles that coincide: a count that is 0 in most rows."""
        normal = predictions(rng, 200)
        counts = np.where(np.arange(200) < 150, 0, np.arange(200))
        found = diagnose(normal, normal.sample(seed=0)).worst_slices({"n": counts}, n=None)
        assert sum(one.rows for one in found) == 200
        assert {one.name: one.rows for one in found}["n = 0"] == 150
        assert len(found) == 2  # the other 50 are looked at, too

    def test_columns_with_an_order(self, rng):
        normal = predictions(rng, 400)
        hours = np.datetime64("2024-01-01T00:00:00") + np.arange(400) * np.timedelta64(1, "h")
        infinite = np.where(np.arange(400) < 30, -np.inf, rng.normal(size=400))
        infinite[-20:] = np.inf
        columns = {"time": hours, "far": infinite}
        found = diagnose(normal, normal.sample(seed=0)).worst_slices(columns, bins=4, n=None)
        rows = {one.name: one.rows for one in found}
        assert rows["time in [2024-01-01T00:00:00, 2024-01-05T03:00:00]"] == 100
        assert len(found) == 8
        assert all("nan" not in name for name in rows)
        assert sum(count for name, count in rows.items() if name.startswith("far")) == 400

    @pytest.mark.parametrize("nothing", [None, np.nan])
    def test_rows_without_a_group_are_refused(self, nothing, rng):
        normal = predictions(rng, 4)
        groups = np.array(["a", "b", nothing, "a"], dtype=object)
        with pytest.raises(ValueError, match="contains None or NaN in 1 rows, .* position 2"):
            diagnose(normal, normal.sample(seed=0), groups=groups)


class TestExcessRisk:
    """How far coverage depends on x, where the truth is known."""

    pytestmark = pytest.mark.once

    @staticmethod
    def found(scale, x, seed=0, **options):
        rows = len(x)
        normal = MultivariateNormal(np.zeros((rows, 2)), covariance=np.stack([np.eye(2)] * rows))
        y = scale[:, None] * normal.sample(seed=seed)
        return diagnose(normal, y).excess_risk({"x": x}, **options)

    def test_of_errors_whose_size_depends_on_x(self, rng):
        x = rng.uniform(-1.0, 1.0, size=6000)
        scale = np.where(x < 0, 1.3, 0.8)
        coverage = scipy.stats.chi2.cdf(scipy.stats.chi2.ppf(0.9, 2) / scale**2, 2)
        truth = np.mean(np.abs(coverage - 0.9))
        assert self.found(scale, x) == pytest.approx(truth, abs=0.015)
        names = np.where(x < 0, "left", "right")
        tree = sklearn.tree.DecisionTreeClassifier(max_depth=2)
        assert self.found(scale, names, classifier=tree) == pytest.approx(truth, abs=0.015)

    def test_nothing_can_be_learned_from_calibrated_errors(self, rng):
        x = rng.uniform(-1.0, 1.0, size=6000)
        assert abs(self.found(np.ones(6000), x)) < 0.014  # 3.5 standard errors
        assert self.found(np.full(6000, 1e-3), x) == pytest.approx(0.1)  # all are inside
