"""Conformal regions: their guarantee by simulation, also where the model is wrong."""

import itertools

import keras
import numpy as np
import pytest

from keras_mvn import MultivariateNormal
from keras_mvn.calibration import AdaptiveConformal, MondrianConformal, SplitConformal

pytestmark = pytest.mark.once

SETS = 1000


def wrong_model(rows, d=3):
    """Independent targets of unit variance are predicted."""
    return MultivariateNormal(np.zeros((rows, d)), covariance=np.stack([np.eye(d)] * rows))


def heavy_and_correlated(rng, rows, d=3):
    """What comes: Student's t with 3 degrees of freedom, correlated, off center."""
    mixing = np.linalg.cholesky(0.7 + 0.3 * np.eye(d))
    chi = rng.chisquare(3, size=(rows, 1)) / 3
    return 2.0 * (rng.normal(size=(rows, d)) @ mixing.T) / np.sqrt(chi) + 0.5


class TestSplitConformal:
    @pytest.mark.parametrize(("n", "level"), [(9, 0.9), (10, 0.9), (57, 0.9), (200, 0.75)])
    def test_coverage_over_calibration_sets(self, n, level, rng):
        """The mean over sets of the exact coverage of each, on 10⁵ fresh rows."""
        y = heavy_and_correlated(rng, SETS * n).reshape(SETS, n, 3)
        fresh = np.sort((heavy_and_correlated(rng, 100_000) ** 2).sum(axis=1))
        model = wrong_model(n)
        radii = [SplitConformal.fit(model, one, level).squared_radius for one in y]
        coverage = np.searchsorted(fresh, radii, side="right") / len(fresh)
        error = 4 * (coverage.std() / np.sqrt(SETS) + np.sqrt(level * (1 - level) / len(fresh)))
        assert level - error <= coverage.mean() <= level + 1 / (n + 1) + error
        # The average is known: ⌈(n + 1) level⌉/(n + 1).
        assert coverage.mean() == pytest.approx(np.ceil((n + 1) * level) / (n + 1), abs=error)
        # Far off without: of a wrong model.
        assert (fresh < model.ellipsoid(level).squared_radius[0]).mean() < level - 0.1

    def test_the_radius_is_an_order_statistic(self, rng):
        y = heavy_and_correlated(rng, 100)
        squares = np.sort((y**2).sum(axis=1))
        for level in (0.01, 0.5, 0.9, 0.99):
            radius = SplitConformal.fit(wrong_model(100), y, level).squared_radius
            assert radius == pytest.approx(squares[int(np.ceil(101 * level)) - 1])

    def test_levels_that_float64_rounds_up(self, rng):
        """100 · 0.55 is 55.000000000000007: the 55th, not the 56th."""
        y = heavy_and_correlated(rng, 99)
        squares = np.sort((y**2).sum(axis=1))
        assert SplitConformal.fit(wrong_model(99), y, 0.55).squared_radius == pytest.approx(
            squares[54]
        )

    def test_too_few_rows(self, rng):
        for rows in (1, 8):
            with pytest.warns(UserWarning, match=rf"{rows} calibration rows .* at least 9 are"):
                fitted = SplitConformal.fit(wrong_model(rows), heavy_and_correlated(rng, rows))
            region = fitted.region(wrong_model(2))
            assert region.contains(np.full((2, 3), 1e9)).all()
            again = keras.saving.deserialize_keras_object(
                keras.saving.serialize_keras_object(fitted)
            )
            assert again == fitted
        SplitConformal.fit(wrong_model(9), heavy_and_correlated(rng, 9))

    def test_regions_keep_the_form_of_the_prediction(self, rng):
        model = MultivariateNormal(np.zeros((50, 2)), covariance=np.stack([np.diag([1, 9])] * 50))
        region = SplitConformal.fit(model, model.sample(seed=0)).region(model)
        np.testing.assert_allclose(region.radii[:, 0] / region.radii[:, 1], 3.0)

    def test_bad_arguments(self, rng):
        y = heavy_and_correlated(rng, 20)
        with pytest.raises(ValueError, match="level"):
            SplitConformal.fit(wrong_model(20), y, 1.0)
        with pytest.raises(ValueError, match="y has shape"):
            SplitConformal.fit(wrong_model(20), y[:10])
        with pytest.raises(ValueError, match="at least one"):
            SplitConformal.fit(wrong_model(0 + 1)[:0], y[:0])
        y[3, 1] = np.nan
        with pytest.raises(ValueError, match="needs complete rows"):
            SplitConformal.fit(wrong_model(20), y)


