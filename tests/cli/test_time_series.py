"""The command with `--lags`: fitted, and read again for a table that brings its own history."""

import json

import numpy as np
import pandas
import pytest

from commands import refused, run

pytestmark = [pytest.mark.once, pytest.mark.slow]

QUICK = ["--epochs", 30, "--hidden", 8, "--covariance", "cholesky", "--tails", "normal", "--cv",
         "none", "--mean", "ridge", "--embedding", "none", "--no-baselines"]  # fmt: skip
LAGS = ["--time", "hour", "--lags", "1,2", "--lag-columns", "a,b"]


def walks(n, seed):
    """Two autoregressive series: only their own past predicts them."""
    rng = np.random.default_rng(seed)
    noise, values = rng.normal(size=(n, 2)), np.zeros((n, 2))
    for t in range(2, n):
        values[t] = 1.4 * values[t - 1] - 0.6 * values[t - 2] + noise[t]
    return pandas.DataFrame({"hour": np.arange(n), "x": rng.normal(size=n), "a": values[:, 0],
                             "b": values[:, 1]}).round(4)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lags")
    walks(600, 0).to_csv(folder / "t.csv", index=False)
    said = run("fit", folder / "t.csv", "--targets", "a,b", "--out", folder / "fit", *LAGS, *QUICK)
    return folder, said.output


def test_the_past_predicts(made):
    folder, said = made
    found = json.loads((folder / "fit" / "metrics.json").read_text())["test"]["model"]
    assert found["scores"]["rmse"]["mean"] < 1.15  # the noise has 1, the series 3
    assert "hour: dropped, only grows with time" in said
    assert "the first 2 rows lack earlier ones" in said


def test_a_new_table_brings_its_history(made):
    folder, _ = made
    new = walks(40, 1)
    later = new.copy()
    later.loc[39, ["a", "b"]] = np.nan  # what is to be predicted
    later.to_csv(folder / "new.csv", index=False)
    out = run("predict", folder / "fit", folder / "new.csv", "--out", folder / "p.csv").output
    read = pandas.read_csv(folder / "p.csv")
    expected = 1.4 * new[["a", "b"]].shift(1) - 0.6 * new[["a", "b"]].shift(2)
    error = read[["a_mean", "b_mean"]].to_numpy() - expected.to_numpy()
    assert np.sqrt(np.mean(error[2:] ** 2)) < 0.5
    wide = read["a_stddev"].to_numpy()
    assert wide[0] > 1.5 * np.median(wide[2:])  # no history: as wide as similar rows differ
    assert "the first 2 rows of new.csv lack earlier ones" in out


def test_a_folder_has_no_history(made):
    folder, _ = made
    (folder / "parts").mkdir(exist_ok=True)
    walks(40, 1).to_parquet(folder / "parts" / "p.parquet")
    said = refused("predict", folder / "fit", folder / "parts", "--out", folder / "po")
    assert "reach back over the ends of files" in said


def test_a_table_of_one_row_has_no_history(made):
    folder, _ = made
    walks(40, 1)[:1].to_csv(folder / "one.csv", index=False)
    run("predict", folder / "fit", folder / "one.csv", "--out", folder / "o.csv")
    assert len(pandas.read_csv(folder / "o.csv")) == 1


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_rows_out_of_order_are_refused_later_too(made, command):
    folder, _ = made
    walks(40, 1).iloc[::-1].to_csv(folder / "back.csv", index=False)
    said = refused(command, folder / "fit", folder / "back.csv")
    assert "--time hour: not later than the row before in line 3 of back.csv" in said


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--lags", "1"], "--lags needs --time"),
        (["--lags", "1,x", "--time", "hour"], "found 'x'"),
        (["--lags", "1", "--time", "hour"], "needs --lag-columns"),
        (["--trend"], "--trend needs --time"),
    ],
)
def test_options_that_do_not_fit(made, tmp_path, options, match):
    fit = ("fit", made[0] / "t.csv", "--targets", "a,b", "--out", tmp_path / "f")
    assert match in refused(*fit, *options)
