"""The command on targets with two modes: what it says, writes, and reads again."""

import json

import numpy as np
import pandas
import pytest

from commands import refused, run
from keras_mvn.distributions import Distribution, Mixture

pytestmark = [pytest.mark.once, pytest.mark.slow]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    side = rng.choice([-2.0, 2.0], size=(300, 1))
    y = x + side * [1.0, -1.0] + 0.3 * rng.normal(size=(300, 2))
    y[::10, 0] = np.nan
    folder = tmp_path_factory.mktemp("components")
    frame = pandas.DataFrame(np.hstack([x, y]).round(5), columns=["u", "v", "a", "b"])
    frame.to_csv(folder / "t.csv", index=False)
    result = run("fit", folder / "t.csv", "--targets", "a,b", "--out", folder / "fit", "--epochs",
                 20, "--hidden", 8, "--covariance", "cholesky", "--members", 2, "--components", 2,
                 "--cv", "none", "--embedding", "none", "--mean", "none", "--tails",
                 "normal")  # fmt: skip
    return folder, result.output


def test_it_says_that_rows_have_mixtures(fitted):
    folder, _ = fitted
    about = json.loads((folder / "fit/fit.json").read_text())
    assert about["covariance"] == "cholesky, mixtures of 2"
    assert any("mixtures of 2 components for every row" in one for one in about["decisions"])
    assert "multiplied by" in about["calibration"]
    text = (folder / "fit/report.html").read_text(encoding="utf-8")
    assert "mixtures of 2 components" in text
    for name, kind in (("model", True), ("diagonal", False), ("constant_covariance", False)):
        answer = Distribution.load(folder / f"fit/test/{name}.npz")
        assert isinstance(answer, Mixture) == kind


def test_commands_answer_by_the_mixture(fitted):
    folder, _ = fitted
    answer = Distribution.load(folder / "fit/test/model.npz")
    rows = np.load(folder / "fit/test/y.npz")["rows"]
    table = pandas.read_csv(folder / "t.csv").iloc[rows]
    table.to_csv(folder / "test.csv", index=False)
    run("predict", folder / "fit", folder / "test.csv", "--out", folder / "p.csv")
    predicted = pandas.read_csv(folder / "p.csv")
    np.testing.assert_allclose(predicted["b_stddev"], answer.stddev[:, 1], rtol=1e-4)
    np.testing.assert_allclose(predicted["b_upper"], answer.interval(0.9)[1][:, 1], rtol=1e-4)
    run("condition", folder / "fit", folder / "test.csv", "--given", "a=@a", "--out",
        folder / "c.csv")  # fmt: skip
    given = pandas.read_csv(folder / "c.csv")
    seen = table["a"].notna().to_numpy()
    expected = answer[np.flatnonzero(seen)].condition({"a": table["a"][seen].to_numpy()})
    np.testing.assert_allclose(given["b_mean"][seen], expected.mean[:, 0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(given["b_stddev"][~seen], answer.stddev[~seen, 1], rtol=1e-3)
    found = json.loads(run("evaluate", folder / "fit", folder / "test.csv", "--json").stdout)
    nll = -answer.log_prob(table[["a", "b"]].to_numpy(), missing="marginalize").mean()
    assert found["scores"]["nll"]["mean"] == pytest.approx(nll, rel=1e-4)


def test_what_does_not_fit_is_told(fitted, tmp_path):
    folder, _ = fitted
    common = ("fit", folder / "t.csv", "--targets", "a,b", "--out", tmp_path / "fit")
    assert "--components two: expected auto" in refused(*common, "--components", "two")
    line = refused(*common, "--components", 2, "--calibration", "matrix")
    assert "--calibration matrix" in line
    assert "--components 1" in line
    assert "--loss crps" in refused(*common, "--components", 2, "--loss", "crps")