class TestMondrianConformal:
    def test_coverage_in_each_group(self, rng):
        """Groups of other scales, one of them rare; plain split conformal fails in both."""
        n, level = 120, 0.8
        member = np.repeat(["common", "rare"], [100, 20])
        scale = np.where(member == "rare", 4.0, 1.0)[:, None]
        model, coverage, plain = wrong_model(n), [], []
        base = np.sort((heavy_and_correlated(rng, 100_000) ** 2).sum(axis=1))
        for _ in range(SETS // 2):
            y = heavy_and_correlated(rng, n) * scale
            fitted = MondrianConformal.fit(model, y, member, level)
            radii = dict(zip(fitted.groups, fitted.squared_radii, strict=True))
            own = [radii["common"], radii["rare"] / 16.0]
            coverage.append(np.searchsorted(base, own) / len(base))
            radius = SplitConformal.fit(model, y, level).squared_radius
            plain.append(np.searchsorted(base, [radius, radius / 16.0]) / len(base))
        mean = np.mean(coverage, axis=0)
        error = 4 * np.std(coverage, axis=0) / np.sqrt(SETS // 2) + 0.005
        assert (mean >= level - error).all()
        assert (mean <= level + 1 / np.array([101, 21]) + error).all()
        assert np.mean(plain, axis=0)[0] > level + 0.02
        assert np.mean(plain, axis=0)[1] < level - 0.2

    def test_regions_by_group(self, rng):
        y = heavy_and_correlated(rng, 60)
        groups = np.tile([3, 1], 30)
        fitted = MondrianConformal.fit(wrong_model(60), y, groups)
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(fitted))
        assert again == fitted
        for group in (1, 3):
            own = SplitConformal.fit(wrong_model(30), y[groups == group])
            for each in (fitted, again):
                region = each.region(wrong_model(2), [group, group])
                np.testing.assert_array_equal(region.squared_radius, own.squared_radius)

    def test_small_and_unknown_groups(self, rng):
        y = heavy_and_correlated(rng, 20)
        groups = np.repeat(["many", "few"], [17, 3])
        with pytest.warns(UserWarning, match="group .*few.*3 calibration rows"):
            fitted = MondrianConformal.fit(wrong_model(20), y, groups)
        np.testing.assert_array_equal(
            np.isinf(fitted.region(wrong_model(2), ["few", "many"]).squared_radius), [True, False]
        )
        with pytest.raises(ValueError, match=r"groups \['new'\] had no calibration rows"):
            fitted.region(wrong_model(2), ["new", "few"])
        with pytest.raises(ValueError, match="there must be one for each"):
            fitted.region(wrong_model(2), ["few"])
        with pytest.raises(ValueError, match="there must be one for each"):
            MondrianConformal.fit(wrong_model(20), y, groups[:5])


class TestAdaptiveConformal:
    def test_it_holds_the_level_under_drift(self, rng):
        """Errors grow fourfold, jump back and grow again; what is fixed loses its coverage."""
        rows, level, gamma = 6000, 0.9, 0.02
        scale = 1.0 + 3.0 * (np.arange(rows) % 3000) / 3000
        y = heavy_and_correlated(rng, rows) * scale[:, None]
        model = wrong_model(rows)
        start = slice(0, 200)
        calibration = AdaptiveConformal.fit(model[start], y[start], level, gamma, window=200)
        inside = calibration.update(model[200:], y[200:])
        # The bound of Gibbs & Candès, proposition 4.1.
        assert abs(inside.mean() - level) <= (0.9 + gamma) / (gamma * len(inside))
        # Also over every 1000 rows, where the bound says less.
        assert np.abs(inside[:5000].reshape(5, 1000).mean(axis=1) - level).max() < 0.025
        fixed = SplitConformal.fit(model[start], y[start], level)
        assert fixed.region(model[200:]).contains(y[200:]).mean() < level - 0.05

    def test_the_recursion(self, rng):
        """Against a plain loop."""
        y, level, gamma, window = heavy_and_correlated(rng, 80), 0.7, 0.3, 12
        scores = (y**2).sum(axis=1)
        known, alpha, expected = list(scores[:5]), 1 - level, []
        for score in scores[5:]:
            k = int(np.ceil((len(known) + 1) * (1 - alpha) - 1e-9))
            radius = np.inf if k > len(known) else sorted(known)[k - 1] if k > 0 else 0.0
            if alpha <= 0:
                radius = np.inf
            expected.append(score <= radius and alpha < 1)
            alpha += gamma * ((1 - level) - (0 if expected[-1] else 1))
            known = [*known, score][-window:]
        model = wrong_model(80)
        one = AdaptiveConformal.fit(model[:5], y[:5], level, gamma, window)
        np.testing.assert_array_equal(one.update(model[5:], y[5:]), expected)
        assert one.alpha == pytest.approx(alpha)
        assert len(set(expected)) == 2

    def test_row_by_row_and_saved_in_between(self, rng):
        y, model = heavy_and_correlated(rng, 60), wrong_model(60)
        together = AdaptiveConformal.fit(model[:20], y[:20], gamma=0.1, window=30)
        single = AdaptiveConformal.fit(model[:20], y[:20], gamma=0.1, window=30)
        inside = together.update(model[20:], y[20:])
        for i, was_inside in zip(itertools.count(20), inside, strict=False):
            assert single.region(model[i]).contains(y[i]) == was_inside
            assert single.update(model[i], y[i]) == was_inside
            config = keras.saving.serialize_keras_object(single)
            single = keras.saving.deserialize_keras_object(config)
        assert single.get_config() == together.get_config()

    def test_extreme_levels(self):
        model = wrong_model(1)
        everything = AdaptiveConformal(scores=[1.0, 2.0], alpha=-0.01)
        assert everything.region(model).contains([[1e9, 0, 0]]).all()
        nothing = AdaptiveConformal(scores=[1.0, 2.0], alpha=1.01)
        assert nothing.region(model).squared_radius == 0.0
        assert not nothing.update(model, [[0.0, 0.0, 0.0]]).any()
        assert np.isinf(AdaptiveConformal().squared_radius)  # no scores yet

    def test_bad_arguments(self):
        for bad in ({"level": 0.0}, {"gamma": 0.0}, {"gamma": np.inf}, {"window": 5}):
            with pytest.raises(ValueError, match=next(iter(bad))):
                AdaptiveConformal(**bad)
        with pytest.raises(ValueError, match="scores"):
            AdaptiveConformal(scores=[np.nan])
        assert "alpha=0.1" in repr(AdaptiveConformal())
