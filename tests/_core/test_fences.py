"""Fences: what is isolated, and what is only the tail of a distribution."""

import numpy as np
import pytest

from keras_mvn._core.fences import described, fences, spread

FAR = [1e3, 1e6, 1e12, -1e3, -1e12]


def draws(kind, rng, size):
    return {"normal": rng.normal, "t3": lambda size: rng.standard_t(3, size=size)}[kind](size=size)


@pytest.mark.parametrize("size", FAR)
@pytest.mark.parametrize("rows", [30, 300, 3000])
@pytest.mark.parametrize("kind", ["normal", "t3"])
def test_one_value_far_out_is_isolated_and_nothing_else(kind, rows, size, rng):
    values = draws(kind, rng, (rows, 5))
    values[rows // 3, 2] = size
    beyond = fences(values).beyond(values)
    assert beyond[rows // 3, 2]
    assert beyond.sum() == 1


def test_one_in_a_hundred_far_out_at_many_distances(rng):
    values = rng.normal(size=(1000, 1))
    values[:10, 0] = 10.0 ** rng.uniform(3, 12, size=10) * rng.choice([-1, 1], size=10)
    np.testing.assert_array_equal(np.flatnonzero(fences(values).beyond(values)), np.arange(10))


def test_tails_rare_classes_and_short_columns_have_none(rng):
    tails = np.stack([rng.standard_t(3, size=2000), np.exp(rng.normal(size=2000))], axis=1)
    assert not fences(tails).any
    rare = (np.arange(2000) < 5).astype(float)[:, None]
    assert not fences(1e9 * rare).any  # a class that few rows have
    assert not fences(np.ones((50, 1))).any
    assert not fences(np.array([[0.0], [1.0], [1e9]])).any
    assert not fences(np.full((50, 1), np.nan)).any


def test_more_than_two_percent_are_a_group_not_a_glitch(rng):
    values = rng.normal(size=(1000, 1))
    values[:50] += 1e4
    assert not fences(values).any


def test_gaps_do_not_count(rng):
    values = rng.normal(size=(300, 1))
    values[::2] = np.nan
    values[1] = 1e6
    assert fences(values).beyond(values).sum() == 1


def test_words_name_column_row_and_the_others(rng):
    values = rng.uniform(size=(100, 2))
    values[7, 1], values[0], values[1] = 1e6, 0.0, 1.0
    said = described(values, fences(values), ["a", "b"], "line {}".format)
    assert said == "b: 1e+06 in line 7 (all others: 0 to 1)"


def test_spread_is_that_of_a_normal_and_moves_little(rng):
    values = 3.0 * rng.normal(size=(2000, 1))
    assert spread(values)[0] == pytest.approx(3.0, rel=0.05)
    odd = np.vstack([values, np.full((20, 1), 1e12)])
    assert spread(odd)[0] == pytest.approx(spread(values)[0], rel=0.03)
    mostly_zero = np.where(np.arange(100) < 80, 0.0, rng.normal(size=100) + 5.0)
    assert spread(mostly_zero[:, None])[0] > 0


class TestCodes:
    """One or two numbers in up to a fifth of a column, among inputs."""

    @staticmethod
    def column(share, *codes, n=400):
        values = np.random.default_rng(0).normal(20.0, 3.0, size=n)
        values[: int(share * n)] = np.resize(codes, int(share * n))
        return values[:, None]

    @pytest.mark.parametrize("share", [0.05, 0.19])
    @pytest.mark.parametrize("codes", [(-9999.0,), (-9999.0, 9999.0)])
    def test_are_beyond_the_fences_if_asked_for(self, share, codes):
        values = self.column(share, *codes)
        found = fences(values, codes=True)
        np.testing.assert_array_equal(found.beyond(values), np.abs(values) > 5000)
        assert not fences(values).any

    @pytest.mark.parametrize(
        "values",
        [
            column.__func__(0.25, -9999.0),  # too many
            column.__func__(0.1, 1e4, 2e4, 3e4),  # too different
            column.__func__(0.1, 200.0),  # not far enough
            np.exp(3.0 * np.random.default_rng(0).normal(size=(400, 1))),
        ],
    )
    def test_others_are_not(self, values):
        assert not fences(values, codes=True).any
