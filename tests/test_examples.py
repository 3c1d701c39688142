"""The programs in examples/ run from start to end, on a small table of the same columns."""

import csv
import os
import runpy
import subprocess
import sys

import keras
import numpy as np
import pytest

from paths import ROOT

EXAMPLES = ROOT / "examples"
SETTINGS = ["RURAL", "SUBURBAN", "URBAN AND CENTER CITY"]
UNITS = {"PM2.5": 10.0, "NO2": 25.0, "O3": 0.04, "PM10": 25.0, "CO": 0.5, "SO2": 2.0}

pytestmark = [pytest.mark.slow, pytest.mark.once]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with air.csv: places, seasons, and six targets that rise and fall together."""
    folder, rng, n = tmp_path_factory.mktemp("examples"), np.random.default_rng(0), 900
    longitude, latitude = rng.uniform(-124, -71, n), rng.uniform(28, 48, n)
    month, setting = rng.integers(1, 13, n), rng.integers(0, 3, n)
    common = rng.normal(size=n) * (0.5 + 0.5 * (setting == 2))
    columns = {"Longitude": longitude, "Latitude": latitude, "Month": month}
    columns |= {f"Location.Setting_{s}": (setting == i).astype(int) for i, s in enumerate(SETTINGS)}
    for k, (name, unit) in enumerate(UNITS.items()):
        level = 2.0 + 0.5 * np.sin(month / 2 + k) + 0.02 * (latitude - 38)
        columns[f"max_{name}"] = unit * (level + 0.4 * common + 0.3 * rng.normal(size=n))
    with (folder / "air.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return folder


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """Run a program, in this process, in the folder; returns what it printed."""

    def run(name, *arguments):
        keras.utils.clear_session()
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(EXAMPLES)
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("limits.py", "all six below their limits"),
        ("alarm_region.py", "conformal ellipsoid"),
        ("aleatoric_epistemic.py", "never seen"),
    ],
)
def test_it_answers_its_question(name, said, run):
    assert said in run(name, "--data", "air.csv")


def test_a_covariance_that_gains_nothing(run):
    lines = run("diabetes.py", "--seeds", "1").splitlines()[1:]
    nll = {line[:15].strip(): float(line[15:].split()[0]) for line in lines}
    assert nll["full Cholesky"] < nll["diagonal"] - 0.2
    assert nll["full Cholesky"] > nll["constant Σ"] - 0.1


def test_a_difference_of_targets_that_rise_together(run):
    lines = run("distribution_of_a_difference.py").splitlines()
    joint, apart = (float(next(line for line in lines if line.startswith(name)).split()[-1])
                    for name in ("joint errors", "as if independent"))  # fmt: skip
    assert joint < apart - 0.5


def test_the_picture_of_distributions(folder, run):
    printed = run("which_distribution.py")
    normal, student = (float(x.split()[-4]) for x in printed.splitlines())
    assert student > normal + 0.2
    assert (folder / "which_distribution.png").stat().st_size > 10_000


def test_two_measurements_are_worth_something(folder):
    """The targets of this table share one cause, which two of them give away.

    In a process of its own, as a user starts it.
    """
    result = subprocess.run(
        [sys.executable, EXAMPLES / "condition_on_measured.py", "--data", "air.csv"],
        cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"KERAS_BACKEND": keras.backend.backend()},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    printed = result.stdout
    assert "gain from the two measurements" in printed
    gain = float(printed.split("two measurements: ")[1].split(" ")[0])
    assert gain > 0.1
    assert (folder / "keras-mvn-examples" / "condition_on_measured.png").stat().st_size > 10_000


def test_a_missing_table_is_one_line(run, capsys):
    with pytest.raises(SystemExit) as end:
        run("limits.py", "--data", "none.csv")
    assert end.value.code == 2
    assert "there is no file none.csv" in capsys.readouterr().err
