"""Programs in a process of their own."""

import os
import subprocess
import sys

import keras

from paths import ROOT


def run(command, **environment):
    """What a program printed, which must succeed."""
    result = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def run_script(script, *arguments, **environment):
    """Python in a process of its own, with this backend; what it printed."""
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "src")])
    environment = {"KERAS_BACKEND": keras.backend.backend(), "PYTHONPATH": path, **environment}
    return run([sys.executable, "-c", script, *arguments], **environment).stdout
