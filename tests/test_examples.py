"""The programs in examples/ run as they are, on data that packages ship."""

import runpy
import sys

import keras
import pytest

from paths import ROOT

EXAMPLES = ROOT / "examples"

pytestmark = [pytest.mark.slow, pytest.mark.once]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a program, in this process, in an empty folder; returns what it printed."""

    def run(name, *arguments):
        keras.utils.clear_session()
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(EXAMPLES)
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_all_examples_are_tested():
    programs = {path.name for path in EXAMPLES.glob("*.py")}
    assert programs == {"diabetes.py", "distribution_of_a_difference.py", "which_distribution.py"}


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


def test_the_picture_of_distributions(run, tmp_path):
    printed = run("which_distribution.py")
    normal, student = (float(x.split()[-4]) for x in printed.splitlines())
    assert student > normal + 0.2
    assert (tmp_path / "which_distribution.png").stat().st_size > 10_000
