"""The command with cross-fitting: how rows are divided, what is said and written."""

import json

import numpy as np
import pandas
import pytest

from commands import refused, run
from keras_mvn.calibration import Temperature
from keras_mvn.distributions import Distribution
from keras_mvn_cli.fitting import networks

pytestmark = [pytest.mark.once, pytest.mark.slow]

QUICK = ["--epochs", 2, "--hidden", 4, "--covariance", "cholesky", "--tails", "normal"]
QUICK += ["--embedding", "none", "--mean", "none"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 120, 2))
    frame = pandas.DataFrame(np.hstack([x, y + x]).round(4), columns=["u", "v", "a", "b"])
    frame["site"] = rng.integers(0, 12, 120)
    frame["day"] = rng.permutation(120) // 2
    path = tmp_path_factory.mktemp("crossed") / "t.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def folds(monkeypatch):
    """The folds of each fit."""
    found, original = [], networks.MultivariateNormalRegressor.fit

    def fit(self, *arguments, **options):
        fitted = original(self, *arguments, **options)
        found.append(fitted.folds_)
        return fitted

    monkeypatch.setattr(networks.MultivariateNormalRegressor, "fit", fit)
    return found


def test_all_rows_but_the_test_rows_are_cross_fitted(table, tmp_path, folds):
    out = tmp_path / "fit"
    said = run("fit", table, "--targets", "a,b", "--drop", "site,day", "--out", out, *QUICK).output
    assert "rows split at random: 102 for cross-fitting, 18 test" in said
    assert [len(found) for found in folds] == [5, 5, 5]  # the model and its baselines
    about = json.loads((out / "fit.json").read_text())
    assert about["folds"] == about["members"] == len(list((out / "members").iterdir())) == 5
    assert about["rows"] == {"train": 102, "validation": 0, "calibration": 0, "test": 18}
    assert "102 rows, each predicted by networks that had not seen it" in about["calibration"]
    assert "0 rows" not in (out / "report.md").read_text(encoding="utf-8")
    plain, model = (
        Distribution.load(out / f"test/{name}.npz") for name in ("uncalibrated", "model")
    )
    factor = json.loads((out / "calibration.json").read_text())["calibration"]["config"][
        "temperature"
    ]
    np.testing.assert_allclose(Temperature(factor).apply(plain).stddev, model.stddev)
    run("predict", out, table, "--out", tmp_path / "p.csv")


def test_folds_are_of_whole_groups_or_blocks_of_time(table, tmp_path, folds):
    frame = pandas.read_csv(table)
    common = ["fit", table, "--targets", "a,b", *QUICK, "--no-baselines", "--cv", 3]
    run(*common, "--drop", "day", "--group", "site", "--out", tmp_path / "g")
    run(*common, "--drop", "site", "--time", "day", "--out", tmp_path / "t")
    by_group, by_time = folds
    sites = [set(frame["site"][fold]) for fold in by_group]
    assert sum(map(len, sites)) == len(set.union(*sites))
    days = sorted((frame["day"][fold] for fold in by_time), key=min)
    assert days[0].max() < days[1].min() <= days[1].max() < days[2].min()


def test_cv_none_holds_rows_out(table, tmp_path, folds):
    out = tmp_path / "fit"
    run("fit", table, "--targets", "a,b", "--out", out, *QUICK, "--no-baselines", "--cv", "none",
        "--members", 1)  # fmt: skip
    assert folds == [None]
    assert json.loads((out / "fit.json").read_text())["rows"]["calibration"] == 12


@pytest.mark.parametrize("cv", ["2", "yes", "-1"])
def test_what_is_no_number_of_folds(table, tmp_path, cv):
    line = refused("fit", table, "--targets", "a,b", "--out", tmp_path / "fit", "--cv", cv)
    assert f"--cv {cv}" in line
