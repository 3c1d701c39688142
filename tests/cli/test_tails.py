"""The command with tails: what it says, writes, and reads again."""

import json

import numpy as np
import pandas
import pytest

from commands import refused, run
from keras_mvn.distributions import Distribution, MultivariateStudentT

pytestmark = [pytest.mark.once, pytest.mark.slow]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2))
    z = rng.multivariate_normal([0, 0], [[1.0, 0.8], [0.8, 1.0]], size=400)
    y = x + z / np.sqrt(rng.chisquare(2.5, size=(400, 1)) / 2.5)
    folder = tmp_path_factory.mktemp("tails")
    frame = pandas.DataFrame(np.hstack([x, y]).round(5), columns=["u", "v", "a", "b"])
    frame.to_csv(folder / "t.csv", index=False)
    result = run("fit", folder / "t.csv", "--targets", "a,b", "--out", folder / "fit", "--epochs",
                 15, "--hidden", 8, "--covariance", "cholesky", "--members", 2,
                 "--cv", "none", "--embedding", "none", "--mean", "none")  # fmt: skip
    return folder, result.output


def test_a_t_is_chosen_and_told(fitted):
    folder, printed = fitted
    assert "by NLL per target on held-out rows: cholesky, t " in printed
    about = json.loads((folder / "fit/fit.json").read_text())
    assert about["tails"].startswith("Student's t, ν = ")
    assert "nats per target better than a normal" in about["tails"]
    for page in ("report.html", "report.md"):
        text = (folder / "fit" / page).read_text(encoding="utf-8")
        assert about["tails"].replace("'", "&#39;") in text or about["tails"] in text
    for name in ("model", "uncalibrated", "diagonal", "constant_covariance"):
        t = Distribution.load(folder / f"fit/test/{name}.npz")
        assert isinstance(t, MultivariateStudentT)
        assert f"ν = {t.degrees_of_freedom[0]:.3g}," in about["tails"] or name != "model"


def test_commands_answer_by_the_t(fitted):
    folder, _ = fitted
    t = Distribution.load(folder / "fit/test/model.npz")
    rows = np.load(folder / "fit/test/y.npz")["rows"]
    table = pandas.read_csv(folder / "t.csv").iloc[rows]
    table.to_csv(folder / "test.csv", index=False)
    run("predict", folder / "fit", folder / "test.csv", "--out", folder / "p.csv")
    predicted = pandas.read_csv(folder / "p.csv")
    np.testing.assert_allclose(predicted["b_stddev"], t.stddev[:, 1], rtol=1e-4)
    np.testing.assert_allclose(predicted["b_upper"], t.interval(0.9)[1][:, 1], rtol=1e-4)
    run("condition", folder / "fit", folder / "test.csv", "--given", "a=@a", "--out",
        folder / "c.csv")  # fmt: skip
    given = pandas.read_csv(folder / "c.csv")
    expected = t.condition({"a": table["a"].to_numpy()})
    np.testing.assert_allclose(given["b_mean"], expected.mean[:, 0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(given["b_stddev"], expected.stddev[:, 0], rtol=1e-3)
    found = json.loads(run("evaluate", folder / "fit", folder / "test.csv", "--json").stdout)
    nll = -t.log_prob(table[["a", "b"]].to_numpy()).mean()
    assert found["scores"]["nll"]["mean"] == pytest.approx(nll, rel=1e-4)
    half = table["a"].where(np.arange(len(table)) % 2 == 0)
    table.assign(a=half).to_csv(folder / "half.csv", index=False)
    run("condition", folder / "fit", folder / "half.csv", "--given", "a=@a", "--out",
        folder / "h.csv")  # fmt: skip
    mixed = pandas.read_csv(folder / "h.csv")["b_stddev"]
    np.testing.assert_allclose(mixed[::2], expected.stddev[::2, 0], rtol=1e-3)
    np.testing.assert_allclose(mixed[1::2], t.stddev[1::2, 1], rtol=1e-3)


def test_a_contradiction_is_refused(fitted):
    folder, _ = fitted
    line = refused("fit", folder / "t.csv", "--targets", "a,b", "--out", folder / "no", "--tails",
                   "t", "--loss", "crps")  # fmt: skip
    assert "--tails t" in line
    assert "--loss crps" in line
