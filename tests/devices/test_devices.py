"""Training on several devices is that on one."""

import json
import sys

import keras
import numpy as np
import pytest

from paths import ROOT
from processes import run

BACKEND = keras.backend.backend()
PROGRAM = ROOT / "tests/devices/program.py"
LOSSES = ["NegativeLogLikelihood", "BalancedNegativeLogLikelihood"]
KINDS = {"jax": ["data", "model"], "tensorflow": ["mirrored"]}.get(BACKEND, [])
FOUR = "--xla_force_host_platform_device_count=4"


def trained(kind, loss, folder):
    """Losses and metrics by epoch, and the weights."""
    out = folder / f"{kind}.npz"
    environment = {"XLA_FLAGS": FOUR} if kind in ("data", "model") else {}
    environment["PYTHONPATH"] = str(ROOT / "src")
    printed = run([sys.executable, PROGRAM, kind, loss, out], **environment).stdout
    with np.load(out) as file:
        return json.loads(printed.splitlines()[-1]), [file[name] for name in file.files]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", LOSSES)
def test_several_devices_train_as_one(loss, kind, tmp_path):
    expected, of_one = trained("one", loss, tmp_path)
    found, weights = trained(kind, loss, tmp_path)
    # The balanced loss takes its scales from each replica's part of the batch (docs/training.md).
    by_part = kind == "mirrored" and loss == "BalancedNegativeLogLikelihood"
    loose = 100.0 if by_part else 1.0
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=loose * 1e-5, atol=1e-6, err_msg=name)
    for one, other in zip(of_one, weights, strict=True):
        np.testing.assert_allclose(other, one, rtol=0.0, atol=loose * 1e-4 * np.abs(one).max())
