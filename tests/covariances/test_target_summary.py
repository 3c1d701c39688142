"""Summaries of parts: merged in any order, they are that of the whole."""

import itertools
import pickle

import keras
import numpy as np
import pytest

from keras_mvn import covariances
from keras_mvn.covariances import TargetSummary, _thinned_rows, moments
from keras_mvn.layers import MultivariateNormalHead

pytestmark = pytest.mark.once

D = 4


def parts(rng, gaps=True):
    """Shards of different sizes and levels; one target is missing in all of one shard."""
    mixing = rng.normal(size=(D, D))
    found = []
    for level, n in ((0.0, 70), (5.0, 1), (-3.0, 200), (1e3, 40)):
        y = level + rng.normal(size=(n, D)) @ mixing
        if gaps:
            y[rng.random(y.shape) < 0.2] = np.nan
        found.append(y)
    if gaps:
        found[3][:, 1] = np.nan
    return found


def summary(y, rank=None):
    return TargetSummary(D, rank).update(y)


def assert_same(found, expected, rtol=1e-12):
    for name in ("mean", "stddev"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=rtol)
    assert found.rows == expected.rows


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::5])
def test_moments_are_those_of_the_whole(rng, order, gaps):
    shards = parts(rng, gaps)
    whole = np.concatenate(shards)
    merged = TargetSummary.merged(summary(shards[i]) for i in order)
    found, expected = moments.estimate(merged, D), moments.estimate(whole, D)
    assert_same(found, expected)
    size = expected.stddev[:, None] * expected.stddev
    np.testing.assert_allclose(found.covariance / size, expected.covariance / size, atol=1e-12)
    if not gaps:
        np.testing.assert_allclose(found.covariance, np.cov(whole.T, bias=True), rtol=1e-9)
    np.testing.assert_array_equal(np.sort(found.sample, axis=0), np.sort(whole, axis=0))


def test_directions_are_exact_while_they_are_few(rng):
    factor = rng.normal(size=(D, 2))
    shards = [rng.normal(size=(n, 2)) @ factor.T for n in (400, 30, 300)]
    found = moments.estimate(TargetSummary.merged(summary(y, rank=2) for y in shards), D, rank=2)
    expected = np.corrcoef(np.concatenate(shards).T)
    np.testing.assert_allclose(found.directions @ found.directions.T, expected, atol=1e-9)
    assert_same(found, moments.estimate(np.concatenate(shards), D, rank=2), rtol=1e-10)


def test_neither_the_parts_nor_their_copies_change(rng):
    shards = [summary(y) for y in parts(rng)]
    before = [pickle.dumps(one) for one in shards]
    again = TargetSummary.merged(map(pickle.loads, before))
    merged = TargetSummary.merged(shards)
    assert [pickle.dumps(one) for one in shards] == before
    np.testing.assert_array_equal(again.measured.mean, merged.measured.mean)
    assert merged.rows == 311


def test_empty_parts_change_nothing(rng):
    y = rng.normal(size=(30, D))
    empty = TargetSummary(D)
    for shards in ([summary(y), empty], [empty, summary(y)]):
        found = moments.estimate(TargetSummary.merged(shards), D)
        assert_same(found, moments.estimate(y, D))


def test_samples_stay_even(rng, monkeypatch):
    monkeypatch.setattr(_thinned_rows, "FEWEST_ROWS", 100)
    monkeypatch.setattr(_thinned_rows, "MOST_NUMBERS", 0)
    long, short = np.zeros((1600, D)), np.ones((400, D))
    for shards in ([summary(long), summary(short)], [summary(short), summary(long)]):
        sample = TargetSummary.merged(shards).sample
        assert 50 <= len(sample) <= 100
        assert sample.mean() == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("rank", [None, 2])
def test_a_glitch_between_the_rows_of_the_sample_is_found(rng, monkeypatch, rank):
    monkeypatch.setattr(_thinned_rows, "FEWEST_ROWS", 200)
    monkeypatch.setattr(_thinned_rows, "MOST_NUMBERS", 0)
    y = rng.normal(size=(5000, D))
    y[3333, 2] = 1e12
    merged = TargetSummary.merged(summary(part, rank) for part in np.array_split(y, 7))
    assert not (merged.sample > 1e6).any()
    with pytest.warns(UserWarning, match=r"1e\+12 in a row"):
        found = moments.estimate(merged, D, rank=rank)
    np.testing.assert_allclose(found.mean, 0.0, atol=0.3)
    np.testing.assert_allclose(found.stddev, 1.0, atol=0.2)
    assert found.rows == 5000


@pytest.mark.parametrize(
    "structure", [covariances.Cholesky(), covariances.LowRank(2), covariances.Diagonal()],
    ids=lambda s: s.name,
)  # fmt: skip
def test_a_head_adapts_to_parts_as_to_the_whole(rng, structure):
    shards = parts(rng, gaps=False)[:3]
    heads = [MultivariateNormalHead(D, structure) for _ in range(2)]
    for head in heads:
        head.build((None, 3))
    heads[0].adapt(np.concatenate(shards))
    heads[1].adapt(TargetSummary.merged(map(heads[1].summarize, shards)))
    x = np.zeros((1, 3), np.float32)
    one, other = (head.distribution(keras.ops.convert_to_numpy(head(x))) for head in heads)
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-5)
    np.testing.assert_allclose(one.covariance, other.covariance, rtol=1e-4, atol=1e-5)


def test_summaries_that_do_not_fit(rng):
    y = rng.normal(size=(30, D))
    with pytest.raises(ValueError, match=r"rank=None; expected event_size=4 and rank=2"):
        TargetSummary.merged([summary(y, rank=2), summary(y)])
    with pytest.raises(ValueError, match="no summaries"):
        TargetSummary.merged([])
    head = MultivariateNormalHead(D - 1)
    with pytest.raises(ValueError, match="Make it by `summarize`"):
        head.adapt(summary(y))
