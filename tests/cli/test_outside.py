"""Rows outside what the training rows reach: counted, told, and in the report."""

import json

import numpy as np
import pandas
import pytest
import scipy.special

from commands import refused, run
from keras_mvn.layers import SoftClip
from keras_mvn_cli._outside import Outside

pytestmark = pytest.mark.once


def counted(x, n=100, parts=1):
    found = Outside(SoftClip([-1.0, 0.0], [1.0, 5.0], [1.0, 1.0]), n)
    for part in np.array_split(x, parts):
        found.add(part)
    return found.told(["a", "b"], lambda values: 10.0 * values)


def test_what_is_told():
    x = np.tile([0.0, 2.0], (50, 1))
    assert counted(x) == []
    x[:20, 1] = np.linspace(5.1, 9.0, 20)
    expected = "b: 20 of 50 rows lie above 50, the largest of the training rows, up to 90"
    assert counted(x) == counted(x, parts=7) == [expected]
    x[:30, 0] = -3.0
    assert counted(x)[0] == (
        "a: 30 of 50 rows lie below -10, the smallest of the training rows, down to -30"
    )


def test_the_probability_is_that_of_exceedances():
    """Of n + m exchangeable values, the c largest are all new with C(m, c)/C(n + m, c)."""
    found = Outside(SoftClip([0.0], [1.0], [1.0]), 100)
    found.add(np.full((40, 1), 0.5))
    for count in (1, 5, 40):
        expected = np.log(scipy.special.comb(40, count) / scipy.special.comb(140, count))
        assert found._log_chance(count) == pytest.approx(expected)


def test_random_divisions_are_not_told(rng):
    told = 0
    for _ in range(200):
        x = rng.standard_cauchy((150, 2))
        train, new = x[:100], x[100:]
        found = Outside(SoftClip(train.min(axis=0), train.max(axis=0), [1.0, 1.0]), 100)
        found.add(new)
        told += bool(found.told(["a", "b"], lambda values: values))
    assert told == 0


@pytest.mark.slow
def test_the_command_tells_it(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 2))
    y = x + 0.3 * rng.normal(size=(150, 2))
    frame = pandas.DataFrame(np.hstack([x, y]).round(4), columns=["u", "v", "a", "b"])
    frame["day"] = np.arange(150)
    frame["year"] = 2000 + np.arange(150) / 50
    frame.to_csv(tmp_path / "t.csv", index=False)
    out = tmp_path / "fit"
    said = run("fit", tmp_path / "t.csv", "--targets", "a,b", "--time", "day", "--trend", "--out",
               out,
               "--epochs", 2, "--hidden", 4, "--covariance", "cholesky", "--tails", "normal",
               "--cv", "none", "--embedding", "none", "--mean", "none", "--members", 1,
               "--no-baselines").output  # fmt: skip
    expected = (
        "year: 22 of 22 rows lie above 2001.8, the largest of the training rows, up to 2002.98"
    )
    about = json.loads((out / "fit.json").read_text())
    assert expected in about["outside"]
    assert f"test rows: {expected}" in said
    assert expected in (out / "report.md").read_text(encoding="utf-8")
    frame.tail(22).to_csv(tmp_path / "new.csv", index=False)
    result = run("predict", out, tmp_path / "new.csv", "--out", tmp_path / "p.csv")
    assert expected in result.stderr
    line = refused("predict", out, tmp_path / "new.csv", "--strict", "--out", tmp_path / "q.csv")
    assert "--strict refuses to extrapolate" in line
