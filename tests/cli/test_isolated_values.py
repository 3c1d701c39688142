"""One value of a table that is far from all others: told, limited, and harmless."""

import json

import numpy as np
import pandas
import pytest

from commands import refused, run

pytestmark = [pytest.mark.once, pytest.mark.slow]

N = 500


def frame(rng):
    x = rng.normal(size=(N, 2))
    wind = 10.0 + 5.0 * x[:, 0]
    z = rng.multivariate_normal([0, 0], [[1.0, 0.8], [0.8, 1.0]], size=N)
    count = rng.poisson(0.3, size=N)
    return pandas.DataFrame(
        {
            "wind": wind,
            "b": x[:, 1],
            "u": x[:, 0] + z[:, 0],
            "v": x[:, 1] + z[:, 1],
            "count": count,
        }
    )


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("isolated")
    table = frame(np.random.default_rng(0))
    table.loc[20, "wind"], table.loc[31, "u"] = 1048.0, 1e9
    table.to_csv(folder / "t.csv", index=False)
    result = run("fit", folder / "t.csv", "--targets", "u,v,count", "--out", folder / "fit",
                 "--epochs", 40, "--hidden", 8, "--covariance", "cholesky", "--embedding",
                 "none", "--mean", "none", "--tails", "normal", "--cv", 3,
                 "--no-baselines")  # fmt: skip
    return folder, result.output


def test_fit_names_line_column_value_and_what_was_done(fitted):
    folder, printed = fitted
    flat = " ".join(printed.split())
    assert "wind: 1048 in line 22 (all others: " in flat
    assert "far from all others, limited to the range of the others" in flat
    assert "u: 1e+09 in line 33 (all others: " in flat
    assert "far from all others, treated as missing in training" in flat
    decisions = json.loads((folder / "fit/fit.json").read_text())["decisions"]
    assert sum("far from all others" in text for text in decisions) == 2


def test_the_other_rows_are_predicted_as_if_it_were_not_there(fitted):
    folder, _ = fitted
    metrics = json.loads((folder / "fit/metrics.json").read_text())
    scores = metrics["test"]["model"]["scores"]
    assert scores["rmse"]["mean"] < 1.0
    assert 0.75 < scores["coverage_90"]["mean"] <= 1.0
    about = json.loads((folder / "fit/fit.json").read_text())
    assert about["target_stddev"][0] < 3.0


def test_cells_are_scored_where_values_repeat(fitted):
    folder, printed = fitted
    about = json.loads((folder / "fit/fit.json").read_text())
    assert about["target_resolution"] == [0.0, 0.0, 1.0]
    assert "cell NLL" in printed
    assert "cell_nll_per_target" in (folder / "fit/metrics.json").read_text()
    assert "NLL of cells per target" in (folder / "fit/report.md").read_text(encoding="utf-8")
    table = frame(np.random.default_rng(1))
    table.to_csv(folder / "new.csv", index=False)
    found = json.loads(run("evaluate", folder / "fit", folder / "new.csv", "--json").stdout)
    assert np.isfinite(found["scores"]["cell_nll"]["mean"])


def test_predict_names_inputs_beyond_what_was_seen(fitted):
    folder, _ = fitted
    table = frame(np.random.default_rng(2)).iloc[:30]
    table.loc[3, "wind"] = -900.0
    table.to_csv(folder / "far.csv", index=False)
    printed = " ".join(run("predict", folder / "fit", folder / "far.csv", "--out",
                           folder / "p.csv").output.split())  # fmt: skip
    assert "wind: -900 in line 5, training rows begin at " in printed
    means = pandas.read_csv(folder / "p.csv")["u_mean"]
    assert abs(means[3]) < 3.0 * abs(means.drop(3)).max()
    error = refused("predict", folder / "fit", folder / "far.csv", "--strict")
    assert "wind" in error
    assert "-900" in error
