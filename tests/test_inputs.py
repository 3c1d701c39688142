"""What users hand over besides arrays: named tables, masks, NA, nothing at all, the wrong thing."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import keras_mvn as kmvn
from keras_mvn import MultivariateNormal, calibration, covariances
from keras_mvn.distributions import Mixture

pytestmark = pytest.mark.once

NAMES = ["a", "b"]
SIGMA = np.array([[1.0, 2.0], [2.0, 25.0]])
Y = np.array([[0.5, 90.0], [-1.0, 104.0]])


@pytest.fixture
def normal():
    return MultivariateNormal([[0.0, 100.0]] * 2, covariance=SIGMA, target_names=NAMES)


@pytest.fixture
def none(normal):
    """A batch of no distributions."""
    return normal[:0]


def low_rank(target_names=None):
    packed = [[0.0, 100.0, 3.0, 1.0, 2.0, 1.0, 0.5, 1.0, 0.2]]
    return MultivariateNormal.from_prediction(
        packed, covariances.LowRank(1), target_names=target_names
    )


class TestNamedTables:
    frame = pd.DataFrame({"b": Y[:, 1], "a": Y[:, 0]})

    @pytest.mark.parametrize(
        "ask",
        [
            lambda normal, y: normal.log_prob(y),
            lambda normal, y: normal.mahalanobis(y, missing="marginalize"),
            lambda normal, y: normal.ellipsoid(0.5).contains(y),
            lambda normal, y: kmvn.scores.energy_score(normal, y),
            lambda normal, y: kmvn.evaluate(normal, y).to_dict(),
            lambda normal, y: calibration.Temperature.fit(normal, y).temperature,
            lambda normal, y: calibration.MatrixScaling.fit(normal, y).scale_tril,
        ],
    )
    def test_columns_are_matched_by_name(self, normal, ask):
        np.testing.assert_equal(ask(normal, self.frame), ask(normal, Y))

    def test_other_columns_are_refused(self, normal):
        with pytest.raises(ValueError, match=r"y has columns \['b', 'c'\]; the targets are"):
            normal.log_prob(self.frame.rename(columns={"a": "c"}))

    def test_columns_without_names_are_taken_in_order(self, normal):
        np.testing.assert_array_equal(normal.log_prob(pd.DataFrame(Y)), normal.log_prob(Y))

    def test_limits_and_measurements_of_a_series(self, normal):
        limits = pd.Series({"b": 101.0, "a": 0.3})
        expected = normal.probability(upper={"a": 0.3, "b": 101.0})
        np.testing.assert_array_equal(normal.probability(upper=limits), expected)
        np.testing.assert_array_equal(
            normal.condition(pd.Series({"b": 101.0})).mean, normal.condition({"b": 101.0}).mean
        )


class TestNotObserved:
    holes = np.where([[True, False], [False, False]], np.nan, Y)

    @pytest.mark.parametrize(
        "y",
        [
            np.ma.masked_array(np.nan_to_num(holes, nan=1e9), np.isnan(holes)),
            pd.DataFrame(holes, columns=NAMES).astype("Float64"),
        ],
        ids=["masked", "NA"],
    )
    def test_masks_and_na_are_nan(self, normal, y):
        expected = [
            scipy.stats.norm.logpdf(90.0, 100.0, 5.0),
            scipy.stats.multivariate_normal.logpdf(Y[1], [0.0, 100.0], SIGMA),
        ]
        np.testing.assert_allclose(normal.log_prob(y, missing="marginalize"), expected)
        with pytest.raises(ValueError, match="NaN"):
            normal.log_prob(y)

    def test_mixtures_marginalize(self, normal):
        mixture = Mixture(normal + np.array([[[0.0, 0.0]], [[1.0, 2.0]]]), [0.3, 0.7])
        got = mixture.log_prob(self.holes, missing="marginalize")
        pdf = scipy.stats.norm.pdf
        first = 0.3 * pdf(90.0, 100.0, 5.0) + 0.7 * pdf(90.0, 102.0, 5.0)
        np.testing.assert_allclose(got[0], np.log(first))
        np.testing.assert_allclose(got[1], mixture.log_prob(Y)[1])
        np.testing.assert_allclose(mixture.marginal("b").log_prob(Y[:, 1:])[0], np.log(first))


class TestNothing:
    def test_conditioning_keeps_what_was_measured_with_an_error(self, none):
        """Names, targets and structure are those of the same question to some rows."""
        for some in (low_rank(["x", "y", "z"]), low_rank()):
            for variance in (0.5, None):
                expected = some.condition({0: 1.0}, variance=variance)
                found = some[:0].condition({0: 1.0}, variance=variance)
                assert found.mean.shape == (0, expected.event_size)
                assert found.target_names == expected.target_names
                assert found.structure == expected.structure
        assert none.condition({0: 1.0}).mean.shape == (0, none.event_size - 1)

    @pytest.mark.parametrize("how", [None, "bonferroni", "sidak", "exact"])
    def test_intervals(self, how, none, normal):
        """Of no rows there are none, and rows beside them are as they are alone."""
        for end, others in zip(none.interval(0.9, how), normal.interval(0.9, how), strict=True):
            assert end.shape == (0, 2)
            joined = np.concatenate([end, others])
            np.testing.assert_array_equal(joined, others)

    @pytest.mark.parametrize("suffix", [".npz", ".parquet"])
    def test_files(self, none, tmp_path, suffix):
        for empty in (none, low_rank()[:0]):
            empty.save(tmp_path / f"none{suffix}")
            found = MultivariateNormal.load(tmp_path / f"none{suffix}")
            assert found.mean.shape == empty.mean.shape
            assert found.covariance.shape == empty.covariance.shape

    def test_no_new_rows_change_no_radius(self, normal, none):
        many = normal[np.zeros(60, int)]
        conformal = calibration.AdaptiveConformal.fit(many, many.sample(seed=0))
        before = conformal.get_config()
        assert conformal.update(none, np.zeros((0, 2))).shape == (0,)
        assert conformal.get_config() == before

    def test_single_things_are_true(self, normal):
        for one in (normal[0], normal[0].ellipsoid(), normal[:0]):
            assert one
        with pytest.raises(TypeError, match="a single Ellipsoid has no length"):
            len(normal[0].ellipsoid())
        assert [region.distribution.batch_shape for region in normal.ellipsoid()] == [(), ()]


class TestMessages:
    @pytest.mark.parametrize(
        ("ask", "error", "message"),
        [
            (lambda n: n.condition([0]), ValueError, "mapping from target to measured value"),
            (lambda n: n.condition({}), ValueError, "mapping from target to measured value"),
            (lambda n: n.mutual_information("a", "a"), ValueError, "a target in common"),
            (lambda n: n / 0, ValueError, "must not be 0"),
            (lambda n: n * n, TypeError, "joint covariance"),
            (lambda n: n.kl_divergence(3), TypeError, "received int"),
            (lambda n: n.ellipsoid().contains([np.nan, 1.0]), ValueError, "y contains NaN"),
            (lambda n: n.combine(_mixture(n)), TypeError, r"received Mixture. Its `moments\(\)`"),
            (lambda n: calibration.PerTarget.fit(_mixture(n), Y), TypeError, "normal is `.mom"),
            (
                lambda n: calibration.PerTarget([2.0, 1.0]).apply(_mixture(n)),
                TypeError,
                r"`.moments\(\)`",
            ),
            (lambda n: calibration.Temperature([1.0, 2.0]), ValueError, "one positive number"),
            (lambda n: calibration.MatrixScaling(2.0), ValueError, "scale_tril has shape"),
            (lambda n: calibration.diagnose(n, Y, levels=1.5), ValueError, "levels=1.5"),
        ],
    )
    def test_say_the_way_out(self, normal, ask, error, message):
        with pytest.raises(error, match=message) as raised:
            ask(normal)
        assert "missing='marginalize'" not in str(raised.value)

    def test_a_column_of_measurements_is_not_broadcast(self, normal):
        with pytest.raises(
            ValueError, match=r"values holds an array of shape \(2, 1\).* of shape \(2,\)"
        ):
            normal.condition({"a": Y[:, :1]})

    @pytest.mark.parametrize(
        "content", [b"", b"no archive", b"PK\x03\x04broken"], ids=["empty", "other", "broken"]
    )
    def test_damaged_files(self, content, tmp_path):
        path = tmp_path / "normal.npz"
        path.write_bytes(content)
        message = f"{re.escape(str(path))} was not written by MultivariateNormal.save"
        with pytest.raises(ValueError, match=message) as raised:
            MultivariateNormal.load(path)
        assert "pickle" not in str(raised.value)


def _mixture(normal):
    return Mixture(normal + np.zeros((2, 1, 2)), [0.5, 0.5])


def test_a_diagnosis_of_one_row_is_json(normal):
    text = json.dumps(calibration.diagnose(normal[:1], Y[:1]).to_dict(), allow_nan=False)
    assert json.loads(text)["rows"] == 1


def test_names_of_either_survive_fusion(normal):
    unnamed = MultivariateNormal(normal.mean, covariance=SIGMA)
    for fused in (unnamed.combine(normal), unnamed.covariance_intersection(normal)):
        assert fused.target_names == ("a", "b")


def test_a_level_next_to_1(normal):
    low, high = normal.interval(1.0 - 1e-16)
    assert np.isfinite(low).all()
    assert (high - low > 16 * normal.stddev).all()


def test_the_interval_of_one_target_is_exact(normal):
    one = normal.marginal("b")
    np.testing.assert_array_equal(one.interval(0.9, "exact"), one.interval(0.9))


def test_means_are_not_shared(normal):
    moved = normal + 1.0
    with pytest.raises(ValueError, match="read-only"):
        moved.mean[0, 0] = 99.0


def test_frames_lose_no_column():
    four = MultivariateNormal(
        np.zeros((1, 4)), covariance=np.eye(4), target_names=["a", "b_c", "a_b", "c"]
    )
    with pytest.raises(ValueError, match="a_b_c_correlation"):
        four.to_frame()


def test_updates_of_each_target_keep_a_low_rank():
    d = 2000
    rng = np.random.default_rng(0)
    packed = np.concatenate([np.zeros(d), np.ones(d), rng.normal(size=d)])[None]
    normal = MultivariateNormal.from_prediction(packed, covariances.LowRank(1))
    updated = normal.update(np.ones((1, d)), variance=4.0)
    assert "low_rank" in repr(updated)
    few = low_rank()
    dense = MultivariateNormal(few.mean, covariance=few.covariance)
    for one in ("mean", "covariance"):
        np.testing.assert_allclose(
            getattr(few.update([1.0, 2.0, 3.0], variance=0.7), one),
            getattr(dense.update([1.0, 2.0, 3.0], variance=0.7), one),
        )
