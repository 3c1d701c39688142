"""`keras-mvn explain`: the column that moves the spread comes first."""

import json

import numpy as np
import pandas
import pytest

from commands import refused, run

pytestmark = [pytest.mark.once, pytest.mark.slow]

QUICK = ["--epochs", 60, "--hidden", 16, "--covariance", "cholesky", "--tails", "normal", "--cv",
         "none", "--mean", "none", "--embedding", "none", "--no-baselines"]  # fmt: skip


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    rng = np.random.default_rng(0)
    folder, n = tmp_path_factory.mktemp("explain"), 500
    frame = pandas.DataFrame({"x": rng.normal(size=n), "site": rng.choice(["calm", "rough"], n)})
    noise = np.where(frame.site == "rough", 2.0, 0.2)[:, None] * rng.normal(size=(n, 2))
    frame[["a", "b"]] = frame[["x"]].to_numpy() * 3.0 + noise
    frame["day"] = pandas.date_range("2024-01-01", periods=n).strftime("%Y-%m-%d")
    frame.loc[[3, 4], "x"] = np.nan
    frame.round(4).to_csv(folder / "t.csv", index=False)
    run("fit", folder / "t.csv", "--targets", "a,b", "--out", folder / "fit", *QUICK)
    return folder


def test_the_column_that_moves_it_comes_first(fitted):
    result = run("explain", fitted / "fit", fitted / "t.csv", "--json", "--rows", 200)
    found = json.loads(result.stdout)
    assert found["rows"] == 200
    ranked = {name: list(one["inputs"]) for name, one in found["quantities"].items()}
    assert set(ranked) == {"stddev of a", "stddev of b", "correlation of a and b", "log-volume"}
    assert ranked["stddev of a"][0] == ranked["stddev of b"][0] == ranked["log-volume"][0] == "site"
    spread = found["quantities"]["stddev of a"]["spread"]
    assert found["quantities"]["stddev of a"]["inputs"]["site"] > 0.6 * spread


def test_the_report_says_it(fitted):
    about = json.loads((fitted / "fit" / "fit.json").read_text())
    drivers = {one["quantity"]: one for one in about["drivers"]}
    assert drivers["stddev of a"]["inputs"][0][0] == "site"
    for name in ("report.md", "report.html"):
        text = (fitted / "fit" / name).read_text(encoding="utf-8")
        assert "What drives the uncertainty" in text
        assert "between rows, above all with site" in text


def test_what_was_asked_for_is_shown(fitted):
    said = run("explain", fitted / "fit", fitted / "t.csv", "--of", "mean:a", "--of",
               "correlation:a,b", "--repeats", 1).output  # fmt: skip
    first = next(line for line in said.splitlines() if "mean of a" in line)
    assert " x " in first
    assert "correlation of a and b" in said
    assert "stddev" not in said


@pytest.mark.parametrize(
    ("asked", "match"),
    [("stddev:c", "'c' is no target"), ("range:a", "expected mean:TARGET"),
     ("correlation:a", "expected mean:TARGET"), ("volume:a", "expected")],
)  # fmt: skip
def test_refused(fitted, asked, match):
    assert match in refused("explain", fitted / "fit", fitted / "t.csv", "--of", asked)
